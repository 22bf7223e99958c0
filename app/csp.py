"""What a page of ours lets a browser do. Law: nothing but its own style, named by its hash: no script, no picture, no address."""

from __future__ import annotations

import base64
import hashlib


def policy(style: str) -> str:
    """A content security policy (CSP level 3) for a page whose one <style> element holds `style`."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def meta(style: str) -> str:
    """The same in the page itself, for one that is a file."""
    return f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}"/>'
