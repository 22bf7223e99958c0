"""Reports and decisions while the store breaks (F1 to F9 of the fault matrix): what was acknowledged is there, once; nobody sees a 500 or
waits for more than two seconds; chats notice nothing, and what was confirmed stays blocked.

The gateway is a real `sluice serve`, the store a real redis-server behind a proxy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from tests.conftest import Model, RedisServer, Whole, redis_binaries, wait_for, whole_gateway
from tests.faults.checker import Call, Checker, script
from tests.faults.matrix import within
from tests.faults.proxy import Proxy, proxied
from tests.integration.test_reports import APPS, POLICY, REVIEWERS

NAMES = list(redis_binaries())
COMMIT = b":audit:head"
ENTRY = {"term": "失效转移的短语", "category": "violence", "action": "block", "reason": "test"}


class Place(NamedTuple):
    """A gateway, the proxy before its store, and the store."""

    whole: Whole
    proxy: Proxy
    server: RedisServer

    @property
    def store(self) -> Any:
        return redis.Redis(port=self.server.port, decode_responses=True)


def started(folder: Path, url: str, **more: str) -> dict[str, str]:
    """The settings of a gateway with reviewers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "apps.yaml").write_text(
        APPS.replace("id: default", "id: default, limits: {per_minute: 0, concurrent: 0}")
    )
    settings = {"ADMIN_TOKEN": REVIEWERS, "POLICY": str(folder / "policy.yaml"), "APPS": str(folder / "apps.yaml")}
    return settings | ({"REDIS_URL": url} if url else {}) | more


# The quick suite runs on one server, the newest there is; the long one on all.
@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name == NAMES[-1] else pytest.mark.long) for name in NAMES]
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_model: Model
) -> Iterator[Place]:
    script(shared_model)
    server = RedisServer(redis_binaries()[request.param], tmp_path_factory.mktemp("redis"))
    folder = tmp_path_factory.mktemp("gateway")
    with proxied(server.port) as proxy:
        with whole_gateway(folder, shared_model.url, **started(folder, proxy.url)) as whole:
            yield Place(whole, proxy, server)
    server.kill()


@pytest.fixture
def checker(place: Place) -> Checker:
    checker = Checker(place.whole)
    checker.block()
    return checker


def metric(whole: Whole, name: str) -> float:
    """The value of a metric without labels, or the sum over its labels."""
    lines = httpx.get(whole.ops + "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_f1_the_store_is_killed_and_comes_back(place: Place, checker: Checker, kills: int) -> None:
    assert place.whole.ready()["store"]["durability"] == "strict"
    with checker.load():
        checker.until(20)
        for _ in range(kills):
            place.server.kill()
            wait_for(lambda: metric(place.whole, "sluice_store_up") == 0, within(3))
            assert httpx.get(place.whole.ops + "/readyz").status_code == 200
            time.sleep(0.3)
            place.server.start()
            assert checker.until(1) < within(2)
    assert checker.verify("F1", f"{kills} kills").refused > 0


def test_f2_the_store_is_paused(place: Place, checker: Checker) -> None:
    assert place.server.process is not None
    with checker.load(threads=6):
        checker.until(20)
        os.kill(place.server.process.pid, signal.SIGSTOP)
        try:
            time.sleep(2)
        finally:
            os.kill(place.server.process.pid, signal.SIGCONT)
        assert checker.until(1) < within(2)
    assert checker.verify("F2").refused > 0


@pytest.mark.parametrize("delay", [0.4, pytest.param(0.05, marks=pytest.mark.long)])
def test_f3_the_store_is_slow(place: Place, checker: Checker, delay: float) -> None:
    with checker.load(threads=6):
        checker.until(20)
        place.proxy.delay = delay
        try:
            time.sleep(2)
        finally:
            place.proxy.delay = 0.0
        assert checker.until(1) < within(3)
    checker.verify("F3", f"each reply {delay} s late")


def test_f4_the_reply_is_lost_after_the_store_has_done_it(place: Place, checker: Checker) -> None:
    with checker.load():
        checker.until(20)
        place.proxy.lose(COMMIT, 40)
        wait_for(lambda: place.proxy.left == 0, 10)
        checker.until(10)
    checker.verify("F4")
    assert place.proxy.swallowed == 40


def test_f4_a_report_whose_replies_are_all_lost_is_there_once_and_answered_when_it_is_sent_again(
    place: Place, checker: Checker
) -> None:
    with httpx.Client(timeout=10) as http:
        place.proxy.lose(COMMIT, 2)
        call = checker.report(http)
        assert not call.acked and checker.refused == 1, "sent twice, and both replies lost"
        checker.send(call, http)
        assert call.acked
    checker.verify("F4", "one report, both replies lost")


def test_f5_the_store_is_full(place: Place, checker: Checker) -> None:
    with checker.load():
        checker.until(20)
        refused = checker.refused
        place.store.config_set("maxmemory", "1mb")
        try:
            wait_for(lambda: checker.refused > refused + 5, 5)
            known = next(c for c in checker.reports if c.answer is not None)
            assert known.answer is not None
            assert checker.desk.state(known.answer) in ("unverified", "confirmed", "rejected")
            assert checker.desk.admin("GET", f"/cases/{known.answer['ticket']}").status_code == 200
            acked = checker.acks()
            time.sleep(0.5)
            assert checker.acks() == acked, "nothing can be taken now"
        finally:
            place.store.config_set("maxmemory", "0")
        assert checker.until(1) < within(2)
    assert checker.verify("F5").refused > 0


@pytest.mark.long
def test_f6_the_disk_of_the_store_is_full(shared_model: Model, tmp_path: Path) -> None:
    """The embedded store, which its gateway starts anew; with appendfsync always Redis ends itself when it cannot write."""
    script(shared_model)
    folder = tmp_path / "gateway"
    disk = folder / "data" / "store"
    disk.mkdir(mode=0o700, parents=True)
    disk.parent.chmod(0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "sluice", str(disk)])
    if mounted.returncode:
        pytest.fail("a full disk needs a disk of its own: run as root, in a container with --cap-add SYS_ADMIN")
    try:
        with whole_gateway(folder, shared_model.url, **started(folder, "")) as whole:
            checker = Checker(whole)
            checker.block()
            with checker.load():
                checker.until(20)
                for _ in range(2):
                    refused = checker.refused
                    with (disk / "ballast").open("wb", buffering=0) as ballast:
                        with contextlib.suppress(OSError):
                            while ballast.write(bytes(4096)):
                                pass
                    wait_for(lambda: checker.refused > refused + 5, 15)  # noqa: B023
                    time.sleep(1)
                    assert httpx.get(whole.ops + "/readyz").status_code == 200
                    (disk / "ballast").unlink()
                    # The store comes back with back-off.
                    checker.until(10, 20)
            assert checker.verify("F6").refused > 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.long
def test_f7_the_primary_is_lost_and_a_replica_takes_over(shared_model: Model, tmp_path: Path) -> None:
    """SLUICE_REDIS_REPLICAS=1: what was acknowledged is on the replica, also where that lagged, and nothing is acknowledged without one."""
    script(shared_model)
    servers = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        servers.append(RedisServer(list(redis_binaries().values())[-1], tmp_path / name))
    second, third = (redis.Redis(port=s.port, decode_responses=True) for s in servers[1:])
    second.replicaof("127.0.0.1", servers[0].port)
    wait_for(lambda: second.info("replication")["master_link_status"] == "up", 10)
    with proxied(servers[0].port) as proxy:
        settings = started(tmp_path / "gateway", proxy.url, REDIS_REPLICAS="1")
        with whole_gateway(tmp_path / "gateway", shared_model.url, **settings) as whole:
            checker = Checker(whole)
            checker.block()
            assert servers[1].process is not None
            made: list[Any] = []
            with httpx.Client(timeout=10) as http:
                tickets = [c.answer["ticket"] for c in [checker.report(http) for _ in range(3)][1:] if c.answer]
                checker._undecided.clear()
                # Written or not, a decision is not acknowledged while the replica hangs, and not when it is sent again either.
                for ticket, replica in zip(tickets, ("there", "hangs"), strict=True):
                    decision = Call(ticket, {"decision": "reject", "reason": "checked"}, ticket)
                    checker.decisions.append(decision)
                    if replica == "hangs":
                        os.kill(servers[1].process.pid, signal.SIGSTOP)
                    for _ in range(2):
                        checker.send(decision, http)
                        assert decision.acked == (replica == "there")
                os.kill(servers[1].process.pid, signal.SIGCONT)
            with checker.load():
                checker.until(20)
                made.append(
                    checker.desk.admin("POST", "/entries", json=ENTRY, headers={"Idempotency-Key": "on both"}).json()
                )
                # The replica hangs: nothing is acknowledged, though the primary has it, and not when it is sent again either.
                os.kill(servers[1].process.pid, signal.SIGSTOP)
                time.sleep(0.5)
                acked, decided = checker.acks(), sum(c.acked for c in checker.decisions)
                late = checker.desk.admin(
                    "POST", "/entries", json=ENTRY | {"term": "只在主库"}, headers={"Idempotency-Key": "late"}
                )
                assert late.status_code == 503
                time.sleep(1.5)
                assert (checker.acks(), sum(c.acked for c in checker.decisions)) == (acked, decided)
                # The primary dies with what only it had.
                servers[0].kill()
                os.kill(servers[1].process.pid, signal.SIGCONT)
                second.replicaof("NO", "ONE")
                third.replicaof("127.0.0.1", servers[1].port)
                proxy.to(servers[1].port)
                checker.until(10)
            checker.verify("F7")
            entries = {e["id"] for e in checker.desk.admin("GET", "/entries?limit=1000").json()["entries"]}
            assert {e["id"] for e in made} <= entries
    for server in servers:
        server.kill()


def test_f8_scripts_are_forgotten_and_the_store_refuses_for_reasons_of_its_own(place: Place, checker: Checker) -> None:
    store = place.store
    with checker.load():
        checker.until(10)
        for _ in range(10):
            store.script_flush()
            time.sleep(0.05)
        checker.until(3)
        # READONLY: it has become the replica of something.
        store.replicaof("127.0.0.1", 1)
        time.sleep(0.5)
        store.replicaof("NO", "ONE")
        checker.until(3)
        # MASTERDOWN: and it does not even answer reads.
        store.config_set("replica-serve-stale-data", "no")
        store.replicaof("127.0.0.1", 1)
        time.sleep(0.5)
        store.replicaof("NO", "ONE")
        store.config_set("replica-serve-stale-data", "yes")
        checker.until(3)
        # NOREPLICAS: the operator wants replicas, and there are none.
        store.config_set("min-replicas-to-write", "1")
        time.sleep(0.5)
        store.config_set("min-replicas-to-write", "0")
        checker.until(3)
    assert checker.verify("F8", "replica, no primary, too few replicas, scripts forgotten").refused > 0


@pytest.mark.long
def test_f8_the_store_is_still_loading_or_cannot_save(place: Place, checker: Checker) -> None:
    store = place.store
    store.set("ballast", "x" * 4_000_000)
    for _ in range(20):
        store.rpush("ballasts", *(os.urandom(8).hex() * 20 for _ in range(400)))
    with checker.load():
        checker.until(20)
        place.server.kill()
        place.server.options = (*place.server.options, "--key-load-delay", "300")
        try:
            place.server.start()
        finally:
            place.server.options = place.server.options[:-2]
        checker.until(10)
        # MISCONF: the last snapshot could not be written, so nothing may change. Where it would stand lies a folder.
        (place.server.folder / "dump.rdb").mkdir()
        store.config_set("save", "3600 1000000")
        try:
            store.bgsave()
            wait_for(lambda: store.info("persistence")["rdb_last_bgsave_status"] == "err", 5)
            refused = checker.refused
            wait_for(lambda: checker.refused > refused + 3, 5)
        finally:
            store.config_set("save", "")
            (place.server.folder / "dump.rdb").rmdir()
        checker.until(10)
    store.delete("ballast", "ballasts")
    assert checker.verify("F8", "loading, and MISCONF").refused > 0


def test_f9_another_redis_answers_at_the_port(place: Place, checker: Checker, tmp_path: Path) -> None:
    empty = RedisServer(place.server.binary, tmp_path)
    wait_for(lambda: place.whole.ready()["workers"][0]["entries"] > 0, 5)  # a worker tells its state twice a second
    before = place.whole.ready()["workers"][0]
    try:
        with checker.load():
            checker.until(20)
            place.proxy.to(empty.port)
            wait_for(lambda: bool(place.whole.ready()["store"]["foreign"]), 5)
            acked, refused = checker.acks(), checker.refused
            time.sleep(1)
            assert checker.acks() == acked and checker.refused > refused
            now = place.whole.ready()["workers"][0]
            assert now["entries"] >= before["entries"] > 0, "the list has shrunk"
            keys = redis.Redis(port=empty.port, decode_responses=True).keys("*")
            assert not [k for k in keys if k.endswith((":cases", ":tickets", ":audit", ":store_id"))], keys
            place.proxy.to(place.server.port)
            checker.until(10)
        checker.verify("F9")
    finally:
        place.proxy.to(place.server.port)
        empty.kill()
