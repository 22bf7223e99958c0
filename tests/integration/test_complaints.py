"""Complaints and appeals from outside: proved, answered with a reason, and what an upheld one changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Model, RedisServer, Whole, wait_for, whole_gateway

REVIEWERS = "anna:" + "a" * 32 + ",bert:" + "b" * 32
TERM = "示例违禁短语"
REFUSED = f"请问{TERM}到底是什么意思？我在写论文。"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shared_model: Model) -> Iterator[Whole]:
    from tests.conftest import redis_binaries

    folder = tmp_path_factory.mktemp("complaints")
    (folder / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder / "redis")
    (folder / "policy.yaml").write_text(
        "probes: {terms_allow: true, per_minute: 6000}\nappeals: {hold: true}\nreports: {runtime: [violence]}\n"
    )
    with whole_gateway(
        folder, shared_model.url, REDIS_URL=server.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(folder / "policy.yaml")
    ) as whole:
        yield whole
    server.kill()


def admin(whole: Whole, method: str, path: str, who: str = "a", **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {who * 32}"}
    return httpx.request(method, f"{whole.admin}/sluice/v1/admin{path}", headers=headers, timeout=10, **more)


def decide(whole: Whole, ticket: str, decision: str, who: str = "a", **said: Any) -> httpx.Response:
    body = {"decision": decision, "reason": "looked at", **said}
    return admin(whole, "POST", f"/complaints/{ticket}/decision", who, json=body)


def block(whole: Whole, term: str) -> str:
    entry = {"term": term, "category": "violence", "action": "block", "reason": "test"}
    return str(admin(whole, "POST", "/entries", json=entry).json()["id"])


def state(whole: Whole, taken: dict[str, Any], what: str = "appeals") -> dict[str, Any]:
    head = {"Authorization": f"Bearer {taken['status_token']}"}
    return dict(whole.http.get(f"/sluice/v1/{what}/{taken['ticket']}", headers=head).json())


def test_an_upheld_appeal_lets_that_very_prompt_through_and_no_other_and_counts_the_rule(
    whole: Whole, shared_model: Model
) -> None:
    shared_model.script.chat("好的。")
    rule = block(whole, TERM)
    wait_for(lambda: whole.chat(REFUSED).headers["x-sluice-action"] == "block", 2)
    for prompt, upheld in ((REFUSED, 1), (f"再问一次：{TERM}？", 2)):
        decision = whole.chat(prompt).json()["id"]
        appeal = {"kind": "blocked_prompt", "decision_id": decision, "prompt": prompt}
        wrong = whole.http.post("/sluice/v1/appeals", json=appeal | {"prompt": prompt + "？？别的"})
        assert wrong.status_code == 422 and wrong.json()["error"]["code"] == "not_proved"
        taken = whole.http.post("/sluice/v1/appeals", json=appeal).json()
        assert taken["state"] == "received" and taken["answered_by"]
        shown = admin(whole, "GET", f"/complaints/{taken['ticket']}").json()
        assert shown["proved"] and shown["rules"] == [rule] and prompt not in json.dumps(shown, ensure_ascii=False)
        assert admin(whole, "GET", f"/complaints/{taken['ticket']}/evidence").json()["prompt"] == prompt
        assert decide(whole, taken["ticket"], "uphold", reason="").status_code == 422
        assert decide(whole, taken["ticket"], "uphold").json()["state"] == "upheld"
        assert decide(whole, taken["ticket"], "refuse").status_code == 409
        wait_for(lambda: whole.chat(prompt).json()["choices"][0]["message"]["content"] == "好的。", 2)  # noqa: B023
        if upheld == 1:
            assert whole.chat(prompt + "多一句。").headers["x-sluice-action"] == "block", "never a part of a text"
        assert state(whole, taken)["outcome"] == "looked at"
    # Reversed twice within 30 days: in shadow, for a review.
    wait_for(lambda: whole.chat(f"第三次说到{TERM}。").headers["x-sluice-action"] == "pass", 2)


def test_an_answer_nobody_saw_is_asked_for_again_and_shown_to_the_reviewer(whole: Whole, shared_model: Model) -> None:
    shared_model.script.chat("这里面有被拦的第二短语，没有别的。")
    block(whole, "被拦的第二短语")
    wait_for(lambda: whole.chat("说").json()["sluice"]["action"] == "block", 2)
    decision = whole.chat("说").json()["id"]
    appeal = {"kind": "blocked_answer", "decision_id": decision, "prompt": "说"}
    taken = whole.http.post("/sluice/v1/appeals", json=appeal).json()
    assert decide(whole, taken["ticket"], "ask", model="m").status_code == 200
    wait_for(lambda: "answers" in admin(whole, "GET", f"/complaints/{taken['ticket']}/evidence").json(), 5)
    (first, *_) = admin(whole, "GET", f"/complaints/{taken['ticket']}/evidence").json()["answers"]
    assert first["action"] == "block" and "第二短语" in first["text"]
    assert decide(whole, taken["ticket"], "refuse", reason="it was right").json()["state"] == "refused"
    assert state(whole, taken)["outcome"] == "it was right"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_where_the_policy_asks_for_it_a_stopped_answer_is_kept_for_an_appeal_and_is_a_case(
    whole: Whole, shared_model: Model, stream: bool
) -> None:
    text = f"前面的话没有什么，后面是运行中发现的第{int(stream)}个短语，再往后没有了。"
    shared_model.script.chat(text)
    block(whole, f"运行中发现的第{int(stream)}个短语")
    wait_for(lambda: "发现" not in whole.chat("说").text, 2)
    answer = whole.chat("说", stream=stream)
    decision = answer.headers["x-sluice-decision"]
    appeal = {"kind": "blocked_answer", "decision_id": decision, "prompt": "说"}

    def kept() -> str:
        ticket = whole.http.post("/sluice/v1/appeals", json=appeal).json()["ticket"]
        return str(admin(whole, "GET", f"/complaints/{ticket}/evidence").json().get("answer", ""))

    wait_for(lambda: "运行中发现" in kept(), 3)
    assert text.startswith(kept()) and "短语" in kept()
    cases = admin(whole, "GET", "/cases").json()["cases"]
    mine = [c["id"] for c in cases if c["category"] == "violence"]
    said = [admin(whole, "GET", f"/cases/{id}/evidence").json().get("passage", "") for id in mine]
    assert any(f"第{int(stream)}个短语" in s for s in said)


def test_a_block_about_a_person_masks_no_name_and_needs_two_who_answered_the_question_of_interest(
    whole: Whole, shared_model: Model
) -> None:
    shared_model.script.chat("某某先生的工号是 88-1234-5678，住在某某路。")
    complaint = {"kind": "pi_block", "comment": "那是我的号码"}
    taken = whole.http.post("/sluice/v1/complaints", json=complaint).json()
    alone = decide(whole, taken["ticket"], "uphold", identifiers=["某某先生"], public_interest="none")
    assert alone.status_code == 422 and alone.json()["error"]["code"] == "name_alone"
    given = {"identifiers": ["88-1234-5678"], "public_interest": "a private number; nobody has a claim to it"}
    assert decide(whole, taken["ticket"], "uphold", identifiers=["88-1234-5678"]).status_code == 422
    assert decide(whole, taken["ticket"], "uphold", **given).json()["state"] == "received"
    assert decide(whole, taken["ticket"], "uphold", **given).json()["state"] == "received", "the same reviewer again"
    upheld = decide(whole, taken["ticket"], "uphold", "b", **given).json()
    assert upheld["state"] == "upheld" and len(upheld["entries"]) == 1
    wait_for(lambda: "1234" not in whole.chat("说").text, 2)
    said = whole.chat("说").json()["choices"][0]["message"]["content"]
    assert said.startswith("某某先生的工号是") and said.endswith("，住在某某路。")
    entry = admin(whole, "GET", f"/entries/{upheld['entries'][0]}").json()
    assert entry["subject_block"] and entry["expires_at"]


def test_a_complaint_about_a_text_is_a_case_too_and_an_appeal_says_by_itself_what_it_is_against(
    whole: Whole, shared_model: Model
) -> None:
    text = "这一段话里写了别人的事情，写得不对，要求更正，也要求以后不再这样写出来，谢谢各位。"
    shared_model.script.chat(text)
    answer = whole.chat("说").json()
    complaint = {
        "kind": "infringement", "text": text, "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"],
        "passage": [0, 20], "category": "reputation_honor", "comment": "不对", "prompt": "说",
    }  # fmt: skip
    taken = whole.http.post("/sluice/v1/complaints", json=complaint)
    assert taken.status_code == 202, taken.text
    case = admin(whole, "GET", f"/complaints/{taken.json()['ticket']}").json()["case"]
    assert admin(whole, "GET", f"/cases/{case}").json()["category"] == "reputation_honor"
    block(whole, "自己会说的第三短语")
    prompt = "请问自己会说的第三短语是什么？"
    wait_for(lambda: whole.chat(prompt).headers["x-sluice-action"] == "block", 2)
    decision = whole.chat(prompt).json()["id"]
    appeal = whole.http.post("/sluice/v1/appeals", json={"decision_id": decision, "text": prompt}).json()
    assert admin(whole, "GET", f"/complaints/{appeal['ticket']}").json()["kind"] == "blocked_prompt"


def test_what_may_be_complained_of_and_by_when_it_is_answered_is_public(whole: Whole) -> None:
    process = whole.http.get("/sluice/v1/complaints").json()
    assert process["answered_within_days"] == 15 and process["not_generated_again_within_months"] == 3
    assert "pi_delete" in process["kinds"]
    for body in ({"kind": "other", "comment": "x"}, {"kind": "pi_delete"}):
        assert whole.http.post("/sluice/v1/complaints", json=body).status_code == 422
    assert whole.http.get("/sluice/v1/complaints/cmp_x").json() == whole.http.get("/sluice/v1/appeals/apl_y").json()
