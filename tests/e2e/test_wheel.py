"""The wheel, installed in an empty environment: it carries lexicons, policy and console, and blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.demo.story import free_port, running
from app.web.console import pages
from tests.conftest import ROOT, RedisServer, redis_binaries
from tests.people import first, hire, printed


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sluice` of a wheel built here and installed in an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path / "redis")
    yield server
    server.kill()


def test_a_wheel_in_an_empty_environment_blocks(sluice: Path, tmp_path: Path) -> None:
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


def test_a_wheel_holds_what_the_console_is_made_of(sluice: Path) -> None:
    names = set(zipfile.ZipFile(next(sluice.parent.parent.parent.glob("sluice_gateway-*.whl"))).namelist())
    console = ROOT / "app" / "web" / "console"
    data = [*console.glob("templates/*.html"), *console.glob("static/*"), ROOT / "app" / "data" / "guide.toml"]
    assert len(data) > 40 and {str(path.relative_to(ROOT)) for path in data} <= names


def test_a_wheel_in_an_empty_environment_serves_the_console(sluice: Path, store: RedisServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    port, ops, admin = free_port(), free_port(), free_port()
    env = {
        "PATH": os.environ["PATH"], "SLUICE_PORT": str(port), "SLUICE_OPS_PORT": str(ops), "SLUICE_ADMIN_PORT": str(admin),
        "SLUICE_DATA_DIR": str(tmp_path / "data"), "SLUICE_REDIS_URL": store.url, "SLUICE_SECRET_KEY": "k" * 40, "SLUICE_WORKERS": "1",
    }  # fmt: skip
    log = tmp_path / "log"
    began = os.getcwd()
    os.chdir(empty)  # nothing of the checkout is beside it
    try:
        with running([str(sluice), "serve"], f"http://127.0.0.1:{ops}/readyz", env, log):
            base = f"http://127.0.0.1:{admin}"
            boss = first(base, printed(log))
            person = hire(boss, "reviewer-of-the-wheel", "reviewer")
            person.get("/cases")
            assert person.status == 200 and "There is nothing here" in person.said
            for page in pages():
                if page.method == "GET" and not page.open and "{" not in page.path:
                    assert boss.http.get(f"/console{page.path}").status_code in (200, 303, 403, 422), page.path
            for path in (ROOT / "app" / "web" / "console" / "static").iterdir():
                if path.suffix != ".txt":
                    answer = httpx.get(f"{base}/console/static/{path.name}")
                    assert answer.status_code == 200 and answer.content == path.read_bytes(), path.name
    finally:
        os.chdir(began)
