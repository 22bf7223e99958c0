"""People and figures at the console: accounts and what each may do, one's own settings that are nobody else's business, names in the audit
alone, numbers that lead to what they count, and what people send, which is never markup."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.remediation import UNDECIDED, Case
from app.web.console import pages
from app.web.console.figures import PEOPLE, agreement
from app.web.console.words import KINDS, LANES, STATES
from tests.conftest import Model, wait_for
from tests.people import PASSWORD, House, Person, Shown, first, hire, house, text_of

NAMES = ("boss-of-all", "anna-the-reviewer", "lea-the-lead", "otto-the-operator")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("people"), shared_model.url) as made:
        yield made


@pytest.fixture(scope="module")
def boss(place: House) -> Person:
    return first(place.admin, place.link, NAMES[0])


@pytest.fixture(scope="module")
def anna(boss: Person) -> Person:
    return hire(boss, NAMES[1], "reviewer")


@pytest.fixture(scope="module")
def lea(boss: Person) -> Person:
    return hire(boss, NAMES[2], "lead", "auditor")


@pytest.fixture(autouse=True)
def empty(place: House) -> Iterator[None]:
    place.forgive()
    yield
    for case in place.whole.call("GET", "/cases").json()["cases"]:
        if case["state"] in UNDECIDED:
            place.whole.call("POST", f"/cases/{case['id']}/decision", json={"decision": "reject", "reason": "tidied"})


COUNT = iter(range(10_000))


def text(of: str = "") -> str:
    return f"第{next(COUNT)}段只在测试里出现的文字{of}，它讲的是一条不存在的河，和河上第{next(COUNT)}座不存在的桥。"


# ---- accounts


def change(person: Person, name: str, what: str, **said: Any) -> None:
    person.get("/accounts")
    person.post("/accounts/change", {"csrf": person.csrf, "id": name, "what": what} | said)


def test_the_last_operator_stays_one(place: House, boss: Person) -> None:
    for what, said in (("roles", {"roles": ["reviewer"]}), ("disable", {}), ("remove", {})):
        change(boss, NAMES[0], what, **said)
        assert boss.status == 409 and "the last operator" in boss.said, what
    hire(boss, NAMES[3], "operator")
    change(boss, NAMES[3], "disable")
    change(boss, NAMES[0], "remove")
    assert boss.status == 409, "one who is disabled does not count"
    change(boss, NAMES[3], "enable")
    other = Person(place.admin)
    other.enter(NAMES[3])
    change(other, NAMES[0], "roles", roles=["reviewer", "lead"])
    assert other.status == 200
    boss.get("/accounts")
    assert boss.status == 403, "it takes effect at the next click"
    change(other, NAMES[0], "roles", roles=["reviewer", "lead", "operator"])
    boss.get("/accounts")
    assert boss.status == 200


def test_roles_take_effect_at_the_next_click(place: House, boss: Person) -> None:
    person = hire(boss, "climber", "auditor")
    person.get("/cases")
    assert person.status == 403
    change(boss, "climber", "roles", roles=["reviewer"])
    person.get("/cases")
    assert person.status == 200 and "Audit" not in person.said
    person.get("/audit")
    assert person.status == 403
    rows = place.chain(what="account_change", account="climber")
    assert [(row["who"], row["roles"]) for row in rows] == [(NAMES[0], ["reviewer"])]


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "short"}, {"password": "x" * 201}, {"password": "twelve-chars", "id": "twelve-chars"}, {"password": ""},
        {"id": "A Name"}, {"id": ""}, {"id": "x" * 40}, {"id": "oidc:somebody"}, {"id": "a\nb"}, {"roles": []}, {"roles": ["king"]},
        {"roles": ["reviewer", "king"]},
    ],
)  # fmt: skip
def test_an_account_that_cannot_be_is_refused_and_what_was_typed_stays(
    place: House, boss: Person, wrong: dict[str, Any]
) -> None:
    boss.get("/accounts")
    said = {"id": "somebody", "password": PASSWORD, "roles": ["reviewer"], "name": "甲 of the tests"} | wrong
    boss.send("/accounts", **said)
    assert boss.status == 422 and 'role="alert"' in boss.page
    assert boss.page.count("甲 of the tests") == 1 and PASSWORD not in boss.page
    assert not place.store.hexists(place.key("accounts"), said["id"])


def test_a_name_is_given_once_and_a_stale_page_changes_nothing(place: House, boss: Person, anna: Person) -> None:
    boss.get("/accounts")
    boss.send("/accounts", id=NAMES[1], password=PASSWORD, roles=["operator"])
    assert boss.status == 409 and place.chain(what="account_add", account=NAMES[1])[0]["roles"] == ["reviewer"]
    assert len(place.chain(what="account_add", account=NAMES[1])) == 1
    change(boss, NAMES[1], "roles", roles=["operator"], expected_version="99")
    assert boss.status == 409 and anna.get("/cases") and anna.status == 200
    for odd in ("", "promote"):
        change(boss, NAMES[1], odd)
        assert boss.status == 422
    change(boss, "nobody-here", "disable")
    assert boss.status == 404


def test_an_account_speaks_a_language_that_the_pages_have(boss: Person) -> None:
    boss.get("/accounts")
    boss.send("/accounts", id="polyglot", password="a fresh long password", roles=["reviewer"], language="fr")
    assert boss.status == 422 and "language" in boss.said
    assert boss.get("/accounts") and "polyglot" not in boss.page


def test_an_operator_sets_a_password_and_removes_an_account(place: House, boss: Person) -> None:
    person = hire(boss, "forgetful", "reviewer")
    change(boss, "forgetful", "password", password="short")
    assert boss.status == 422
    change(boss, "forgetful", "password", password="a fresh long password")
    person.get("/cases")
    assert person.at.startswith("/login"), "every session ends"
    person.enter("forgetful", "a fresh long password")
    assert person.status == 200
    change(boss, "forgetful", "remove")
    assert boss.status == 200 and "forgetful" not in boss.page
    person.get("/cases")
    assert person.at.startswith("/login")
    rows = [row["what"] for row in place.chain(account="forgetful")]
    assert rows == ["account_add", "password", "account_remove"]


# ---- one's own settings


def like(person: Person, **said: Any) -> None:
    person.get("/me")
    person.send("/me", **{"cap": "40", "pause": "50", **said})


def test_a_category_that_somebody_will_not_see_is_not_brought_to_them_and_nobody_is_told(
    place: House, boss: Person, anna: Person
) -> None:
    mine, not_mine = place.report(text(), "abuse_spam"), place.report(text(), "violence")
    like(anna, without=["violence"])
    assert anna.status == 200
    anna.get("/cases")
    assert mine in anna.page and not_mine not in anna.page and "some categories are not listed" in anna.said
    anna.get("/cases/next")
    assert anna.at == f"/cases/{mine}"
    anna.send(f"/cases/{mine}/skip")
    assert anna.at == "/cases", "though it would harm more, and though nothing else is left"
    anna.get("/cases?category=violence")
    assert not_mine in anna.page, "whoever asks for it has it"
    (row, *_) = place.chain(what="likes", who=NAMES[1])
    assert set(row) == {"account", "at", "prev", "seq", "what", "who"}, "that, and never what"
    boss.get("/accounts")
    assert "without" not in boss.page
    for other in ("/", "/audit"):
        boss.get(other)
        assert "skip" not in boss.said.replace("Skip to content", "").lower()
    like(anna)


def test_as_many_cases_an_hour_as_one_wants_and_then_a_rest(place: House, anna: Person) -> None:
    cases = [place.report(text(), "violence") for _ in range(3)]
    like(anna, cap="2")
    for key in place.store.scan_iter("*work:*"):
        place.store.delete(key)
    for n, case in enumerate(cases[:2]):
        anna.get(f"/cases/{case}")
        anna.send(f"/cases/{case}/decision", decision="reject", reason="looked at")
        assert anna.at.startswith("/rest") == (n == 1)
    assert "2 cases this hour" in anna.said and "Decided: rejected" in anna.said, "the last can be undone from there"
    anna.get("/cases")
    assert "Take a rest" in anna.said and "Take the next case" not in anna.said
    anna.get("/cases/next")
    assert anna.at.startswith("/rest")
    anna.get(f"/cases/{cases[2]}")
    assert anna.status == 200, "nobody is kept from working"
    keys = list(place.store.scan_iter("*work:*"))
    assert keys and all(NAMES[1] not in key and 0 < place.store.ttl(key) <= 12 * 3600 for key in keys)  # type: ignore[operator]
    like(anna, cap="0")
    anna.get("/cases/next")
    assert anna.at == f"/cases/{cases[2]}"
    like(anna)


def test_a_pause_is_offered_after_as_many_minutes_as_one_said(place: House, anna: Person) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    assert "a pause would be good" not in anna.said
    (key,) = [k for k in place.store.scan_iter("*session:*") if NAMES[1] in str(place.store.get(k))][-1:]
    row = json.loads(str(place.store.get(key)))
    place.edit("accounts", NAMES[1], since=0.0)
    place.store.set(key, json.dumps(row | {"began": time.time() - 51 * 60}), keepttl=True)
    anna.get(f"/cases/{case}")
    assert "a pause would be good" in anna.said
    like(anna, pause="0")
    anna.get(f"/cases/{case}")
    assert "a pause would be good" not in anna.said
    place.store.set(key, json.dumps(row), keepttl=True)
    like(anna)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key-up": "x", "key-down": "x"}, {"key-up": "xy"}, {"cap": "-1"}, {"cap": "1001"}, {"cap": "many"}, {"pause": "601"},
        {"without": ["no_such"]}, {"cap": "9" * 30},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(place: House, anna: Person, wrong: dict[str, Any]) -> None:
    before = place.store.hget(place.key("accounts"), NAMES[1])
    like(anna, **wrong)
    assert anna.status == 422 and 'role="alert"' in anna.page
    assert place.store.hget(place.key("accounts"), NAMES[1]) == before


def test_texts_are_blurred_or_held_for_whom_that_suits(place: House, anna: Person) -> None:
    case = place.report(text())
    like(anna, blur="1", held="1", **{"key-confirm": '"', "key-reject": "<"})
    anna.get(f"/cases/{case}")
    assert any(set(attrs.get("class", "").split()) == {"blur", "held"} for attrs in anna.shown.of("div"))
    assert json.loads(anna.shown.of("body")[0]["data-keys"]) == {"confirm": '"', "reject": "<"}
    like(anna)
    anna.get(f"/cases/{case}")
    assert not any("blur" in attrs.get("class", "") for attrs in anna.shown.of("div"))


def test_every_page_is_there_in_chinese_and_in_english(place: House, boss: Person) -> None:
    person = hire(boss, "two-tongues", "reviewer", "lead", "operator", "auditor", language="zh")
    han = re.compile(r"[\u4e00-\u9fff]")
    names = {"中文"} | {words[0] for table in (STATES, KINDS, LANES) for words in table.values()}
    for language in ("zh", "en"):
        person.post("/me/language", {"csrf": person.csrf, "language": language, "back": "/cases"})
        assert person.at == "/cases"
        for page in pages():
            if page.method != "GET" or page.open or "{" in page.path or page.path in ("/evidence", "/entries/diff"):
                continue
            person.get(page.path)
            assert person.shown.of("html")[0]["lang"] == {"zh": "zh-CN", "en": "en"}[language]
            title = next(said for tag, said in person.shown.texts if tag == "title")
            heading = next(said for tag, said in person.shown.texts if tag == "h1")
            assert bool(han.search(title + heading)) == (language == "zh"), (page.path, title, heading)
            if language == "en" and page.path not in ("/audit", "/decisions", "/entries", "/lexicon"):
                shown = re.sub(r'data-plot="[^"]*"', "", person.page)
                left = set(re.findall(r"[\u4e00-\u9fff]+", shown)) - names
                assert not left, (page.path, left)
    door = Person(place.admin, "zh")
    door.get("/login")
    assert "登录名" in door.said
    door.get("/login?lang=en")
    assert "登录名" not in door.said and "Password" in door.said
    door.send("/login", id="nobody", password="not the password")
    assert "Password" in door.said, "a form answers in the language of its page"


# ---- names


def test_people_stand_by_their_names_in_the_audit_and_nowhere_else(
    place: House, boss: Person, anna: Person, lea: Person
) -> None:
    case = place.report(text(), comment="一个说明")
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/open", part="passage")
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/claim")
    anna.send(f"/cases/{case}/decision", decision="confirm", reason="looked at")
    lea.get("/entries")
    lea.send("/entries", term=f"只在测试里用的短语{next(COUNT)}号", category="violence", reason="a test")
    entry = lea.at
    named = [p.path for p in pages() if p.method == "GET" and not p.open and "{" not in p.path]
    for path in [
        *named,
        f"/cases/{case}",
        f"/cases/{case}/export",
        entry,
        f"/second/{case}",
        "/transparency?form=json",
    ]:
        if path in ("/audit", "/evidence"):
            continue
        for person in (lea, anna):
            person.get(path)
            assert not [name for name in NAMES if name in person.page], path
            assert "of the tests" not in person.page, "nor by what they are called"
    lea.get(f"/cases/{case}")
    assert anna.alias() in lea.said and len({p.alias() for p in (boss, anna, lea)}) == 3
    lea.get("/audit")
    assert NAMES[1] in lea.said and NAMES[2] in lea.said and anna.alias() not in lea.said
    lea.get("/audit?check=1")
    assert re.search(r"the chain of \d+ rows is whole", lea.said)
    for odd in ("-1", "99999999", "x"):
        lea.get(f"/audit?from={odd}")
        assert lea.status == 200


def test_a_chain_that_was_tampered_with_is_seen(place: House, lea: Person) -> None:
    key = place.key("audit")
    row = str(place.store.lindex(key, 2))
    place.store.lset(key, 2, row.replace('"who":"', '"who":"not-'))
    lea.get("/audit?check=1")
    assert re.search(r"the chain is broken at row \d+", lea.said)
    place.store.lset(key, 2, row)
    lea.get("/audit?check=1")
    assert "is whole" in lea.said


def looked(category: str, by: str, other: str, would: str = "confirm") -> Case:
    told = {"by": by, "would": "confirm", "category": category, "reported": category, "at": 1.0}
    second = {"by": other, "would": would, "category": category, "reason": "r", "at": 2.0, "first": told}
    return replace(Case("case_1", "default", category, "confirmed", 1.0, 2.0, "test"), second=second)  # type: ignore[arg-type]


def test_agreement_is_told_by_category_and_only_where_five_people_stand_behind_it() -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("a", "b")]
    assert PEOPLE == 5 and agreement([looked("violence", *pair) for pair in pairs]) == [], "many cases of four people"
    found = agreement(
        [looked("violence", *p) for p in [*pairs, ("a", "e")]] + [looked("abuse_spam", "f", "g", "reject")]
    )
    assert found == [{"category": "violence", "of": 6, "agreed": 6}]
    found = agreement([looked("violence", *p, would="reject") for p in [("a", "b"), ("c", "d"), ("e", "a")]])
    assert found == [{"category": "violence", "of": 3, "agreed": 0}]


def test_agreement_stands_on_the_overview_for_whoever_may_audit(place: House, lea: Person, anna: Person) -> None:
    cases = [place.report(text(), "discrimination_age") for _ in range(3)]
    for case, (by, other) in zip(cases, [("p1", "p2"), ("p3", "p4"), ("p1", "p3")], strict=True):
        place.edit("cases", case, second=looked("discrimination_age", by, other).second)
    lea.get("/")
    assert "Agreement (categories" not in lea.said, "four people"
    place.edit("cases", cases[2], second=looked("discrimination_age", "p5", "p3").second)
    lea.get("/")
    assert "Agreement (categories" in lea.said and "Age discrimination 3 3" in lea.said
    anna.get("/")
    assert "Agreement (categories" not in anna.said
    for case in cases:
        place.edit("cases", case, second=None)


# ---- figures


def test_every_number_of_the_overview_leads_to_what_it_counts(place: House, boss: Person, shared_model: Model) -> None:
    shared_model.script.chat("本店低价出售仿真枪支弹药，丙标记。")
    answer = place.whole.chat("说")
    shared_model.script.chat("好的。")
    assert answer.headers["x-sluice-action"] in ("block", "replace")
    decision = answer.headers["x-sluice-decision"]

    def counted() -> bool:
        boss.get("/")
        return any(a["href"].startswith("/console/decisions?category=") for a in boss.shown.of("a"))

    wait_for(counted, 15)
    figures = [attrs for attrs in boss.shown.of("a") if "figure" in attrs.get("class", "")]
    assert len(figures) >= 14 and not [s for s in boss.shown.of("span") if "figure" in s.get("class", "")]
    anchors = boss.http.get("/console/metrics").text
    for attrs in boss.shown.of("a"):
        place_, _, anchor = attrs["href"].partition("#")
        if place_.startswith("/console"):
            assert boss.http.get(place_).status_code in (200, 303), place_
    for attrs in figures:
        anchor = attrs["href"].partition("#")[2]
        assert not anchor or f'id="{anchor}"' in anchors or "No" in anchors, anchor
    plots = [json.loads(attrs["data-plot"]) for attrs in boss.shown.of("div") if "data-plot" in attrs]
    assert len(plots) == 3 and all(len({len(row) for row in plot["data"]}) == 1 for plot in plots)

    def written() -> bool:
        boss.get(f"/decisions?id={decision}")
        return decision in boss.page

    wait_for(written, 10)
    assert "–" in boss.said and "丙标记" not in boss.page and "仿真枪" not in boss.page and "说" not in boss.said
    for query, there in (
        ("action=block", True),
        ("direction=prompt&action=block", False),
        ("leaked=1", False),
        ("degraded=x", False),
    ):
        boss.get(f"/decisions?{query}")
        assert (decision in boss.page) == there, query


def test_reports_for_others_are_downloaded_in_every_form(place: House, lea: Person) -> None:
    lea.get("/transparency")
    assert lea.status == 200 and "whole" in lea.said
    for form, kind in (("json", "application/json"), ("csv", "text/csv"), ("html", "text/html")):
        answer = lea.http.get(f"/console/transparency?half=2026H2&form={form}&public=1")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"] == f'attachment; filename="transparency-2026H2.{form}"'
        assert answer.headers["content-security-policy"] and not [name for name in NAMES if name in answer.text]
    for form, name in (("", "evidence.html"), ("json", "evidence.json")):
        answer = lea.http.get(f"/console/evidence?form={form}")
        assert answer.status_code == 200 and name in answer.headers["content-disposition"]
    for odd in ("half=2026", "half=2026H3", "half=%22%0d%0aset-cookie:x", "form=exe", "half=2026H2&form=../x"):
        answer = lea.http.get(f"/console/transparency?{odd}")
        assert answer.status_code == 422 and "set-cookie" not in answer.headers, odd


# ---- what people send


CORPUS = (
    '"><pwned9 onx9=1>', "'><pwned9 onx9='1'>", "</textarea><pwned9>", "</title><pwned9>", "<script>pwned9()</script>",
    "<img src=x9 onerror=pwned9()>", "<svg/onload=pwned9()>", '" onx9="pwned9()" x="', "{{7*7}}{% x %}pwned9", "<!-- pwned9",
    "]]><pwned9>", "<pwned9 hx-get=/x9 hx-trigger=load>", "<a href=javascript:pwned9()>pwned9</a>", "javascript:pwned9()",
    "<bdi></bdi><iframe src=//x9>", "\u202e<pwned9>", "<b\x0bx9>", "&lt;pwned9&gt;", "<form action=//x9><input name=csrf>",
)  # fmt: skip
ALL = " ".join(CORPUS)
_MADE = ("pwned9", "iframe", "svg", "img", "b\x0bx9")


def is_text(page: str, said: str = "") -> None:
    """No element and no attribute of the page came from what was sent; and, `said`, it is there to be read."""
    shown = Shown(page)
    for tag, attrs in shown.elements:
        assert not any(tag.startswith(made) for made in _MADE), (tag, attrs)
        for name, value in attrs.items():
            assert "9" not in name and not name.startswith("on"), (tag, name)
            if name in ("href", "src", "action", "formaction", "hx-post", "hx-get"):
                assert not value.strip().lower().startswith(("javascript:", "//x9", "data:")), value
    scripts = [words for tag, words in shown.texts if tag in ("script", "style") and words.strip()]
    assert scripts == [] and len(shown.of("title")) <= 1
    assert "49{%" not in page
    if said:
        assert "pwned9" in page, text_of(page)[-3000:]


def test_what_reporters_send_is_text(place: House, anna: Person, lea: Person) -> None:
    case = place.report(f"这一段话里有许多的符号 {ALL} 就这些。", comment=ALL, prompt=ALL)
    anna.get(f"/cases/{case}")
    is_text(anna.page)
    for part in ("passage", "prompt", "comments"):
        for plain in ("", "1"):
            anna.post(f"/cases/{case}/open", {"csrf": anna.csrf, "part": part, "plain": plain})
            is_text(anna.page, ALL)
    taken = place.whole.http.post("/sluice/v1/complaints", json={"kind": "infringement", "comment": ALL}).json()
    anna.post(f"/complaints/{taken['ticket']}/open", {"csrf": anna.csrf})
    is_text(anna.page, ALL)
    anna.get(f"/complaints/{taken['ticket']}")
    anna.send(f"/complaints/{taken['ticket']}/decision", decision="refuse", reason=ALL)
    assert anna.at == "/complaints"
    anna.get(f"/complaints/{taken['ticket']}")
    is_text(anna.page, ALL)
    similar = place.report(f"这一段话里有许多的符号 {ALL} 就这些了。")
    anna.get(f"/cases/{case}")
    anna.post(f"/cases/{case}/preview", {"csrf": anna.csrf, "case": [f"{case}:1", f"{similar}:1"]})
    is_text(anna.page, ALL)


def test_what_reviewers_write_is_text(place: House, anna: Person, lea: Person) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/decision", decision="confirm", reason="")
    anna.send(f"/cases/{case}/decision", decision="confirm", reason=ALL, expected_version="99", vendor=ALL[:199])
    assert anna.status == 409
    is_text(anna.page, ALL)
    for said in (
        {"decision": "confirm", "reason": ALL},
        {"decision": "hand_over", "reason": ALL, "vendor": CORPUS[0], "reference": CORPUS[5], "date": "2027-01-01"},
        {"decision": "widen", "reason": ALL, "term": "绝不寻常的示例短语" + CORPUS[0]},
        {"decision": "except", "reason": ALL, "role": CORPUS[3]},
    ):
        anna.get(f"/cases/{case}")
        anna.send(f"/cases/{case}/decision", **said)
        anna.get(f"/cases/{case}")
        is_text(anna.page, ALL)
    lea.get("/audit")
    is_text(lea.page, ALL)
    anna.get(f"/cases/{case}?done={CORPUS[0]}")
    is_text(anna.page)


def test_what_leads_and_operators_write_is_text(place: House, boss: Person, lea: Person) -> None:
    term = f"只在测试里用的短语{next(COUNT)}号" + CORPUS[0]
    lea.get("/entries")
    lea.send("/entries", term=term, category="violence", reason=ALL)
    assert lea.at.startswith("/entries/ent_"), lea.said
    is_text(lea.page, ALL)
    lea.get("/entries")
    is_text(lea.page, ALL)
    lea.get("/entries/history")
    is_text(lea.page, ALL)
    lea.get("/entries/diff?a=0")
    is_text(lea.page)
    lea.get("/entries")
    lea.send("/entries", term=term + "二", category="violence", reason=ALL, propose="1")
    is_text(lea.page, ALL)
    for said in (
        {"term": ALL[:199], "reason": "", "passage": ALL},
        {"expires_at": ALL},
        {"app": ALL},
        {"category": ALL},
    ):
        lea.get("/entries")
        lea.send("/entries", **{"term": "短语", "category": "violence", "reason": ALL} | said)
        assert lea.status == 422
        is_text(lea.page)
    lea.get("/entries")
    lea.send("/entries/preview", term=ALL[:150], category="violence", reason=ALL)
    is_text(lea.page)
    boss.get("/accounts")
    boss.send("/accounts", id="marked-up", password=PASSWORD, roles=["auditor"], name=ALL)
    is_text(boss.page, ALL)
    boss.get("/accounts")
    boss.send("/accounts", id=CORPUS[0], password=PASSWORD, roles=[CORPUS[1]], name=ALL)
    assert boss.status == 422
    is_text(boss.page, ALL)
    for path, field in (("/policy/check", "policy"), ("/playground", "text")):
        for htmx in (False, True):
            lea.get(path.replace("/check", ""))
            lea.send(path, **{field: ALL}, htmx=htmx)
            is_text(lea.page)
    lea.get("/policy")
    lea.send("/policy/check", policy=f"categories: {{{json.dumps(CORPUS[0])}: {{answer: block}}}}")
    is_text(lea.page, CORPUS[0])


def test_what_stands_in_an_address_is_text(place: House, boss: Person) -> None:
    fields = (
        "q", "category", "list", "owner", "from", "lane", "kind", "app", "half", "form", "id", "rule", "direction", "action",
        "outcome", "degraded", "leaked", "a", "b", "until", "done", "next", "lang", "token", "first", "check",
    )  # fmt: skip
    person = Person(place.admin)
    for page in pages():
        if page.method != "GET":
            continue
        for said in (CORPUS[0] + CORPUS[3], "javascript:pwned9()"):
            query = httpx.QueryParams(dict.fromkeys(fields, said))
            who = person if page.open else boss
            answer = who.http.get(f"/console{page.path.replace('{id}', 'x9')}?{query}")
            assert answer.status_code < 500, page.path
            if "attachment" not in answer.headers.get("content-disposition", ""):
                is_text(answer.text)
        if "{id}" in page.path:
            answer = boss.http.get("/console" + page.path.replace("{id}", "%3Cpwned9%20onx9%3D1%3E"))
            assert answer.status_code < 500
            is_text(answer.text)
    person.get("/login")
    for said in CORPUS[:5]:
        person.post("/login", {"id": said, "password": said, "next": said})
        is_text(person.page)
        person.post("/setup", {"id": said, "token": said, "password": PASSWORD, "again": PASSWORD})
        is_text(person.page)
    is_text(person.get("/" + "%3Cpwned9%3E"))


# ---- the store away


def test_while_the_store_is_away_pages_say_so_what_was_typed_stays_and_then_all_goes_on(
    place: House, boss: Person, anna: Person, lea: Person
) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    form = anna.hidden(f"/cases/{case}/decision")
    lea.get("/entries")
    entry = lea.hidden("/entries")
    place.server.kill()
    try:
        for path in ("/", "/cases", f"/cases/{case}", "/entries", "/audit", "/me"):
            boss.get(path)
            assert boss.status == 503 and "存储暂不可用" in boss.page and "<html" in boss.page, path
            assert boss.response.headers["content-security-policy"]
        door = Person(place.admin)
        door.get("/login")
        assert door.status == 503 and "存储暂不可用" in door.page
        door.post("/login", {"id": NAMES[1], "password": PASSWORD})
        assert door.status == 503 and PASSWORD not in door.page
        anna.post(
            f"/cases/{case}/decision", form | {"decision": "confirm", "reason": "typed <b>while</b> it was away\n二"}
        )
        assert anna.status == 503 and anna.shown.written("reason") == "typed <b>while</b> it was away\n二"
        lea.post(
            "/entries", entry | {"term": "一个示例短语", "category": "violence", "reason": "丁理由", "action": "flag"}
        )
        assert lea.status == 503 and lea.shown.written("term") == "一个示例短语"
        cross = anna.http.post(
            f"/console/cases/{case}/decision", data={"reason": "x9"}, headers={"sec-fetch-site": "cross-site"}
        )
        assert cross.status_code == 403 and "x9" not in cross.text
        part = anna.http.post(
            f"/console/cases/{case}/open", data=form | {"part": "passage"}, headers={"hx-request": "true"}
        )
        assert part.status_code == 503 and "<html" not in part.text
    finally:
        place.server.start()
    again = anna.hidden(f"/cases/{case}/decision") | {"reason": anna.shown.written("reason")}

    def back() -> bool:
        boss.get("/")
        return boss.status == 200

    wait_for(back, 20)
    anna.post(f"/cases/{case}/decision", again)
    assert anna.status == 200, anna.said
    row = place.chain(what="confirm", case=case)[0]
    assert row["reason"] == "typed <b>while</b> it was away\n二", "sent again as it was typed, with one click"
