"""The admin port: entries added, listed, removed; wrong input named; nothing of a passage comes back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.conftest import TOKEN, Model, Whole, wait_for, whole_gateway


@pytest.fixture(scope="module")
def whole(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_gateway(tmp_path_factory.mktemp("gateway"), shared_model.url) as whole:
        yield whole


def _refused(whole: Whole, text: str, **body: Any) -> bool:
    return bool(whole.chat(text, **body).json()["choices"][0]["finish_reason"] == "content_filter")


def test_an_entry_acts_until_it_is_removed(whole: Whole) -> None:
    made = whole.add({"term": "先加后删的短语"})
    assert made.status_code == 201
    assert {"id", "owner", "version", "reason", "created_at"} <= set(made.json())
    wait_for(lambda: _refused(whole, "先加后删的短语"), 2)
    id = made.json()["id"]
    assert whole.call("GET", f"/entries/{id}").json()["term"] == "先加后删的短语"
    assert whole.call("DELETE", f"/entries/{id}").json()["deleted"] is True
    wait_for(lambda: not _refused(whole, "先加后删的短语"), 2)
    assert whole.call("GET", f"/entries/{id}").status_code == 404
    assert whole.call("DELETE", f"/entries/{id}").status_code == 404


@pytest.mark.parametrize("pasted", ["  贴来的短语", "贴来的短语\r\n", "\u3000\n\t贴来的短语 \u2028"], ids=ascii)
def test_a_term_pasted_with_space_around_it_is_found(whole: Whole, pasted: str) -> None:
    made = whole.add({"term": pasted})
    assert made.status_code == 201 and made.json()["term"] == "贴来的短语"
    wait_for(lambda: _refused(whole, "说贴来的短语吧"), 2)
    whole.call("DELETE", f"/entries/{made.json()['id']}")
    wait_for(lambda: not _refused(whole, "说贴来的短语吧"), 2)


def test_a_passage_is_found_again_and_never_returned(whole: Whole) -> None:
    passage = "从前有一段只在测试里出现的话，它讲的是一条不存在的河。"
    made = whole.add({"passage": passage})
    assert made.json()["kind"] == "passage"
    assert "fingerprint" not in made.text
    assert "不存在的河" not in made.text
    wait_for(lambda: _refused(whole, "他说：从前有一段，只在测试里出现的话…它讲的是：一条不存在的河！"), 2)
    assert "不存在的河" not in whole.call("GET", "/entries").text
    stored = b"".join(p.read_bytes() for p in (whole.folder / "data").rglob("*") if p.is_file())
    assert "不存在的河".encode() not in stored


def test_the_same_idempotency_key_writes_once(whole: Whole) -> None:
    first, second = (whole.add({"term": "只写一次的短语"}, key="once").json() for _ in range(2))
    assert first == second
    reused = whole.add({"term": "换了内容的短语"}, key="once")
    assert reused.status_code == 409
    assert reused.json()["error"]["code"] == "idempotency_key_reused"


def test_a_repeated_delete_with_its_key_gives_its_first_answer(whole: Whole) -> None:
    made, other = (whole.add({"term": f"删两次的短语{c}"}).json() for c in "甲乙")
    headers = {"Idempotency-Key": "delete once"}
    first = whole.call("DELETE", f"/entries/{made['id']}", headers=headers)
    assert first.status_code == 200 and first.json()["version"] > other["version"]
    whole.add({"term": "其间添加的短语"})
    # At once, and when every replica knows that it is gone.
    for condition in (lambda: True, lambda: whole.call("GET", f"/entries/{made['id']}").status_code == 404):
        wait_for(condition, 2)
        again = whole.call("DELETE", f"/entries/{made['id']}", headers=headers)
        assert (again.status_code, again.json()) == (200, first.json())
    for key in ({"Idempotency-Key": "another"}, {}):
        assert whole.call("DELETE", f"/entries/{made['id']}", headers=key).status_code == 404
    reused = whole.call("DELETE", f"/entries/{other['id']}", headers=headers)
    assert reused.status_code == 409 and reused.json()["error"]["code"] == "idempotency_key_reused"
    assert whole.call("GET", f"/entries/{other['id']}").status_code == 200


def test_the_metrics_of_entries_are_those_that_the_workers_enforce(whole: Whole) -> None:
    def told() -> tuple[list[float], list[float]]:
        lines = dict(
            line.rsplit(" ", 1) for line in httpx.get(whole.ops + "/metrics").text.splitlines() if line[0] != "#"
        )
        worker = whole.ready()["workers"][0]
        names = ("entries", "entries_version")
        return [float(lines[f"sluice_{n}"]) for n in names], [float(worker[n]) for n in names]

    for term in ("数一数的短语", "再数一数的短语"):
        made = whole.add({"term": term}).json()
        wait_for(lambda: told()[1][1] >= made["version"], 3)  # noqa: B023
        wait_for(lambda: told()[0] == told()[1], 3)
        assert told()[0][0] >= 1
    version = whole.call("DELETE", f"/entries/{made['id']}").json()["version"]
    wait_for(lambda: told()[0][1] == told()[1][1] == version and told()[0] == told()[1], 3)


def test_a_stale_version_is_a_conflict_with_the_current_one(whole: Whole) -> None:
    made = whole.add({"term": "有版本的短语"}).json()
    stale = whole.call("DELETE", f"/entries/{made['id']}", params={"expected_version": made["version"] - 1})
    assert stale.status_code == 409
    assert stale.headers["x-sluice-version"] == str(made["version"])


def test_an_entry_of_one_direction_leaves_the_other_alone(whole: Whole, shared_model: Model) -> None:
    whole.add({"term": "只管回答的短语", "scope": {"directions": ["answer"]}})
    shared_model.script.chat("我说只管回答的短语")
    wait_for(lambda: _refused(whole, "说吧"), 2)
    shared_model.script.chat("好的。")
    assert not _refused(whole, "只管回答的短语")


def test_an_entry_of_another_app_does_not_act(whole: Whole) -> None:
    whole.add({"term": "别的应用的短语", "scope": {"app": "other"}})
    version = whole.add({"term": "大家都有的短语"}).json()["version"]
    wait_for(lambda: whole.ready()["workers"][0]["entries_version"] >= version, 2)
    assert _refused(whole, "大家都有的短语")
    assert not _refused(whole, "别的应用的短语")


def test_an_entry_ends_when_it_expires(whole: Whole) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    whole.add({"term": "很快过期的短语", "expires_at": soon})
    wait_for(lambda: _refused(whole, "很快过期的短语"), 1)
    wait_for(lambda: not _refused(whole, "很快过期的短语"), 5)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({}, "'term' or 'passage'"),
        ({"term": "甲乙", "passage": "甲乙"}, "'term' or 'passage'"),
        ({"term": "甲"}, "term"),
        ({"term": "ab"}, "term"),
        ({"term": "甲" * 300}, "term"),
        ({"passage": "太短的一段"}, "passage"),
        ({"term": "一个短语", "category": "nothing"}, "category"),
        ({"term": "一个短语", "action": "delete"}, "action"),
        ({"term": "一个短语", "tier": "sure"}, "tier"),
        ({"term": "一个短语", "reason": ""}, "reason"),
        ({"term": "一个短语", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"term": "一个短语", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"term": "一个短语", "expires_at": "9999-12-31T23:59:59-10:00"}, "expires_at"),
        ({"term": "一个短语", "expires_at": "0001-01-01T00:00:00+10:00"}, "expires_at"),
        ({"term": "一个短语", "scope": {"app": "UPPER"}}, "scope.app"),
        ({"term": "一个短语", "scope": {"directions": ["sideways"]}}, "scope.directions"),
        ({"term": "一个短语", "colour": "red"}, "colour"),
        ({"term": 3}, "term"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_a_wrong_entry_is_refused_with_its_field(whole: Whole, entry: dict[str, Any], field: str) -> None:
    answer = whole.add(entry)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert field in f"{error['param']} {error['message']}"
    assert "一个短语" not in answer.text


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer wrong", TOKEN, "Bearer " + TOKEN[:-1]])
def test_without_the_admin_token_nothing_is_told(whole: Whole, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": token}
    if token == TOKEN:
        headers["Authorization"] = "Basic " + TOKEN
    for method, path in (("GET", "/entries"), ("POST", "/entries"), ("DELETE", "/entries/x"), ("GET", "/entries/x")):
        answer = httpx.request(method, whole.admin + "/sluice/v1/admin" + path, headers=headers)
        assert answer.status_code == 401
        assert "SLUICE_ADMIN_TOKEN" in answer.json()["error"]["message"]


def test_bad_bodies_are_named(whole: Whole) -> None:
    for raw, word in (
        (b"{", "JSON"),
        (b'{"term":"a","term":"b"}', "term"),
        (b"\xff", "UTF-8"),
        (b"[]", ""),
        (b"x" * (1 << 21), "1 MiB"),
    ):
        answer = whole.call("POST", "/entries", content=raw)
        assert 400 <= answer.status_code < 500
        assert word in answer.json()["error"]["message"]


def test_the_list_pages_by_version(whole: Whole) -> None:
    versions = [whole.add({"term": f"翻页的短语{'甲乙丙丁'[i]}"}).json()["version"] for i in range(4)]
    wait_for(lambda: whole.call("GET", "/entries", params={"limit": 1000}).json()["version"] >= versions[-1], 2)
    page = whole.call("GET", "/entries", params={"after": versions[0], "limit": 2}).json()
    assert [e["version"] for e in page["entries"]] == versions[1:3]
    assert page["more"] is True
    assert whole.call("GET", "/entries", params={"limit": 0}).status_code == 400
    assert whole.call("GET", "/elsewhere").status_code == 404


def test_the_admin_api_is_not_on_the_client_port(whole: Whole) -> None:
    answer = whole.http.get("/sluice/v1/admin/entries", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404
