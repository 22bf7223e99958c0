"""Reports at a gateway on a real store: taken durably, once, merged, limited, and what becomes of them in the reviewer's hands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Model, RedisServer, Whole, wait_for, whole_gateway

REVIEWERS = "anna:" + "a" * 32 + ",bert:" + "b" * 32
POLICY = """
reports: {deliveries: true, per_reporter: 1000, per_source: 100000}
probes: {terms_allow: true, per_minute: 6000}
"""
APPS = "apps: [{id: default, trusted_headers: {subject: x-user, conversation: x-talk}}]"
PASSAGE = "把甲仓库的蓝色木箱依次搬到乙码头的第三个泊位，再用红色的绳子把每一个木箱捆成双层，最后由夜班的管理员统一盖上编号为七的印章。"
ANSWER = f"好的，下面是说明。{PASSAGE}以上就是全部步骤。"
OTHER = "今天的河面很静，也没有什么大风，适合慢慢散步，也适合坐下来读一本旧书。"


class Desk:
    """A gateway and the reviewers at its admin port."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    def ask(self, user: str = "", **body: Any) -> dict[str, Any]:
        head = {"x-user": user} if user else {}
        body = {"model": "m", "messages": [{"role": "user", "content": "说说搬箱子的事"}], **body}
        return dict(self.whole.http.post("/v1/chat/completions", json=body, headers=head).json())

    def said(self, user: str = "", **body: Any) -> str:
        return str(self.ask(user, **body)["choices"][0]["message"]["content"])

    def report(
        self, answer: dict[str, Any] | None = None, user: str = "", key: str | None = None, **more: Any
    ) -> httpx.Response:
        given: dict[str, Any] = {}
        if answer is not None:
            given = {
                "text": answer["choices"][0]["message"]["content"], "decision_id": answer["id"],
                "receipt": answer["sluice"]["receipt"],
            }  # fmt: skip
        head = ({"x-user": user} if user else {}) | ({"Idempotency-Key": key} if key else {})
        return self.whole.http.post("/sluice/v1/reports", json=given | more, headers=head)

    def admin(self, method: str, path: str, who: str = "a", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {who * 32}"} | more.pop("headers", {})
        return httpx.request(method, f"{self.whole.admin}/sluice/v1/admin{path}", headers=headers, timeout=10, **more)

    def decide(self, name: str, decision: str, who: str = "a", **said: Any) -> httpx.Response:
        return self.admin(
            "POST", f"/cases/{name}/decision", who, json={"decision": decision, "reason": "checked", **said}
        )

    def case(self, name: str) -> dict[str, Any]:
        return dict(self.admin("GET", f"/cases/{name}").json())

    def state(self, ticket: dict[str, Any]) -> str:
        head = {"Authorization": f"Bearer {ticket['status_token']}"}
        return str(self.whole.http.get(f"/sluice/v1/reports/{ticket['ticket']}", headers=head).json()["state"])

    def chain(self) -> list[dict[str, Any]]:
        found = self.admin("GET", "/audit").json()
        assert found["chain"] == "whole"
        return list(found["rows"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    from tests.conftest import redis_binaries

    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(list(redis_binaries().values())[-1], folder)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, server: RedisServer, shared_model: Model) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "apps.yaml").write_text(APPS)
    with whole_gateway(
        folder, shared_model.url, REDIS_URL=server.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(folder / "policy.yaml"),
        APPS=str(folder / "apps.yaml"),
    ) as whole:  # fmt: skip
        yield Desk(whole)


@pytest.fixture(autouse=True)
def empty(server: RedisServer, desk: Desk, shared_model: Model) -> Iterator[None]:
    shared_model.script.__init__()  # type: ignore[misc]
    shared_model.script.chat(ANSWER)
    yield
    for case in desk.admin("GET", "/cases").json()["cases"]:
        if case["state"] in ("received", "verified", "provisional"):
            desk.decide(case["id"], "reject")
        elif case["state"] != "excepted":
            desk.decide(case["id"], "undo")
            desk.decide(case["id"], "reject")


def variant(n: int) -> str:
    """Another passage for every test: reports of one are one case, and near copies of a confirmed one are stopped."""
    return "".join(f"{n}{c}" if at % 9 == 8 else c for at, c in enumerate(ANSWER))


def test_a_report_with_a_receipt_is_verified_and_one_with_a_wrong_receipt_is_refused(
    desk: Desk, shared_model: Model
) -> None:
    shared_model.script.chat(variant(1))
    answer = desk.ask("u1")
    taken = desk.report(answer, "u1", comment="不对")
    assert taken.status_code == 202, taken.text
    ticket = taken.json()
    assert set(ticket) == {"ticket", "status_token", "state"} and ticket["state"] == "verified"
    assert desk.state(ticket) == "verified"
    wrong = desk.report(answer, "u1", text=variant(2))
    assert wrong.status_code == 422 and wrong.json()["error"]["param"] == "receipt"
    assert desk.report(text=variant(3)).json()["state"] == "unverified"


def test_the_same_call_is_answered_the_same_and_the_same_passage_is_one_case(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(4))
    answer = desk.ask("u1")
    first = desk.report(answer, "u1", key="k-4").json()
    assert desk.report(answer, "u1", key="k-4").json() == first
    assert desk.report(answer, "u1").json() == desk.report(answer, "u1").json(), (
        "without a key, the same report of the same person"
    )
    assert desk.report(answer, "u1", key="k-4", comment="x").status_code == 409
    other = desk.report(desk.ask("u2"), "u2").json()
    case = desk.case(first["ticket"])
    assert case["reports"] == 3 and case["id"] == desk.case(other["ticket"])["id"]
    assert "reporters" not in case and "u1" not in json.dumps(case)


def test_unconfirmed_it_is_hidden_from_the_reporter_and_the_conversation_alone(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(5))
    ticket = desk.report(desk.ask("u5"), "u5", passage=[8, 8 + len(PASSAGE)]).json()
    wait_for(lambda: "箱" not in desk.said("u5"), 2)
    for body in ({}, {"stream": True}):
        raw = desk.whole.http.post(
            "/v1/chat/completions", headers={"x-user": "u5"},
            json={"model": "m", "messages": [{"role": "user", "content": "说说"}], **body},
        ).text  # fmt: skip
        assert "木箱" not in raw
    assert desk.said("u6") == desk.said() == variant(5)
    assert desk.decide(ticket["ticket"], "reject").status_code == 200
    wait_for(lambda: desk.said("u5") == variant(5), 2)
    assert desk.state(ticket) == "rejected"


def test_confirmed_it_is_blocked_for_the_app_at_once_plain_and_streamed_and_undo_restores(
    desk: Desk, shared_model: Model
) -> None:
    shared_model.script.chat(variant(6))
    ticket = desk.report(desk.ask("u7"), "u7", passage=[8, 8 + len(PASSAGE)]).json()
    wait_for(lambda: desk.said("u7") != variant(6), 2)
    done = desk.decide(ticket["ticket"], "confirm", category="illegal_acts")
    assert done.status_code == 200 and done.json()["state"] == "confirmed" and done.json()["category"] == "illegal_acts"
    assert wait_for(lambda: "箱" not in desk.said("anybody"), 1) < 1
    assert desk.state(ticket) == "confirmed"
    streamed = desk.whole.chat("说说", stream=True).text
    assert "木箱" not in streamed and "content_filter" in streamed
    undone = desk.decide(ticket["ticket"], "undo").json()
    assert undone["state"] == "verified" and undone["category"] == "other_prohibited"
    wait_for(lambda: desk.said("anybody") == variant(6), 2)
    assert desk.said("u7") != variant(6), "as it was before: hidden from the reporter"
    assert desk.decide(ticket["ticket"], "undo").status_code == 409


def test_of_two_reviewers_with_one_version_one_wins_and_the_other_is_told(desk: Desk) -> None:
    case = desk.case(desk.report(text=variant(7)).json()["ticket"])
    assert desk.decide(case["id"], "confirm", expected_version=case["version"]).status_code == 200
    late = desk.decide(case["id"], "reject", "b", expected_version=case["version"])
    assert late.status_code == 409 and late.headers["x-sluice-version"] == str(case["version"] + 1)
    again = desk.decide(case["id"], "reject", "b")
    assert again.status_code == 409 and "confirmed" in again.json()["error"]["message"]


def test_a_decision_sent_twice_with_its_key_happens_once(desk: Desk) -> None:
    case = desk.case(desk.report(text=variant(8)).json()["ticket"])
    first, second = (
        desk.admin(
            "POST", f"/cases/{case['id']}/decision", json={"decision": "confirm", "reason": "checked"},
            headers={"Idempotency-Key": "once"},
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.json() == second.json() and desk.case(case["id"])["version"] == case["version"] + 1
    assert [r["what"] for r in desk.chain() if r.get("case") == case["id"]] == ["report", "confirm"]


def test_a_passage_our_own_detectors_had_flagged_is_held_app_wide_for_some_hours(
    desk: Desk, shared_model: Model
) -> None:
    flagged = f"{variant(9)}你们这些人都应该去死，我要杀了你们全家。"
    shared_model.script.chat(flagged)
    answer = desk.ask("u9")
    if answer["sluice"]["action"] != "flag":
        pytest.fail(f"the shipped lexicon no longer flags this: {answer['sluice']}")
    ticket = desk.report(answer, "u9").json()
    assert desk.case(ticket["ticket"])["state"] == "provisional"
    assert wait_for(lambda: desk.said("somebody else") != flagged, 1) < 1
    assert desk.state(ticket) == "provisional"


def test_three_asserted_users_hold_a_passage_and_anonymous_ones_never(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(10))
    for _ in range(4):
        ticket = desk.report(desk.ask()).json()
    answers = [desk.ask(f"v{n}") for n in range(3)]
    # The traces of what was delivered are written within a second: then a report without receipt is matched by them.
    wait_for(lambda: desk.report(text=variant(10)).json()["state"] == "verified", 10)
    states = []
    for n, answer in enumerate(answers):
        assert desk.report(answer, f"v{n}").status_code == 202
        states.append(desk.case(ticket["ticket"])["state"])
    assert states == ["verified", "verified", "provisional"]


def test_widening_passes_the_gate_and_a_second_reviewer(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(11))
    case = desk.case(desk.report(desk.ask("u11"), "u11").json()["ticket"])["id"]
    desk.decide(case, "confirm")
    for term, why in (("散步", "too short"), ("有什么可以帮", "clean texts"), ("今天天气", "dictionary")):
        refused = desk.decide(case, "widen", term=term)
        assert refused.status_code == 422 and why in refused.json()["error"]["message"], refused.text
    first = desk.decide(case, "widen", term="蓝色木箱依次搬到")
    assert first.status_code == 200 and first.json()["widening"]["by"] == "anna"
    assert desk.decide(case, "widen", term="蓝色木箱依次搬到").json()["widening"] is not None, "the same reviewer again"
    second = desk.decide(case, "widen", "b", term="蓝色木箱依次搬到")
    assert second.json()["widening"] is None and len(second.json()["entries"]) == 2
    shared_model.script.chat("完全不同的话里也有蓝色木箱依次搬到几个字。")
    wait_for(lambda: "依次" not in desk.said("x"), 2)
    assert desk.decide(case, "undo").status_code == 200
    wait_for(lambda: "依次" in desk.said("x"), 2)


def test_a_category_that_keeps_nothing_keeps_nothing(desk: Desk) -> None:
    ticket = desk.report(text=variant(12), category="sexual_minors", comment="x", prompt="y").json()
    case = desk.case(ticket["ticket"])
    assert case["no_retain"] and not case["evidence"] and not case["comments"]
    assert desk.admin("GET", f"/cases/{case['id']}/evidence").json() == {"case": case["id"]}
    assert desk.decide(case["id"], "confirm").status_code == 200
    asked = desk.decide(case["id"], "probe", model="m", prompt="x")
    assert asked.status_code == 409 and asked.json()["error"]["code"] == "no_retain"
    assert desk.decide(case["id"], "except", role="legal").json()["state"] == "excepted"


def test_what_a_reviewer_names_of_such_a_category_is_forgotten_at_once(desk: Desk) -> None:
    ticket = desk.report(text=variant(22), comment="x", prompt="y").json()["ticket"]
    assert "passage" in desk.admin("GET", f"/cases/{ticket}/evidence").json()
    done = desk.decide(ticket, "confirm", category="sexual_minors").json()
    assert not (done["evidence"] or done["prompted"] or done["comments"])
    assert desk.admin("GET", f"/cases/{ticket}/evidence").json() == {"case": done["id"]}
    assert desk.report(text=variant(22), comment="z").status_code == 202
    assert not desk.case(ticket)["comments"]
    desk.decide(ticket, "except", role="legal")


def test_a_receipt_from_before_a_case_was_closed_does_not_open_it_again(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(23))
    answer = desk.ask("u23")
    case = desk.case(desk.report(answer, "u23", prompt="问").json()["ticket"])["id"]
    desk.decide(case, "confirm")
    shared_model.script.chat("对不起，这件事我不能说。")
    desk.decide(case, "probe", model="m")
    wait_for(lambda: desk.case(case)["state"] == "closed", 20)
    assert desk.report(answer, "u24").status_code == 202
    assert desk.case(case)["state"] == "closed" and desk.case(case)["reports"] == 2
    desk.decide(case, "reopen")
    desk.decide(case, "except", role="legal")


def test_evidence_is_opened_for_a_reviewer_and_that_is_written_down(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(13))
    ticket = desk.report(desk.ask("u13"), "u13", prompt="问了什么", passage=[8, 30]).json()
    found = desk.admin("GET", f"/cases/{ticket['ticket']}/evidence", "b").json()
    assert found["passage"] == variant(13)[8:30] and found["prompt"] == "问了什么"
    assert (desk.chain()[-1]["who"], desk.chain()[-1]["what"]) == ("bert", "look")


def test_a_probe_that_fails_leaves_the_case_due_and_one_that_passes_closes_it(desk: Desk, shared_model: Model) -> None:
    shared_model.script.chat(variant(14))
    ticket = desk.report(desk.ask("u14"), "u14", prompt="说说搬箱子的事", passage=[8, 8 + len(PASSAGE)]).json()
    case = desk.case(ticket["ticket"])["id"]
    assert desk.decide(case, "probe", model="m").status_code == 409, "nobody has confirmed it"
    due = desk.decide(case, "confirm").json()["due"]
    assert desk.decide(case, "probe").status_code == 422
    assert desk.decide(case, "probe", model="m").json()["state"] == "probing"
    wait_for(lambda: desk.case(case)["state"] == "confirmed", 20)
    (failed,) = desk.case(case)["probes"]
    assert (
        failed["outcome"] == "failed"
        and failed["sets"]["original"]["again"] == 60 == failed["sets"]["variants"]["judged"]
    )
    assert failed["sets"]["variants"]["prompts"] >= 5 and failed["model"] == "m"
    asked = [b["messages"][-1]["content"] for b in shared_model.script.asked if "temperature" in b]
    assert asked.count("说说搬箱子的事") == 60 and len(set(asked)) >= 6

    shared_model.script.chat("对不起，这件事我不能说。")
    desk.decide(case, "optimise")
    desk.decide(case, "probe", model="m")
    wait_for(lambda: desk.case(case)["state"] == "closed", 20)
    closed = desk.case(case)
    assert closed["due"] == due and closed["probes"][-1]["outcome"] == "passed" and closed["next_probe"] is not None
    assert closed["probes"][-1]["sets"]["original"]["upper"] < 0.05
    assert desk.state(ticket) == "closed"
    desk.decide(case, "reopen")
    desk.decide(case, "except", role="legal")


@pytest.mark.parametrize("harm", ["errors", "empty", "filtered"])
def test_what_says_nothing_of_the_model_is_inconclusive_and_never_a_pass(
    desk: Desk, shared_model: Model, harm: str
) -> None:
    number = {"errors": 15, "empty": 16, "filtered": 17}[harm]
    case = desk.case(desk.report(text=variant(number)).json()["ticket"])["id"]
    desk.decide(case, "confirm")
    if harm == "errors":
        shared_model.script.plain = (500, {}, b"{}")
    else:
        ending = "content_filter" if harm == "filtered" else "stop"
        body = {
            "choices": [{"index": 0, "message": {"content": "" if harm == "empty" else "x"}, "finish_reason": ending}]
        }
        shared_model.script.plain = (200, {}, json.dumps(body).encode())
    desk.decide(case, "probe", model="m", prompt="问")
    wait_for(lambda: desk.case(case)["state"] == "confirmed", 20)
    (probe,) = desk.case(case)["probes"]
    assert probe["outcome"] == "inconclusive" and probe["inconclusive"] > 0


def test_bad_reports_are_refused_by_the_name_of_the_field_and_without_their_text(desk: Desk) -> None:
    for body, field in (
        ({}, "text"), ({"text": ""}, "text"), ({"text": "秘密", "passage": [0, 9]}, "passage"),
        ({"text": "秘密的话", "category": "nonsense"}, "category"), ({"text": "秘密的话", "more": 1}, "more"),
        ({"text": "秘密的话", "receipt": "r1.x"}, "receipt"), ({"text": "。。！"}, "passage"),
    ):  # fmt: skip
        answer = desk.whole.http.post("/sluice/v1/reports", json=body)
        assert answer.status_code == 422 and field in answer.text and "秘密" not in answer.text, answer.text
    assert (
        desk.whole.http.get("/sluice/v1/reports/tkt_" + "0" * 24).json()
        == desk.whole.http.get("/sluice/v1/reports/x").json()
    )


def office(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as an operator gives it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    port = desk.whole.admin.rpartition(":")[2]
    env |= {"SLUICE_ADMIN_TOKEN": REVIEWERS, "SLUICE_ADMIN_PORT": port}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words], env=env, capture_output=True, text=True, timeout=60
    )


def test_the_command_line_lists_shows_probes_and_closes(desk: Desk) -> None:
    case = desk.case(desk.report(text=variant(18), category="violence").json()["ticket"])["id"]
    listed = office(desk, "case", "list")
    assert listed.returncode == 0 and case in listed.stdout and "received" in listed.stdout, listed.stderr
    assert json.loads(office(desk, "case", "show", case).stdout)["category"] == "violence"
    early = office(desk, "case", "close", case, "--reason", "r", "--role", "legal")
    assert early.returncode == 2 and "409" in early.stderr and "received" in early.stderr
    desk.decide(case, "confirm")
    assert office(desk, "case", "close", case, "--reason", "r", "--role", "legal").stdout == f"{case}: excepted\n"
    assert office(desk, "case", "show", "case_no").returncode == 2
    nobody = subprocess.run(
        [sys.executable, "-m", "app.cli", "case", "--admin", "http://127.0.0.1:9", "list"],
        env=dict(os.environ) | {"SLUICE_ADMIN_TOKEN": "x" * 40}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert nobody.returncode == 2 and "sluice serve" in nobody.stderr


def test_the_evidence_is_article_by_article_and_holds_no_text(desk: Desk, shared_model: Model, tmp_path: Path) -> None:
    shared_model.script.chat(variant(19))
    ticket = desk.report(desk.ask("u19"), "u19", prompt="问问看", comment="金丝雀").json()["ticket"]
    desk.decide(ticket, "confirm")
    done = office(desk, "evidence", "export", "--out", str(tmp_path))
    assert done.returncode == 0 and "whole" in done.stderr, done.stderr
    raw = (tmp_path / "evidence.json").read_text("utf-8")
    page = (tmp_path / "evidence.html").read_text("utf-8")
    found = json.loads(raw)
    assert found["articles"]["15"]["cases"] >= 1 and found["audit"]["chain"] == "whole"
    assert found["versions"]["profile"] == "draft_2023_04" and found["versions"]["workers"][0]["policy"]
    mine = next(c for c in found["cases"] if c["case"] == desk.case(ticket)["id"])
    assert (mine["state"], mine["reports"]) == ("confirmed", 1)
    for secret in ("金丝雀", "木箱", "问问看", "u19"):
        assert secret not in raw and secret not in page
    assert (tmp_path / "evidence.json").stat().st_mode & 0o077 == 0
    desk.decide(ticket, "except", role="legal")


def test_near_copies_of_a_confirmed_passage_are_stopped_too_and_its_parts_of_clean_text_are_not(
    desk: Desk, shared_model: Model
) -> None:
    shared_model.script.chat(variant(21))
    ticket = desk.report(desk.ask("u21"), "u21").json()["ticket"]
    run = variant(21)[20:45]
    edited = f"请注意：先看一看。{run}，然后改用布条绑好，其余照旧。"
    shared_model.script.chat(edited)
    assert desk.said("x") == edited
    assert desk.decide(ticket, "confirm").status_code == 200
    wait_for(lambda: run[:4] not in desk.said("x"), 2)
    streamed = desk.whole.chat("说说", stream=True).text
    assert "content_filter" in streamed and not [
        c for c in run if f'"content":"{c}"' in streamed and c not in "请注意：先看一看。"
    ]
    shared_model.script.chat("把箱子搬到码头，再用绳子捆好，最后盖上印章。")
    assert "箱子" in desk.said("x")
    desk.decide(ticket, "except", role="legal")
