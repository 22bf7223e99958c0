"""What holds for every fault: its figure is told at the end, and no word of a user is left in any file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import FIGURES, ROWS
from tests.integration.test_privacy import CANARY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-row", action="store_true", help="fail where a row of the matrix has no figure")


def _missing() -> list[str]:
    told = {row for row, _ in FIGURES}
    return [row for row in ROWS if row not in told]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--every-row") and _missing() and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not FIGURES:
        return
    terminalreporter.section("the fault matrix")
    for row, title in ROWS.items():
        for n, figure in enumerate(f for r, f in FIGURES if r == row):
            if not n:
                terminalreporter.write_line(f"{row:4} {title}")
            terminalreporter.write_line(f"       {figure}")
    if config.getoption("--every-row") and (missing := _missing()):
        terminalreporter.write_line(f"no figure: {', '.join(missing)}")


def written(word: str) -> list[bytes]:
    """The ways a word may stand in a file."""
    escaped = word.encode("unicode_escape")
    return [word.encode(), escaped, escaped.replace(b"\\u", b"\\\\u"), word.encode("utf-16-le"), word.encode("gb18030")]


@pytest.fixture(scope="module", autouse=True)
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reports and chats of these tests hold CANARY: after all faults of a module it stands in no log, journal, snapshot, metric or
    file of a store."""
    base = Path(tmp_path_factory.getbasetemp())
    others = set(base.iterdir())
    yield
    forms = written(CANARY)

    def holds(raw: bytes) -> bool:
        return any(form in raw for form in forms)

    files = [
        f for folder in set(base.iterdir()) - others for f in folder.rglob("*") if f.is_file() and not f.is_symlink()
    ]
    found = [str(f) for f in files if holds(f.read_bytes())]
    assert not found, found
