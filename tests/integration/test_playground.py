"""The playground: what a text would get, as the gateway gives it; and what a new policy file would change. Nothing of either is kept."""

from __future__ import annotations

import asyncio
import io
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app import metrics, playground, policy
from app.errors import RequestError
from app.keys import Keys
from app.playground import CHARACTERS, CHUNKS, Playground, runs
from app.proposal import policy_check
from app.settings import Settings, packaged, read
from app.store.tables import Entries
from app.taxonomy import taxonomy
from app.text import fold
from tests import scorers
from tests.conftest import SECRET, Model, RedisServer, Running, Whole, said, wait_for, whole_gateway
from tests.integration.test_canary import desk, everything
from tests.integration.test_privacy import CANARY, logged
from tests.texts import answer, cut

__all__ = ["logged"]
ONE_GATEWAY = True
Make = Callable[..., Running]
EVASION = Path(__file__).parent.parent / "evasion"
ADDED = "现在才加的短语"
POLICY = """
categories: {violence: {answer: mask}, abuse_spam: {answer: flag}}
apps: {default: {categories: {harassment_abuse: {answer: flag}}}}
"""


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EVASION / f"{name}.jsonl").read_text("utf-8").splitlines()]


def lexicons(folder: Path) -> Path:
    """The shipped ones, with the terms of the evasion set where they stand nowhere yet."""
    shutil.copytree(packaged("lexicons"), folder)
    shipped = {
        line.split("\t")[0] for file in folder.glob("*/terms.tsv") for line in file.read_text("utf-8").splitlines()
    }
    for row in rows("terms"):
        file = folder / row["category"] / "terms.tsv"
        if row["term"] in shipped:
            continue
        file.parent.mkdir(exist_ok=True)
        lines = file.read_text("utf-8").splitlines() if file.exists() else ["term\ttier"]
        cells = {"term": row["term"], "tier": row["tier"]}
        lines.append("\t".join(cells.get(column, "") for column in lines[0].split("\t")))
        file.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    with whole_gateway(
        folder, shared_model.url, LEXICONS=str(lexicons(folder / "lexicons")), MODELS=str(scorers.models()),
        POLICY=str(folder / "policy.yaml"),
    ) as whole:  # fmt: skip
        yield whole


def look(whole: Whole, text: str, **more: Any) -> dict[str, Any]:
    answer = whole.call("POST", "/playground", json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


PUBLIC = ("category", "detector", "start", "end", "score", "action", "shadow", "evidence")


def found(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Its findings, as a record has them."""
    return [{key: f[key] for key in PUBLIC} for f in row["findings"]]


def test_a_text_gets_the_verdict_that_the_gateway_gives_it_plain_and_streamed(whole: Whole, model: Model) -> None:
    dice = random.Random(7)
    texts = [row["text"] for row in dice.sample(rows("cases"), 70) + dice.sample(rows("clean"), 25)]
    texts += [answer(dice) for _ in range(40)] + [f"这是{scorers.BAD}。今天的河面很静。"]
    seen: dict[str, Any] = {}
    for text in texts:
        pieces = cut(text, dice)
        model.script.chat(text)
        plain = whole.chat("说吧").json()
        model.script.chunks(pieces)
        raw = whole.chat("说吧", stream=True)
        asked = whole.chat(text).json()
        seen[plain["id"]] = ("answer", row := look(whole, text))
        seen[raw.headers["x-sluice-decision"]] = ("answer", streamed := look(whole, text, chunks=pieces))
        seen[asked["id"]] = ("prompt", look(whole, text, direction="prompt"))
        assert plain["sluice"]["action"] == row["action"] == streamed["action"], ascii(text)
        assert found(row) == found(streamed)
        assert len(streamed["released"]) == len(pieces) + 1
        assert "".join(streamed["released"]) == streamed["delivered"]
        if row["action"] in ("pass", "flag", "mask"):
            assert plain["choices"][0]["message"]["content"] == row["delivered"] == streamed["delivered"]
            assert said(raw.content) == streamed["delivered"]
        else:
            assert row["delivered"] == "" and said(raw.content).startswith(streamed["delivered"])
    records: dict[str, Any] = {}

    def told() -> bool:
        for file in (whole.folder / "data").glob("journal/*.jsonl"):
            records.update({r["decision"]: r for r in map(json.loads, file.read_bytes().splitlines())})
        return set(seen) <= set(records)

    wait_for(told, 15)
    for decision, (direction, row) in seen.items():
        record = records[decision][direction]
        assert record["action"] == row["action"]
        assert [{k: f[k] for k in PUBLIC if k in f} for f in record["findings"]] == [
            {k: f[k] for k in PUBLIC if k in mine} for f, mine in zip(found(row), record["findings"], strict=True)
        ]
    actions = {row["action"] for _, row in seen.values()}
    assert {"pass", "flag", "mask", "block"} <= actions


def test_an_answer_says_why(whole: Whole) -> None:
    dirty = "先说\u200b一句，信\u200b用\u202e卡套現吧，１３８００１３８０００。"
    row = look(whole, dirty)
    assert row["action"] == "block" and row["category"] == "illegal_acts"
    assert row["clause"] == row["categories"]["illegal_acts"]["clause"] and set(row["clause"]) == {"zh", "en"}
    (term,) = [f for f in row["findings"] if f["category"] == "illegal_acts"]
    assert term["matched"] == "信\u200b用\u202e卡套現" and term["folded"] == "信用卡套现" and term["tier"] == "certain"
    assert set(term["technique"].split("+")) == {"zero_width", "bidi", "traditional"}
    assert dirty[term["start"] : term["end"]] == term["matched"]
    assert [(i["at"], i["code"], i["name"]) for i in row["invisible"]] == [
        (2, "U+200B", "ZERO WIDTH SPACE"), (7, "U+200B", "ZERO WIDTH SPACE"), (9, "U+202E", "RIGHT-TO-LEFT OVERRIDE"),
    ]  # fmt: skip
    assert "".join(run["text"] for run in row["folded"]) == fold(dirty)
    assert {"text": "现", "from": [12, 13], "changed": True} in row["folded"]
    stages = {s["stage"]: s for s in row["stages"]}
    assert list(stages) == ["fold", "lexicon", "rules", "patterns", "blocklist", "readers", "scorer"]
    assert stages["lexicon"]["candidates"] >= 1 and stages["patterns"]["candidates"] == 1
    assert all(s["microseconds"] > 0 and not s["failed"] for s in row["stages"])
    assert row["guard"] == row["exceptions"] == "not asked" and row["stale"] == [] and row["degraded"] == []
    assert row["scores"] == [{"category": "violence", "score": row["scores"][0]["score"]}]
    assert row["policy"] == whole.ready()["workers"][0]["policy"]
    assert "released" not in row
    streamed = look(whole, dirty, chunks=list(dirty))
    assert streamed["held"] >= len("信\u200b用\u202e卡套") and streamed["released"][-1] == ""


def test_a_live_entry_acts_in_the_playground_within_a_second_and_no_longer_than_it_lives(whole: Whole) -> None:
    text = f"说{ADDED}吧"
    assert look(whole, text)["action"] == "pass"
    made = whole.add({"term": ADDED, "category": "other_prohibited"}).json()
    wait_for(lambda: look(whole, text)["action"] == "block", 1)
    row = look(whole, text)
    assert row["findings"][0]["evidence"]["rule"] == made["id"] and row["findings"][0]["tier"] == "entry"
    assert row["entries_version"] == made["version"]
    whole.call("DELETE", f"/entries/{made['id']}")
    wait_for(lambda: look(whole, text)["action"] == "pass", 1)
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    whole.add({"term": ADDED, "category": "other_prohibited", "expires_at": soon})
    wait_for(lambda: look(whole, text)["action"] == "block", 1)
    wait_for(lambda: look(whole, text)["action"] == "pass", 6)


def test_what_changes_on_disk_is_in_force_at_the_next_look(whole: Whole) -> None:
    text, path = "叫13800138000接电话", whole.folder / "policy.yaml"
    assert look(whole, text)["action"] == "mask"
    path.write_text("categories: {privacy_violation: {answer: flag}, personal_information: {answer: flag}}", "utf-8")
    assert look(whole, text)["action"] == "flag"
    path.write_text("categories: {no_such: {answer: flag}}", "utf-8")
    row = look(whole, text)
    assert row["action"] == "flag" and row["stale"] == ["policy"]
    assert "no_such" in whole.call("POST", "/policy/check", json={"policy": "{}"}).json()["error"]["message"]
    path.write_text(POLICY, "utf-8")
    row = look(whole, text)
    assert row["action"] == "mask" and row["stale"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "a" * (CHARACTERS + 1)}, "text"),
        ({"text": "a", "chunks": []}, "chunks"),
        ({"text": "a" * (CHUNKS + 1), "chunks": ["a"] * (CHUNKS + 1)}, "chunks"),
        ({"text": "ab", "chunks": ["a", "c"]}, "chunks"),
        ({"text": "a", "app": "nobody"}, "app"),
        ({"text": "a", "direction": "sideways"}, "direction"),
        ({"text": "a", "more": 1}, "more"),
        ({}, "text"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_field_that_cannot_be_used_is_named(whole: Whole, body: dict[str, Any], field: str) -> None:
    answer = whole.call("POST", "/playground", json=body)
    assert answer.status_code == 422 and answer.json()["error"]["param"] == field, answer.text


def test_the_longest_text_in_the_most_pieces_is_looked_at(whole: Whole) -> None:
    text = ("今天天气很好，河面很静。The cat sat on the mat. " * CHARACTERS)[:CHARACTERS]
    row = look(whole, text, chunks=[text[at : at + 10] for at in range(0, len(text), 10)])
    assert len(row["released"]) == CHUNKS + 1 and row["folded"][-1]["from"][1] == CHARACTERS


# ---- in this process


@pytest.fixture
def conf(tmp_path: Path) -> Settings:
    return read({}, data_dir=tmp_path / "data", models=scorers.models())


def made(conf: Settings) -> Playground:
    entries = Entries(None, conf.data_dir, lambda rows, version, whole: None)
    return Playground(conf, Keys(SECRET), entries)


def test_a_character_may_be_cut_in_two(conf: Settings) -> None:
    text, chunks = "a\ud83d\ude00b\ud800", ["a\ud83d", "\ude00b\ud800"]
    row = asyncio.run(made(conf).look(text, chunks=chunks))
    assert json.dumps(row, ensure_ascii=False).encode()
    assert row["delivered"] == "a\U0001f600b\ufffd" == "".join(row["released"])
    assert [(i["at"], i["code"]) for i in row["invisible"]] == [(3, "U+D800")] and row["folded"][-1]["from"] == [3, 4]


def test_a_text_that_takes_too_long_is_refused(conf: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(conf)
    asyncio.run(one.look("一句话"))
    monkeypatch.setattr(playground, "SECONDS", 0.001)
    with pytest.raises(RequestError) as refused:
        asyncio.run(one.look("一句话。" * 5000))
    assert (refused.value.status, refused.value.code, refused.value.param) == (503, "too_slow", "text")
    monkeypatch.undo()
    assert asyncio.run(one.look("一句话"))["action"] == "pass"


def test_looks_come_one_after_another_and_a_caller_that_left_keeps_its_turn(
    conf: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crowd() -> None:
        one = made(conf)
        await one.look("先装载")
        long = "!a+l|1" * 3000
        first = asyncio.create_task(one.look(long))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        monkeypatch.setattr(playground, "SECONDS", 0.01)
        with pytest.raises(RequestError) as busy:
            await one.look("后来的")
        assert (busy.value.status, busy.value.code) == (503, "busy") and busy.value.retry
        monkeypatch.undo()
        assert (await one.look("后来的"))["action"] == "pass"

    asyncio.run(crowd())


def test_a_look_does_not_hold_up_the_loop(conf: Settings) -> None:
    async def beside() -> list[float]:
        one = made(conf)
        await one.look("先装载")
        looking = asyncio.create_task(one.look("!a+l|1" * 3000))
        late = []
        while not looking.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - began)
        return late

    late = sorted(asyncio.run(beside()))
    assert len(late) > 10 and late[len(late) // 2] < 0.05 and late[-1] < 0.5


def test_nothing_is_loaded_before_the_first_look_and_a_bad_file_says_so(conf: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "policy.yaml"
    bad.write_text("pace: many", "utf-8")
    one = made(conf.model_copy(update={"policy": bad}))
    with pytest.raises(RequestError) as refused:
        asyncio.run(one.look("一句话"))
    assert refused.value.status == 503 and "pace" in refused.value.message and "many" not in refused.value.message
    bad.write_text("pace: 5", "utf-8")
    assert asyncio.run(one.look("一句话"))["action"] == "pass"


def test_another_policy_can_be_tried(conf: Settings) -> None:
    one = made(conf)
    other = policy.parse(b"categories: {privacy_violation: {answer: block}, personal_information: {answer: block}}")
    row, tried = (asyncio.run(one.look("叫13800138000接电话", policy=p)) for p in (None, other))
    assert (row["action"], tried["action"]) == ("mask", "block") and row["policy"] != tried["policy"]


def test_a_scorer_that_is_missing_shows(conf: Settings, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    row = asyncio.run(made(conf.model_copy(update={"models": tmp_path / "none"})).look("一句话"))
    assert (
        row["stages"][-1]["failed"] and row["scores"] == [] and row["degraded"] == ["grams"] and row["action"] == "flag"
    )


def test_nothing_of_a_look_is_kept(
    make_gateway: Make, redis_server: RedisServer, tmp_path: Path, logged: io.StringIO
) -> None:
    gateway = make_gateway(redis_url=redis_server.url)

    def state() -> tuple[Any, ...]:
        with redis.Redis(port=redis_server.port) as store:
            kept = {key: store.dump(key) for key in store.scan_iter()}
        lines = [
            line
            for line in metrics.render().decode().splitlines()
            if not line.startswith(("#", "process_", "python_", "sluice_loop_lag"))
        ]
        return kept, dict(everything(tmp_path / "admin")), sorted(lines)

    with desk(gateway, redis_server, tmp_path / "admin") as admin:
        gateway.gateway.journal.flush()
        wait_for(lambda: state() == state(), 5)
        before = state()
        for body in (
            {"text": f"这里有{CANARY}，13800138000"}, {"text": CANARY, "chunks": list(CANARY)}, {"text": CANARY, "direction": "prompt"},
            {"text": CANARY, "app": CANARY}, {"text": CANARY, CANARY: 1}, {"text": CANARY, "chunks": [CANARY, CANARY]},
            {"text": CANARY * 9000},
        ):  # fmt: skip
            answer = admin.post("/playground", json=body)
            assert answer.status_code in (200, 422)
            assert answer.status_code == 200 or CANARY not in answer.text or CANARY in body
        for text in (
            CANARY,
            f"categories: {{violence: {{answer: {CANARY}}}}}",
            f"pace: [{CANARY}",
            f"profile: !!bool {CANARY}",
        ):
            answer = admin.post("/policy/check", json={"policy": text})
            assert answer.status_code == 200 and CANARY not in answer.text
        assert state() == before
    for _, raw in everything(tmp_path):
        assert CANARY.encode() not in raw
    assert CANARY not in logged.getvalue()


TEXTS = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=("Mn", "Cf", "Cc", "Lo", "So")),
        st.sampled_from("ＡﬁⅫ㈱é\u0301現\u200b\u202e\ufdfa\ud800"),
    )
)


@given(TEXTS)
@hypothesis(deadline=None, max_examples=400)
def test_the_folded_view_maps_back_to_the_whole_text_in_order(text: str) -> None:
    made = runs(text)
    ends = [0, *(run["from"][1] for run in made)]
    assert [run["from"][0] for run in made] == ends[:-1] and ends[-1] == len(text)
    assert "".join(run["text"] for run in made) == fold(text)
    for run in made:
        original = text[slice(*run["from"])]
        assert run["text"] == fold(original) and run["changed"] == (run["text"] != original or not run["text"])
    assert all(a["changed"] != b["changed"] or bool(a["text"]) != bool(b["text"]) for a, b in pairwise(made))


# ---- a policy file before it is loaded

CURRENT = policy.parse(b"categories: {violence: {answer: block}}\napps: {web: {pace: 5}}")


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ("categories: {no_such: {answer: flag}}", "categories.no_such"),
        ("categories: {violence: {answer: shout}}", "categories.violence.answer"),
        ("apps: {web: {suspects: {near: -1}}}", "apps.web.suspects.near"),
        ("surrogates: {default: {zh: '{x}', en: a}}", "surrogates.default.zh"),
        ("minors: {pace: x}", "minors.pace"),
        ("nothing_like_it: 1", "nothing_like_it"),
        ("a: 1\nb: [", "line 2"),
        ("pace: 1\npace: 2", "line 1"),
        ("- a", ""),
        ("pace: !!int ''", ""),
        ("pace: !!bool x", ""),
        ("pace: !!timestamp x", ""),
        ("? [a]\n: b", "line 1"),
        ("{x: &a [*a]}", "line 1"),
        ("a: &a {<<: *a}", "line 1"),
        ("\ud800", ""),
        (b"\xff\xfe\x00", ""),
        ("[" * 200_000, ""),
        ("#" * (256 << 10) + "\n", ""),
        ("apps: {" + ", ".join(f"a{i}: {{}}" for i in range(501)) + "}", "apps"),
    ],
    ids=lambda v: ascii(v[:30]),
)
def test_what_is_wrong_with_a_policy_file_is_said_by_its_place(raw: str | bytes, where: str) -> None:
    told = policy_check(raw, CURRENT)
    assert not told["ok"] and told["changes"] == told["rules"] == []
    assert where in [e["where"] for e in told["errors"]] and all(e["message"] for e in told["errors"])


def test_aliases_of_aliases_cost_no_more_than_they_are_long() -> None:
    bomb = "x0: &x0 [a, a]\n" + "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 12))
    began = time.perf_counter()
    assert not policy_check(bomb + "shadow: *x11\ncategories: *x11\napps: {web: {surrogates: *x11}}", CURRENT)["ok"]
    assert time.perf_counter() - began < 2


def test_many_errors_are_not_all_told() -> None:
    told = policy_check("{" + ", ".join(f"k{i}: 1" for i in range(300)) + "}", CURRENT)
    assert len(told["errors"]) == 101 and "200 more" in told["errors"][-1]["message"]


@given(st.text(max_size=60) | st.binary(max_size=60))
@hypothesis(deadline=None, max_examples=300)
def test_no_policy_file_is_an_exception(raw: str | bytes) -> None:
    assert set(policy_check(raw, CURRENT)) == {"ok", "errors", "version", "changes", "rules"}


def test_a_policy_check_lists_what_would_be_done_otherwise() -> None:
    raw = """
categories: {violence: {answer: regenerate, prompt: flag, score: 0.9}}
suspects: {near: 50}
shadow: [abuse_spam]
apps: {web: {pace: 5, categories: {violence: {answer: flag}}}, new: {blocked_as: error}}
minors: {categories: {harassment_abuse: {prompt: block}}}
"""
    told = policy_check(raw, CURRENT)
    assert told["ok"] and told["errors"] == [] and told["version"] == policy.parse(raw.encode()).common.version
    known = taxonomy()
    changes = [tuple(c[k] for k in ("app", "mode", "category", "direction", "from", "to")) for c in told["changes"]]
    spam = [
        (app, None, "abuse_spam", d, getattr(known["abuse_spam"], d).word, "pass")
        for app in ("*", "new", "web")
        for d in ("answer", "prompt")
    ]
    expected = {
        ("*", None, "violence", "answer", "block", "regenerate"),
        ("new", None, "violence", "answer", "block", "regenerate"),
        ("web", None, "violence", "answer", "block", "flag"),
        *(s for s in spam if s[4] != "pass"),
    }
    assert {c for c in changes if c[1] is None} == expected
    assert ("*", "minors", "harassment_abuse", "prompt", known["harassment_abuse"].prompt.word, "block") in changes
    assert all(c[2] == "harassment_abuse" for c in changes if c[1] and "minors" in c[1])
    rules = {(r["app"], r["mode"], r["rule"]): (r["from"], r["to"]) for r in told["rules"]}
    assert rules["*", None, "suspects.near"] == (0, 50) and rules["*", None, "shadow"] == ([], ["abuse_spam"])
    assert rules["*", None, "categories.violence.score"] == (None, 0.9)
    assert rules["new", None, "blocked_as"] == ("answer", "error")
    assert not [key for key in rules if key[0] == "web"], "what changes for all in the same way is not said again"
    assert not [key for key in rules if "minors" in key[2]]


def test_the_same_policy_changes_nothing(whole: Whole) -> None:
    answer = whole.call("POST", "/policy/check", json={"policy": POLICY + "\nsuspects: {near: 0}  # as it is\n"}).json()
    assert answer["ok"] and answer["changes"] == answer["rules"] == []
