"""`sluice doctor` as users run it, in a process of its own: forked from one that has imported it, for that takes longest."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from app.cli import main
from app.demo.story import free_port
from tests import scorers

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["app.doctor", "tests.doctoring"])


def doctor(folder: Path, *before: str, files: int = 0, **environment: str) -> tuple[int, str]:
    """Exit status and words of `sluice doctor` with SLUICE_<name>=value for each keyword, and DATA_DIR under `folder`. `files`: how
    many the process may open; `before`: a command that runs it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    terms = folder / "terms"
    terms.mkdir(exist_ok=True)
    light = {"DATA_DIR": str(folder / "data"), "LEXICONS": str(terms), "MODELS": str(_models())}
    ports = {name: str(free_port()) for name in ("PORT", "OPS_PORT", "ADMIN_PORT")}
    env |= {f"SLUICE_{k}": v for k, v in (light | ports | environment).items()}
    if before:
        command = [*before, sys.executable, "-m", "app.cli", "doctor"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        return _checked(done.returncode, done.stdout + done.stderr, environment)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        process = _FORKS.Process(target=_visit, args=(env, files, f"/proc/{os.getpid()}/fd/{out.fileno()}"))
        process.start()
        process.join(60)
        assert process.exitcode is not None, "the doctor does not come to an end"
        out.seek(0)
        return _checked(process.exitcode, out.read(), environment)


@cache
def _models() -> Path:
    return scorers.models()


def _checked(status: int, said: str, environment: dict[str, str]) -> tuple[int, str]:
    assert "Traceback" not in said, said
    for name in ("SECRET_KEY", "ADMIN_TOKEN", "UPSTREAM_KEY", "REDIS_URL"):
        assert not environment.get(name) or environment[name] not in said, f"{name} is shown"
    return status, said


def _visit(env: dict[str, str], files: int, out: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    fd = os.open(out, os.O_WRONLY | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    status = main(["doctor"])
    sys.stdout.flush()
    sys.exit(status)


def marked(said: str, mark: str) -> list[str]:
    """The lines of faults (✗), warnings (!) or facts (✓)."""
    return [line.strip() for line in said.splitlines() if line.startswith(f"  {mark} ")]


def fault(told: tuple[int, str], *words: str) -> None:
    """One fault, with these words, and the command failed."""
    status, said = told
    faults = marked(said, "✗")
    assert status == 1 and len(faults) == 1, said
    for word in words:
        assert word in faults[0], said


def warning(told: tuple[int, str], *words: str) -> None:
    """One warning, with these words, and the command did not fail."""
    status, said = told
    warnings = marked(said, "!")
    assert status == 0 and not marked(said, "✗") and len(warnings) == 1, said
    for word in words:
        assert word in warnings[0], said


def nothing(told: tuple[int, str]) -> None:
    """Neither."""
    status, said = told
    # Where a machine's cores go is its own.
    odd = [line for line in [*marked(said, "✗"), *marked(said, "!")] if "core_pattern" not in line]
    assert status == 0 and not odd, said
