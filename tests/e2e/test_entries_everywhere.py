"""From an entry to its effect: two gateways with two workers each on one Redis, as two hosts would run them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.conftest import Model, RedisServer, Whole, redis_binaries, wait_for, whole_gateway
from tests.faults.matrix import within

Pair = tuple[Whole, Whole]


@pytest.fixture(scope="module", params=sorted(redis_binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(redis_binaries()[request.param], tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pair(server: RedisServer, shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with (
        whole_gateway(folder / "a", shared_model.url, REDIS_URL=server.url, WORKERS="2") as a,
        whole_gateway(folder / "b", shared_model.url, REDIS_URL=server.url, WORKERS="2") as b,
    ):
        yield a, b


def _entry(n: int) -> tuple[dict[str, Any], str]:
    """One of three kinds, and a prompt that it stops: a term, a passage, a term for one direction only."""
    digits = "".join("零一二三四五六七八九"[int(d)] for d in f"{n:04}")
    if n % 3 == 0:
        return {"term": f"测试短语{digits}"}, f"请看：测试短语{digits}。"
    if n % 3 == 1:
        text = f"这是一段用来测试的文字，编号为{digits}，别无他意"
        return {"passage": text}, "他写道「" + text.replace("，", "\u3000") + "」"
    return {"term": f"test phrase {digits}", "scope": {"directions": ["prompt"]}}, f"look: TEST PHRASE {digits}!"


def _everywhere(whole: Whole, version: int) -> bool:
    return all(w["ready"] and w["entries_version"] >= version for w in whole.ready()["workers"])


def _effect(a: Whole, b: Whole, numbers: range) -> list[float]:
    """Seconds from the admin call on `a` until every worker of `b` enforces the entry."""
    took = []
    with httpx.Client(base_url=b.url, timeout=5) as client:
        for n in numbers:
            entry, prompt = _entry(n)
            started = time.perf_counter()
            made = a.add(entry)
            assert made.status_code == 201, made.text
            # A fresh connection each time, so that either worker may answer; four refusals in a row are both.
            refused = 0
            while refused < 4:
                body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
                answer = client.post("/v1/chat/completions", json=body, headers={"connection": "close"}).json()
                refused = refused + 1 if answer["choices"][0]["finish_reason"] == "content_filter" else 0
                assert time.perf_counter() - started < 5, "an entry never took effect"
            took.append(time.perf_counter() - started)
    return took


def _p99(took: list[float]) -> float:
    return statistics.quantiles(took, n=100)[98]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.long)])
def test_entries_of_three_kinds_act_on_the_other_gateway_within_a_second(
    pair: Pair, server: RedisServer, count: int
) -> None:
    a, b = pair
    before = _effect(a, b, range(1000, 1000 + count))
    server.kill()
    server.start()
    wait_for(lambda: a.add({"term": "重启之后的短语"}, key="after-restart").status_code == 201)
    after = _effect(a, b, range(2000, 2000 + count // 2))
    for name, took in (("entry to effect", before), ("after a Redis restart", after)):
        p50, p99, worst = (x * 1000 for x in (statistics.median(took), _p99(took), max(took)))
        print(f"\n{name}: {len(took)} entries, p50 {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms", end="")
    assert _p99(before) < within(1)
    assert _p99(after) < within(1)


def test_without_redis_traffic_and_blocking_go_on_and_recovery_needs_no_restart(
    pair: Pair, server: RedisServer
) -> None:
    a, b = pair
    version = a.add({"term": "断线之前的短语"}).json()["version"]
    wait_for(lambda: _everywhere(a, version) and _everywhere(b, version), 3)
    processes = [w.process.pid for w in pair]
    server.kill()

    slowest = 0.0
    for _ in range(40):
        for whole in pair:
            started = time.perf_counter()
            assert whole.chat("你好").json()["choices"][0]["finish_reason"] == "stop"
            assert whole.chat("断线之前的短语").json()["choices"][0]["finish_reason"] == "content_filter"
            slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5, "a request waited for Redis"
    refused = a.add({"term": "断线之中的短语"}, key="during")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "store_unavailable"
    assert "Idempotency-Key" in refused.json()["error"]["message"]
    assert a.call("GET", "/entries").json()["entries"], "reading goes on from memory"
    assert httpx.get(a.ops + "/readyz").status_code == 200
    wait_for(lambda: not a.ready()["store"]["up"], 5)

    server.start()
    wait_for(lambda: a.add({"term": "断线之中的短语"}, key="during").status_code == 201, 5)
    wait_for(lambda: b.chat("断线之中的短语").json()["choices"][0]["finish_reason"] == "content_filter", 3)
    assert [w.process.pid for w in pair] == processes
    assert [w.process.poll() for w in pair] == [None, None]


def test_an_empty_redis_does_not_empty_the_blocklist(redis_server: RedisServer, model: Model, tmp_path: Path) -> None:
    with whole_gateway(tmp_path / "a", model.url, REDIS_URL=redis_server.url) as a:
        version = a.add({"term": "清空之前的短语"}).json()["version"]
        wait_for(lambda: _everywhere(a, version), 3)
        redis.Redis(port=redis_server.port).flushall()
        wait_for(lambda: a.ready()["store"]["foreign"], 5)
        assert a.chat("清空之前的短语").json()["choices"][0]["finish_reason"] == "content_filter"
        assert a.add({"term": "清空之后的短语"}).status_code == 503


def test_a_gateway_that_starts_without_redis_blocks_from_its_snapshot(
    redis_server: RedisServer, model: Model, tmp_path: Path
) -> None:
    with whole_gateway(tmp_path / "a", model.url, REDIS_URL=redis_server.url) as a:
        version = a.add({"term": "快照里的短语"}).json()["version"]
        a.add({"passage": "快照里的一段话，它有足够多的字可以做指纹"})
        wait_for(lambda: _everywhere(a, version + 1), 3)
        wait_for(
            lambda: b"\n" in _snapshot(tmp_path).read_bytes() and str(version + 1) in _snapshot(tmp_path).read_text(), 3
        )
    redis_server.kill()
    with whole_gateway(tmp_path / "a", model.url, REDIS_URL=redis_server.url) as a:
        assert a.chat("快照里的短语").json()["choices"][0]["finish_reason"] == "content_filter"
        assert (
            a.chat("快照里的一段话 它有足够多的字可以做指纹").json()["choices"][0]["finish_reason"] == "content_filter"
        )
        assert "足够多的字" not in _snapshot(tmp_path).read_text("utf-8")
        redis_server.start()
        wait_for(lambda: a.add({"term": "回来以后的短语"}).status_code == 201, 5)


def _snapshot(folder: Path) -> Path:
    return folder / "a" / "data" / "entries.snapshot.json"


def test_a_refused_message_is_known_to_the_workers_of_the_other_gateway(pair: Pair) -> None:
    a, b = pair
    version = a.add({"term": "会被拒绝的短语"}).json()["version"]
    wait_for(lambda: _everywhere(a, version) and _everywhere(b, version), 3)
    assert a.chat("会被拒绝的短语").json()["choices"][0]["finish_reason"] == "content_filter"
    # A page that shows an error of its own keeps the message and has no refusal to bring along.
    turns = [{"role": "user", "content": "会被拒绝的短语"}, {"role": "user", "content": "那么天气呢？"}]

    def answered() -> bool:
        body = {"model": "m", "messages": turns}
        seen = [b.http.post("/v1/chat/completions", json=body, headers={"connection": "close"}) for _ in range(6)]
        return all(r.json()["choices"][0]["finish_reason"] == "stop" for r in seen)

    assert wait_for(answered, 5) < 3
