"""What a page of ours lets a browser do. Law: nothing from elsewhere. A page that stands alone has its own style, named by its hash, and no
script, no picture, no address; one that is served has the style and the script of its server, nothing inline, and is framed only by those
who are named."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable


def policy(style: str) -> str:
    """A content security policy (CSP level 3) for a page whose one <style> element holds `style`."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def meta(style: str) -> str:
    """The same in the page itself, for one that is a file."""
    return f'<meta http-equiv="Content-Security-Policy" content="{policy(style)}"/>'


def served(origins: Iterable[str]) -> str:
    """For a page with style, script and forms of its own server. `origins`: see `ancestors`."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        + ancestors(origins)
    )


def ancestors(origins: Iterable[str]) -> str:
    """Who may show the page in a frame: these sites, whose spelling was checked where they were read, and the server's own; nobody where
    there are none."""
    named = " ".join(origins)
    return f"frame-ancestors 'self' {named}" if named else "frame-ancestors 'none'"
