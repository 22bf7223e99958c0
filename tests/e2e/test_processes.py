"""`sluice serve` as an operator lives with it: workers die, parents die, two start on one DATA_DIR, SIGTERM comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Model, Whole, chunk, said, wait_for, whole_gateway


def _stores(whole: Whole) -> list[psutil.Process]:
    return [c for c in psutil.Process(whole.process.pid).children() if "redis-server" in c.name()]


def _store(whole: Whole) -> psutil.Process:
    return _stores(whole)[0]


def test_a_worker_that_dies_comes_back_and_is_counted(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url, WORKERS="2") as a:
        first = {p.pid for p in a.workers()}
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: len(a.workers()) == 2 and {p.pid for p in a.workers()} != first, 10)
        wait_for(lambda: httpx.get(a.ops + "/readyz").status_code == 200, 10)
        assert a.ready()["worker_restarts"] == 1
        assert a.chat("你好").status_code == 200


def test_when_the_parent_is_killed_nothing_of_it_stays(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url, WORKERS="2") as a:
        family = psutil.Process(a.process.pid).children(recursive=True)
        assert len(family) == 4
        a.process.kill()
        _, alive = psutil.wait_procs(family, timeout=8)
        assert alive == []


def test_a_second_gateway_on_one_data_dir_joins_the_store_and_takes_it_over(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url) as a:
        with whole_gateway(tmp_path / "b", model.url, DATA_DIR=str(tmp_path / "a" / "data")) as b:
            assert _stores(b) == []
            assert a.add({"term": "两家共用的短语"}).status_code == 201
            wait_for(lambda: b.chat("两家共用的短语").json()["choices"][0]["finish_reason"] == "content_filter", 3)
            a.process.kill()
            wait_for(lambda: b.add({"term": "接手之后的短语"}, key="k").status_code == 201, 10)
            wait_for(lambda: bool(_stores(b)), 10)
            wait_for(lambda: b.chat("接手之后的短语").json()["choices"][0]["finish_reason"] == "content_filter", 3)
            assert b.chat("两家共用的短语").json()["choices"][0]["finish_reason"] == "content_filter"


def test_the_embedded_store_comes_back_after_a_kill_with_every_entry(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url) as a:
        made = a.add({"term": "崩溃之前的短语"}).json()
        wait_for(lambda: a.ready()["workers"][0]["entries_version"] == made["version"], 3)
        killed = _store(a)
        killed.kill()
        assert a.chat("崩溃之前的短语").json()["choices"][0]["finish_reason"] == "content_filter"
        wait_for(lambda: a.add({"term": "崩溃之后的短语"}, key="k").status_code == 201, 10)
        listed = a.call("GET", "/entries").json()["entries"]
        assert made["id"] in {e["id"] for e in listed}
        assert _store(a).pid != killed.pid


def test_no_process_leaves_a_core_of_what_users_wrote(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url, "prlimit", "--core=unlimited") as a:
        for process in [psutil.Process(a.process.pid), *psutil.Process(a.process.pid).children(recursive=True)]:
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert next(x for x in limits.splitlines() if x.startswith("Max core file size")).split()[4] == "0"


def test_the_data_directory_is_private(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url) as a:
        a.chat("你好")
        wait_for(lambda: bool(list((a.folder / "data" / "journal").glob("*.jsonl"))), 5)
        open_to_others = [p for p in (a.folder / "data").rglob("*") if p.stat().st_mode & 0o077 and not p.is_symlink()]
        assert open_to_others == []


def test_sigterm_lets_a_running_stream_end_and_exits_cleanly(model: Model, tmp_path: Path) -> None:
    model.script.stream = [
        *[piece for _ in range(20) for piece in (chunk(0, {"content": "长"}), 0.05)],
        chunk(0, {}, "stop"),
        b"data: [DONE]\n\n",
    ]
    with whole_gateway(tmp_path / "a", model.url) as a:
        body = {"model": "m", "messages": [{"role": "user", "content": "说吧"}], "stream": True}
        with a.http.stream("POST", "/v1/chat/completions", json=body) as r:
            raw = b""
            for piece in r.iter_bytes():
                if not raw:
                    a.process.terminate()
                raw += piece
        assert said(raw) == "长" * 20
        assert a.process.wait(15) == 0
        log = (a.folder / "log").read_text("utf-8")
        assert "Traceback" not in log
        assert '"level": "error"' not in log


def test_metrics_are_of_all_workers(model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url, WORKERS="2") as a:
        for _ in range(30):
            a.http.post(
                "/v1/chat/completions",
                json={"model": "m", "messages": [{"role": "user", "content": "你好"}]},
                headers={"connection": "close"},
            )
        text = httpx.get(a.ops + "/metrics").text
        counted = [line for line in text.splitlines() if line.startswith("sluice_requests_total{")]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == 30


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"UPSTREAM_KEY": "k", "HOST": "0.0.0.0"}, "open proxy"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "SLUICE_SECRET_KEY"),
        ({"ADMIN_HOST": "0.0.0.0", "ADMIN_TOKEN": "short"}, "SLUICE_ADMIN_TOKEN"),
        ({"SECRET_KEY": "short"}, "at least 32 bytes"),
        ({"NO_SUCH": "1"}, "SLUICE_NO_SUCH"),
        ({"POLICY": "/nonexistent.yaml"}, "SLUICE_POLICY"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_unsafe_or_unknown_settings_refuse_to_start_with_the_reason(
    tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {"SLUICE_DATA_DIR": str(tmp_path / "data")} | {f"SLUICE_{k}": v for k, v in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"], env=env, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(model: Model, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {"SLUICE_DATA_DIR": str(tmp_path / "data"), "SLUICE_PORT": str(model.port)}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"], env=env, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert "SLUICE_PORT" in done.stderr
