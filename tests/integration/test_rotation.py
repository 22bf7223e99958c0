"""Rotating SLUICE_SECRET_KEY under a gateway with everything open: nothing is lost while the old key is listed, what is lost once it is not
is said, and no two names of one person are ever brought together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.deliveries import Deliveries
from app.keys import Keys
from app.store.client import Store
from tests.conftest import Model, RedisServer, wait_for, whole_gateway
from tests.integration.test_reports import ANSWER, APPS, PASSAGE, REVIEWERS, Desk

OLD = "old:old-secret-0123456789abcdef-0123456789"
NEW = "new:new-secret-0123456789abcdef-0123456789"
POLICY = "probes: {terms_allow: true, per_minute: 6000}\nreports: {per_reporter: 5}\n"
TERM = "示例违禁短语"
REFUSED = f"请问{TERM}到底是什么意思？我在写论文。"
USER = "reader-7"
LISTED = "一段由值班员自己登记的说明，不应再次出现在任何回答里。"


@contextmanager
def under(spec: str, server: RedisServer, folder: Path, model: Model) -> Iterator[Desk]:
    """A gateway whose secret is `spec`, on the same store and folder as the one before."""
    folder.mkdir(exist_ok=True)
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "apps.yaml").write_text(APPS)
    with whole_gateway(
        folder, model.url, REDIS_URL=server.url, ADMIN_TOKEN=REVIEWERS, POLICY=str(folder / "policy.yaml"),
        APPS=str(folder / "apps.yaml"), SECRET_KEY=spec,
    ) as whole:  # fmt: skip
        yield Desk(whole)


def variant(n: int) -> str:
    return "".join(f"{n}{c}" if at % 9 == 8 else c for at, c in enumerate(ANSWER))


def everything(url: str) -> list[str]:
    """Every key of the store at `url` with all that it holds, a text each."""
    client = redis.Redis.from_url(url, decode_responses=True)
    found = []
    for key in client.scan_iter():
        match client.type(key):
            case "string":
                found.append(f"{key} {client.get(key)}")
            case "hash":
                found += [f"{key} {field} {value}" for field, value in client.hgetall(key).items()]  # type: ignore[union-attr]
            case "list":
                found += [f"{key} {value}" for value in client.lrange(key, 0, -1)]  # type: ignore[union-attr]
            case "zset":
                found += [f"{key} {value}" for value in client.zrange(key, 0, -1)]  # type: ignore[union-attr]
            case kind:
                raise AssertionError(kind)
    return found


def names(spec: str) -> set[str]:
    """What USER and his conversation are called under a key."""
    keys = Keys(spec)
    return {*keys.pseudonyms("default", USER), *keys.reporters("default", USER), *keys.talks("default", USER)}


def outcome(desk: Desk, taken: dict[str, Any]) -> httpx.Response:
    head = {"Authorization": f"Bearer {taken['status_token']}"}
    return desk.whole.http.get(f"/sluice/v1/complaints/{taken['ticket']}", headers=head)


@pytest.mark.timeout(240)
def test_article_11_rotating_the_secret_key_loses_no_due_case_and_no_entry(
    redis_server: RedisServer, tmp_path: Path, model: Model
) -> None:
    says, folder = model.script.chat, tmp_path / "gateway"

    def ask(desk: Desk, n: int, user: str = "") -> dict[str, Any]:
        says(variant(n))
        return desk.ask(user)

    def said(desk: Desk, n: int, user: str = "") -> str:
        return str(ask(desk, n, user)["choices"][0]["message"]["content"])

    with under(OLD, redis_server, folder, model) as desk:
        # A confirmed case with its entry; one that waits, held for its reporter; an exception; an open complaint; a receipt.
        confirmed = desk.report(ask(desk, 1, "other"), "other", prompt="说说搬箱子的事").json()
        desk.decide(confirmed["ticket"], "confirm", category="illegal_acts")
        due = desk.case(confirmed["ticket"])["due"]
        held = desk.report(ask(desk, 2, USER), USER, key="k").json()
        desk.admin("POST", "/entries", json={"term": TERM, "category": "violence", "action": "block", "reason": "test"})
        wait_for(lambda: desk.whole.chat(REFUSED).headers["x-sluice-action"] == "block", 3)
        appeal = {"kind": "blocked_prompt", "decision_id": desk.whole.chat(REFUSED).json()["id"], "prompt": REFUSED}
        appealed = desk.whole.http.post("/sluice/v1/appeals", json=appeal).json()
        desk.admin("POST", f"/complaints/{appealed['ticket']}/decision", json={"decision": "uphold", "reason": "right"})
        complaint = {"kind": "pi_delete", "comment": "那是我写的话"}
        open_ = desk.whole.http.post("/sluice/v1/complaints", json=complaint, headers={"x-user": USER}).json()
        receipt = ask(desk, 3)
        passage = {"passage": LISTED, "category": "violence", "action": "block", "reason": "r"}
        listed = desk.admin("POST", "/entries", json=passage, headers={"Idempotency-Key": "same"}).json()
        wait_for(lambda: PASSAGE[:9] not in said(desk, 2, USER), 3)

    with under(f"{NEW},{OLD}", redis_server, folder, model) as desk:
        wait_for(lambda: PASSAGE[:9] not in said(desk, 1), 3)
        assert PASSAGE[:9] not in said(desk, 2, USER), "the hold acts for whom it acted"
        assert said(desk, 2) == variant(2), "and for nobody else"
        wait_for(lambda: desk.whole.chat(REFUSED).headers["x-sluice-action"] == "pass", 3)
        assert desk.state(confirmed) == "confirmed" and desk.state(held) == "verified"
        assert (
            outcome(desk, open_).json()["state"] == "received" and outcome(desk, appealed).json()["outcome"] == "right"
        )
        assert desk.admin("GET", f"/complaints/{open_['ticket']}/evidence").json()["comment"] == "那是我写的话"
        assert desk.admin("GET", f"/cases/{confirmed['ticket']}/evidence").json()["prompt"] == "说说搬箱子的事"
        assert desk.case(confirmed["ticket"])["due"] == due
        assert desk.report(receipt).json()["state"] == "verified"
        assert desk.admin("POST", "/entries", json=passage, headers={"Idempotency-Key": "same"}).json() == listed
        # The same call is the same call, the same person the same person, and an hour's reports one hour's.
        says(variant(2))
        again = [desk.report(text=variant(2), user=USER, key=f"k{n}") for n in range(4)]
        assert [a.status_code for a in again] == [202, 202, 202, 429]
        case = desk.case(held["ticket"])
        assert case["reports"] == 4 and case["subjects"] == 1 and len(case["entries"]) == 1
        status = desk.whole.ready()["workers"][0]
        assert status["entries_unreadable"] == status["exceptions_unreadable"] == 0
        fresh = desk.whole.http.post("/sluice/v1/complaints", json=complaint, headers={"x-user": USER}).json()
        values = everything(redis_server.url)
        old, new = names(OLD), names(NEW)
        assert any(n in v for v in values for n in old) and any(n in v for v in values for n in new)
        for value in values:
            assert not (any(n in value for n in old) and any(n in value for n in new)), "one row, two names"
        mine = [v for v in values if case["id"] in v]
        assert not any(n in v for v in mine for n in new), (
            "a case goes on knowing whom it knows by the name that it has"
        )

    with under(NEW, redis_server, folder, model) as desk:
        # What is lost is what docs/privacy.md says, and it is said.
        cases = desk.admin("GET", "/cases").json()["cases"]
        assert {c["id"]: c["due"] for c in cases}[
            desk.admin("GET", f"/cases/{confirmed['ticket']}").json()["id"]
        ] == due
        wait_for(lambda: desk.whole.ready()["workers"][0]["entries_unreadable"] > 0, 5)
        status = desk.whole.ready()["workers"][0]
        assert status["entries_unreadable"] == 3 and status["exceptions_unreadable"] == 1
        assert said(desk, 1) == variant(1)
        assert desk.whole.chat(REFUSED).headers["x-sluice-action"] == "block", "a term has no key; its exception has"
        lost = desk.admin("GET", f"/cases/{confirmed['ticket']}/evidence")
        assert lost.status_code == 503 and "'old'" in lost.json()["error"]["message"]
        assert outcome(desk, open_).status_code == 404 and outcome(desk, fresh).json()["state"] == "received"
        assert desk.report(receipt).status_code == 422
        assert desk.decide(confirmed["ticket"], "probe", model="m").status_code == 200
        wait_for(lambda: bool(desk.case(confirmed["ticket"])["probes"]), 8)
        (probe,) = desk.case(confirmed["ticket"])["probes"]
        assert probe["outcome"] == "inconclusive" and "no longer listed" in probe["reason"]
        assert desk.case(confirmed["ticket"])["state"] == "confirmed", "nothing is closed by what nobody could see"


def test_article_11_a_call_sent_again_after_a_rotation_gets_its_first_answer(
    redis_server: RedisServer, tmp_path: Path, model: Model
) -> None:
    folder = tmp_path / "gateway"
    model.script.chat(variant(5))
    complaint = {"kind": "pi_delete", "comment": "那是我写的话"}

    def calls(desk: Desk, answer: dict[str, Any]) -> list[Any]:
        head = {"x-user": USER, "Idempotency-Key": "c"}
        return [
            desk.report(answer, USER, key="a").json(),
            desk.report(answer, USER).json(),
            desk.report(answer).json(),
            desk.report(answer, key="b").json(),
            desk.whole.http.post("/sluice/v1/complaints", json=complaint, headers=head).json(),
        ]

    with under(OLD, redis_server, folder, model) as desk:
        answer = desk.ask(USER)
        first = calls(desk, answer)
        count = desk.case(first[0]["ticket"])["reports"]
    with under(f"{NEW},{OLD}", redis_server, folder, model) as desk:
        assert calls(desk, answer) == first
        assert desk.case(first[0]["ticket"])["reports"] == count


def test_article_11_traces_of_answers_count_under_every_key(redis_server: RedisServer) -> None:
    async def story() -> None:
        store = Store(redis_server.url, "deliveries")
        counts = []
        for spec in (OLD, f"{NEW},{OLD}", NEW):
            traces = Deliveries(store, Keys(spec))
            await traces.start()
            traces.delivered("default", PASSAGE)
            await asyncio.sleep(1)
            counts.append(await traces.count("default", PASSAGE))
            await traces.stop()
        assert counts == [1, 2, 2], "under the new key alone: what was delivered since"
        await store.close()

    asyncio.run(story())
