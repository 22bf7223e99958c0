"""The review queue on a real store: its order is the documented one whatever happened before, a store of an older Sluice gets its indexes,
cases that are alike are found, and reviewers neither work on one case nor decide it twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from app import clock, deadlines, remediation
from app.apps import App
from app.claims import LEASE, Claims
from app.clean import Clean
from app.errors import RequestError, StoreError
from app.keys import Keys
from app.likeness import bands
from app.passages import compact
from app.remediation import UNDECIDED, Case
from app.reports import Report, Sender
from app.review import PAGE, Review, shown
from app.store.cases import MOST, Writes
from app.store.client import ended
from app.store.queue import GENERATION, Queue
from app.store.tables import Shadows
from app.taxonomy import taxonomy
from app.text import fold
from tests.conftest import SECRET, RedisServer
from tests.integration.test_duties import DAY, House, house
from tests.integration.test_reports import PASSAGE

P = "{sluice:duties}:"
BUILT = ("indexed", "queue", "reporter", "shared", "like", "over", "state:*")
CATEGORIES = ["sexual_minors", "violence", "ip_infringement", "discrimination_age", "other_prohibited"]


def story(run: Callable[[House], Awaitable[None]], server: RedisServer, folder: Path) -> None:
    async def whole() -> None:
        async with house(server, folder) as h:
            await run(h)

    asyncio.run(whole())


def case(n: int, *reporters: str, state: Any = "verified", category: str = "violence", **more: Any) -> Case:
    received = more.pop("received", 1_800_000_000.0 + n)
    return Case(
        f"case_{n:020x}", "default", category, state, received, more.pop("due", received + 90 * DAY), "test",
        reporters=reporters, **more,
    )  # fmt: skip


async def put(h: House, *changes: tuple[Case | None, Case]) -> None:
    writes = Writes()
    for before, after in changes:
        writes.case(before, after)
    assert await h.cases.put(writes)


async def listed(h: House) -> list[str]:
    """The ids of all pages."""
    first = await h.review.queue()
    found = [c["id"] for c in first["cases"]]
    for page in range(2, first["pages"] + 1):
        found += [c["id"] for c in (await h.review.queue(page=page))["cases"]]
    assert len(found) == first["total"]
    return found


def power(n: int) -> int:
    return min(MOST, n.bit_length() - 1) if n else 0


class Model:
    """What the queue should be, by the words of docs/reports.md and nothing else."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.noted: dict[str, int] = {}
        """Of a case of several reporters, where it stood among them when it was last written."""

    def waiting(self, who: str) -> int:
        return sum(who in c.reporters and c.state in UNDECIDED for c in self.cases.values())

    def write(self, case: Case) -> None:
        self.cases[case.id] = case
        if len(case.reporters) > 1:
            self.noted[case.id] = min(power(self.waiting(r)) for r in case.reporters)

    def place(self, case: Case, end: float) -> tuple[Any, ...]:
        if case.state in UNDECIDED:
            n = MOST + 1 if not case.reporters else self.noted.get(case.id, 0)
            if len(case.reporters) == 1:
                n = power(self.waiting(case.reporters[0]))
            return (1, n, -taxonomy()[case.category].harm, case.received, case.id)
        return (0 if case.due <= end else 2, case.due, case.id)

    def order(self) -> list[str]:
        end = deadlines.day_end(clock.now(), 14)
        open_ = [c for c in self.cases.values() if c.state in UNDECIDED | remediation.DUTY]
        return [c.id for c in sorted(open_, key=lambda c: self.place(c, end))]


# ---- the order


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happened_the_pages_are_all_open_cases_sorted_by_the_documented_key(
    seed: int, redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(h: House) -> None:
        draw, model = random.Random(seed), Model()
        await h.review.lanes()
        names = ["0.many"] * 6 + ["0.some"] * 3 + ["0.few", "0.one", "0.one-more"]
        for n in range(260):
            now = clock.now()
            there = [c for c in model.cases.values() if c.state in UNDECIDED]
            what = draw.choice(["new"] * 6 + ["join", "confirm", "reject", "undo", "forget"]) if there else "new"
            if what == "new":
                who = (draw.choice(names),) if draw.random() < 0.85 else ()
                came = round(now - draw.random() * 100 * DAY, 3)
                due = deadlines.due(came, 3).at
                before, after = None, case(n, *who, category=draw.choice(CATEGORIES), received=came, due=due)
            else:
                before = draw.choice(there)
                if what == "undo":
                    decided = [c for c in model.cases.values() if c.state in ("confirmed", "rejected")]
                    before = draw.choice(decided) if decided else before
                    after = replace(before, state="verified", decided=None)
                elif what == "join":
                    after = replace(before, reporters=tuple(dict.fromkeys((*before.reporters, draw.choice(names)))))
                elif what == "forget":
                    after = remediation.unnamed(before, before.reporters[:1])
                else:
                    after = replace(before, state="confirmed" if what == "confirm" else "rejected", decided=now)
            await put(h, (before, after))
            written = replace(after, version=after.version + 1)
            if before is None or (before.reporters, before.state) != (after.reporters, after.state):
                model.write(written)
            else:
                model.cases[written.id] = written
            if n % 20 == 19:
                assert await listed(h) == model.order(), what
        assert await listed(h) == model.order()
        store = redis.Redis(port=redis_server.port, decode_responses=True)
        waiting = {f"{r}|{c.id}" for c in model.cases.values() if c.state in UNDECIDED for r in c.reporters}
        assert set(store.zrange(P + "cases:reporter", 0, -1)) == waiting, "and nobody else's name stays"  # type: ignore[arg-type]
        for state in {c.state for c in model.cases.values()}:
            found = await h.review.queue(state)
            assert found["total"] == sum(c.state == state for c in model.cases.values())

    story(run, redis_server, tmp_path)


def test_who_reports_once_stands_before_who_reports_by_the_thousand_however_late_he_comes(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(h: House) -> None:
        flood = [case(n, "0.flood", category="sexual_minors") for n in range(1500)]
        for at in range(0, len(flood), 100):
            await put(h, *((None, c) for c in flood[at : at + 100]))
        await put(h, *((None, case(5000 + n, category="sexual_minors")) for n in range(60)))  # anonymous
        honest = case(9000, "0.honest", category="other_prohibited")
        await put(h, (None, honest))
        found = await listed(h)
        assert found[0] == honest.id
        assert found[1:1501] == [c.id for c in flood], "all of one reporter: by age"
        assert found[1501] == case(5000).id, "and nobody known behind those that are"
        # Beyond so many all the same: what one commit moves has an end.
        store = redis.Redis(port=redis_server.port)
        assert {int(score // 1e11) for _, score in store.zrange(P + "cases:queue", 0, -1, withscores=True)} == {
            0,
            MOST,
            MOST + 1,
        }
        # Decided down to a few, the flood's rest stands where a reporter of a few stands.
        for at in range(0, 1498, 100):
            await put(
                h,
                *(
                    (replace(c, version=1), replace(c, version=1, state="rejected"))
                    for c in flood[at : min(at + 100, 1498)]
                ),
            )
        assert {int(store.zscore(P + "cases:queue", c.id) // 1e11) for c in flood[1498:]} == {1}  # type: ignore[operator, arg-type]

    story(run, redis_server, tmp_path)


def test_a_case_is_overdue_soon_or_due_in_its_lane_and_a_walk_goes_on_where_it_stopped(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(h: House) -> None:
        now = clock.now()
        due = [-3.0, -1.0, 2.0, 13.0, 30.0, 60.0]
        for n, days in enumerate(due):
            await put(h, (None, case(n, state="confirmed", due=deadlines.day_end(now, int(days)), received=now)))
        for n in range(10, 35):
            await put(h, (None, case(n, "0.a", category=CATEGORIES[n % 2])))
        for n in range(50, 54):
            await put(h, (None, case(n, state="rejected", decided=now - n)))
        await put(h, (None, case(60, state="excepted", ended=now)))
        assert await h.review.lanes() == {"overdue": 2, "soon": 2, "undecided": 25, "duty": 6, "decided": 5}

        async def walked(lane: Any, **more: Any) -> list[int]:
            found, start = list[Case](), 0
            while True:
                page, after = await h.review.walk(lane, start, **more)
                found += page
                if after is None:
                    return [int(c.id[5:], 16) for c in found]
                assert after > start
                start = after

        assert await walked("overdue") == [0, 1] and await walked("soon") == [2, 3]
        assert await walked("duty", most=4) == [0, 1, 2, 3, 4, 5]
        assert await walked("decided", most=2) == [60, 50, 51, 52, 53], "the newest first"
        every = await walked("undecided")
        assert sorted(every) == list(range(10, 35))
        violent = await walked("undecided", keep=lambda c: c.category == "violence", most=3, scan=5)
        assert violent == [n for n in every if n % 2]
        page, after = await h.review.walk("undecided", keep=lambda c: False, scan=7)
        assert (page, after) == ([], 7), "so many looked at, and no more"
        assert (await h.review.queue())["total"] == 31
        assert [c["id"] for c in (await h.review.queue("rejected"))["cases"]] == [case(n).id for n in range(50, 54)]
        assert (await h.review.queue("nonsense"))["total"] == 0

    story(run, redis_server, tmp_path)


# ---- stores of an older Sluice


def older(server: RedisServer) -> redis.Redis:
    """The store as a Sluice would have left it that knew no such indexes."""
    store = redis.Redis(port=server.port, decode_responses=True)
    for name in BUILT:
        for key in store.scan_iter(P.replace("{", "\\{") + f"cases:{name}"):
            store.delete(key)
    return store


def indexes(store: redis.Redis) -> dict[str, Any]:
    return {
        str(key): store.zrange(key, 0, -1, withscores=True)
        for name in BUILT[1:] for key in store.scan_iter(P + f"cases:{name}")
    }  # fmt: skip


async def filled(h: House) -> None:
    for n in range(230):
        await put(
            h, (None, case(n, *(("0.a",) if n % 3 else ()), category=CATEGORIES[n % 5], like=("aa", f"b{n % 7}")))
        )
    for n in range(0, 230, 9):
        c = replace(
            case(n, *(("0.a",) if n % 3 else ()), category=CATEGORIES[n % 5], like=("aa", f"b{n % 7}")), version=1
        )
        await put(h, (c, replace(c, state="confirmed" if n % 2 else "rejected", decided=clock.now())))


def test_a_store_without_the_indexes_gets_them_at_the_first_look(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run(h: House) -> None:
        await filled(h)
        await h.review.lanes()  # of a fresh store too they are built once
        store = redis.Redis(port=redis_server.port, decode_responses=True)
        order, were, lanes = await listed(h), indexes(store), await h.review.lanes()
        older(redis_server)
        assert (await listed(h), await h.review.lanes(), indexes(store)) == (order, lanes, were)
        # By the sweep as well, where nobody looks; and nothing where they are there.
        older(redis_server)
        await h.duties.sweep()
        assert indexes(store) == were
        before = store.info("stats")["total_error_replies"], len(store.keys())
        await h.duties.sweep()
        assert (store.info("stats")["total_error_replies"], len(store.keys())) == before
        versions = {raw.split(" ")[0] for raw in store.hvals(P + "cases")}
        assert versions == {"1", "2"}, "no case was changed by it"
        assert await h.audit() == []

    story(run, redis_server, tmp_path)


def test_the_building_may_be_broken_off_and_done_again_while_cases_come_and_go(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.queue._PAGE", 1)

    async def run(h: House) -> None:
        await filled(h)
        store = older(redis_server)
        building: asyncio.Task[None] = asyncio.create_task(Queue(h.cases).mend())
        while not store.exists(P + "cases:queue"):
            await asyncio.sleep(0.001)
        broken_off = not building.done()
        await ended(building)
        if broken_off:
            assert not store.hget(P + "cases:indexed", "generation"), "what is not whole is not said to be"

        async def busy() -> None:
            for n in range(300, 360):
                await put(h, (None, case(n, "0.b")))
            for n in range(300, 340):
                await put(
                    h,
                    (
                        replace(case(n, "0.b"), version=1),
                        replace(case(n, "0.b"), version=1, state="rejected", decided=1.0),
                    ),
                )

        await asyncio.gather(busy(), Queue(h.cases).mend(), Queue(h.cases).mend(), h.review.lanes())
        kept = [c for c in await h.cases.several(await h.cases.index("all")) if c.state in UNDECIDED]
        assert set(store.zrange(P + "cases:queue", 0, -1)) == {c.id for c in kept}  # type: ignore[arg-type]
        assert set(store.zrange(P + "cases:reporter", 0, -1)) == {f"{r}|{c.id}" for c in kept for r in c.reporters}  # type: ignore[arg-type]
        assert store.hget(P + "cases:indexed", "generation") == GENERATION and not store.exists(P + "cases:indexing")

    story(run, redis_server, tmp_path)


def test_while_another_process_builds_them_a_look_waits_and_then_says_so(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.queue.PATIENCE", 0.3)

    async def run(h: House) -> None:
        await filled(h)
        store = older(redis_server)
        store.set(P + "cases:indexing", "another", ex=60)
        with pytest.raises(StoreError, match="put in order"):
            await h.review.queue()
        store.delete(P + "cases:indexing")
        monkeypatch.undo()
        assert (await h.review.queue())["total"] == len(await listed(h))

    story(run, redis_server, tmp_path)


def test_what_an_older_sluice_writes_beside_this_one_is_put_in_order_by_a_sweep(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(h: House) -> None:
        await filled(h)
        await h.review.lanes()
        order = await listed(h)
        store = redis.Redis(port=redis_server.port, decode_responses=True)
        store.zrem(P + "cases:queue", *order[:3])
        store.zrem(P + "cases:reporter", f"0.a|{order[0]}")
        assert len(await listed(h)) == len(order) - 3
        await h.duties.sweep()
        assert await listed(h) == order

    story(run, redis_server, tmp_path)


def test_a_store_that_is_down_gets_its_indexes_when_it_is_back(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run(h: House) -> None:
        await filled(h)
        older(redis_server)
        redis_server.kill()
        with pytest.raises(StoreError):
            await h.duties.sweep()
        with pytest.raises(StoreError):
            await h.review.queue()
        redis_server.start()
        await h.duties.sweep()
        assert len(await listed(h)) == (await h.review.queue())["total"] > 200

    story(run, redis_server, tmp_path)


# ---- alike


def test_passages_nearly_the_same_share_bands_and_others_none() -> None:
    keys = Keys(SECRET)
    dense = compact(fold(PASSAGE))
    mine = bands(keys, "default", dense)
    assert len(set(mine)) == 8
    assert len({*mine} & {*bands(keys, "default", dense.replace("蓝色", "绿色"))}) >= 3
    assert bands(keys, "default", dense) == mine
    for other in (
        bands(keys, "another", dense),
        bands(Keys("k2:" + "z" * 40), "default", dense),
        bands(keys, "default", dense[::-1]),
    ):
        assert not {*mine} & {*other}, "of another app, under another key, of another text"
    assert bands(keys, "default", dense[:19]) == () != bands(keys, "default", dense[:20])
    assert len(bands(keys, "default", "哈" * 30)) == 8, "a text of one letter has them too"


def test_similar_cases_are_the_undecided_ones_of_the_app_the_nearest_first(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def run(h: House) -> None:
        first = await h.report()
        near = await h.report(PASSAGE.replace("蓝色", "绿色"))
        far = await h.report(PASSAGE[:30] + "，然后大家一起坐下来吃晚饭，吃完再慢慢走回家去，路上什么也没有发生过。")
        none = await h.report("今天的河面很静，也没有什么大风，适合慢慢散步，也适合坐下来读一本旧书。")
        kept = await h.report(PASSAGE.replace("红色", "白色"), category="sexual_minors")
        elsewhere = Sender(App("other", "default"), "", (), "here")
        await h.reports.receive(Report(PASSAGE.replace("夜班", "早班")), elsewhere)
        found = await h.review.similar(first)
        assert found[0][0].id == near.id and none.id not in {c.id for c, _ in found}
        assert {c.id for c, _ in found} <= {near.id, far.id}
        assert [n for _, n in found] == sorted((n for _, n in found), reverse=True) and found[0][1] >= 3
        assert kept.like == () and await h.review.similar(kept) == [], "nothing of what keeps nothing"
        assert "like" not in shown(first, clock.now())
        assert len(await h.review.similar(first, most=1)) == 1
        await h.review.decide(near.id, "reject", "anna", {"reason": "r"})
        assert near.id not in {c.id for c, _ in await h.review.similar(first)}
        await h.review.decide(near.id, "undo", "anna", {"reason": "r"})
        assert near.id in {c.id for c, _ in await h.review.similar(first)}
        await h.review.decide(near.id, "confirm", "anna", {"reason": "r", "category": "sexual_minors"})
        assert (await h.review.find(near.id)).like == ()

    story(run, redis_server, tmp_path)


# ---- claims, and many at once


def claimed(h: House, folder: Path) -> tuple[Review, Claims]:
    claims = Claims(h.cases)
    shadows = Shadows(h.cases.store, folder, lambda rows, version, whole: None)
    return Review(h.cases, Keys(SECRET), Clean.of([]), shadows, claims), claims


def test_a_claim_is_one_persons_until_it_is_let_go_or_lapses(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run(h: House) -> None:
        review, claims = claimed(h, tmp_path)
        one, two = await h.report(), await h.report(PASSAGE[::-1])
        assert await claims.owners([]) == {}
        assert await claims.take(one.id, "anna") == "anna"
        assert await claims.take(one.id, "bert") == "anna"
        store = redis.Redis(port=redis_server.port, decode_responses=True)
        store.expire(P + f"claim:{one.id}", 5)
        assert await claims.take(one.id, "anna") == "anna"
        assert store.ttl(P + f"claim:{one.id}") > LEASE - 5, "looked at again, it is renewed"  # type: ignore[operator]
        await claims.release(one.id, "bert")
        assert await claims.owners([one.id, two.id]) == {one.id: "anna"}
        with pytest.raises(RequestError) as e:
            await review.decide(one.id, "reject", "bert", {"reason": "r"})
        assert (e.value.code, e.value.status) == ("claimed", 409)
        assert "anna" not in e.value.message and "until 20" in e.value.message
        await review.decide(one.id, "reject", "anna", {"reason": "r"})
        assert await claims.owners([one.id]) == {}, "decided, it is free"
        await review.decide(two.id, "reject", "bert", {"reason": "r"})
        await claims.take(two.id, "anna")
        await claims.release(two.id, "anna")
        assert await claims.take(two.id, "bert") == "bert"
        store.pexpire(P + f"claim:{two.id}", 1)
        await asyncio.sleep(0.05)
        assert await claims.held(two.id) is None
        await review.decide(two.id, "undo", "anna", {"reason": "r"})
        assert [(r["who"], r["case"]) for r in await h.audit() if r["what"] == "claim"] == [
            ("anna", one.id), ("anna", two.id), ("bert", two.id),
        ]  # fmt: skip
        with pytest.raises(RequestError, match="no such case"):
            await claims.take("case_none", "anna")

    story(run, redis_server, tmp_path)


def test_of_two_who_take_a_case_at_once_one_gets_it(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run(h: House) -> None:
        one = await h.report()
        takers: list[Coroutine[Any, Any, str]] = [Claims(h.cases).take(one.id, f"r{n}") for n in range(8)]
        assert len(set(await asyncio.gather(*takers))) == 1
        assert sum(r["what"] == "claim" for r in await h.audit()) == 1

    story(run, redis_server, tmp_path)


def test_many_cases_are_decided_each_at_the_version_that_was_seen(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run(h: House) -> None:
        review, claims = claimed(h, tmp_path)
        made = [await h.report(f"{PASSAGE}这是第{n}次，次次不同。") for n in range(5)]
        await review.decide(made[1].id, "reject", "bert", {"reason": "r"})
        await claims.take(made[2].id, "bert")
        seen = {c.id: c.version for c in made} | {"case_none": 1}
        rows = await review.decide_many(seen, "reject", "anna", {"reason": "all the same"})
        assert [r["case"] for r in rows] == list(seen)
        assert [r.get("error") for r in rows] == [None, "conflict", "claimed", None, None, "not_found"]
        assert rows[0] == {"case": made[0].id, "ok": True, "version": made[0].version + 1}
        assert [(await review.find(c.id)).state for c in made] == [
            "rejected",
            "rejected",
            "received",
            "rejected",
            "rejected",
        ]
        assert sum(r["what"] == "reject" for r in await h.audit()) == 4, "each its own row"
        undone = await review.decide(made[0].id, "undo", "anna", {"reason": "r"})
        assert undone["state"] == "received"
        (row,) = await review.decide_many({made[0].id: undone["version"]}, "confirm", "anna", {})
        assert row == {"case": made[0].id, "ok": False, "error": "missing"}
        for given, param in (
            (("widen", {made[0].id: 1}), "decision"),
            (("reject", {str(n): 1 for n in range(PAGE + 1)}), "cases"),
        ):
            with pytest.raises(RequestError) as e:
                await review.decide_many(given[1], given[0], "anna", {"reason": "r"})
            assert e.value.param == param
        redis_server.kill()
        rows = await review.decide_many({c.id: 1 for c in made}, "reject", "anna", {"reason": "r"})
        assert {r["error"] for r in rows} == {"store_unavailable"}

    story(run, redis_server, tmp_path)
