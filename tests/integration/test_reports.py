"""Reports at a gateway on a real store: taken durably, once, merged, limited, and what becomes of them in the reviewer's hands."""

from __future__ import annotations

import json
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

    def report(self, answer: dict[str, Any] | None = None, user: str = "", key: str | None = None, **more: Any) -> httpx.Response:
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
        return self.admin("POST", f"/cases/{name}/decision", who, json={"decision": decision, "reason": "checked", **said})

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
    """Another passage for every test: reports of one are one case."""
    return ANSWER.replace("七", f"{n}")


def test_a_report_with_a_receipt_is_verified_and_one_with_a_wrong_receipt_is_refused(desk: Desk, shared_model: Model) -> None:
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
