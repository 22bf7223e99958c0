"""`sluice backup` and `sluice restore`: all of a store in one file and back, one moment of it however much is written meanwhile, on
whatever server; and nothing of a file that was changed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.backup import MARK, BackupError, cut, unpack
from app.restore import looked
from app.settings import read as configured
from app.store.cases import Cases, Writes
from app.store.client import Store
from app.store.tables import Entries
from tests.backing import acts, desk_at, done, environment, fill, keyed, members, packed, seen, sluice
from tests.conftest import SECRET, Model, RedisServer, redis_binaries, wait_for
from tests.faults.checker import Checker, script
from tests.integration.test_reports import ANSWER

NAMES = list(redis_binaries())
P = "{sluice:default}:"
LIVE = ("counters", "meter", "retention", "restored", "refusals", "struck", "audit", "deliveries")
"""What a running gateway writes by itself, and the chain, which has a row more."""
OTHER_SECRET = "9876543210fedcba9876543210fedcba-other"


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[[str], RedisServer]]:
    servers = []

    def make(name: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(redis_binaries()[name], folder))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


def at(server: RedisServer, folder: Path, **more: str) -> dict[str, str]:
    return {"REDIS_URL": server.url, "SECRET_KEY": SECRET, "DATA_DIR": str(folder / "data"), **more}


def client(server: RedisServer) -> Any:
    return redis.Redis(port=server.port, decode_responses=True)


def small(server: RedisServer, rows: int = 5) -> None:
    """A store with an audit chain and some keys of each type, without a gateway."""
    store = client(server)
    store.set(P + "store_id", "0123456789abcdef")
    store.set(P + "schema", "1")
    for n in range(rows):
        commit(server, {"what": "report", "n": n})
    store.hset(P + "cases", mapping={f"case_{n}": f"1 {json.dumps({'n': n})}" for n in range(1500)})
    store.zadd(P + "cases:all", {f"case_{n}": 1_700_000_000.125 + n for n in range(1500)})
    store.sadd(P + "made-up", *(f"m{n}" for n in range(1200)))
    store.set(P + "done:short", "x", px=3_600_000)


def commit(server: RedisServer, event: dict[str, Any]) -> None:
    """A row of the audit chain, as a gateway writes it."""

    async def run() -> None:
        store = Store(server.url, "default")
        await Cases(store, Entries(store, Path(), lambda rows, version, whole: None)).commit(Writes(), event)
        await store.close()

    asyncio.run(run())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ways", [(NAMES[0], NAMES[-1]), (NAMES[-1], NAMES[0])], ids=" to ".join)
def test_everything_reads_back_the_same_on_another_server(
    ways: tuple[str, str], server_of: Callable[[str], RedisServer], tmp_path: Path, model: Model
) -> None:
    one, two = server_of(ways[0]), server_of(ways[1])
    file = tmp_path / "b.tar.gz"
    with desk_at(one.url, tmp_path / "one", model) as desk:
        tickets = fill(desk, model)
        before, chain = seen(desk, tickets), desk.chain()
    kept = keyed(one, *LIVE)
    said = done("backup", file, **at(one, tmp_path / "one"))
    assert "完整 whole" in said and "不含密钥" in said and "请看一下" not in said
    assert file.stat().st_mode & 0o777 == 0o600
    assert client(one).lindex(P + "audit", -1).count('"what":"backup"') == 1
    said = done("restore", file, **at(two, tmp_path / "two"))
    assert "已恢复 restored" in said and "请看一下" not in said
    versions = [
        f"{P}{table}:version" for table in ("entries", "exceptions", "standings", "agreements", "statements", "shadows")
    ]
    after = keyed(two, *LIVE)
    assert {k: v for k, v in after.items() if k not in versions} == {k: v for k, v in kept.items() if k not in versions}
    for key in kept:
        assert abs(client(one).pttl(key) - client(two).pttl(key)) < 2000, key
    with desk_at(two.url, tmp_path / "two", model) as desk:
        acts(desk, model)
        assert seen(desk, tickets) == before
        rows = desk.chain()
        assert rows[: len(chain)] == chain
        assert [row["what"] for row in rows[len(chain) :]][:1] == ["restore"]
        # And life goes on: the same call has its first answer, and new ones are taken.
        assert desk.decide(tickets["received"]["ticket"], "confirm", category="illegal_acts").status_code == 200
        model.script.chat(ANSWER)
        assert desk.report(desk.ask("reader-9"), "reader-9").status_code == 202


@pytest.mark.timeout(240)
def test_gateways_that_run_when_the_store_is_wiped_follow_what_is_restored(
    redis_server: RedisServer, tmp_path: Path, model: Model
) -> None:
    file = tmp_path / "b.tar.gz"
    with desk_at(redis_server.url, tmp_path / "g", model, WORKERS="2") as desk:
        tickets = fill(desk, model)
        before = seen(desk, tickets)
        done("backup", file, **at(redis_server, tmp_path))
        # Entries that came later are in no backup, and what follows them is brought back too.
        desk.admin(
            "POST", "/entries", json={"term": "后来的短语", "category": "violence", "action": "block", "reason": "r"}
        )
        client(redis_server).flushall()
        wait_for(lambda: desk.whole.ready()["store"]["foreign"], 5)
        assert desk.whole.chat("示例违禁短语").headers["x-sluice-action"] == "block", "a wiped store empties no list"
        done("restore", file, **at(redis_server, tmp_path))
        wait_for(lambda: not desk.whole.ready()["store"]["foreign"], 5)
        acts(desk, model)
        wait_for(lambda: desk.whole.chat("后来的短语").headers["x-sluice-action"] == "pass", 5)
        assert seen(desk, tickets) == before
        assert "the store has lost rows that it had confirmed" in (tmp_path / "g" / "log").read_text()


@pytest.mark.timeout(240)
def test_a_backup_under_load_is_one_moment(
    server_of: Callable[[str], RedisServer], tmp_path: Path, model: Model
) -> None:
    one, two = server_of(NAMES[-1]), server_of(NAMES[0])
    script(model)
    taken: list[tuple[Path, set[str], float]] = []
    with desk_at(one.url, tmp_path / "one", model) as desk:
        checker = Checker(desk.whole)
        checker.block()
        with checker.load(threads=4, pause=0.002):
            checker.until(30)
            for n in range(4):
                acked = {c.answer["ticket"] for c in checker.reports if c.answer is not None}
                file = tmp_path / f"b{n}.tar.gz"
                said = done("backup", file, **at(one, tmp_path))
                taken.append((file, acked, float(said.split("was held for ")[1].split(" ms")[0])))
                checker.until(10)
        assert checker.odd == [], checker.odd[:5]
    print([(len(acked), held) for _, acked, held in taken])
    for file, acked, _ in taken:
        client(two).flushall()
        done("restore", file, **at(two, tmp_path / "two"))
        store = client(two)
        rows = [json.loads(raw) for raw in store.lrange(P + "audit", 0, -1)]
        cases = {
            id: json.loads(raw.partition(" ")[2]) | {"version": int(raw.partition(" ")[0])}
            for id, raw in store.hgetall(P + "cases").items()
        }
        tickets = set(store.hkeys(P + "tickets"))
        in_chain = {r["ticket"] for r in rows if r["what"] == "report"}
        assert acked <= tickets, "what was acknowledged before it is in it"
        assert tickets == in_chain, "no ticket without its row, and no row without its ticket"
        changes: dict[str, int] = {}
        for row in rows:
            if "case" in row and row["what"] != "look":
                changes[row["case"]] = changes.get(row["case"], 0) + 1
        assert changes == {id: case["version"] for id, case in cases.items()}
        assert set(store.zrange(P + "cases:all", 0, -1)) == set(cases) == set(store.hgetall(P + "cases:same").values())
        assert set(store.hkeys(P + "evidence")) == {id for id, case in cases.items() if case["evidence"]}
        noted = {key.removeprefix(P + "comments:") for key in store.scan_iter(P + "comments:*")}
        assert noted == {id for id, case in cases.items() if case["comments"]}
        results = [store.get(key) for key in store.scan_iter(P + "done:*")]
        answered = {json.loads(raw.partition(" ")[2]).get("ticket") for raw in results} - {None}
        assert answered == tickets, "no answer without its report, and no report without its answer"


def test_logs_and_the_generated_key_come_with_it_where_they_are_asked_for(tmp_path: Path, model: Model) -> None:
    """The embedded store: with the gateway running (its socket is joined) and without one (it is started for the time)."""
    home = tmp_path / "g"
    with desk_at("", home, model, SECRET_KEY="") as desk:
        tickets = {"open": {}, "taken": {}}
        model.script.chat(ANSWER)
        tickets["taken"] = desk.report(desk.ask("u"), "u", prompt="说说搬箱子的事").json()
        desk.admin("POST", "/agreements", json={"app": "default", "user": "mia", "agreement": "t"})
        wait_for(lambda: any((home / "data" / "journal").glob("*.jsonl")), 5)
        done("backup", tmp_path / "joined.tar.gz", "--secret-key", DATA_DIR=str(home / "data"))
        assert desk.state(tickets["taken"]) == "verified"
    (home / "data" / "unlabelled").mkdir(exist_ok=True)
    (home / "data" / "unlabelled" / "2026-01-02.a1.jsonl").write_text('{"at":"2026-01-02"}\n')
    done("backup", tmp_path / "alone.tar.gz", "--journal", DATA_DIR=str(home / "data"))
    joined, alone = members(tmp_path / "joined.tar.gz"), members(tmp_path / "alone.tar.gz")
    assert list(joined)[:2] == ["manifest.json", "store.jsonl"] and "secret_key" in joined
    assert not any(name.startswith("journal/") for name in joined) and any(
        name.startswith("journal/") for name in alone
    )
    assert "unlabelled/2026-01-02.a1.jsonl" in alone and "secret_key" not in alone

    # Into an empty place: it opens nothing without its key, and is refused; with it, all is as it was.
    refused = sluice("restore", tmp_path / "alone.tar.gz", DATA_DIR=str(tmp_path / "new" / "data"))
    assert refused.returncode == 2 and "缺少密钥 0" in refused.stderr and "--without-keys" in refused.stderr
    done("restore", tmp_path / "joined.tar.gz", DATA_DIR=str(tmp_path / "new" / "data"))
    assert (tmp_path / "new" / "data" / "secret_key").stat().st_mode & 0o777 == 0o600
    with desk_at("", tmp_path / "new", model, SECRET_KEY="") as desk:
        assert desk.state(tickets["taken"]) == "verified"
        assert desk.admin("GET", f"/cases/{tickets['taken']['ticket']}/evidence").json()["prompt"] == "说说搬箱子的事"
        # While it runs: what is there is backed up first.
        said = done("restore", tmp_path / "alone.tar.gz", "--replace", DATA_DIR=str(tmp_path / "new" / "data"))
        assert len(list(tmp_path.glob("alone.before-*.tar.gz"))) == 1 and "原有数据" in said
        wait_for(lambda: [r["what"] for r in desk.chain()].count("restore") == 1, 5)
        assert [r["what"] for r in desk.chain()].count("backup") == 1, "of the two backups the second knows the first"
    assert (tmp_path / "new" / "data" / "unlabelled" / "2026-01-02.a1.jsonl").read_text() == '{"at":"2026-01-02"}\n'


def test_what_is_there_is_not_written_over(redis_server: RedisServer, tmp_path: Path) -> None:
    small(redis_server)
    file, where = tmp_path / "b.tar.gz", at(redis_server, tmp_path)
    empty = sluice("backup", file, **at(redis_server, tmp_path, DEPLOYMENT="other"))
    assert empty.returncode == 2 and "SLUICE_DEPLOYMENT" in empty.stderr and not file.exists()
    done("backup", file, **where)
    again = sluice("backup", file, **where)
    assert again.returncode == 2 and "--force" in again.stderr
    done("backup", file, "--force", **where)
    before = keyed(redis_server, "restored")
    refused = sluice("restore", file, **where)
    assert refused.returncode == 2 and "--replace" in refused.stderr and keyed(redis_server, "restored") == before
    commit(redis_server, {"what": "report", "n": "later"})
    done("restore", file, "--replace", **where)
    (kept,) = tmp_path.glob("b.before-*.tar.gz")
    assert b"later" in members(kept)["store.jsonl"] and b"later" not in members(file)["store.jsonl"]
    assert json.loads(client(redis_server).lindex(P + "audit", -1))["what"] == "restore"
    client(redis_server).set(P + "schema", "2")
    for command in (["backup", tmp_path / "c.tar.gz"], ["restore", file, "--replace"]):
        newer = sluice(*command, **where)
        assert newer.returncode == 2 and "schema 2" in newer.stderr and "knows 1" in newer.stderr


def test_what_has_expired_is_left_out_and_counted_and_the_rest_ends_when_it_would_have(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    store = client(redis_server)
    store.set(P + "held:a", "0.x", px=8000)
    over = time.time() + 8.1
    ends = time.time() * 1000 + store.pttl(P + "done:short")
    done("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    store.flushall()
    time.sleep(max(0.0, over - time.time()))
    assert "已过期 expired: 1" in done("restore", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    assert abs(time.time() * 1000 + store.pttl(P + "done:short") - ends) < 1000
    assert not store.exists(P + "held:a") and store.pttl(P + "cases") == -1
    assert store.zscore(P + "cases:all", "case_7") == 1_700_000_007.125 and store.scard(P + "made-up") == 1200


def test_what_is_kept_small_and_so_comes_as_a_whole_is_written_in_pages_and_comes_back(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    store = client(redis_server)
    for name in ("zset-max-ziplist-entries", "hash-max-ziplist-entries", "set-max-intset-entries"):
        store.config_set(name, 5000)
    small(redis_server)
    store.hset(P + "cases:same", mapping={f"0.{n}": f"case_{n}" for n in range(2000)})
    store.sadd(P + "made-up:numbers", *range(3000))
    before = keyed(redis_server, *LIVE)
    done("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    lines = [json.loads(raw) for raw in members(tmp_path / "b.tar.gz")["store.jsonl"].splitlines()]
    assert max(len(line["value"]) for line in lines if line["type"] != "string") <= 200
    store.flushall()
    done("restore", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    after = keyed(redis_server, *LIVE)
    assert {k: v for k, v in after.items() if not k.endswith(":version")} == before


def test_a_server_that_evicts_is_refused_and_one_that_lost_what_was_staged_stays_as_it_was(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    file, store = tmp_path / "b.tar.gz", client(redis_server)
    store.hset(P + "runs", mapping={f"case_{n}": "r" * 500 for n in range(60_000)})
    done("backup", file, **at(redis_server, tmp_path))
    store.config_set("maxmemory-policy", "volatile-lru")
    kept = keyed(redis_server)
    evicting = sluice("restore", file, "--replace", **at(redis_server, tmp_path))
    assert evicting.returncode == 2 and "noeviction" in evicting.stderr and keyed(redis_server) == kept
    store.config_set("maxmemory-policy", "noeviction")
    store.flushall()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "restore", str(file)], env=environment(**at(redis_server, tmp_path)), stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    # As an eviction would: the audit row is staged at the very end, the cases before.
    wait_for(lambda: bool(store.keys(P + "restore:*:data:cases")) and not store.exists(P + "restored"), 30)
    wait_for(lambda: store.hlen(store.keys(P + "restore:*:data:cases")[0]) == 1500, 30)
    gone = store.delete(*store.keys(P + "restore:*:data:cases"))
    _, said = process.communicate(timeout=60)
    assert gone == 1 and process.returncode == 2 and "nothing was changed" in said, said
    assert not store.keys("*")


def test_a_store_that_was_restored_twice_is_newer_than_the_gateways_that_followed_it_meanwhile(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    store, where = client(redis_server), at(redis_server, tmp_path)
    done("backup", tmp_path / "b.tar.gz", **where)
    versions = []
    for _ in range(2):
        store.flushall()
        done("restore", tmp_path / "b.tar.gz", **where)
        versions.append(int(store.get(P + "entries:version")))
        time.sleep(1)  # in which a list of a thousand rows may be loaded
    assert versions[1] > versions[0] + 1000


def test_a_store_that_a_gateway_has_only_looked_at_is_empty(redis_server: RedisServer, tmp_path: Path) -> None:
    small(redis_server)
    store, where = client(redis_server), at(redis_server, tmp_path)
    done("backup", tmp_path / "b.tar.gz", **where)
    store.flushall()
    store.mset({P + "store_id": "fedcba9876543210", P + "schema": "1"})
    done("restore", tmp_path / "b.tar.gz", **where)
    assert store.get(P + "store_id") == "0123456789abcdef" and not list(tmp_path.glob("b.before-*"))


def test_replicas_that_were_asked_for_have_what_is_restored(
    server_of: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    one, two = server_of(NAMES[-1]), server_of(NAMES[-1])
    small(one)
    where = at(one, tmp_path, REDIS_REPLICAS="1")
    done("backup", tmp_path / "b.tar.gz", **at(one, tmp_path))
    client(one).flushall()
    client(two).replicaof("127.0.0.1", one.port)
    wait_for(lambda: client(two).info("replication")["master_link_status"] == "up", 20)
    assert "副本" not in done("restore", tmp_path / "b.tar.gz", **where)
    assert client(two).hlen(P + "cases") == 1500


@pytest.mark.long
@pytest.mark.timeout(180)
def test_replicas_that_do_not_confirm_a_restore_are_told_of(redis_server: RedisServer, tmp_path: Path) -> None:
    small(redis_server)
    done("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    client(redis_server).flushall()
    said = sluice("restore", tmp_path / "b.tar.gz", **at(redis_server, tmp_path, REDIS_REPLICAS="1"))
    assert said.returncode == 1 and "SLUICE_REDIS_REPLICAS" in said.stdout and client(redis_server).exists(P + "cases")


def test_a_backup_says_that_its_row_is_uncertain_where_replicas_do_not_confirm_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    said = sluice("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path, REDIS_REPLICAS="1"))
    assert said.returncode == 2 and "not certain" in said.stderr and (tmp_path / "b.tar.gz").exists()


def test_logs_that_differ_are_all_kept_and_none_is_put_by_a_restore_that_is_refused(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    logs, where = tmp_path / "data" / "unlabelled", at(redis_server, tmp_path)
    logs.mkdir(parents=True)
    files = [tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"]
    for file in files:
        (logs / "a.jsonl").write_text(file.name)
        (logs / "b.jsonl").write_text("b")
        done("backup", file, **where)
    (logs / "a.jsonl").write_text("own")
    (logs / "b.jsonl").unlink()
    assert sluice("restore", files[0], **where).returncode == 2 and not (logs / "b.jsonl").exists()
    for file in (*files, *files):
        client(redis_server).flushall()
        done("restore", file, **where)
    assert {p.name: p.read_text() for p in logs.iterdir()} == {
        "a.jsonl": "own", "a-restored1.jsonl": "one.tar.gz", "a-restored2.jsonl": "two.tar.gz", "b.jsonl": "b",
    }  # fmt: skip


def test_a_log_that_is_gone_and_one_of_a_name_that_no_restore_takes_are_left_out(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    logs, where = tmp_path / "data" / "unlabelled", at(redis_server, tmp_path)
    logs.mkdir(parents=True)
    (logs / "a.jsonl").write_text("a")
    (logs / "gone.jsonl").symlink_to(tmp_path / "nowhere")  # found, and not there when it is looked at
    for name in (".hidden.jsonl", "with space.jsonl", "l" * 120 + ".jsonl"):
        (logs / name).write_text("x")
    done("backup", tmp_path / "b.tar.gz", **where)
    assert list(members(tmp_path / "b.tar.gz")) == ["manifest.json", "store.jsonl", "unlabelled/a.jsonl"]
    client(redis_server).flushall()
    done("restore", tmp_path / "b.tar.gz", **where)


def test_a_file_that_somebody_laid_where_a_backup_is_made_is_not_written_into(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """FILE is replaced, not written over: who has the old one open reads nothing of the new."""
    small(redis_server)
    file = tmp_path / "b.tar.gz"
    file.write_bytes(b"old")
    file.chmod(0o666)
    with file.open("rb") as spy:
        done("backup", file, "--force", **at(redis_server, tmp_path))
        assert spy.read() == b"old" and file.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_keys_are_told_by_what_they_are_and_not_by_their_names(redis_server: RedisServer, tmp_path: Path) -> None:
    small(redis_server)
    store = client(redis_server)
    store.hset(P + "evidence", "case_1", "k1.AAAA")
    file = tmp_path / "b.tar.gz"
    said = done("backup", file, **at(redis_server, tmp_path, SECRET_KEY=f"k2:{OTHER_SECRET},k1:{SECRET}"))
    assert "k1" in said
    store.flushall()
    for spec, named in (
        (f"k2:{OTHER_SECRET}", "缺少密钥 k1"),
        (f"k2:{SECRET},k1:{SECRET}", "密钥 k2"),
        (f"k3:{SECRET}", "封印"),
    ):
        refused = sluice("restore", file, **at(redis_server, tmp_path, SECRET_KEY=spec))
        assert refused.returncode == 2 and named in refused.stderr, refused.stderr
        assert SECRET not in refused.stderr and not store.keys("*")
    done("restore", file, "--without-keys", **at(redis_server, tmp_path, SECRET_KEY=f"k3:{SECRET}"))
    assert store.hget(P + "evidence", "case_1") == "k1.AAAA"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RedisServer, Path]]:
    """A backup, an empty server, a folder."""
    folder = tmp_path_factory.mktemp("good")
    server = RedisServer(redis_binaries()[NAMES[-1]], folder)
    small(server)
    done("backup", folder / "b.tar.gz", **at(server, folder))
    client(server).flushall()
    yield folder / "b.tar.gz", server, folder
    server.kill()


def refused(file: Path, server: RedisServer, folder: Path, named: str) -> None:
    said = sluice("restore", file, **at(server, folder))
    assert said.returncode == 2 and named in said.stderr and "Traceback" not in said.stderr, said.stderr
    assert not client(server).keys("*"), "and nothing was written"


def with_manifest(body: dict[str, bytes], **changed: Any) -> dict[str, bytes]:
    manifest = json.loads(body["manifest.json"]) | changed
    return {"manifest.json": json.dumps(manifest).encode()} | {k: v for k, v in body.items() if k != "manifest.json"}


def sums_of(name: str, body: bytes) -> dict[str, Any]:
    return {name: {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}}


def test_a_file_that_was_changed_is_refused_and_what_is_wrong_is_named(good: tuple[Path, RedisServer, Path]) -> None:
    file, server, folder = good
    body, raw, bad = members(file), file.read_bytes(), folder / "bad.tar.gz"

    bad.write_bytes(raw[: len(raw) // 2])
    refused(bad, server, folder, "文件损坏或不完整")
    bad.write_bytes(b"")
    refused(bad, server, folder, "不是备份文件")
    refused(folder / "nowhere.tar.gz", server, folder, "文件不存在")
    for missing in ("manifest.json", "store.jsonl"):
        refused(
            packed(bad, {k: v for k, v in body.items() if k != missing}),
            server,
            folder,
            f"{missing}: is missing".replace("manifest.json: is", "manifest.json is"),
        )
    for name in (
        "../../escaped",
        "/etc/escaped",
        "store.jsonl/../x",
        "journal/../../escaped.jsonl",
        "unlabelled/.x.jsonl",
        "dump.rdb",
    ):
        refused(packed(bad, {**body, name: b"x"}), server, folder, repr(name))
    refused(
        packed(bad, {**body, "journal/a.jsonl": b""}, types={"journal/a.jsonl": tarfile.SYMTYPE}),
        server,
        folder,
        "'journal/a.jsonl'",
    )
    refused(
        packed(bad, {**body, "journal/a.jsonl": b"x"}), server, folder, "journal/a.jsonl: is not as the manifest says"
    )
    changed = body["store.jsonl"].replace(b"case_7", b"case_x")
    refused(
        packed(bad, {**body, "store.jsonl": body["store.jsonl"][:-1] + b" "}),
        server,
        folder,
        "store.jsonl: was changed",
    )
    # Whoever can make sums cannot make the seal.

    sums = sums_of("store.jsonl", changed)
    refused(packed(bad, with_manifest({**body, "store.jsonl": changed}, members=sums)), server, folder, "封印不符")
    stripped = with_manifest(body)
    stripped["manifest.json"] = json.dumps(
        {k: v for k, v in json.loads(stripped["manifest.json"]).items() if k != "seal"}
    ).encode()
    refused(packed(bad, stripped), server, folder, "its seal is missing")
    refused(packed(bad, with_manifest(body, format=2)), server, folder, "is of format 2, this Sluice knows 1")
    refused(packed(bad, with_manifest(body, schema="2")), server, folder, "is of schema '2', this Sluice knows 1")
    refused(packed(bad, with_manifest(body, deployment="other")), server, folder, "SLUICE_DEPLOYMENT")
    refused(packed(bad, {**body, "manifest.json": b"[]"}), server, folder, "manifest.json cannot be read")


@pytest.mark.parametrize("behind", ["nothing", "manifest.json", "everything"])
def test_a_file_that_unpacks_to_far_more_than_it_says_is_refused_and_takes_no_memory(
    good: tuple[Path, RedisServer, Path], behind: str
) -> None:
    file, server, folder = good
    body, zeros, bomb = members(file), bytes(200 << 20), folder / "bomb.tar.gz"
    named = {"nothing": "manifest.json is missing", "manifest.json": "no member", "everything": "unpacks to more than"}
    if behind == "everything":
        packed(bomb, body)
        bomb.write_bytes(bomb.read_bytes() + gzip.compress(zeros))
    else:
        # A PAX header says how long the next name is, and is read as a whole.
        first = {} if behind == "nothing" else with_manifest(body, members=sums_of("store.jsonl", zeros))
        packed(bomb, {k: v for k, v in first.items() if k == behind} | {"long": zeros}, types={"long": tarfile.XHDTYPE})
    assert bomb.stat().st_size < 1 << 20
    del zeros
    refused(bomb, server, folder, named[behind])
    (out := folder / secrets.token_hex(8)).mkdir()
    tracemalloc.start()
    try:
        with pytest.raises(BackupError):
            unpack(bomb, out)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def untrusted(file: Path, server: RedisServer, folder: Path) -> Any:
    """What is in FILE, looked at as `restore --without-keys` does, which asks for no seal."""
    conf = configured({f"SLUICE_{k}": v for k, v in at(server, folder, SECRET_KEY=f"other:{OTHER_SECRET}").items()})
    (out := folder / secrets.token_hex(8)).mkdir()
    return looked(file, out, conf, without_keys=True)


def line(**of: Any) -> bytes:
    return json.dumps({"name": "x", "type": "string", "value": "y"} | of).encode() + b"\n"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000 + b"\n",
        line(value="\ud800"),
        line(name="entries:version", value="9" * 5000),
        line(name="audit", type="list", value=["not JSON"]) + line(name="audit:head", value="1 0"),
        line(name="audit", type="list", value=["[]"]) + line(name="audit:head", value="1 0"),
        b'{"name":"x","type":"string","value":"y","at":1e400}\n',
    ],
    ids=["deep", "half a character", "a long number", "no row", "a list for a row", "no time"],
)
def test_lines_that_are_none_are_refused_without_keys_too(good: tuple[Path, RedisServer, Path], body: bytes) -> None:
    file, server, folder = good
    found = with_manifest(
        {**members(file), "store.jsonl": body}, members=sums_of("store.jsonl", body), audit_head="1 0"
    )
    with pytest.raises(BackupError, match=r"cannot be read|not whole at row 1"):
        untrusted(packed(folder / "bad.tar.gz", found), server, folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"audit_head": None}, {"seal": "k1.é"}, {"keys": {"k1": "é"}}, {"kids": ["\x1b[2J"]}, {"kids": [{}]}, {"format": float("inf")},
        {"counts": {"\x1b[2J": {"keys": 1, "values": 1}}}, {"counts": {"x": 5}}, {"at": "\ud800"},
        {"members": {"\x1b[2J": {"size": 0, "sha256": "0" * 64}}},
        *({"members": {"store.jsonl": {"size": size, "sha256": "0" * 64}}} for size in ("5", float("inf"), True, -1)),
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused_without_keys_too(
    good: tuple[Path, RedisServer, Path], changed: dict[str, Any]
) -> None:
    file, server, folder = good
    with pytest.raises(BackupError, match=r"manifest.json cannot be read"):
        untrusted(packed(folder / "bad.tar.gz", with_manifest(members(file), **changed)), server, folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(["schema", "deployment", "store_id", "at", "audit_head", "counts", "kids", "keys", "members", "seal"]),
       value=json_values)  # fmt: skip
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_manifest_says_it_is_taken_or_refused(
    good: tuple[Path, RedisServer, Path], name: str, value: Any
) -> None:
    file, server, folder = good
    with suppress(BackupError):
        untrusted(packed(folder / "bad.tar.gz", with_manifest(members(file), **{name: value})), server, folder)


def test_what_is_no_file_is_told_from_one_that_is_damaged(good: tuple[Path, RedisServer, Path]) -> None:
    _, server, folder = good
    (folder / "folder.tar.gz").mkdir()
    refused(folder / "folder.tar.gz", server, folder, "Is a directory")


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_flipped_bit_anywhere_is_found(good: tuple[Path, RedisServer, Path], where: float, bit: int) -> None:
    file, _, folder = good
    raw = bytearray(file.read_bytes())
    place = int(where * len(raw))
    if place in (8, 9):  # of the gzip header, which say on what machine and how well it was packed
        return
    raw[place] ^= 1 << bit
    bad, out = folder / "flipped.tar.gz", folder / secrets.token_hex(8)
    bad.write_bytes(raw)
    out.mkdir()
    with pytest.raises(BackupError):
        unpack(bad, out)


def test_two_backups_at_once_and_one_that_was_killed(redis_server: RedisServer, tmp_path: Path) -> None:
    small(redis_server)
    store = client(redis_server)
    store.rpush(P + "backup:log", "somebody else's")
    store.pexpire(P + "backup:log", 60_000)
    busy = sluice("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    assert busy.returncode == 2 and "another backup" in busy.stderr
    store.pexpire(P + "backup:log", 1)
    wait_for(lambda: not store.exists(P + "backup:log"), 5)
    done("backup", tmp_path / "b.tar.gz", **at(redis_server, tmp_path))
    assert not store.exists(P + "backup:log") and not list(tmp_path.glob(".sluice-*"))


def test_a_backup_that_was_silent_for_too_long_leaves_the_log_of_the_next_alone(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    small(redis_server)
    client(redis_server).hset(P + "runs", mapping={f"case_{n}": "r" * 2000 for n in range(20_000)})

    async def run() -> None:
        store = Store(redis_server.url, "default")
        first = asyncio.create_task(cut(store, tmp_path / "store.jsonl"))
        while not await store.run("EXISTS", store.key("backup:log")):
            await asyncio.sleep(0.001)
        await store.run("DEL", store.key("backup:log"))
        assert (await store.call("backup_open", ["backup:log", *MARK], ["another", 60_000]))[0] == "open"
        with pytest.raises(BackupError, match="lost its place"):
            await first
        assert await store.run("LINDEX", store.key("backup:log"), 0) == "another"
        await store.close()

    asyncio.run(run())


def test_a_gateway_that_does_not_tell_what_it_writes_is_noticed(redis_server: RedisServer, tmp_path: Path) -> None:
    """One of an older version, whose scripts know of no backup."""
    small(redis_server)
    store = client(redis_server)
    store.hset(P + "runs", mapping={f"case_{n}": "r" * 2000 for n in range(60_000)})
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "backup", str(tmp_path / "b.tar.gz")], env=environment(**at(redis_server, tmp_path)),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: bool(store.exists(P + "backup:log")), 20)
    store.incr(P + "entries:version")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "older version" in said and not (tmp_path / "b.tar.gz").exists()


@pytest.mark.parametrize("kills", [8, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
def test_a_restore_that_is_killed_leaves_the_old_or_the_new(
    redis_server: RedisServer, tmp_path: Path, kills: int
) -> None:
    small(redis_server)
    store, where = client(redis_server), at(redis_server, tmp_path)
    new = {k: v for k, v in keyed(redis_server, "audit").items() if not k.endswith(":version")}
    done("backup", tmp_path / "new.tar.gz", **where)
    store.flushall()
    small(redis_server, rows=3)
    store.hset(P + "cases", "case_old", "1 {}")
    began = time.monotonic()
    done("restore", tmp_path / "new.tar.gz", "--replace", **where)
    took = time.monotonic() - began
    outcomes = {"old": 0, "new": 0}
    for _ in range(kills):
        store.flushall()
        small(redis_server, rows=3)
        store.hset(P + "cases", "case_old", "1 {}")
        old = keyed(redis_server, "restore", "backup")
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "restore", str(tmp_path / "new.tar.gz"), "--replace"], env=environment(**where),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(random.uniform(took * 0.5, took))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.05)
        found = keyed(redis_server, "restore", "backup")
        if found == old:
            outcomes["old"] += 1
            left = list(store.scan_iter(P + "restore:*"))
            assert all(store.pttl(key) > 0 for key in left), "what is left goes by itself"
        else:
            outcomes["new"] += 1
            rest = {k: v for k, v in found.items() if not k.startswith(P + "audit") and not k.endswith(":version")}
            assert rest == new
            assert json.loads(store.lindex(P + "audit", -1))["what"] == "restore"
    print(outcomes)
    assert sum(outcomes.values()) == kills
    store.delete(P + "backup:log")  # of the backup that a killed one had begun: gone by itself a minute later
    done("restore", tmp_path / "new.tar.gz", "--replace", **where)
    assert not list(store.scan_iter(P + "restore:*")), "and the next one takes it away"
