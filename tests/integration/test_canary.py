"""A canary in every place a reporter's words can stand, errors included: it is in no log at DEBUG, no metric, no file of the store, no
snapshot and no journal; only whoever opens the evidence finds it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from app import metrics, policy
from app.agreements import Agreements
from app.claims import Claims
from app.clean import Clean
from app.complaints import Complaints
from app.desk import Desk
from app.history import History
from app.playground import Playground
from app.register import Register
from app.review import Review
from app.statements import Archive
from app.store.cases import Cases
from app.store.client import Store
from app.store.tables import Entries, ExceptionRows, Shadows, Statements
from app.subjects import Subjects
from app.web.admin import admin_api
from tests.conftest import TOKEN, Model, RedisServer, Running, served, wait_for
from tests.integration.test_privacy import CANARY, logged

__all__ = ["logged"]
Make = Callable[..., Running]
WORDS = (
    f"这里有{CANARY}四个字，还有一段足够长的话，好让它成为一个案件里的段落，没有别的用处，只是为了凑够四十个字而已。"
)


@contextmanager
def desk(gateway: Running, server: RedisServer, folder: Path) -> Iterator[httpx.Client]:
    """The admin port beside a gateway in this process."""
    settings, keys = gateway.gateway.settings, gateway.gateway.keys
    store = Store(server.url, settings.deployment)
    entries, shadows, exceptions, statements = (
        kind(store, folder, lambda rows, version, whole: None, keep_snapshot=True)
        for kind in (Entries, Shadows, ExceptionRows, Statements)
    )
    cases = Cases(store, entries)
    review, claims = Review(cases, keys, Clean(settings.models), shadows), Claims(cases)
    desk = Desk(
        settings, keys, entries, shadows, review, claims, Register(entries, cases, keys, review), History(cases, review.ordinary), cases,
        Complaints(cases, keys, exceptions, shadows), Subjects(cases, keys, store, folder),
        Agreements(cases, keys, store, folder), statements, Archive(),
        Playground(settings, keys, entries, shadows), dict, lambda: policy.load(settings.policy), lambda: {"default"},
    )  # fmt: skip
    api = admin_api(TOKEN, desk)
    with served(api) as port:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/sluice/v1/admin", headers=headers, timeout=20) as http:
            yield http


def everything(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_what_a_reporter_says_is_found_nowhere_but_in_the_opened_evidence(
    make_gateway: Make, model: Model, redis_server: RedisServer, tmp_path: Path, logged: io.StringIO
) -> None:
    gateway = make_gateway(
        "reports: {deliveries: true}\nprobes: {terms_allow: true, per_minute: 6000}\n",
        "apps: [{id: default, trusted_headers: {subject: x-user, conversation: x-talk}}]",
        redis_url=redis_server.url,
    )
    model.script.chat(WORDS)
    who = {"x-user": f"{CANARY}-user", "x-talk": f"{CANARY}-talk"}
    http = gateway.http
    answer = http.post(
        "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": CANARY}]}, headers=who
    ).json()
    whole = {
        "text": WORDS, "decision_id": answer["id"], "receipt": answer["sluice"]["receipt"], "comment": CANARY,
        "prompt": f"说说{CANARY}",
    }  # fmt: skip
    wait_for(lambda: http.post("/sluice/v1/reports", json=whole, headers=who).status_code == 202, 5)
    ticket = http.post("/sluice/v1/reports", json=whole, headers=who).json()["ticket"]
    refused: list[dict[str, Any]] = [
        {"text": CANARY, CANARY: 1}, {"text": WORDS, "receipt": CANARY, "decision_id": CANARY}, {"text": 5, "comment": CANARY},
        {"text": WORDS, "category": CANARY}, {"text": CANARY * 10_000}, {"text": WORDS, "passage": [CANARY, 2]},
    ]  # fmt: skip
    for body in refused:
        bad = http.post("/sluice/v1/reports", json=body, headers=who)
        assert bad.status_code in (413, 422) and (CANARY not in bad.text or CANARY in body), bad.text
    for raw in (f'{{"text": "{CANARY}"', f'{{"text": "{CANARY}", "text": 1}}'):
        assert CANARY not in http.post("/sluice/v1/reports", content=raw.encode(), headers=who).text
    for path, body in (
        ("complaints", {"kind": "pi_delete", "comment": CANARY, "text": WORDS}),
        ("appeals", {"kind": "blocked_answer", "decision_id": answer["id"], "prompt": CANARY, "comment": CANARY}),
        ("appeals", {"kind": "blocked_prompt", "decision_id": CANARY, "prompt": CANARY}),
    ):
        http.post(f"/sluice/v1/{path}", json=body, headers=who | {"Idempotency-Key": CANARY})
    http.get(f"/sluice/v1/reports/{CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    gateway.chat(CANARY)
    with desk(gateway, redis_server, tmp_path / "admin") as admin:
        case = admin.get(f"/cases/{ticket}").json()["id"]
        confirmed = admin.post(f"/cases/{case}/decision", json={"decision": "confirm", "reason": "r"})
        assert confirmed.status_code == 200, confirmed.text
        asked = {"decision": "probe", "model": "m", "variants": [f"{n} {CANARY}" for n in range(5)]}
        assert admin.post(f"/cases/{case}/decision", json=asked).status_code == 200
        wait_for(lambda: admin.get(f"/cases/{case}").json()["state"] == "confirmed", 30)
        shown = [
            admin.get(p).text for p in ("/cases", f"/cases/{case}", "/audit", "/evidence", "/complaints", "/entries")
        ]
        assert not [text for text in shown if CANARY in text]
        for bad in (
            {"decision": CANARY},
            {"decision": "confirm", CANARY: 1},
            {"decision": "hand_over", "date": CANARY},
        ):
            admin.post(f"/cases/{case}/decision", json=bad)
        # The store goes away in the middle of things.
        redis_server.kill()
        assert http.post("/sluice/v1/reports", json=whole | {"text": WORDS + "又"}, headers=who).status_code in (
            422,
            503,
        )
        assert http.post("/sluice/v1/reports", json={"text": WORDS + "又"}, headers=who).status_code == 503
        assert admin.get(f"/cases/{case}/evidence").status_code == 503
        redis_server.start()
        opened = admin.get(f"/cases/{case}/evidence").json()
        assert CANARY in opened["passage"] and CANARY in opened["prompt"], "the one place where it is"
        assert len(admin.get("/samples").json()["samples"]) == 1
    with redis.Redis(port=redis_server.port) as client:
        client.save()  # a snapshot beside the log of writes
    gateway.gateway.journal.flush()
    files = dict(everything(redis_server.folder)) | dict(everything(tmp_path))
    assert any(path.name.endswith((".aof", ".rdb")) for path in files) and any("journal" in str(p) for p in files)
    needles = [
        CANARY.encode(),
        CANARY.encode().hex().encode(),
        json.dumps(WORDS)[1:40].encode(),
        "凑够四十个字".encode(),
    ]
    for path, raw in files.items():
        if path.name in ("policy.yaml", "apps.yaml"):
            continue
        assert not [n for n in needles if n in raw], path
    for text in (logged.getvalue(), metrics.render().decode()):
        assert CANARY not in text and "凑够四十个字" not in text
