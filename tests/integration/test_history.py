"""What the live entries were: every version can be told and gone back to, on a real Redis and through the admin port; what has an undo of
its own leaves nothing."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import clock, history
from app.clean import Clean
from app.entries import EntryIn, gone_row, written
from app.errors import Conflict, RequestError
from app.history import MOST, PAGE, History
from app.keys import Keys
from app.review import Review
from app.store import sweeps
from app.store.cases import Cases, Writes
from app.store.client import Store
from app.store.tables import Entries, Row, Shadows, gone
from tests.backing import done
from tests.conftest import SECRET, TOKEN, Model, RedisServer, Whole, redis_binaries, wait_for, whole_gateway
from tests.integration.test_duties import house

KEYS = Keys(SECRET)
COMMON = "大家每天都说的短语"
PASSAGE = "从前有一段只在测试里出现的话，它讲的是一条不存在的河。"


@pytest.fixture(scope="module", params=sorted(redis_binaries()))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = RedisServer(redis_binaries()[request.param], tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


class Kept(NamedTuple):
    """A store with its entries, as one process sees them, and their history."""

    cases: Cases
    entries: Entries
    history: History

    async def put(self, *rows: Row) -> int:
        """In one commit, as a list is loaded; the version after it."""
        writes = Writes()
        for row in rows:
            writes.table(self.entries, row["id"], row, self.cases.changed())
        await self.cases.commit(writes, {"who": "test", "what": "list_load"})
        await self.entries.refresh()
        return self.entries.version

    async def put_one(self, row: Row) -> int:
        """By itself, as an entry is added."""
        await self.entries.put(row["id"], row, idempotency_key=secrets.token_hex(8), request="00")
        return self.entries.version

    async def delete(self, *ids: str) -> int:
        rows = [self.entries.get(id) for id in ids]
        return await self.put(*(gone_row(row) for row in rows if row is not None))

    def state(self) -> dict[str, Row]:
        return {row["id"]: {k: v for k, v in row.items() if k != "version"} for row in self.entries.holding("")}

    async def held(self) -> dict[str, str]:
        """The versions in the history, with what it says of each."""
        return {k: v async for k, v in self.cases.scan("entries:history") if k.isdigit()}


def of(store: Store, folder: Path) -> Kept:
    entries = Entries(store, folder, lambda rows, version, whole: None)
    cases = Cases(store, entries)
    shadows = Shadows(store, folder, lambda rows, version, whole: None)
    return Kept(cases, entries, History(cases, Review(cases, KEYS, Clean.of([f"我说{COMMON}"]), shadows).ordinary))


@asynccontextmanager
async def kept(server: RedisServer, folder: Path, deployment: str = "") -> AsyncIterator[Kept]:
    store = Store(server.url, deployment or secrets.token_hex(4))
    place = of(store, folder)
    await place.entries.refresh()
    try:
        yield place
    finally:
        await store.close()


def entry(id: str, term: str = "一个示例短语", **more: Any) -> Row:
    said = {"category": "violence", "reason": "test", **({} if "passage" in more else {"term": term}), **more}
    return written(EntryIn.model_validate(said), "anna", KEYS) | {"id": id}


# ---- every version

_Ids = st.integers(0, 4)
_Doing = st.one_of(
    st.tuples(st.just("put"), _Ids, st.integers(0, 2)),
    st.tuples(st.just("delete"), _Ids, st.just(0)),
    st.tuples(st.just("load"), st.sets(_Ids, min_size=1), st.integers(0, 2)),
    st.tuples(st.just("case"), _Ids, st.integers(0, 1)),
)


@given(doings=st.lists(_Doing, min_size=1, max_size=14), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_done_every_version_can_be_told_and_gone_back_to(
    server: RedisServer, tmp_path: Path, doings: list[tuple[str, Any, int]], data: st.DataObject
) -> None:
    terms = ["甲样的短语", "乙样的短语", "丙样的短语"]

    def told(row: Row) -> str:
        return str(row["term"])

    async def run() -> None:
        async with kept(server, tmp_path) as k:
            model: dict[str, str] = {}
            was: dict[int, dict[str, str]] = {0: {}}
            cases: set[str] = set()
            for what, which, n in doings:
                if what == "case":  # as a report is confirmed, or what it did undone
                    id = f"c{which}"
                    await k.put(entry(id) | {"case": "case_1"} if n else gone(id))
                    cases = cases | {id} if n else cases - {id}
                elif what == "put":
                    await k.put_one(entry(f"e{which}", terms[n]))
                    model[f"e{which}"] = terms[n]
                elif what == "load":
                    before = k.entries.version
                    for at, one in enumerate(sorted(which), 1):
                        model[f"e{one}"] = terms[n]
                        was[before + at] = dict(model)
                    await k.put(*(entry(f"e{one}", terms[n]) for one in sorted(which)))
                elif f"e{which}" in model:
                    await k.delete(f"e{which}")
                    del model[f"e{which}"]
                was[k.entries.version] = dict(model)

            versions = sorted(was)
            a = data.draw(st.sampled_from(versions))
            b = data.draw(st.sampled_from([v for v in versions if v >= a]))
            diff = await k.history.diff(a, b)
            old, new = was[a], was[b]
            assert {r["id"]: told(r) for r in diff["added"]} == {i: new[i] for i in new.keys() - old.keys()}
            assert {r["id"]: told(r) for r in diff["removed"]} == {i: old[i] for i in old.keys() - new.keys()}
            changed = {c["id"]: (told(c["was"]), told(c["now"])) for c in diff["changed"]}
            assert {i: c for i, c in changed.items() if c[0] != c[1]} == {
                i: (old[i], new[i]) for i in old.keys() & new.keys() if old[i] != new[i]
            }
            assert all(old[i] == new[i] == c[0] for i, c in changed.items() if c[0] == c[1]), (
                "put again, saying the same"
            )

            listed = await k.history.changes()
            assert [c["version"] for c in listed["changes"]] == sorted((int(v) for v in await k.held()), reverse=True)
            for change in listed["changes"]:
                id, version = change["id"], change["version"]
                for side, at in (("was", version - 1), ("now", version)):
                    state = was[max(v for v in versions if v <= at)].get(id)
                    assert (change[side] and told(change[side])) == state

            before = k.state()
            done = await k.history.roll_back(a, "bert", "a mistake", k.entries.version)
            assert {i: told(r) for i, r in k.state().items() if i not in cases} == old
            assert {i for i in k.state() if i.startswith("c")} == cases, "a case has its own undo"
            assert done["version"] == k.entries.version
            forward = await k.history.roll_back(done["version"] - done["entries"], "bert", "none", k.entries.version)
            assert k.state() == before and forward["entries"] == done["entries"], "and forward again, to the letter"

    asyncio.run(run())


def test_what_is_put_back_is_the_row_as_it_was_and_a_passage_stays_a_fingerprint(
    server: RedisServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with kept(server, tmp_path) as k:
            right = {"zh": "对的", "en": "right"}
            rows = [
                entry("e1", passage=PASSAGE), entry("e2", "改过的短语", correction=right, list="rumours"),
                entry("e3", "会过期的短语", expires_at=clock.stamp(clock.now() + 3600)),
            ]  # fmt: skip
            version = await k.put(*rows)
            before = k.state()
            await k.delete("e1", "e2", "e3")
            await k.put(entry("e4", "后来才有的短语"))
            shown = json.dumps([await k.history.diff(version), await k.history.changes()], ensure_ascii=False)
            assert "fingerprint" not in shown and "不存在的河" not in shown and '"kind": "passage"' in shown
            assert not any("不存在的河" in said for said in (await k.held()).values())
            done = await k.history.roll_back(version, "bert", "deleted by mistake", k.entries.version)
            assert k.state() == before and done["entries"] == 4
            assert k.entries.get("e4")["deleted"]  # type: ignore[index]
            assert "term" not in k.entries.get("e4")  # type: ignore[operator]
            row = json.loads((await k.cases.audit())[-1])
            assert {n: row[n] for n in ("who", "what", "to", "entries", "reason")} == {
                "who": "bert", "what": "roll_back", "to": version, "entries": 4, "reason": "deleted by mistake",
            }  # fmt: skip
            await k.delete("e1", "e3")
            now = clock.now()
            clock.use(lambda: now + 7200)
            await k.history.roll_back(version, "bert", "later", k.entries.version)
            assert set(k.state()) == {"e1", "e2"}, "what has expired does not come back"

    asyncio.run(run())


def test_what_is_of_a_case_about_a_person_or_for_readers_alone_leaves_nothing(
    server: RedisServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with kept(server, tmp_path) as k:
            rows = [
                entry("e1") | {"case": "case_1"},
                entry("e2", "某人的号码") | {"subject_block": True},
                entry("e3") | {"scope": {"app": "*", "directions": ["answer"], "readers": ["0.x"]}},
            ]
            await k.put(*rows)
            await k.put(*(gone(row["id"]) for row in rows))
            await k.put(*(gone(row["id"]) for row in rows))
            for row in rows:
                await k.put_one(row)
            await k.delete("e2")
            assert await k.held() == {}
            version = await k.put(entry("e4", '他说"case":"和"readers":都只是字'))
            assert len(await k.held()) == 1, "words in a term are no fields"
            assert (await k.history.diff(0, version))["added"][0]["id"] == "e4"
            await k.history.roll_back(0, "bert", "r", version)
            assert set(k.state()) == {"e1", "e3"}

    asyncio.run(run())


# ---- when it may not be


def test_a_roll_back_from_a_version_that_is_past_is_refused_and_nothing_is_written(
    server: RedisServer, tmp_path: Path
) -> None:
    async def run() -> None:
        name = secrets.token_hex(4)
        async with kept(server, tmp_path / "a", name) as a, kept(server, tmp_path / "b", name) as b:
            seen = await a.put(entry("e1"))
            await b.put(entry("e2", "另一个短语"))
            with pytest.raises(Conflict) as stale:
                await a.history.roll_back(0, "bert", "r", seen)
            assert stale.value.current == seen + 1
            # Of two at once, one wins.
            both = await asyncio.gather(
                *(h.history.roll_back(0, "bert", "r", seen + 1) for h in (a, b)), return_exceptions=True
            )
            assert sorted(isinstance(r, Conflict) for r in both) == [False, True]
            await a.entries.refresh()
            assert a.state() == {} and a.entries.version == seen + 3
            with pytest.raises(RequestError) as refused:
                await a.history.roll_back(seen + 9, "bert", "r", seen + 3)
            assert (refused.value.code, refused.value.param) == ("invalid_value", "to")
            for pair in ((seen + 9, None), (3, 2), (0, seen + 9)):
                with pytest.raises(RequestError, match="no such version"):
                    await a.history.diff(*pair)

    asyncio.run(run())


def test_a_call_sent_again_with_its_key_goes_back_once(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with kept(server, tmp_path) as k:
            seen = await k.put(entry("e1"))
            first = await k.history.roll_back(0, "bert", "r", seen, key="once")
            again = await k.history.roll_back(0, "bert", "r", seen, key="once")
            assert first == again == {"to": 0, "entries": 1, "version": seen + 1} and k.entries.version == seen + 1
            with pytest.raises(ValueError, match="another request"):
                await k.history.roll_back(1, "bert", "r", seen + 1, key="once")

    asyncio.run(run())


def test_what_hits_ordinary_texts_comes_back_only_with_the_second_word_that_it_had(
    server: RedisServer, tmp_path: Path
) -> None:
    async def run() -> None:
        async with kept(server, tmp_path) as k:
            rows = [entry("e1", COMMON), entry("e2", COMMON) | {"second": "carl"}, entry("e3", COMMON, action="flag")]
            version = await k.put(*rows)
            await k.delete("e1", "e2", "e3")
            with pytest.raises(RequestError) as refused:
                await k.history.roll_back(version, "bert", "r", k.entries.version)
            assert refused.value.code == "gate" and "e1" in refused.value.message and "e2" not in refused.value.message
            assert COMMON not in refused.value.message and k.state() == {}
            await k.history.roll_back(version, "bert", "r", k.entries.version, leave=["e1"])
            assert set(k.state()) == {"e2", "e3"}

    asyncio.run(run())


@pytest.mark.timeout(120)
def test_more_than_one_commit_takes_is_refused_with_a_step_that_it_takes(server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with kept(server, tmp_path) as k:
            rows = [entry(f"e{n}", passage=PASSAGE * 3 + str(n)) for n in range(MOST + 400)]
            for at in range(0, len(rows), 400):
                await k.put(*rows[at : at + 400])
            with pytest.raises(RequestError) as refused:
                await k.history.roll_back(0, "bert", "r", k.entries.version)
            assert (refused.value.code, refused.value.status) == ("too_much", 422) and len(k.state()) == len(rows)
            (nearer,) = re.findall(r"first to (\d+)", refused.value.message)
            steps = [
                (await k.history.roll_back(to, "bert", "r", k.entries.version))["entries"] for to in (int(nearer), 0)
            ]
            assert k.state() == {} and steps == [MOST, len(rows) - MOST]
            listed = await k.history.changes(0)
            assert len(listed["changes"]) == PAGE and listed["more"]

    asyncio.run(run())


# ---- what is held, and how long


def test_a_store_that_was_written_before_has_no_history_and_says_from_when_on_it_has(
    server: RedisServer, tmp_path: Path
) -> None:
    async def before(k: Kept, id: str) -> None:
        """A row as a Sluice puts it that keeps no history."""
        keys = [*(f"entries:{part}" for part in ("version", "rows", "index", "sum")), f"done:{id}", "store_id"]
        args: list[str | int] = [id, json.dumps(entry(id), separators=(",", ":")), "", "00", "", "x", ""]
        await k.cases.store.call("table_put", keys, args, durable=True)
        await k.entries.refresh()

    async def gone_before(k: Kept, version: int, begins: int) -> None:
        for call in (k.history.diff(version), k.history.roll_back(version, "bert", "r", k.entries.version)):
            with pytest.raises(RequestError) as refused:
                await call
            assert (refused.value.code, refused.value.status) == ("history_gone", 409)
            assert str(begins) in refused.value.message

    async def run() -> None:
        async with kept(server, tmp_path) as k:
            for id in ("e1", "e2"):
                await before(k, id)
            await gone_before(k, 1, 2)
            assert await k.history.changes() == {"version": 2, "from": 2, "changes": [], "more": False}
            await k.delete("e1")
            assert [r["id"] for r in (await k.history.diff(2))["removed"]] == ["e1"]
            await gone_before(k, 1, 2)
            # One of two replicas is older, and writes in between.
            await before(k, "e3")
            await gone_before(k, 3, 4)
            await k.delete("e3")
            await gone_before(k, 3, 4)
            assert [c["version"] for c in (await k.history.changes())["changes"]] == [5]
            await k.history.roll_back(4, "bert", "r", 5)
            assert set(k.state()) == {"e2", "e3"}

    asyncio.run(run())


def test_what_was_is_erased_after_90_days_and_the_entries_stay(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with house(redis_server, tmp_path) as h:
            k = Kept(h.cases, h.entries, History(h.cases, h.review.ordinary))
            await k.put(entry("e1", "早先的短语"), entry("e2"))
            first = await k.delete("e1")
            h.clock.move(60)
            second = await k.put(entry("e3", "后来的短语"))
            h.clock.move(29.9)
            await h.duties.sweep()
            assert len(await k.held()) == 4 and (await sweeps.last(h.cases.store))["history"]["erased"] == 0
            h.clock.move(0.2)
            await h.duties.sweep()
            assert list(await k.held()) == [str(second)]
            assert not any("早先的短语" in said for said in (await k.held()).values())
            assert (await sweeps.last(h.cases.store))["history"]["erased"] == 3
            assert [(r["part"], r["changes"]) for r in await h.audit() if r["what"] == "erase"] == [("history", 3)]
            listed = await k.history.changes()
            assert (listed["from"], [c["id"] for c in listed["changes"]]) == (first, ["e3"])
            with pytest.raises(RequestError, match=f"version {first} and later"):
                await k.history.diff(first - 1)
            assert set(k.state()) == {"e2", "e3"}
            await k.history.roll_back(first, "bert", "r", k.entries.version)
            assert set(k.state()) == {"e2"}
            h.clock.move(91)
            await h.duties.sweep()
            assert await k.held() == {} and (await k.history.changes())["from"] == k.entries.version

    asyncio.run(run())


def test_two_that_sweep_at_once_do_it_once(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        async with house(redis_server, tmp_path) as h:
            k = Kept(h.cases, h.entries, History(h.cases, h.review.ordinary))
            for n in range(20):
                await k.put(entry(f"e{n}"))
            h.clock.move(91)
            erased = await asyncio.gather(*(history.forget(h.cases, clock.now()) for _ in range(3)))
            assert sum(erased) == 20 and await k.held() == {}
            assert (await k.history.changes())["from"] == 20

    asyncio.run(run())


def test_a_backup_carries_it_and_after_the_restore_it_leads_on(redis_server: RedisServer, tmp_path: Path) -> None:
    where = {"REDIS_URL": redis_server.url, "SECRET_KEY": SECRET, "DATA_DIR": str(tmp_path / "data")}
    versions: list[int] = []

    async def fill() -> None:
        async with kept(redis_server, tmp_path, "default") as k:
            versions.append(await k.put(entry("e1"), entry("e2", passage=PASSAGE)))
            await k.delete("e2")

    async def use() -> None:
        async with kept(redis_server, tmp_path, "default") as k:
            assert k.entries.version > versions[0] + 1000, "a restore goes far ahead"
            diff = await k.history.diff(versions[0])
            assert [r["id"] for r in diff["removed"]] == ["e2"] and not diff["added"] + diff["changed"]
            await k.put(entry("e3", "恢复之后的短语"))
            await k.history.roll_back(versions[0], "bert", "r", k.entries.version)
            assert set(k.state()) == {"e1", "e2"}

    asyncio.run(fill())
    done("backup", tmp_path / "b.tar.gz", **where)
    asyncio.run(flushed(redis_server))
    done("restore", tmp_path / "b.tar.gz", **where)
    asyncio.run(use())


async def flushed(server: RedisServer) -> None:
    store = Store(server.url, "default")
    await store.run("FLUSHALL")
    await store.close()


# ---- through the admin port

RITA, BERT = "rita-token-of-a-test-0123456789", "bert-token-of-a-test-0123456789"


@pytest.fixture(scope="module")
def whole(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    tokens = f"admin:{TOKEN},rita/review+audit+operate:{RITA},bert/lists:{BERT}"
    with whole_gateway(tmp_path_factory.mktemp("gateway"), shared_model.url, ADMIN_TOKEN=tokens, WORKERS="2") as whole:
        yield whole


def test_a_list_that_was_loaded_by_mistake_is_taken_back_within_a_second_everywhere(whole: Whole) -> None:
    def refused(text: str) -> bool:
        return bool(whole.chat(text).json()["choices"][0]["finish_reason"] == "content_filter")

    kept_id = whole.add({"term": "一直都在的短语"}).json()["id"]
    wait_for(lambda: refused("一直都在的短语"), 3)
    before = whole.call("GET", "/entries").json()
    rows = [{"term": f"误载的短语{c}", "category": "violence", "reason": "r"} for c in "甲乙丙"]
    assert whole.call("POST", "/lists/wrong/entries", json={"entries": rows}).json()["added"] == 3
    whole.call("DELETE", f"/entries/{kept_id}")
    wait_for(lambda: refused("误载的短语甲") and not refused("一直都在的短语"), 3)

    listed = whole.call("GET", "/history", params={"after": before["version"], "limit": 3}).json()
    assert [bool(c["now"]) for c in listed["changes"]] == [False, True, True] and listed["more"] is True
    assert listed["changes"][0]["was"]["term"] == "一直都在的短语"
    page = {"after": before["version"], "until": listed["changes"][-1]["version"] - 1}
    rest = whole.call("GET", "/history", params=page).json()
    assert [c["now"]["list"] for c in rest["changes"]] == ["wrong"] and rest["more"] is False
    diff = whole.call("GET", "/history/diff", params={"from": before["version"], "to": listed["version"]}).json()
    assert sorted(r["term"] for r in diff["added"]) == sorted(r["term"] for r in rows)
    assert [r["id"] for r in diff["removed"]] == [kept_id] and diff["changed"] == []

    body = {"to": before["version"], "reason": "wrong file", "expected_version": listed["version"]}
    with httpx.Client(base_url=whole.admin + "/sluice/v1/admin", headers={"Authorization": f"Bearer {BERT}"}) as bert:
        stale = bert.post("/history/rollback", json=body | {"expected_version": before["version"]})
        assert stale.status_code == 409 and stale.headers["x-sluice-version"] == str(listed["version"])
        head = {"Idempotency-Key": "back"}
        first, again = (bert.post("/history/rollback", json=body, headers=head) for _ in range(2))
        assert first.status_code == 200 and first.json() == again.json()
        assert first.json() == {"to": before["version"], "entries": 4, "version": listed["version"] + 4}
        other = bert.post("/history/rollback", json=body | {"reason": "another"}, headers=head)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    version = first.json()["version"]
    wait_for(lambda: all(w["entries_version"] >= version for w in whole.ready()["workers"]), 1)
    assert refused("一直都在的短语") and not refused("误载的短语甲")

    def bare(rows: list[Row]) -> list[Row]:
        return sorted(({k: v for k, v in r.items() if k != "version"} for r in rows), key=lambda r: str(r["id"]))

    assert bare(whole.call("GET", "/entries").json()["entries"]) == bare(before["entries"])
    audit = whole.call("GET", "/audit").json()
    assert '"roll_back"' in json.dumps(audit) and "wrong file" in json.dumps(audit)


def test_the_history_is_for_those_who_keep_the_lists(whole: Whole) -> None:
    paths = (("GET", "/history"), ("GET", "/history/diff?from=0"), ("POST", "/history/rollback"))
    for method, path in paths:
        for token, status in ((RITA, 403), ("x" * 32, 401)):
            head = {"Authorization": f"Bearer {token}"}
            answer = httpx.request(method, f"{whole.admin}/sluice/v1/admin{path}", headers=head)
            assert answer.status_code == status, path


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/history?limit=0", None, "limit"),
        ("GET", "/history?limit=201", None, "limit"),
        ("GET", "/history?after=x", None, "after"),
        ("GET", "/history/diff", None, "from"),
        ("GET", "/history/diff?from=99999999", None, "from"),
        ("GET", "/history/diff?from=-1", None, "from"),
        ("GET", "/history/diff?from=0&to=99999999", None, "to"),
        ("POST", "/history/rollback", {"to": 0, "reason": "r"}, "expected_version"),
        ("POST", "/history/rollback", {"to": 0, "reason": "", "expected_version": 0}, "reason"),
        ("POST", "/history/rollback", {"to": "0", "reason": "r", "expected_version": 0}, "to"),
        ("POST", "/history/rollback", {"to": 1 << 70, "reason": "r", "expected_version": 0}, "to"),
        ("POST", "/history/rollback", {"to": 0, "reason": "r", "expected_version": 0, "colour": 1}, "colour"),
    ],
)
def test_a_wrong_call_is_refused_with_its_field(
    whole: Whole, method: str, path: str, body: dict[str, Any] | None, field: str
) -> None:
    answer = whole.call(method, path, **({} if body is None else {"json": body}))
    assert 400 <= answer.status_code < 500
    error = answer.json()["error"]
    assert field in str(error["param"]), error
