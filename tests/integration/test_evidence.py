"""Evidence for Articles 6, 7, 8 and 14: the change log, data sources, second looks, and whether the service was there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app import changes, clock, evidence, looks, uptime
from app.changes import Changes
from app.errors import StoreError
from app.journal import Journal
from app.modelfile import GramsFile, read
from app.settings import packaged
from app.store.cases import Cases, broken
from app.store.client import Store
from app.store.tables import Entries
from app.uptime import Minutes
from tests.conftest import Model, RedisServer, wait_for, whole_gateway
from tests.integration.test_reports import REVIEWERS, Desk, variant

POLICY = "reports: {second: 1, per_reporter: 1000, per_source: 100000}\nprofile: draft_2023_04\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("gateway")
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    with whole_gateway(folder, shared_model.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(policy)) as whole:
        yield Desk(whole)


def exported(desk: Desk) -> dict[str, Any]:
    return dict(desk.admin("GET", "/evidence").json())


# ---- Article 6


def worker(**more: Any) -> dict[str, Any]:
    """What a worker says of itself."""
    return {
        "ready": True, "profile": "draft_2023_04", "policy": "p1", "lexicon": "l1", "model": "m1", "guard": None,
        "fail_modes": {"*": {"answer": "block"}}, **more,
    }  # fmt: skip


@asynccontextmanager
async def cases(server: RedisServer, folder: Path) -> AsyncIterator[Cases]:
    store = Store(server.url, "evidence")
    entries = Entries(store, folder, lambda rows, version, whole: None)
    try:
        yield Cases(store, entries)
    finally:
        await store.close()


async def log(kept: Cases) -> list[dict[str, Any]]:
    rows = await kept.audit()
    assert broken(rows, await kept.head()) is None
    return changes.listed(map(json.loads, rows))


def test_article_6_a_policy_that_is_changed_is_a_row_of_the_audit_chain_and_a_restart_is_none(
    tmp_path: Path, shared_model: Model
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    settings = {"ADMIN_TOKEN": REVIEWERS, "POLICY": str(policy)}
    with whole_gateway(tmp_path / "gateway", shared_model.url, **settings) as whole:
        desk = Desk(whole)
        wait_for(lambda: len(exported(desk)["articles"]["6"]["changes"]) == 1, 10)
        policy.write_text(f"{POLICY}degraded: {{answer: flag}}\n")
        wait_for(lambda: len(exported(desk)["articles"]["6"]["changes"]) == 2, 10)
    with whole_gateway(tmp_path / "gateway", shared_model.url, **settings) as whole:
        desk = Desk(whole)
        policy.write_text(f"{POLICY}degraded: {{answer: block}}\n# again\n")
        wait_for(lambda: len(exported(desk)["articles"]["6"]["changes"]) == 3, 10)
        found = exported(desk)
        first, second, third = found["articles"]["6"]["changes"]
        assert first["first"] and set(first["changed"]) >= {"gateway", "profile", "policy", "lexicon", "model"}
        assert set(second["changed"]) == {"policy", "fail_modes"} == set(third["changed"])
        assert [c["changed"]["fail_modes"][1]["*"]["answer"] for c in (first, second, third)] == [
            "block",
            "flag",
            "block",
        ]
        assert found["audit"]["chain"] == "whole" and found["audit"]["steps"]["change"] == 3
        assert [m["words"]["*"]["answer"] for m in found["articles"]["14"]["fail_mode_changes"]] == [
            "block",
            "flag",
            "block",
        ]
        assert "第六条" in evidence.html(found)


def test_article_6_of_several_replicas_the_first_writes_and_those_that_are_behind_write_nothing(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with cases(redis_server, tmp_path) as kept:
            now = {"a": [worker()], "b": [worker(), worker()]}
            replicas = {name: Changes(kept, lambda n=name: now[n], None, name) for name in now}  # type: ignore[misc]

            async def looked() -> int:
                for name in ("a", "b", "a", "b"):
                    await replicas[name].look()
                return len(await log(kept))

            assert await looked() == 1
            now["a"] = [worker(model="m2")]
            assert await looked() == 2, "b still has the old one and does not write it down again"
            now["b"] = [worker(model="m2"), worker()]
            assert await looked() == 2, "its workers differ yet"
            now["b"] = [worker(model="m2"), {"ready": False, "reason": "starting"}]
            assert await looked() == 2
            now["b"] = [worker(model="m2"), worker(model="m2")]
            assert await looked() == 2
            now["b"] = [worker(model="m2", guard="g1")]
            replicas["b"] = Changes(kept, lambda: now["b"], "qwen", "b")
            assert await looked() == 3 and (await log(kept))[-1]["changed"] == {"guard": [None, "qwen g1"]}
            # Two that stay different, and each started again.
            for name, guard in (("a", None), ("b", "qwen")) * 2:
                await Changes(kept, lambda n=name: now[n], guard, name).look()  # type: ignore[misc]
            assert len(await log(kept)) == 3

    asyncio.run(story())


def test_article_6_a_change_while_the_store_is_down_is_written_down_afterwards(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        async with cases(redis_server, tmp_path) as kept:
            now = worker()
            one = Changes(kept, lambda: [now], None, "a")
            await one.look()
            redis_server.kill()
            now = worker(policy="p2+shadowed")
            with pytest.raises(StoreError):
                await one.look()
            redis_server.start()
            await one.look()
            found = await log(kept)
            assert [c["changed"].get("policy") for c in found] == [[None, "p1"], ["p1", "p2"]]
            assert changes.since(found, "2000-01-01") and not changes.since(found, "2999-01-01")
            assert not changes.since(found[:1], "2000-01-01"), "what stood when the log began is no change"

    asyncio.run(story())


# ---- Article 7


def test_article_7_every_source_of_the_shipped_classifier_is_named_with_its_licence_and_its_size(desk: Desk) -> None:
    found = exported(desk)["articles"]["7"]
    model = read(packaged("models") / "grams")
    assert isinstance(model, GramsFile) and found["classifier"] == model.version
    assert len(found["sources"]) >= 20 and found["texts"] == sum(s["texts"] for s in found["sources"]) > 100_000
    for source in found["sources"]:
        assert source["name"] and source["licence"] and source["used_for"]
        assert 0 <= source["violating"] <= source["texts"] == source["violating"] + source["harmless"]
    card = (packaged("models") / "grams" / "CARD.md").read_text("utf-8")
    for source in found["sources"]:
        assert f"| {source['texts']:,} | {source['violating']:,} | {source['licence']} |" in card, source["name"]
    assert any("own model" in line for line in exported(desk)["not_shown"])


# ---- Article 8


def test_article_8_a_second_person_looks_without_knowing_the_decision_and_how_often_they_agree_is_shown(
    desk: Desk,
) -> None:
    names = [desk.case(desk.report(text=variant(n), category="violence").json()["ticket"])["id"] for n in range(4)]
    for name, decision in zip(names, ("confirm", "confirm", "reject", "confirm"), strict=True):
        assert desk.decide(name, decision, category="illegal_acts").status_code == 200
    listed = desk.admin("GET", "/cases", "b", params={"second": 1}).json()
    assert {c["case"] for c in listed["cases"]} == set(names) and listed["total"] == 4
    for told in listed["cases"]:
        assert told["category"] == "violence", "as it was reported, not as it was decided"
        assert not {"state", "decision", "decided", "entries", "by"} & set(told)
    same = desk.decide(names[0], "second", "a", would="confirm")
    assert same.status_code == 409 and same.json()["error"]["code"] == "same_reviewer"
    assert desk.decide(names[0], "second", "b").json()["error"]["param"] == "would"
    second = (("confirm", "illegal_acts"), ("reject", None), ("reject", None), ("confirm", "violence"))
    before = {name: desk.case(name) for name in names}
    for name, (would, category) in zip(names, second, strict=True):
        said = {"would": would} | ({"category": category} if category else {})
        assert desk.decide(name, "second", "b", **said).status_code == 200
        after = desk.case(name)
        assert {**after, "version": 0} == {**before[name], "version": 0}, "nothing is changed by it"
        assert desk.decide(name, "second", "b", **said).status_code == 409
    assert desk.admin("GET", "/cases", "b", params={"second": 1}).json()["total"] == 0
    found = exported(desk)["articles"]["8"]
    assert (found["decided"], found["drawn"], found["looked_at"]) == (4, 4, 4)
    told = found["agreement"]
    assert (told["agreed"], told["of"], told["share"]) == (2, 4, 0.5)
    # Clopper and Pearson: of 4 with 2 hits, 95%, both sides.
    assert told["lower"] == pytest.approx(0.0676, abs=1e-3) and told["upper"] == pytest.approx(0.9324, abs=1e-3)
    assert found["kappa"] == pytest.approx((0.5 - 5 / 16) / (1 - 5 / 16), abs=1e-4)
    assert found["second_looks_by_category"]["illegal_acts"]["of"] == 3
    assert len(found["guide"]["sha256"]) == 64
    steps = [(r["who"], r["would"], r["agrees"]) for r in desk.chain() if r["what"] == "second"]
    assert steps == [
        ("bert", "confirm", True),
        ("bert", "reject", False),
        ("bert", "reject", True),
        ("bert", "confirm", False),
    ]
    desk.decide(names[1], "undo")
    assert exported(desk)["articles"]["8"]["looked_at"] == 4, "a disagreement that was heeded stays one"


def test_article_8_who_is_drawn_follows_from_the_key_and_the_share_alone() -> None:
    from app.keys import Keys
    from app.remediation import Case

    keys, other = Keys("k" * 32), Keys("l" * 32)
    decided = {"by": "anna", "would": "reject", "category": "violence", "reported": "violence", "at": 0.0}
    many = [Case(f"case_{n}", "default", "violence", "rejected", 0.0, 0.0, "", decision=decided) for n in range(4000)]
    tenth = {c.id for c in many if looks.drawn(keys, c, 0.1)}
    assert 300 < len(tenth) < 500 and tenth == {c.id for c in many if looks.drawn(keys, c, 0.1)}
    assert tenth < {c.id for c in many if looks.drawn(keys, c, 0.3)}
    assert tenth != {c.id for c in many if looks.drawn(other, c, 0.1)}
    assert not any(looks.drawn(keys, c, 0) for c in many) and all(looks.drawn(keys, c, 1) for c in many)


def test_article_8_kappa_is_what_cohen_made_it() -> None:
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert looks.kappa(pairs) == pytest.approx(0.4)
    assert looks.kappa([]) is None and looks.kappa([("a", "a")]) is None


def test_article_8_without_a_draw_nobody_looks_twice(desk: Desk) -> None:
    name = desk.case(desk.report(text=variant(9)).json()["ticket"])["id"]
    assert desk.decide(name, "second", "b", would="reject").json()["error"]["code"] == "not_drawn"
    desk.decide(name, "reject")
    (desk.whole.folder / "policy.yaml").write_text("reports: {second: 0}\n")
    assert desk.admin("GET", "/cases", params={"second": 1}).json() == {"cases": [], "total": 0}
    assert desk.decide(name, "second", "b", would="reject").json()["error"]["code"] == "not_drawn"
    (desk.whole.folder / "policy.yaml").write_text(POLICY)


# ---- Article 14

MINUTE = 60.0
BEGIN = 1_900_000_020.0


def test_article_14_minutes_are_counted_as_they_were_and_a_gap_is_shown_as_one(redis_server: RedisServer) -> None:
    async def story() -> None:
        store, at, now = Store(redis_server.url, "evidence"), 0.0, {"ready": True, "restarts": 0}
        clock.use(lambda: BEGIN + at)

        def ready() -> tuple[bool, dict[str, Any]]:
            return bool(now["ready"]), {"worker_restarts": now["restarts"]}

        minutes = Minutes(store, ready, "one-8100")
        for minute in range(200):
            at = minute * MINUTE
            if 50 <= minute < 80:
                continue  # the parent was not there
            now["ready"] = not 100 <= minute < 105
            now["restarts"] = 2 if minute >= 102 else 0
            minutes.look()
            if minute == 110:
                # One look of two found a worker missing.
                now["ready"] = False
                minutes.look()
            if minute == 120:
                redis_server.kill()
            if 120 <= minute < 150:
                with pytest.raises(StoreError):
                    await minutes.ship()
                continue
            if minute == 150:
                redis_server.start()
            await minutes.ship()
        # Another life in a minute that was seen already, and another replica.
        again = Minutes(store, lambda: (False, {"worker_restarts": 0}), "one-8100")
        again.look()
        await again.ship()
        other = Minutes(store, lambda: (True, {"worker_restarts": 0}), "two-8100")
        other.look()
        await other.ship()
        found = uptime.figures(await uptime.read(store, clock.now()), clock.now())
        assert set(found["replicas"]) == {"one-8100", "two-8100"}
        one = found["replicas"]["one-8100"]
        assert one["first_seen"] == clock.stamp(BEGIN // 60 * 60)
        assert one["last_30_days"] == {
            "minutes": 200, "seen": 170, "ready": 170 - 5 - 1 - 1, "not_seen": 30, "gaps": 1, "longest_gap": 30,
        }  # fmt: skip
        assert found["replicas"]["two-8100"]["last_90_days"]["seen"] == 1
        assert found["last_30_days"]["worker_restarts"] == 2
        at += 29.9 * 86400
        late = uptime.figures(await uptime.read(store, clock.now()), clock.now())["replicas"]["one-8100"]
        assert late["last_30_days"]["seen"] < 170 == late["last_90_days"]["seen"], "the month has moved on"
        assert late["last_30_days"]["ready"] + late["last_30_days"]["not_seen"] <= 30 * 1440
        await store.close()

    asyncio.run(story())


def test_article_14_what_failed_and_how_long_answers_took_is_counted_by_the_hour(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async def story() -> None:
        store = Store(redis_server.url, "evidence")
        journal = Journal(tmp_path, "a1b2", store)
        for n in range(100):
            degraded = ["grams"] if n < 7 else []
            sides = {"prompt": {"action": "pass", "degraded": degraded}, "answer": {"action": "pass", "degraded": []}}
            journal.record({"first_ms": 40.0 if n < 60 else 700.0, "held_ms": 3.0, "screened": n % 2, **sides})
        await journal._ship()
        await journal._ship()
        found = uptime.figures(await uptime.read(store, clock.now()), clock.now())["last_30_days"]
        assert found["degraded"] == {"grams": 7}
        assert found["first_text_ms"] == {"answers": 100, "p50_at_most": 50, "p95_at_most": 1000}
        assert found["held_ms"] == {"answers": 50, "p50_at_most": 5, "p95_at_most": 5}
        await store.close()

    asyncio.run(story())


def test_article_14_a_gateway_that_runs_is_seen_and_its_answers_are_measured(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat("好的，河面很静。")
    for stream in (False, True):
        desk.whole.chat("说说", stream=stream)

    def counted() -> bool:
        found = exported(desk)["articles"]["14"]
        (one,) = found["replicas"].values()
        return bool(one["last_30_days"]["seen"] >= 1 and found["last_30_days"]["first_text_ms"]["answers"] == 2)

    wait_for(lambda: bool(exported(desk)["articles"]["14"]["replicas"]), 20)
    wait_for(counted, 20)
    common = {"answer": "block", "prompt": "flag", "scorer": "flag", "guard": "flag"}
    strict = common | {"prompt": "block"}
    assert exported(desk)["articles"]["14"]["fail_modes"] == {
        "*": common, "*+restricted": strict, "*+minor+restricted": strict
    }  # fmt: skip
    page = evidence.html(exported(desk))
    for title in ("第六条", "第七条", "第八条", "第十四条"):
        assert title in page
