"""Cases at the console: what is brought to whom, what is shown when, and that nothing is decided twice, unseen, or without a reason."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.remediation import UNDECIDED
from tests.conftest import Model
from tests.people import House, Person, first, hire, house
from tests.texts import PHONE

TEXT = f"把甲仓库的蓝色木箱搬到乙码头的第三个泊位，再打电话{PHONE}告诉夜班的管理员，印章的编号是七。"
ASKED = "请说说箱子应该怎样搬才对"
COMMENT = "这段说明里有别人的号码"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("cases"), shared_model.url) as made:
        yield made


@pytest.fixture(scope="module")
def boss(place: House) -> Person:
    return first(place.admin, place.link, "boss")


@pytest.fixture(scope="module")
def anna(boss: Person) -> Person:
    person = hire(boss, "anna-the-reviewer", "reviewer")
    person.get("/me")
    person.send("/me", cap="0", pause="0")
    return person


@pytest.fixture(scope="module")
def bert(boss: Person) -> Person:
    person = hire(boss, "bert-the-reviewer", "reviewer")
    person.get("/me")
    person.send("/me", cap="0", pause="0")
    return person


@pytest.fixture(autouse=True)
def empty(place: House) -> Iterator[None]:
    """What a test leaves undecided is decided, so that the next begins with an empty queue."""
    yield
    for case in place.whole.call("GET", "/cases").json()["cases"]:
        place.store.delete(place.key(f"claim:{case['id']}"))
        if case["state"] in UNDECIDED:
            place.whole.call("POST", f"/cases/{case['id']}/decision", json={"decision": "reject", "reason": "tidied"})


COUNT = iter(range(10_000))


def text(of: str = "") -> str:
    """One that no other test has."""
    return f"第{next(COUNT)}段只在测试里出现的文字{of}，它讲的是一条不存在的河，和河上第{next(COUNT)}座不存在的桥。"


def decide(person: Person, case: str, decision: str = "reject", reason: str = "looked at", **more: Any) -> str:
    person.get(f"/cases/{case}")
    return person.send(f"/cases/{case}/decision", decision=decision, reason=reason, **more)


# ---- the queue


def test_the_queue_tells_of_harm_kind_and_date_and_nothing_that_was_said(place: House, anna: Person) -> None:
    case = place.report(text("甲标记"), "violence", comment="乙标记", prompt="丙标记")
    anna.get("/cases")
    assert f"/console/cases/{case}" in anna.page and "harm 8" in anna.said and "days left" in anna.said
    assert anna.said.index("harm 8") < anna.said.index("days left")
    for said in ("甲标记", "乙标记", "丙标记", "不存在的河"):
        assert said not in anna.page


def test_lanes_and_filters_bring_what_they_say(place: House, anna: Person) -> None:
    cases = {c: place.report(text(), c) for c in ("violence", "abuse_spam", "discrimination_age")}
    anna.get("/cases?category=abuse_spam")
    assert [c for c, id in cases.items() if id in anna.page] == ["abuse_spam"]
    anna.get("/cases?category=no_such&lane=no_such")
    assert all(id in anna.page for id in cases.values()), "what is unknown filters nothing"
    decide(anna, cases["violence"], "confirm")
    anna.get("/cases")
    assert cases["violence"] not in anna.page
    anna.get("/cases?lane=duty")
    assert cases["violence"] in anna.page and cases["abuse_spam"] not in anna.page
    place.edit("cases", cases["violence"], due=time.time() - 86400.0 * 3)
    assert place.store.zadd(place.key("cases:due"), {cases["violence"]: time.time() - 86400.0 * 3}) == 0
    anna.get("/cases?lane=overdue")
    assert cases["violence"] in anna.page and "days over" in anna.said
    decide(anna, cases["violence"], "except", role="legal counsel")
    decide(anna, cases["abuse_spam"])
    anna.get("/cases?lane=decided")
    assert cases["abuse_spam"] in anna.page and cases["violence"] in anna.page


# ---- what is shown, and when


def test_a_case_tells_its_harm_and_no_text_until_it_is_opened_and_each_opening_is_written_down(
    place: House, anna: Person
) -> None:
    case = place.report(TEXT, comment=COMMENT, prompt=ASKED)
    before = len(place.chain(what="look", case=case))
    anna.get(f"/cases/{case}")
    assert anna.said.index("harm 8") < anna.said.index("Show the text")
    for said in (TEXT[:8], "木箱", ASKED, COMMENT, PHONE):
        assert said not in anna.page
    assert len(place.chain(what="look", case=case)) == before
    for part, said in (("passage", "蓝色木箱"), ("prompt", ASKED), ("comments", COMMENT)):
        anna.get(f"/cases/{case}")
        anna.send(f"/cases/{case}/open", part=part)
        assert said in anna.said.replace(" ", ""), part
        assert (
            place.chain(what="look", case=case)[-1] | {"part": part, "who": "anna-the-reviewer"}
            == place.chain(what="look", case=case)[-1]
        )
    assert len(place.chain(what="look", case=case)) == before + 3
    anna.get(f"/cases/{case}")
    assert "evidence opened" in anna.said and "anna" not in anna.page


def test_personal_information_is_covered_until_it_is_asked_for_which_is_written_down_too(
    place: House, anna: Person
) -> None:
    case = place.report(
        f"另一段很长的文字，里面有个电话{PHONE}，别的没有了。",
        comment=f"打这个电话{PHONE}",
        prompt=f"谁的电话是{PHONE}",
    )
    for part in ("passage", "prompt", "comments"):
        anna.get(f"/cases/{case}")
        anna.send(f"/cases/{case}/open", part=part)
        assert PHONE not in anna.page and "●" * 11 in anna.page, "as it was and as it is matched"
        assert PHONE[3:] not in anna.page
        anna.send(f"/cases/{case}/open", part=part, plain="1")
        assert PHONE in anna.page and "●" not in anna.page
        assert place.chain(what="look", case=case)[-1]["part"] == f"{part}, unmasked"


@pytest.mark.parametrize("part", ["", "everything", "evidence", "../passage"])
def test_there_are_three_parts_and_no_others(place: House, anna: Person, part: str) -> None:
    case = place.report(text(), prompt=ASKED)
    anna.get(f"/cases/{case}")
    before = len(place.chain())
    anna.send(f"/cases/{case}/open", part=part)
    assert anna.status == 422 and ASKED not in anna.page and len(place.chain()) == before


def test_what_cannot_be_seen_is_told_and_turns_nothing(place: House, anna: Person) -> None:
    case = place.report("看不见的\u200b字符和\u202e反过来的字，都在这段很长的文字里面。")
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/open", part="passage")
    assert "\u202e" not in anna.page and "\u200b" not in anna.page
    assert "ZERO WIDTH SPACE" in anna.page and "RIGHT-TO-LEFT OVERRIDE" in anna.page


def test_of_a_category_that_keeps_nothing_there_is_nothing_to_open(place: House, anna: Person) -> None:
    case = place.report(text("丁标记"), "sexual_minors", comment="戊标记", prompt="己标记")
    anna.get(f"/cases/{case}")
    assert "Nothing of this category is kept" in anna.said and "Show the text" not in anna.said
    for part in ("passage", "prompt", "comments"):
        anna.post(f"/cases/{case}/open", {"csrf": anna.csrf, "part": part})
        assert not any(mark in anna.page for mark in ("丁标记", "戊标记", "己标记", "不存在的河"))
    decide(anna, case, "confirm")
    anna.get(f"/cases/{case}")
    assert 'value="probe"' not in anna.page and "Samples of this case" not in anna.said


# ---- who works on what


def test_a_claim_shows_and_stops_others_and_ends_when_its_holder_lets_go(
    place: House, anna: Person, bert: Person
) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/claim")
    assert "Let go" in anna.said and 0 < int(place.store.ttl(place.key(f"claim:{case}"))) <= 600  # type: ignore[arg-type]
    bert.get(f"/cases/{case}")
    assert f"{anna.alias()} works on this case" in bert.said
    bert.get("/cases")
    assert anna.alias() in bert.said
    bert.get(f"/cases/{case}")
    bert.send(f"/cases/{case}/claim")
    assert bert.status == 409 and anna.alias() in bert.said
    bert.get(f"/cases/{case}")
    bert.send(f"/cases/{case}/decision", decision="reject", reason="what bert wrote")
    assert bert.status == 409 and bert.shown.written("reason") == "what bert wrote"
    assert place.case(case)["state"] in UNDECIDED
    bert.post(f"/cases/{case}/release", {"csrf": bert.csrf})
    assert place.store.exists(place.key(f"claim:{case}")), "nobody lets go of another's"
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/release")
    bert.get(f"/cases/{case}")
    bert.send(f"/cases/{case}/claim")
    assert bert.status == 200 and "Let go" in bert.said
    assert [row["who"] for row in place.chain(what="claim", case=case)] == ["anna-the-reviewer", "bert-the-reviewer"]


def test_the_next_case_is_one_that_nobody_works_on_and_that_was_not_skipped(
    place: House, anna: Person, bert: Person
) -> None:
    cases = [place.report(text()) for _ in range(3)]
    anna.get("/cases/next")
    assert anna.at == f"/cases/{cases[0]}", "the oldest of those that are alike in harm"
    anna.send(f"/cases/{cases[0]}/claim")
    bert.get("/cases/next")
    assert bert.at == f"/cases/{cases[1]}"
    before = place.chain()
    bert.send(f"/cases/{cases[1]}/skip")
    assert bert.at == f"/cases/{cases[2]}"
    assert place.chain() == before, "a skip is written down nowhere"
    keys = [key for key in place.store.scan_iter("*work:*") if "skipped" in key]
    assert keys and all("bert" not in key and place.store.ttl(key) > 0 for key in keys)  # type: ignore[operator]
    bert.get("/cases")
    assert cases[1] not in bert.page
    anna.get("/cases")
    assert cases[1] in anna.page, "others do not see it"
    bert.get(f"/cases/{cases[2]}")
    bert.send(f"/cases/{cases[2]}/skip")
    assert bert.at.startswith("/cases") and "case_" not in bert.at, "nothing is left for him"
    assert place.case(cases[1])["state"] in UNDECIDED


# ---- deciding


def test_no_decision_without_a_reason_a_version_or_a_decision(place: House, anna: Person) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    good = anna.hidden(f"/cases/{case}/decision") | {"decision": "confirm", "reason": "said and kept"}
    for wrong in ({"reason": ""}, {"reason": "   "}, {"expected_version": ""}, {"expected_version": "x"}, {"decision": ""},
                  {"decision": "destroy"}, {"category": "no_such"}, {"reason": "x" * 2001}):  # fmt: skip
        anna.post(f"/cases/{case}/decision", good | wrong)
        assert anna.status == 422, wrong
        assert anna.shown.written("reason") == (good | wrong)["reason"] and 'role="alert"' in anna.page
    assert place.case(case)["version"] == 1 and not place.chain(what="confirm", case=case)


def test_a_stale_page_answers_with_the_fresh_one_and_keeps_what_was_typed(
    place: House, anna: Person, bert: Person
) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    bert.get(f"/cases/{case}")
    stale = bert.hidden(f"/cases/{case}/decision")
    anna.send(f"/cases/{case}/decision", decision="confirm", reason="anna was first")
    assert anna.status == 200
    bert.post(
        f"/cases/{case}/decision", stale | {"decision": "reject", "reason": "bert <b>typed</b> this\nin two lines"}
    )
    assert bert.status == 409 and "confirmed" in bert.said and "anna was first" in bert.said
    assert "最新内容" in bert.page and "it is at version 2" in bert.said
    assert bert.shown.written("reason") == "bert <b>typed</b> this\nin two lines"
    fresh = bert.hidden(f"/cases/{case}/decision")
    assert fresh["expected_version"] == "2" and fresh["key"] != stale["key"]


def test_two_reviewers_at_once_never_decide_a_case_twice(place: House, anna: Person, bert: Person) -> None:
    for round_ in range(12):
        case = place.report(text())
        forms = []
        for person, decision in ((anna, "confirm"), (bert, "reject")):
            person.get(f"/cases/{case}")
            said = person.hidden(f"/cases/{case}/decision") | {"decision": decision, "reason": f"round {round_}"}
            forms.append((person, said))
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(lambda f: f[0].http.post(f"/console/cases/{case}/decision", data=f[1]), forms)  # noqa: B023
            )
        assert sorted(a.status_code for a in answers) == [303, 409]
        rows = [row for row in place.chain(case=case) if row["what"] in ("confirm", "reject")]
        assert len(rows) == 1 and place.case(case)["version"] == 2
        late = next(a for a in answers if a.status_code == 409)
        assert f"round {round_}</textarea>" in late.text


def test_a_form_that_is_sent_twice_is_one_decision(place: House, anna: Person) -> None:
    case = place.report(text())
    anna.get(f"/cases/{case}")
    said = anna.hidden(f"/cases/{case}/decision") | {"decision": "confirm", "reason": "clicked twice"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: anna.http.post(f"/console/cases/{case}/decision", data=said), range(4)))
    assert {a.status_code for a in answers} == {303}
    assert len(place.chain(what="confirm", case=case)) == 1
    other = anna.http.post(f"/console/cases/{case}/decision", data=said | {"reason": "other words"})
    assert other.status_code == 409 and "other words" in other.text


def test_a_decision_is_undone_by_one_key_within_ten_seconds_and_later_with_a_reason(
    place: House, anna: Person, bert: Person
) -> None:
    case, other = place.report(text()), place.report(text())
    decide(anna, case, "confirm")
    assert anna.at.startswith(f"/cases/{other}?done={case}") and "Decided: confirmed" in anna.said
    anna.send(f"/cases/{case}/undo")
    assert anna.status == 200 and place.case(case)["state"] in UNDECIDED and place.case(case)["entries"] == []
    assert "within ten seconds" in place.chain(what="undo", case=case)[0]["reason"]
    decide(anna, case, "confirm")
    bert.get(f"/cases/{other}?done={case}")
    assert "Decided:" not in bert.said, "another's is not his to undo by a key"
    bert.get(f"/cases/{case}")
    bert.send(f"/cases/{case}/undo", reason="")
    assert bert.status == 422
    place.edit("cases", case, decision={"at": time.time() - 30})
    anna.get(f"/cases/{other}?done={case}")
    assert "Decided:" not in anna.said
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/undo", reason="")
    assert anna.status == 422 and "the ten seconds are over" in anna.said and place.case(case)["state"] == "confirmed"
    anna.send(f"/cases/{case}/undo", reason="it was a mistake")
    assert anna.status == 200 and place.case(case)["state"] in UNDECIDED
    assert place.chain(what="undo", case=case)[-1]["reason"] == "it was a mistake"


def test_a_confirmed_passage_is_blocked_and_an_undone_one_is_not(
    place: House, anna: Person, shared_model: Model
) -> None:
    from tests.conftest import wait_for

    said = text("，说出来就会被拦下，说第二遍也还是会被拦下")
    shared_model.script.chat(said)
    case = place.report(said)
    decide(anna, case, "confirm")
    wait_for(lambda: place.whole.chat("说").headers["x-sluice-action"] in ("block", "replace"), 5)
    anna.get(f"/cases/{case}")
    anna.send(f"/cases/{case}/undo", reason="no")
    wait_for(lambda: place.whole.chat("说").headers["x-sluice-action"] == "pass", 5)
    shared_model.script.chat("好的。")


# ---- those that are like it


def alike(place: House, n: int) -> list[str]:
    base = text("，这是许多人都收到过的同一段很长的话，里面只有最后的几个字各不相同，其余的部分一个字也没有改过")
    return [place.report(f"{base}结尾{'甲乙丙丁戊'[i]}。") for i in range(n)]


def test_cases_that_are_alike_are_previewed_and_decided_together_and_a_stale_one_is_left_out(
    place: House, anna: Person, bert: Person
) -> None:
    cases = alike(place, 4)
    anna.get(f"/cases/{cases[0]}")
    assert all(case in anna.page for case in cases[1:]), "found without a text being shown"
    assert "同一段很长的话" not in anna.page
    looks = len(place.chain(what="look"))
    anna.send(f"/cases/{cases[0]}/preview", case=[f"{case}:1" for case in cases])
    assert "4 cases would be decided together" in anna.said and "同一段很长的话" in anna.page
    assert len(place.chain(what="look")) == looks + 4, "their texts were opened"
    assert all(place.case(case)["version"] == 1 for case in cases), "a preview does nothing"
    form = anna.hidden(f"/cases/{cases[0]}/together")
    for wrong in ({"reason": ""}, {"decision": ""}, {"decision": "widen"}, {"case": []}, {"case": ["x", "case_1:x"]}):
        said: dict[str, Any] = {"decision": "reject", "reason": "alike", "case": [f"{c}:1" for c in cases]} | wrong
        anna.post(f"/cases/{cases[0]}/together", form | said)
        assert anna.status == 422, wrong
    decide(bert, cases[3], "confirm")
    said = {"decision": "reject", "reason": "all alike", "case": [f"{c}:1" for c in cases]}
    anna.post(f"/cases/{cases[0]}/together", form | said)
    assert anna.said.count("not decided: somebody was first") == 1
    assert [place.case(case)["state"] for case in cases] == ["rejected"] * 3 + ["confirmed"]
    anna.send(f"/cases/{cases[0]}/undo")
    assert place.case(cases[0])["state"] in UNDECIDED and place.case(cases[1])["state"] == "rejected"


def test_a_preview_leaves_out_what_changed_meanwhile(place: House, anna: Person, bert: Person) -> None:
    cases = alike(place, 2)
    anna.get(f"/cases/{cases[0]}")
    decide(bert, cases[1], "reject")
    anna.send(f"/cases/{cases[0]}/preview", case=[f"{case}:1" for case in cases])
    assert "changed meanwhile: left out" in anna.said
    boxes = {i["value"]: i for i in anna.shown.of("input") if i.get("name") == "case"}
    assert "checked" in boxes[f"{cases[0]}:1"] and "disabled" in boxes[f"{cases[1]}:2"]


# ---- further on


def test_a_wider_entry_needs_the_word_of_a_second_person(place: House, anna: Person, bert: Person) -> None:
    case = place.report(text())
    decide(anna, case, "confirm")
    term = "绝不寻常的示例短语"
    decide(anna, case, "widen", term="的")
    assert anna.status == 422 and "too short" in anna.said and anna.shown.written("term") == "的"
    decide(anna, case, "widen", term=term)
    assert anna.status == 200 and "Proposed:" in anna.said and anna.alias() in anna.said
    decide(anna, case, "widen", term=term)
    assert len(place.case(case)["entries"]) == 1, "the same person twice is one person"
    decide(bert, case, "widen", term="另外一个示例短语")
    assert len(place.case(case)["entries"]) == 1, "other words are another proposal"
    decide(anna, case, "widen", term="另外一个示例短语")
    assert len(place.case(case)["entries"]) == 2
    assert [row["in_force"] for row in place.chain(what="widen", case=case)][-1] is True


def test_a_case_is_handed_over_probed_excepted_and_reopened(place: House, anna: Person) -> None:
    case = place.report(text(), prompt=ASKED)
    decide(anna, case, "confirm")
    decide(anna, case, "hand_over", vendor="a vendor")
    assert anna.status == 422 and anna.shown.written("vendor") == "a vendor"
    decide(anna, case, "hand_over", vendor="a vendor", reference="T-1", date="2027-02-30x")
    assert anna.status == 422
    decide(anna, case, "hand_over", vendor="a vendor", reference="T-1", date="2027-02-03")
    assert anna.status == 200 and "a vendor · T-1 · 2027-02-03" in anna.said
    decide(anna, case, "probe", model="")
    assert anna.status == 422 and "name of the model" in anna.said
    decide(anna, case, "probe", model="m", variants="换一种问法\n\n再换一种问法")
    assert anna.status == 200 and place.case(case)["asked"]["model"] == "m"
    from tests.conftest import wait_for

    wait_for(lambda: place.case(case)["probes"], 30)
    anna.get(f"/cases/{case}")
    assert "Probes: upper bound" in anna.said and place.case(case)["state"] in ("closed", "handed_over")
    if place.case(case)["state"] == "handed_over":
        decide(anna, case, "except", role="")
        assert anna.status == 422
        decide(anna, case, "except", role="legal counsel")
        assert anna.status == 200 and "legal counsel" in anna.said
    decide(anna, case, "reopen")
    assert place.case(case)["state"] == "reopened"
    decide(anna, case, "confirm")
    assert anna.status == 409 and "cannot be moved" in anna.said


# ---- second looks


def test_a_second_look_is_blind_and_another_persons(place: House, anna: Person, bert: Person) -> None:
    case = place.report(text(), "abuse_spam")
    decide(anna, case, "confirm", reason="庚标记 of the first", category="violence")
    bert.get("/second")
    assert f"/console/second/{case}" in bert.page
    bert.get(f"/second/{case}")
    assert bert.status == 200
    rows = [row["value"] for row in bert.shown.of("option") if "selected" in row]
    assert rows == ["abuse_spam"], "as it was reported"
    for word in (
        "庚标记",
        "confirmed",
        anna.alias(),
        "anna",
        "due",
        "Violence (instruction, glorification, gore) second",
    ):
        assert word not in text_outside_forms(bert), word
    anna.get("/second")
    assert case not in anna.page, "whoever decided does not look again"
    anna.get(f"/second/{case}")
    assert anna.status == 409 and "another person" in anna.said
    bert.get(f"/second/{case}")
    bert.send(f"/second/{case}", would="reject", reason="")
    assert bert.status == 422
    bert.send(f"/second/{case}", would="reject", reason="辛标记 kept", category="abuse_spam")
    assert bert.status == 200 and bert.at == "/second" and case not in bert.page
    assert place.case(case)["state"] == "confirmed", "it changes nothing"
    row = place.chain(what="second", case=case)[0]
    assert (row["who"], row["would"], row["agrees"]) == ("bert-the-reviewer", "reject", False)
    bert.get(f"/second/{case}")
    assert bert.status == 409


def text_outside_forms(person: Person) -> str:
    """What a page says but for the lists to choose from."""
    return re.sub(r"<select.*?</select>", "", person.page, flags=re.S)


# ---- complaints, appeals, standings


def test_a_complaint_is_opened_and_answered_with_the_reason_that_the_person_is_told(place: House, anna: Person) -> None:
    sent = {"kind": "infringement", "comment": f"壬标记，请打{PHONE}"}
    taken = place.whole.http.post("/sluice/v1/complaints", json=sent).json()
    id = taken["ticket"]
    anna.get("/complaints")
    assert f"/console/complaints/{id}" in anna.page and "壬标记" not in anna.page
    anna.get(f"/complaints/{id}")
    assert "壬标记" not in anna.page
    anna.send(f"/complaints/{id}/open")
    assert "壬标记" in anna.page and PHONE not in anna.page
    anna.send(f"/complaints/{id}/open", plain="1")
    assert PHONE in anna.page and len(place.chain(what="look", matter=id)) == 2
    assert place.chain(what="look", matter=id)[-1]["part"] == "unmasked"
    anna.get(f"/complaints/{id}")
    anna.send(f"/complaints/{id}/decision", decision="refuse", reason="")
    assert anna.status == 422 and "what the person is told" in anna.said
    stale = anna.hidden(f"/complaints/{id}/decision")
    anna.send(f"/complaints/{id}/decision", decision="refuse", reason="it is somebody else's")
    assert anna.status == 200 and anna.at == "/complaints" and id not in anna.page
    anna.post(f"/complaints/{id}/decision", stale | {"key": "another", "decision": "uphold", "reason": "again"})
    assert anna.status == 409
    told = place.whole.http.get(
        f"/sluice/v1/complaints/{id}", headers={"authorization": f"Bearer {taken['status_token']}"}
    ).json()
    assert told["outcome"] == "it is somebody else's"
    anna.get(f"/complaints/{id}")
    assert "Erased when it was answered" in anna.said


def test_a_person_is_masked_by_two_who_say_the_same(place: House, anna: Person, bert: Person) -> None:
    sent = {"kind": "pi_block", "comment": "那是我的号码"}
    id = place.whole.http.post("/sluice/v1/complaints", json=sent).json()["ticket"]
    said = {"decision": "uphold", "reason": "a private number", "public_interest": "none at all", "days": "30"}
    anna.get(f"/complaints/{id}")
    anna.send(f"/complaints/{id}/decision", identifiers="某某先生", **said)
    assert anna.status == 422 and "a name alone is never masked" in anna.said
    assert anna.shown.written("identifiers") == "某某先生" and anna.shown.written("reason") == "a private number"
    for _ in range(2):
        anna.get(f"/complaints/{id}")
        anna.send(f"/complaints/{id}/decision", identifiers="88-1234-5678", **said)
    bert.get("/complaints")
    assert "waits for a second person" in bert.said
    bert.get(f"/complaints/{id}")
    assert f"proposed by {anna.alias()}" in bert.said
    bert.send(f"/complaints/{id}/decision", identifiers="88-1234-5678", **said)
    assert bert.at == "/complaints" and id not in bert.page
    assert [row["to"] for row in place.chain(what="uphold", matter=id)] == ["received", "received", "upheld"]


def test_a_standing_is_lifted_or_kept_with_a_reason_and_says_nobodys_name(place: House, anna: Person) -> None:
    from tests.conftest import wait_for

    for said in ("接单攻击网站，不限。", "代发拒绝服务攻击，按小时。"):
        body = {"model": "m", "messages": [{"role": "user", "content": said}]}
        place.whole.http.post("/v1/chat/completions", json=body, headers={"x-user": "user-of-the-tests"})
        time.sleep(0.3)

    def listed() -> str:
        anna.get("/standings")
        return anna.page

    wait_for(lambda: "/console/standings/" in listed(), 5)
    assert "user-of-the-tests" not in anna.page
    found = re.search(r"/console/standings/([\w-]+)", anna.page)
    assert found
    id = found[1]
    anna.get(f"/standings/{id}")
    assert anna.status == 200 and "user-of-the-tests" not in anna.page
    stale = anna.hidden(f"/standings/{id}/decision")
    anna.send(f"/standings/{id}/decision", decision="suspend", reason="", hours="24")
    assert anna.status == 422
    anna.get(f"/standings/{id}")
    anna.send(f"/standings/{id}/decision", decision="suspend", reason="looked at", hours="99999")
    assert anna.status == 422 and anna.shown.written("reason") == "looked at"
    anna.send(f"/standings/{id}/decision", decision="suspend", reason="looked at", hours="24")
    assert anna.status == 200 and anna.at == "/standings" and "suspended" in anna.said
    anna.post(f"/standings/{id}/decision", stale | {"decision": "lift", "reason": "late"})
    assert anna.status == 409 and anna.shown.written("reason") == "late"
    anna.get(f"/standings/{id}")
    anna.send(f"/standings/{id}/decision", decision="lift", reason="it was wrong", hours="24")
    assert anna.at == "/standings" and id not in anna.page
    assert [row["what"] for row in place.chain(standing=id) if row["who"] != "rule"] == ["suspend", "lift"]


# ---- many of them


def test_the_queue_is_read_page_by_page_and_every_case_stands_on_one(place: House, anna: Person) -> None:
    made = {place.report(text(), "abuse_spam") for _ in range(53)}
    anna.get("/cases?category=abuse_spam")
    seen: list[str] = []
    while True:
        found = re.findall(r'href="/console/cases/(case_\w+)"', anna.page)
        assert len(found) <= 50
        seen += found
        onward = [a["href"] for a in anna.shown.of("a") if a.get("rel") == "next"]
        if not onward:
            break
        anna.get(onward[0].removeprefix("/console"))
    assert sorted(seen) == sorted(made)
    for odd in ("-1", "x", "99999999999999999999", "1e3"):
        assert anna.get(f"/cases?from={odd}") and anna.status == 200
    for at in (0, 50):
        many = {"case": [f"{case}:1" for case in seen[at : at + 50]], "decision": "reject", "reason": "tidied"}
        anna.post(f"/cases/{seen[0]}/together", many | {"csrf": anna.csrf, "key": f"tidied {at}"})
        assert anna.status == 200, anna.said
