"""Entries at the console: found, added, proposed, changed and rolled back; the lexicon; the policy before it is loaded; the playground,
which leaves no trace."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Model, wait_for
from tests.people import POLICY, House, Person, first, hire, house
from tests.texts import PHONE

ORDINARY = "您好"
"""It stands in the clean texts."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("lists"), shared_model.url) as made:
        yield made


@pytest.fixture(scope="module")
def boss(place: House) -> Person:
    return first(place.admin, place.link, "boss")


@pytest.fixture(scope="module")
def lea(boss: Person) -> Person:
    return hire(boss, "lea-the-lead", "lead")


@pytest.fixture(scope="module")
def max_(boss: Person) -> Person:
    return hire(boss, "max-the-lead", "lead")


COUNT = iter(range(10_000))


def term() -> str:
    return f"只在测试里用的短语{next(COUNT)}号"


def add(person: Person, **said: Any) -> str:
    """Fill in the form for a new entry; its id where it was made."""
    person.get("/entries")
    person.send("/entries", **{"category": "violence", "reason": "a test", **said})
    return person.at.removeprefix("/entries/") if person.at.startswith("/entries/ent_") else ""


def version(place: House) -> int:
    return int(str(place.store.get(place.key("entries:version")) or 0))


def test_an_entry_acts_within_a_second_and_is_found_by_its_term_reason_and_id(
    place: House, lea: Person, shared_model: Model
) -> None:
    word = term()
    shared_model.script.chat(f"这里说到了{word}。")
    assert place.whole.chat("说").headers["x-sluice-action"] == "pass"
    id = add(lea, term=word, reason="甲理由 in the order of a test")
    assert id and word in lea.said
    wait_for(lambda: place.whole.chat("说").headers["x-sluice-action"] == "block", 2)
    for words in (word, "甲理由", id, word[:5]):
        lea.get("/entries?" + httpx.QueryParams({"q": words}).__str__())
        assert id in lea.page, words
    lea.get("/entries?q=what-stands-nowhere")
    assert id not in lea.page and "No such entry" in lea.said
    lea.get("/entries?category=abuse_spam")
    assert id not in lea.page
    row = place.chain(what="entry", entry=id)[0]
    assert (row["who"], row["reason"]) == ("lea-the-lead", "甲理由 in the order of a test")
    assert "lea-the" not in lea.page and lea.alias() in lea.get(f"/entries/{id}")
    shared_model.script.chat("好的。")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"term": "的"}, "term"), ({"term": ""}, "term"), ({"term": "一个短语", "passage": "与一段文字"}, "term"),
        ({"reason": ""}, "reason"), ({"category": "no_such"}, "category"), ({"expires_at": "2020-01-01"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"), ({"app": "NO APP"}, "app"), ({"directions": "sideways"}, "directions"),
        ({"action": "explode"}, "action"), ({"reason": "x" * 1001}, "reason"),
    ],
)  # fmt: skip
def test_a_wrong_entry_comes_back_with_what_was_typed_and_says_what_is_wrong(
    place: House, lea: Person, wrong: dict[str, Any], field: str
) -> None:
    before = version(place)
    said = {"term": "一个可以的短语", "reason": "乙理由"} | wrong
    assert add(lea, **said) == "" and lea.status == 422, lea.said
    assert 'role="alert"' in lea.page and version(place) == before
    assert lea.shown.written("term") == said["term"] and lea.shown.written("reason") == said["reason"]


def test_a_form_sent_twice_makes_one_entry(place: House, lea: Person) -> None:
    lea.get("/entries")
    said = lea.hidden("/entries") | {"term": term(), "category": "violence", "reason": "twice"}
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: lea.http.post("/console/entries", data=said), range(3)))
    assert {a.status_code for a in answers} == {303} and len({a.headers["location"] for a in answers}) == 1
    assert len(place.chain(what="entry", reason="twice")) == 1


def test_a_passage_is_kept_as_its_fingerprint_alone(place: House, lea: Person) -> None:
    id = add(lea, term="", passage="丙标记，这是一整段不应当再说出来的话，它讲的是一条不存在的河和它的桥。")
    assert id and "a passage's fingerprint" in lea.said
    for page in (lea.page, lea.get("/entries"), lea.get("/entries/history")):
        assert "丙标记" not in page
    assert not any("丙标记" in str(place.store.hgetall(key)) for key in place.store.scan_iter("*entries*rows"))


def test_what_stands_in_ordinary_texts_is_previewed_and_needs_another_person(
    place: House, lea: Person, max_: Person
) -> None:
    lea.get("/entries")
    lea.send("/entries/preview", term=ORDINARY, category="violence", reason="丁理由", htmx=True)
    assert "a second person must agree" in lea.said and ORDINARY in lea.said and "<html" not in lea.page
    before = version(place)
    assert add(lea, term=ORDINARY, reason="丁理由") == ""
    assert lea.status == 422 and "it stands in" in lea.said and version(place) == before
    box = next(i for i in lea.shown.of("input") if i.get("name") == "propose")
    assert "checked" in box, "the way out is one click away"
    add(lea, term=ORDINARY, reason="丁理由", propose="1", action="flag")
    add(lea, term=ORDINARY, reason="戊理由", propose="1")
    assert lea.status == 200 and version(place) == before, "a proposal does not act"
    numbers = re.findall(r"/console/entries/proposed/(prop_\w+)", lea.page)
    assert len(numbers) == 2 and "Agree: it acts" not in lea.said
    lea.post(f"/entries/proposed/{numbers[1]}", {"csrf": lea.csrf, "answer": "agree"})
    assert lea.status == 409 and "a second person must agree" in lea.said and version(place) == before
    max_.get("/entries")
    assert "Agree: it acts for 90 days" in max_.said and lea.alias() in max_.said
    max_.send(f"/entries/proposed/{numbers[1]}", answer="agree")
    assert max_.at.startswith("/entries/ent_") and version(place) == before + 1
    assert f"second {max_.alias()}" in max_.said and "Expires -" not in max_.said
    row = place.chain(what="entry", second="max-the-lead")[0]
    assert row["who"] == "max-the-lead"
    id = max_.at.removeprefix("/entries/")
    max_.send(f"/entries/{id}", what="extend", expires_at="2099-01-01", reason="for longer")
    assert max_.status == 422 and "later only by a new proposal" in max_.said
    max_.get(f"/entries/{id}")
    max_.send(f"/entries/{id}", what="remove", reason="over", expires_at="")
    max_.get("/entries")
    max_.send(f"/entries/proposed/{numbers[0]}", answer="decline")
    assert "Waiting for a second person" not in max_.said
    lea.post(f"/entries/proposed/{numbers[0]}", {"csrf": lea.csrf, "answer": "agree"})
    assert lea.status == 404


def test_an_entry_is_changed_and_removed_from_the_version_that_was_seen(
    place: House, lea: Person, max_: Person
) -> None:
    id = add(lea, term=term())
    max_.get(f"/entries/{id}")
    stale = max_.hidden(f"/entries/{id}")
    lea.send(f"/entries/{id}", what="extend", expires_at="2099-01-31", reason="")
    assert lea.status == 422
    lea.get(f"/entries/{id}")
    lea.send(f"/entries/{id}", what="extend", expires_at="2099-01-31", reason="for longer")
    assert lea.status == 200 and "2099-01-31 23:59" in lea.said
    max_.post(f"/entries/{id}", stale | {"what": "remove", "reason": "a stale reason", "expires_at": ""})
    assert max_.status == 409 and max_.shown.written("reason") == "a stale reason" and "2099-01-31" in max_.said
    lea.send(f"/entries/{id}", what="extend", expires_at="2020-01-31", reason="back")
    assert lea.status == 422 and "in the past" in lea.said
    lea.get(f"/entries/{id}")
    lea.send(f"/entries/{id}", what="remove", reason="no longer needed", expires_at="")
    assert lea.at == "/entries" and place.chain(what="entry_remove", entry=id)[0]["reason"] == "no longer needed"
    lea.get(f"/entries/{id}")
    assert lea.status == 404


def test_the_history_is_told_compared_and_rolled_back_once_from_what_was_seen(
    place: House, lea: Person, max_: Person
) -> None:
    first_, second = term(), term()
    add(lea, term=first_)
    seen = version(place)
    id = add(lea, term=second)
    lea.get("/entries/history")
    assert second in lea.page and "added" in lea.said
    lea.get(f"/entries/diff?a={seen}")
    assert second in lea.page and first_ not in lea.page
    max_.get(f"/entries/diff?a={seen}")
    lea.send("/entries/rollback", reason="")
    assert lea.status == 422
    lea.get(f"/entries/diff?a={seen}")
    lea.send("/entries/rollback", reason="a mistake")
    assert lea.status == 200 and lea.at == "/entries/history" and "removed" in lea.said
    lea.get(f"/entries/{id}")
    assert lea.status == 404
    max_.send("/entries/rollback", reason="the same mistake")
    assert max_.status == 409 and "已有他人" in max_.page, "from an old page nothing is rolled back"
    rows = place.chain(what="roll_back")
    assert [(row["who"], row["reason"]) for row in rows] == [("lea-the-lead", "a mistake")]
    for odd in ("a=9999999", "a=5&b=2", "a=-1", "a=x", ""):
        lea.get(f"/entries/diff?{odd}")
        assert lea.status in (200, 422), odd


def test_each_replica_says_which_version_it_enforces(place: House, lea: Person) -> None:
    add(lea, term=term())
    now = version(place)

    def up_to_date() -> bool:
        lea.get("/entries")
        return "up to date" in lea.said and f">{now}</span>" in lea.page

    wait_for(up_to_date, 12)
    place.store.hset(
        place.key("replicas"), "another-replica", f'{{"at": {time.time() - 60}, "workers": [{{"entries_version": 1}}]}}'
    )
    lea.get("/entries")
    assert "another-replica" in lea.said and "silent" in lea.said
    place.store.hset(
        place.key("replicas"),
        "another-replica",
        f'{{"at": {time.time()}, "workers": [{{"entries_version": {now - 2}}}]}}',
    )
    lea.get("/entries")
    assert "2 behind" in lea.said
    place.store.hdel(place.key("replicas"), "another-replica")


def test_terms_of_the_lexicon_are_found_and_are_not_all_shown_at_once(lea: Person) -> None:
    lea.get("/lexicon")
    assert lea.status == 200 and "By category" in lea.said and len(lea.page) < 60_000
    lea.get("/lexicon?q=" + "仿真枪")
    assert "仿真枪" in lea.page and re.search(r"\d+ found", lea.said)
    lea.get("/lexicon?category=abuse_spam")
    assert lea.page.count("<tr data-row>") <= 200
    lea.get("/lexicon?q=what-stands-nowhere&category=no_such")
    assert "0 found" in lea.said


# ---- the policy


def test_a_policy_is_checked_before_it_is_loaded_and_nothing_is_loaded(place: House, lea: Person) -> None:
    file = place.whole.folder / "policy.yaml"
    lea.get("/policy")
    in_force = lea.said
    lea.send("/policy/check", policy=POLICY)
    assert lea.status == 200 and "It can be loaded" in lea.said and "does what the present one does" in lea.said
    changed = POLICY + "categories: {abuse_spam: {answer: block}}\n"
    lea.get("/policy")
    lea.send("/policy/check", policy=changed, htmx=True)
    assert "It can be loaded" in lea.said and "Spam answer" in lea.said and "<html" not in lea.page
    for bad, says in (("a: [", "line"), ("no_such_section: 1", "no_such_section"), ("categories: {no_such: {answer: block}}", "no_such"),
                      ("x" * 300_000, "KiB"), ("\x00", "")):  # fmt: skip
        lea.get("/policy")
        lea.send("/policy/check", policy=bad)
        assert lea.status == 200 and 'role="alert"' in lea.page and says in lea.said
        assert lea.shown.written("policy") == bad.replace("\x00", "\ufffd") or bad == "\x00"
    assert file.read_text("utf-8") == POLICY and lea.get("/policy") and lea.said == in_force


# ---- the playground


def everything(place: House) -> dict[str, Any]:
    """What the store holds, apart from what moves by itself."""
    found = {}
    for key in place.store.scan_iter("*"):
        if any(part in key for part in ("replicas", "session:", "uptime", "counters", "minutes", "degraded")):
            continue
        kind = place.store.type(key)
        read: Any = {"string": place.store.get, "hash": place.store.hgetall}.get(str(kind))
        found[key] = read(key) if read else (kind, place.store.exists(key))
    found["audit"] = place.store.llen(place.key("audit"))
    return found


def counted(place: House) -> str:
    lines = httpx.get(place.whole.ops + "/metrics").text.splitlines()
    of = ("requests", "actions", "screened", "released", "held", "scorer", "shadow", "degraded", "leaked")
    return "\n".join(line for line in lines if line.startswith(tuple(f"sluice_{name}" for name in of)))


def test_the_playground_says_what_a_text_would_get_and_leaves_no_trace(place: House, lea: Person) -> None:
    said = f"己标记：本店低价出售仿真枪支弹药，电话{PHONE}。"
    lea.get("/playground")
    before, numbers = everything(place), counted(place)
    assert numbers
    journal = {p: p.stat().st_size for p in (place.whole.folder / "data" / "journal").glob("*")}
    for more in ({}, {"size": "3"}, {"direction": "prompt"}):
        lea.get("/playground")
        lea.send("/playground", text=said, **more)
        assert lea.status == 200 and "Findings" in lea.said and "block" in lea.said
        assert lea.shown.written("text") == said
    lea.get("/playground")
    lea.send("/playground", text=said, size="5", htmx=True)
    assert "characters held at most" in lea.said and "<html" not in lea.page
    for wrong in (
        {"text": ""},
        {"text": "x" * 20_001},
        {"text": "好", "app": "no_such"},
        {"text": "好" * 3000, "size": "1"},
    ):
        lea.get("/playground")
        lea.send("/playground", **wrong)
        assert lea.status == 422, wrong
    time.sleep(0.5)
    assert everything(place) == before and counted(place) == numbers
    assert {p: p.stat().st_size for p in (place.whole.folder / "data" / "journal").glob("*")} == journal
    for path in Path(place.whole.folder).rglob("*"):
        if path.is_file() and "compiled" not in str(path):
            assert "己标记".encode() not in path.read_bytes(), path
