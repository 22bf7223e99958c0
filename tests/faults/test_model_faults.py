"""A model that is down, slow, breaks off, or speaks nonsense (F10 to F14 of the fault matrix): told as it is, never as a clean end, and no
character goes out that was not screened."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.demo.story import free_port
from tests.conftest import WORD, Model, Whole, chunk, wait_for, whole_gateway
from tests.faults.matrix import told, within
from tests.faults.test_client_faults import MIB, log, port, resident
from tests.faults.test_process_faults import said_so_far
from tests.faults.test_store_faults import metric
from tests.integration.test_privacy import CANARY

HELLO = [chunk(0, {"role": "assistant", "content": "你好，"}), chunk(0, {"content": "世界。"})]
END = [chunk(0, {}, "stop"), b"data: [DONE]\n\n"]
ASK = {"model": "m", "messages": [{"role": "user", "content": f"说吧，{CANARY}"}]}
_LIMIT = "1" if within(1) == 1 else "3"
"""Seconds: beside other test processes a model that answers at once may take one."""
LIMITS = {"UPSTREAM_FIRST_TOKEN_TIMEOUT": _LIMIT, "UPSTREAM_IDLE_TIMEOUT": _LIMIT, "UPSTREAM_CONNECT_TIMEOUT": _LIMIT}


@pytest.fixture(scope="module")
def whole(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_gateway(tmp_path_factory.mktemp("gateway"), shared_model.url, **LIMITS) as whole:
        assert whole.add({"term": WORD}).status_code == 201
        wait_for(lambda: whole.ready()["workers"][0]["entries"] == 1)
        yield whole
        assert "Traceback" not in log(whole)


@pytest.fixture
def model(shared_model: Model) -> Model:
    shared_model.script.__init__()  # type: ignore[misc]
    return shared_model


def ask(whole: Whole, *, stream: bool = False) -> tuple[int, bytes, bool, float]:
    """Status, body, whether the transfer ended as it should, and seconds."""
    raw, clean, started = b"", True, time.perf_counter()
    with httpx.Client(timeout=30) as http:
        try:
            with http.stream("POST", whole.url + "/v1/chat/completions", json=ASK | {"stream": stream}) as response:
                for piece in response.iter_raw():
                    raw += piece
        except httpx.RemoteProtocolError:
            clean = False
    return response.status_code, raw, clean, time.perf_counter() - started


def error(raw: bytes) -> dict[str, Any]:
    return dict(orjson.loads(raw)["error"])


def last_error(raw: bytes) -> str:
    events = [orjson.loads(e[6:]) for e in raw.split(b"\n\n") if e.startswith(b"data: {")]
    return str(events[-1]["error"]["code"])


def test_f10_the_model_is_down(tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "gateway", f"http://127.0.0.1:{free_port()}/v1", **LIMITS) as whole:
        took = []
        for n in range(40):
            status, raw, _, seconds = ask(whole, stream=bool(n % 2))
            assert (status, error(raw)["code"]) == (502, "upstream_unreachable")
            took.append(seconds)
        assert max(took[1:]) < within(1)
        assert httpx.get(whole.ops + "/readyz").status_code == 200
        told(
            "F10", f"502 in {statistics.median(took) * 1000:.0f} ms, at most {max(took[1:]) * 1000:.0f} ms; still ready"
        )


def test_f11_the_model_is_slow_and_clients_leave(whole: Whole, model: Model) -> None:
    model.script.stream = [30.0, *HELLO, *END]
    status, raw, _, first = ask(whole, stream=True)
    assert (status, error(raw)["code"]) == (504, "upstream_timeout")
    model.script.stream = [*HELLO, 30.0, *END]
    status, raw, clean, idle = ask(whole, stream=True)
    assert (status, clean, last_error(raw)) == (200, False, "upstream_timeout") and said_so_far(raw) == "你好，世界。"
    assert 1 <= first < within(1.7) and 1 <= idle < within(1.7)
    gone = []
    for _ in range(10):
        model.script.stream = [HELLO[0], *[chunk(0, {"content": "长"}), 0.05] * 400]
        model.script.disconnected = threading.Event()
        body = orjson.dumps(ASK | {"stream": True})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        client = socket.create_connection(("127.0.0.1", port(whole)))
        client.sendall(head + body)
        assert b" 200 OK" in client.recv(4096)
        client.close()
        left = time.monotonic()
        assert model.script.disconnected.wait(10)
        gone.append(time.monotonic() - left)
    assert max(gone) < within(1)
    told(
        "F11", f"limits of 1 s: no first text, 504 after {first:.2f} s; silence in mid-stream, told after {idle:.2f} s; a client that "
        f"leaves frees the model in {max(gone) * 1000:.0f} ms at most",
    )  # fmt: skip


@pytest.mark.parametrize("events", [0, 1, 2])
def test_f12_the_model_breaks_off(whole: Whole, model: Model, events: int) -> None:
    """What was held for a term that had begun is not let go."""
    held = [chunk(0, {"content": WORD[:-1]}), 0.05] if events else []
    model.script.stream = [*HELLO[:events], *held, "reset"]
    status, raw, clean, took = ask(whole, stream=True)
    if not events:
        assert (status, error(raw)["code"]) == (502, "upstream_reset")
    else:
        assert (status, clean, last_error(raw)) == (200, False, "upstream_reset") and b"[DONE]" not in raw
        assert said_so_far(raw) == "你好，世界。"[: 3 * events]
    what = "told in the stream, no clean end, 0 held characters out" if events else "502"
    told("F12", f"a reset after {events} texts: {what}, {took * 1000:.0f} ms")


def records(whole: Whole) -> list[dict[str, Any]]:
    return [json.loads(x) for f in (whole.folder / "data" / "journal").glob("*.jsonl") for x in f.open()]


@pytest.mark.parametrize("many", [20_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_f13_the_model_speaks_nonsense_or_without_end(whole: Whole, model: Model, many: int) -> None:
    ask(whole)
    before = most = resident(whole)
    wrong: list[tuple[int, dict[str, str], bytes]] = [
        (200, {}, b"{broken"),
        (200, {"content-type": "text/html"}, b"<html>it works</html>"),
        (200, {}, b'{"x": "' + b"x" * (10 << 20) + b'"}'),
        (200, {}, b"x" * (80 << 20)),
        (200, {}, b"[" * 100_000),
        (200, {"content-encoding": "br"}, b"\x0b\x02\x80"),
    ]
    model.script.stream = None
    for answer in wrong:
        model.script.plain = answer
        status, raw, _, _ = ask(whole)
        assert (status, error(raw)["code"]) == (502, "upstream_protocol_error"), answer[2][:20]
        most = max(most, resident(whole))
    for piece in (b"data: " + b"x" * (10 << 20), b": " + b"x" * (10 << 20), b"\n" * 1000 + b"data: {\n\n"):
        model.script.stream = [*HELLO, piece, *END]
        status, raw, clean, _ = ask(whole, stream=True)
        assert status == 200 and (not clean or piece[:1] == b":"), piece[:20]
        most = max(most, resident(whole))
    tiny = chunk(0, {"content": "花"})
    model.script.stream = [HELLO[0], *[tiny * 100] * (many // 100), *END]
    status, raw, clean, took = ask(whole, stream=True)
    most = max(most, resident(whole))
    assert (status, clean) == (200, True) and len(said_so_far(raw)) == many + 3
    assert most - before < 120 * MIB
    told(
        "F13", f"broken JSON, HTML, 10 MB, 80 MB, nests, an encoding nobody asked for: 502; an event of 10 MB: told; {many:,} events "
        f"passed on in {took:.1f} s; memory + {(most - before) / MIB:.0f} MiB at most",
    )  # fmt: skip


def test_f14_an_error_of_the_model_has_a_text_that_is_screened_too(whole: Whole, model: Model) -> None:
    model.script.stream = None
    replaced = others = 0
    for status in (400, 429, 500, 503):
        for words, kept in ((f"do not say {WORD}", False), ("slow down", True)):
            model.script.plain = (status, {"retry-after": "7"}, orjson.dumps({"error": {"message": words}}))
            with httpx.Client(timeout=10) as http:
                answer = http.post(whole.url + "/v1/chat/completions", json=ASK)
            assert answer.status_code == status and answer.headers["retry-after"] == "7"
            assert answer.json()["error"]["message"] == (words if kept else f"the model answered with HTTP {status}")
            replaced, others = replaced + (not kept), others + kept
    told(
        "F14",
        f"400, 429, 500, 503: status and Retry-After kept; {replaced} texts with a listed term replaced, {others} others kept",
    )
    wait_for(lambda: any(r["outcome"] == "upstream_status" for r in records(whole)))
    assert metric(whole, "sluice_unscreened_characters_total") == 0
