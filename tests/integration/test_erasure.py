"""What is held about one person, asked for and erased at a gateway with its own store, across a rotation: nothing of them is left in any
key or file, what a law keeps is named, and nobody else's is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.keys import Keys
from app.store.embedded import EmbeddedStore
from tests.conftest import Model, wait_for, whole_gateway
from tests.integration.test_reports import APPS, REVIEWERS, Desk
from tests.integration.test_rotation import NEW, OLD, REFUSED, TERM, everything, names, variant

USER, OTHER = "reader-7", "reader-8"
WORDS = "canary5d20"
PREFIX = "{sluice:default}:"


@contextmanager
def under(spec: str, folder: Path, model: Model) -> Iterator[Desk]:
    folder.mkdir(exist_ok=True)
    (folder / "apps.yaml").write_text(APPS)
    with whole_gateway(
        folder, model.url, ADMIN_TOKEN=REVIEWERS, APPS=str(folder / "apps.yaml"), SECRET_KEY=spec
    ) as whole:
        yield Desk(whole)


def office(desk: Desk, *command: str, user: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"SLUICE_ADMIN_TOKEN": REVIEWERS}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "privacy", "--admin", desk.whole.admin, *command, "--user", "-"],
        input=user + "\n", text=True, capture_output=True, env=env, timeout=60, check=True,
    )  # fmt: skip


def asked(desk: Desk, what: str, user: str, **more: Any) -> dict[str, Any]:
    done = desk.admin("POST", f"/privacy/{what}", json={"app": "default", "user": user, **more})
    assert done.status_code == 200, done.text
    return dict(done.json())


@pytest.mark.timeout(240)
def test_article_11_erase_leaves_no_trace_but_the_audit_row(tmp_path: Path, model: Model) -> None:
    folder, url = tmp_path / "gateway", EmbeddedStore(tmp_path / "gateway" / "data").url
    said = model.script.chat

    def report(desk: Desk, n: int, user: str = USER) -> str:
        said(variant(n))
        sent = {"comment": f"{WORDS} {n}", "prompt": f"{WORDS} prompt {n}"}
        return str(desk.report(desk.ask(user), user, key=f"k{n}", **sent).json()["ticket"])

    def complain(desk: Desk, user: str, **more: str) -> dict[str, Any]:
        complaint = {"kind": "pi_delete", "comment": f"{WORDS} complaint", **more}
        return dict(desk.whole.http.post("/sluice/v1/complaints", json=complaint, headers={"x-user": user}).json())

    with under(OLD, folder, model) as desk:
        before = report(desk, 1), complain(desk, USER)["ticket"]
    with under(f"{NEW},{OLD}", folder, model) as desk:
        waiting, rejected = report(desk, 2), report(desk, 3)
        shared = report(desk, 4, OTHER)
        assert desk.case(report(desk, 4))["id"] == desk.case(shared)["id"]
        desk.decide(rejected, "reject")
        desk.decide(shared, "confirm", category="illegal_acts")
        desk.admin("POST", "/entries", json={"term": TERM, "category": "violence", "action": "block", "reason": "r"})
        refused: list[httpx.Response] = []

        def stopped() -> bool:
            refused.append(desk.whole.chat(REFUSED))
            return refused[-1].headers["x-sluice-action"] == "block"

        wait_for(stopped, 3)
        appeal = {"kind": "blocked_prompt", "decision_id": refused[-1].json()["id"], "prompt": REFUSED}
        mine = desk.whole.http.post("/sluice/v1/appeals", json=appeal, headers={"x-user": USER}).json()["ticket"]
        desk.admin("POST", f"/complaints/{mine}/decision", json={"decision": "uphold", "reason": "right"})
        number = complain(desk, USER, kind="pi_block")["ticket"]
        block = {"decision": "uphold", "reason": "r", "identifiers": ["88-1234-5678"], "public_interest": "none"}
        for who in "ab":
            desk.admin("POST", f"/complaints/{number}/decision", who, json=block)
        theirs = complain(desk, OTHER)
        store, keys = redis.Redis.from_url(url, decode_responses=True), Keys(f"{NEW},{OLD}")
        for at, subject in enumerate(keys.pseudonyms("default", USER)):
            store.hset(f"{PREFIX}strikes:default:{subject}", mapping={"count": 2, "decisions": "slc_x"})
            row = {"id": f"std_{at}", "app": "default", "subject": subject, "state": "limited"}
            store.hset(f"{PREFIX}standings:rows", f"std_{at}", f"1 {json.dumps(row)}")
            row = {"id": f"agr_{at}", "app": "default", "subject": subject, "agreement": "terms-1"}
            store.hset(f"{PREFIX}agreements:rows", f"agr_{at}", f"1 {json.dumps(row)}")

        done = office(desk, "export", "--app", "default", "--out", str(tmp_path / "mine.json"), user=USER)
        raw = (tmp_path / "mine.json").read_text("utf-8")
        held = json.loads(raw)["held"]
        assert {name: len(rows) for name, rows in held.items()} == {
            "reports": 4, "complaints": 3, "exceptions": 1, "holds": 2, "strikes": 2, "standings": 2,
            "agreements": 2, "limits": 2, "results": 10,
        }  # fmt: skip
        assert {r["ticket"] for r in held["reports"]} == {before[0], waiting, rejected} | {
            r["ticket"] for r in held["reports"] if r["case"] == desk.case(shared)["id"]
        }
        assert {r["comment"] for r in held["reports"]} == {f"{WORDS} {n}" for n in (1, 2, 3, 4)}
        assert {m["sent"].get("comment") for m in held["complaints"]} == {f"{WORDS} complaint", None}
        assert (tmp_path / "mine.json").stat().st_mode & 0o777 == 0o600 and "持有 held" in done.stderr
        whose = names(OLD) | names(NEW)
        assert USER not in raw and not any(name in raw for name in whose)

        done = office(desk, "erase", "--app", "default", user=USER)
        erased = json.loads(done.stdout)
        assert erased["erased"] == {name: len(rows) for name, rows in held.items()} and "保留 kept" in done.stderr
        assert erased["store_file"] == "rewritten"
        entry = desk.admin("GET", f"/complaints/{number}").json()["entries"][0]
        assert {(k["class"], k.get("case") or k.get("entry")) for k in erased["kept"]} == {
            ("evidence", desk.admin("GET", f"/cases/{c}").json()["id"]) for c in open_cases(desk, shared)
        } | {("entries", entry), ("unlabelled", None)}
        assert all(k["basis"] and k["until"] for k in erased["kept"])

        gone = [USER, *whose, *before, waiting, rejected, mine, number]

        def traces(of: list[str]) -> list[str]:
            found = [
                f"{name} in a key"
                for name in of
                for value in everything(url)
                if name in value and ":audit" not in value[:30]
            ]
            for file in [folder / "log", *(folder / "data").rglob("*")]:
                if file.is_file():
                    found += [f"{name} in {file}" for name in of if name.encode() in file.read_bytes()]
            return found

        ledger = {*before, waiting, rejected, mine, number}
        wait_for(lambda: not traces([name for name in gone if name not in ledger]), 5)
        # The ledger keeps the ids of complaints, and what they brought about their cause; the chain those of all. None leads to anybody.
        left = [value for value in everything(url) if any(id in value for id in ledger)]
        assert {value.split(" ")[0].removeprefix(PREFIX) for value in left} == {
            "audit", "matters", "matters:all", "entries:rows", "shadows:rows", "trail:matter",
        }  # fmt: skip
        matters = [json.loads(v.split(" ", 3)[3]) for v in everything(url) if v.startswith(f"{PREFIX}matters ")]
        assert {m["id"]: (m["reporter"], m["state"], m["decision"]) for m in matters if m["id"] in ledger} == {
            before[1]: ("", "withdrawn", ""), mine: ("", "upheld", ""), number: ("", "upheld", ""),
        }  # fmt: skip

        row = desk.chain()[-1]
        assert {k: row[k] for k in ("who", "what", "app", "erased")} == {
            "who": "anna", "what": "privacy_erase", "app": "default", "erased": erased["erased"],
        }  # fmt: skip
        assert set(row) == {"who", "what", "app", "erased", "seq", "prev", "at"}
        assert not any(asked(desk, "export", USER)["held"].values())
        assert asked(desk, "erase", USER)["erased"] == {}

        # Nobody else's is touched, and what was decided holds.
        other = asked(desk, "export", OTHER)["held"]
        assert (
            len(other["reports"]) == len(other["complaints"]) == 1
            and other["complaints"][0]["ticket"] == theirs["ticket"]
        )
        case = desk.case(shared)
        assert case["state"] == "confirmed" and case["reports"] == 2 and len(case["entries"]) == 1
        assert desk.admin("GET", f"/cases/{shared}/evidence").json()["prompt"] == f"{WORDS} prompt 4"
        assert desk.admin("GET", f"/entries/{entry}").status_code == 200
        assert desk.admin("GET", f"/cases/{waiting}").status_code == 404, "a ticket that is gone leads to no case"
        wait_for(lambda: desk.whole.chat(REFUSED).headers["x-sluice-action"] == "block", 3)


def open_cases(desk: Desk, shared: str) -> list[str]:
    """Those that wait, without the one whose evidence another person sent."""
    cases = desk.admin("GET", "/cases").json()["cases"]
    return [c["id"] for c in cases if c["id"] != desk.case(shared)["id"]]


def test_article_11_whoever_asks_for_the_wrong_app_or_without_a_token_learns_nothing(
    tmp_path: Path, model: Model
) -> None:
    with under(NEW, tmp_path / "gateway", model) as desk:
        for what in ("export", "erase"):
            wrong = desk.admin("POST", f"/privacy/{what}", json={"app": "nobody", "user": WORDS})
            assert wrong.json()["known_app"] is False and not any(wrong.json().get("held", {}).values()), (
                "an app that is gone has persons"
            )
            assert not wrong.json().get("erased") and WORDS not in wrong.text
            bad = desk.admin("POST", f"/privacy/{what}", json={"app": "default", "user": {WORDS: 1}})
            assert bad.status_code == 422 and WORDS not in bad.text
            assert (
                desk.admin("POST", f"/privacy/{what}", "z", json={"app": "default", "user": WORDS}).status_code == 401
            )
        assert WORDS not in (tmp_path / "gateway" / "log").read_text()


def test_article_11_a_user_id_beyond_ascii_is_found_as_the_header_carried_it(tmp_path: Path, model: Model) -> None:
    with under(NEW, tmp_path / "gateway", model) as desk:
        complaint = {"kind": "pi_delete", "comment": WORDS}
        head = {b"x-user": "读者七".encode()}
        desk.whole.http.post("/sluice/v1/complaints", json=complaint, headers=head)  # type: ignore[arg-type]
        assert len(asked(desk, "export", "读者七")["held"]["complaints"]) == 1
