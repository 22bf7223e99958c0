"""The wheel, installed in an empty environment: it carries lexicons and policy, and blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from tests.conftest import ROOT


def _installed(folder: Path) -> Path:
    """The `sluice` of a wheel built here and installed in an environment of its own."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)],
        check=True,
        timeout=120,
    )
    wheel = next(folder.glob("sluice_gateway-*.whl"))
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check", "--no-compile",
         "-c", str(ROOT / "constraints.txt"), str(wheel)],
        check=True, timeout=300,
    )  # fmt: skip
    return folder / "venv" / "bin" / "sluice"


def test_a_wheel_in_an_empty_environment_blocks(tmp_path: Path) -> None:
    sluice = _installed(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    lines = [
        {"id": 1, "text": "本店低价出售仿真枪支弹药"},
        {"id": 2, "text": "今天天气很好。"},
        {"id": 3, "text": "电话13800138000"},
    ]
    done = subprocess.run(
        [sluice, "check"],
        input="\n".join(json.dumps(line, ensure_ascii=False) for line in lines),
        capture_output=True, text=True, cwd=empty, env={"PATH": os.environ["PATH"]}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(a["id"], a["action"]) for a in answers] == [(1, "block"), (2, "pass"), (3, "mask")]
    assert answers[0]["delivered"] == ""
    assert list(empty.iterdir()) == [], "check writes nothing"
    names = ["words.toml", "pages.css", "pages.js", "report.js", "templates/form.html"]
    pages = f"from importlib.resources import files; [files('app.web.pages').joinpath(n).read_bytes() for n in {names}]"
    subprocess.run([sluice.parent / "python", "-c", pages], check=True, cwd=empty)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(sluice.parent / "python"), "list"], capture_output=True, text=True
    ).stdout
    assert "torch" not in listed
