"""Replicated tables on a real Redis: every process comes to the same rows, whatever order and failures."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import clock
from app.errors import Conflict, StoreError
from app.store.client import Store
from app.store.tables import Changed, Entries, Row
from tests.conftest import RedisServer, redis_binaries


@pytest.fixture(scope="module", params=sorted(redis_binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = RedisServer(redis_binaries()[request.param], tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@asynccontextmanager
async def table(
    server: RedisServer,
    folder: Path,
    deployment: str,
    changed: Changed = lambda rows, version, whole: None,
    **options: Any,
) -> AsyncIterator[Entries]:
    store = Store(server.url, deployment)
    entries = Entries(store, folder, changed, **options)
    await entries.start()
    try:
        yield entries
    finally:
        await entries.stop()
        await store.close()


async def until(condition: Callable[[], bool], seconds: float = 3) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def put(entries: Entries, id: str, **more: Any) -> Row:
    key = more.pop("key", secrets.token_hex(8))
    return await entries.put(id, {"id": id, "n": 1, **more}, idempotency_key=key, request=more.pop("request", "00"))


def test_what_one_writes_all_hold_with_the_same_sum(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path / "a", "all") as a, table(server, tmp_path / "b", "all") as b:
            for i in range(50):
                await put(a if i % 2 else b, f"e{i % 20}", n=i)
            await until(lambda: a.version == b.version == 50)
            assert a.rows() == b.rows()
            assert (len(a.rows()), a._sum) == (20, b._sum)
        async with table(server, tmp_path / "c", "all") as c:
            await until(lambda: c.version == 50)
            assert len(c.rows()) == 20

    asyncio.run(run())


@given(
    writes=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 9)), min_size=1, max_size=25),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_puts_and_deletes_ends_alike_everywhere(
    server: RedisServer, tmp_path: Path, writes: list[tuple[int, bool, int]]
) -> None:
    async def run() -> None:
        name = secrets.token_hex(4)
        async with table(server, tmp_path / name / "a", name) as a, table(server, tmp_path / name / "b", name) as b:
            expected: dict[str, int] = {}
            for id, delete, n in writes:
                await put(a, f"e{id}", n=n, **({"deleted": True} if delete else {}))
                expected.pop(f"e{id}", None)
                if not delete:
                    expected[f"e{id}"] = n
            await until(lambda: a.version == b.version == len(writes))
            for replica in (a, b):
                assert {r["id"]: r["n"] for r in replica.rows()} == expected

    asyncio.run(run())


def test_a_write_sent_again_with_its_key_is_written_once(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path, "once") as a:
            first = await put(a, "e1", key="k", request="aa")
            again = await put(a, "e1", key="k", request="aa")
            assert first == again
            with pytest.raises(ValueError, match="Idempotency-Key"):
                await a.put("e1", {"id": "e1"}, idempotency_key="k", request="bb")
            await until(lambda: a.version == 1)

    asyncio.run(run())


def test_of_two_who_expect_one_version_only_one_wins(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path / "a", "race") as a, table(server, tmp_path / "b", "race") as b:
            made = await put(a, "e1")
            outcomes = await asyncio.gather(
                *[
                    t.put("e1", {"id": "e1", "n": i}, idempotency_key=f"k{i}", request="00", expected=made["version"])
                    for i, t in enumerate((a, b, a, b))
                ],
                return_exceptions=True,
            )
            lost = [o for o in outcomes if isinstance(o, Conflict)]
            assert len(lost) == 3
            assert {e.current for e in lost} == {made["version"] + 1}

    asyncio.run(run())


def test_a_damaged_snapshot_is_not_used_and_a_good_one_is(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path, "snap", keep_snapshot=True) as a:
            await put(a, "e1", term="一个短语")
            path = tmp_path / "entries.snapshot.json"
            await until(path.exists)
        offline = Entries(None, tmp_path, lambda rows, version, whole: None)
        await offline.start()
        assert [r["term"] for r in offline.rows()] == ["一个短语"]
        raw = path.read_bytes()
        for damaged in (raw[:-3], raw.replace(b'"version": 1', b'"version": 9'), b"", b"\xff\n{}"):
            path.write_bytes(damaged)
            offline = Entries(None, tmp_path, lambda rows, version, whole: None)
            await offline.start()
            assert offline.rows() == []

    asyncio.run(run())


def test_rows_changed_behind_our_back_are_not_enforced(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path, "tamper") as a:
            await put(a, "e1", n=1)
            await until(lambda: a.version == 1)
            assert a._store is not None
            key = a._store.key
            await a._store.run("HSET", key("entries:rows"), "e1", "2 " + json.dumps({"id": "e1", "n": 666}))
            await a._store.run("ZADD", key("entries:index"), 2, "e1")
            await a._store.run("SET", key("entries:version"), 2)
            await asyncio.sleep(1.2)
            assert (a.version, a.rows()[0]["n"]) == (1, 1)

    asyncio.run(run())


def test_other_rows_under_the_same_version_are_noticed(server: RedisServer, tmp_path: Path) -> None:
    """After a failover two servers can have given one number to different rows."""

    async def run() -> None:
        async with table(server, tmp_path / "a", "here") as a, table(server, tmp_path / "b", "there") as b:
            await put(a, "e1", n=1)
            await put(b, "e2", n=2)
            await until(lambda: a.version == b.version == 1)
            assert a._store is not None and b._store is not None
            for part in ("rows", "index", "sum"):
                await a._store.run("COPY", b._store.key(f"entries:{part}"), a._store.key(f"entries:{part}"), "REPLACE")
            await until(lambda: a.rows() == b.rows())
            assert [(r["id"], r["n"]) for r in a.rows()] == [("e2", 2)] and a.version == 1
            await put(a, "e1", n=3)
            await until(lambda: {r["id"]: r["n"] for r in a.rows()} == {"e1": 3, "e2": 2})

    asyncio.run(run())


def test_a_list_that_could_not_be_put_into_force_is_not_reported_and_is_tried_again(
    server: RedisServer, tmp_path: Path
) -> None:
    async def run() -> None:
        tried: list[tuple[int, int, int]] = []
        held: list[Entries] = []

        def changed(rows: dict[str, Row | None], version: int, whole: bool) -> None:
            tried.append((version, len(rows), held[0].version))
            if len(tried) in (1, 4):
                raise MemoryError

        async with table(server, tmp_path, f"compile{server.port}", changed, keep_snapshot=True) as a:
            held.append(a)
            await put(a, "e1")
            await until(lambda: a.version == 1)
            assert tried == [(1, 1, 0), (1, 1, 0)]
            await put(a, "e2")
            await until(lambda: a.version == 2)
            await put(a, "e3")
            await until(lambda: a.version == 3)
            assert tried[2:] == [(2, 1, 1), (3, 1, 2), (3, 1, 2)]

    asyncio.run(run())


def test_an_entry_expires_while_the_store_is_another_one_or_gone(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        enforced: list[list[str]] = [[]]

        def in_force(rows: dict[str, Row | None], version: int, whole: bool) -> None:
            assert whole == (len(enforced) == 1)
            kept = [id for id in enforced[-1] if id not in rows]
            enforced.append(sorted(kept + [id for id, row in rows.items() if row is not None]))

        async with table(redis_server, tmp_path, "expiry", in_force) as a:
            soon, later = ((datetime.now(UTC) + timedelta(hours=h)).isoformat() for h in (1, 3))
            await put(a, "e1", expires_at=soon)
            await put(a, "e2", expires_at=later)
            await put(a, "e3")
            await until(lambda: a.version == 3)
            assert a._store is not None
            await a._store.run("SET", a._store.key("store_id"), "another")
            await until(lambda: a.foreign)
            assert enforced[-1] == ["e1", "e2", "e3"]
            now = clock.now()
            clock.use(lambda: now + 2 * 3600)
            await until(lambda: enforced[-1] == ["e2", "e3"])
            redis_server.kill()
            clock.use(lambda: now + 4 * 3600)
            await until(lambda: enforced[-1] == ["e3"])
            assert [r["id"] for r in a.rows()] == ["e3"]

    asyncio.run(run())


def test_an_older_or_another_server_empties_nothing(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with table(server, tmp_path, "foreign") as a:
            await put(a, "e1")
            await until(lambda: a.version == 1)
            assert a._store is not None
            await a._store.run("SET", a._store.key("store_id"), "another")
            await until(lambda: a.foreign)
            assert len(a.rows()) == 1
            with pytest.raises(StoreError, match="operator"):
                await put(a, "e2")

    asyncio.run(run())


def test_a_table_without_rows_knows_its_store_again_after_a_restart(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        name = secrets.token_hex(4)
        async with table(server, tmp_path, name, keep_snapshot=True) as a:
            await until(lambda: any(tmp_path.rglob("*.snapshot.json")))
            assert a._store is not None
            first = a.store_id
            await a._store.run("DEL", a._store.key("store_id"))
        async with table(server, tmp_path, name, keep_snapshot=True) as a:
            await until(lambda: a.foreign)
            assert a.store_id == first
            with pytest.raises(StoreError, match="operator"):
                await put(a, "e1")

    asyncio.run(run())


def test_what_the_server_promises_is_told(server: RedisServer) -> None:
    async def run() -> None:
        store = Store(server.url, "promises")
        told = []
        for value in ("always", "everysec", "no"):
            await store.run("CONFIG", "SET", "appendfsync", value)
            await store.check()
            told.append(store.durability)
        await store.run("CONFIG", "SET", "appendfsync", "always")
        assert told == ["strict", "1s", "none"]
        await store.close()

    asyncio.run(run())


def test_a_store_that_may_evict_takes_no_writes(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(server.url, "evict")
        await store.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            entries = Entries(store, tmp_path, lambda rows, version, whole: None)
            await entries.start()
            await until(lambda: store.problem is not None)
            with pytest.raises(StoreError, match="noeviction"):
                await put(entries, "e1")
            # Once it is repaired, it takes them again by itself.
            await store.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await until(lambda: store.problem is None)
            await put(entries, "e1")
            await until(lambda: entries.version == 1)
            await entries.stop()
        finally:
            await store.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await store.close()

    asyncio.run(run())
