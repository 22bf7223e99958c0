"""A real Chromium, watched: what a page may not do is written down, and what it asks of other machines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
).split()
SHOTS = Path(os.environ.get("SLUICE_SHOTS", "out/shots"))
"""Where screenshots go; kept out of git."""
_VIOLATIONS = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (e) => {
  window.__violations.push(e.violatedDirective + " " + e.blockedURI + " " + e.sample);
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's. It is missing: the tests fail and say so."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert binary, "chromium is missing: apt-get install chromium fonts-noto-cjk (scripts/test --all does, as root)"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=binary, args=QUIET)
        yield browser
        browser.close()


class Window:
    """One person's browser window. `violations`: of a content security policy; `outside`: addresses on other machines that were asked for;
    `errors`: of scripts."""

    def __init__(self, browser: Browser, width: int = 1440, language: str = "zh-CN", scripts: bool = True) -> None:
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            locale=language,
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(15_000)
        self.context.add_init_script(_VIOLATIONS)
        self.page: Page = self.context.new_page()
        self.violations: list[str] = []
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", self._asked)
        self.context.on("console", self._told)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))

    def _asked(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.outside.append(request.url)

    def _told(self, message: Any) -> None:
        if "Content Security Policy" in message.text or "Refused to" in message.text:
            self.violations.append(message.text)

    def look(self) -> None:
        """Collect what the page that is open now did wrong."""
        self.violations += self.page.evaluate("(window.__violations || []).splice(0)")

    def clean(self) -> None:
        """Fails unless nothing was wrong so far."""
        self.look()
        assert not self.violations, self.violations
        assert not self.outside, self.outside
        assert not self.errors, self.errors

    def faults(self) -> list[str]:
        """What axe-core finds serious or worse on the page, in words."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{v['id']} ({v['impact']}): {n['html'][:160]} {n.get('failureSummary', '')[:200]}"
            for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"]
        ]  # fmt: skip

    def sideways(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def shot(self, name: str) -> Path:
        """A picture of the whole page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path

    def close(self) -> None:
        self.context.close()
