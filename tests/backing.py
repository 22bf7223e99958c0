"""What the tests of backups and upgrades share: a gateway with everything open, what of it a person can see, and the command.

`seen` is compared before and after: all of it is read from outside, through the ports.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.conftest import Model, RedisServer, wait_for, whole_gateway
from tests.integration.test_reports import ANSWER, APPS, REVIEWERS, Desk

POLICY = """
reports: {per_reporter: 1000, per_source: 100000}
probes: {terms_allow: true, per_minute: 6000}
"""
TERM = "示例违禁短语"
LISTED = "一段由值班员自己登记的说明，不应再次出现在任何回答里。"
REFUSED = f"请问{TERM}到底是什么意思？我在写论文。"
MALWARE = "接单攻击网站，不限。"
UNTIL = "2090-01-01T00:00:00+08:00"
PROMPT = "说说搬箱子的事"


def variant(n: int) -> str:
    """Another passage for every case."""
    return "".join(f"{n}{c}" if at % 9 == 8 else c for at, c in enumerate(ANSWER))


@contextmanager
def desk_at(url: str, folder: Path, model: Model, **more: str) -> Iterator[Desk]:
    """A gateway on the store at `url` ('': the embedded one), with reviewers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "apps.yaml").write_text(APPS)
    named = {"ADMIN_TOKEN": REVIEWERS, "POLICY": str(folder / "policy.yaml"), "APPS": str(folder / "apps.yaml"), **more}
    with whole_gateway(folder, model.url, **named, **({"REDIS_URL": url} if url else {})) as whole:
        yield Desk(whole)


def sluice(*words: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`sluice …` with these SLUICE_ settings and no others."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, words)], env=environment(**settings), capture_output=True, text=True, timeout=100
    )  # fmt: skip


def environment(**settings: str) -> dict[str, str]:
    given = {f"SLUICE_{k}": v for k, v in settings.items()}
    return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | given


def done(*words: str | Path, **settings: str) -> str:
    """The same, which must go well; what it says."""
    said = sluice(*words, **settings)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


def fill(desk: Desk, model: Model) -> dict[str, Any]:
    """Cases in several states, entries, an exception, a complaint, a standing, an agreement, statements; the tickets, by what became of
    them."""

    def reported(n: int, user: str, **more: Any) -> dict[str, Any]:
        model.script.chat(variant(n))
        return dict(desk.report(desk.ask(user), user, **more).json())

    def admin(path: str, **body: Any) -> dict[str, Any]:
        answer = desk.admin("POST", path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    tickets = {
        "confirmed": reported(1, "reader-1", prompt=PROMPT, comment="请看一下"),
        "rejected": reported(2, "reader-2"),
        "held": reported(3, "reader-3", key="again"),
        "excepted": reported(4, "reader-4"),
    }
    tickets["received"] = desk.report(text=variant(5)).json()
    desk.decide(tickets["confirmed"]["ticket"], "confirm", category="illegal_acts")
    desk.decide(tickets["rejected"]["ticket"], "reject")
    desk.decide(tickets["excepted"]["ticket"], "confirm", category="illegal_acts")
    desk.decide(tickets["excepted"]["ticket"], "except", role="head of desk")
    admin("/entries", term=TERM, category="violence", action="block", reason="test")
    admin("/entries", passage=LISTED, category="violence", action="block", reason="test", expires_at=UNTIL)
    wait_for(lambda: desk.whole.chat(REFUSED).headers["x-sluice-action"] == "block", 5)
    appeal = {"kind": "blocked_prompt", "decision_id": desk.whole.chat(REFUSED).json()["id"], "prompt": REFUSED}
    appealed = desk.whole.http.post("/sluice/v1/appeals", json=appeal).json()
    admin(f"/complaints/{appealed['ticket']}/decision", decision="uphold", reason="right")
    said = {"kind": "pi_delete", "comment": "那是我写的话"}
    tickets["open"] = desk.whole.http.post("/sluice/v1/complaints", json=said, headers={"x-user": "reader-5"}).json()
    model.script.chat("好的。")
    for n in range(3):
        desk.ask("reader-6", messages=[{"role": "user", "content": f"{MALWARE}第{n}单"}])
    wait_for(lambda: bool(desk.admin("GET", "/standings").json()["standings"]), 5)
    admin("/agreements", app="default", user="reader-7", agreement="terms-1")
    admin("/statements", kind="data_source", zh="自有语料", en="our own texts", public=True, note="n")
    admin("/statements", kind="data_source", zh="自有语料与公开语料", en="ours and public ones", public=True, note="n")
    return tickets


def seen(desk: Desk, tickets: dict[str, Any]) -> dict[str, Any]:
    """What people see of it, whoever they are: nothing that a clock moves."""

    def admin(path: str) -> Any:
        answer = desk.admin("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in names} for row in rows]

    cases = without(admin("/cases?size=100")["cases"], "days_left")
    head = {"Authorization": f"Bearer {tickets['open']['status_token']}"}
    return {
        "cases": sorted(cases, key=lambda c: c["id"]),
        "entries": sorted(admin("/entries")["entries"], key=lambda e: e["id"]),
        "standings": admin("/standings")["standings"],
        "agreements": admin("/agreements")["agreements"],
        "statements": admin("/statements")["statements"],
        "complaints": without(admin("/complaints")["complaints"], "days_left"),
        "states": {name: desk.state(t) for name, t in tickets.items() if name != "open"},
        "open": desk.whole.http.get(f"/sluice/v1/complaints/{tickets['open']['ticket']}", headers=head).json(),
        "evidence": admin(f"/cases/{tickets['confirmed']['ticket']}/evidence"),
        "asked": admin(f"/complaints/{tickets['open']['ticket']}/evidence"),
        "page": desk.whole.http.get("/sluice/v1/disclosure").json()["statements"],
    }


def acts(desk: Desk, model: Model, seconds: float = 5) -> None:
    """A confirmed passage, a term, a passage of the list and a standing are in force, and the exception lets its prompt through."""

    def said(text: str) -> str:
        model.script.chat(text)
        return desk.said()

    wait_for(lambda: said(variant(1)) != variant(1), seconds)
    wait_for(lambda: desk.whole.chat(TERM).headers["x-sluice-action"] == "block", seconds)
    wait_for(lambda: LISTED not in said(f"好的。{LISTED}"), seconds)
    model.script.chat("好的。")
    wait_for(lambda: desk.whole.chat(REFUSED).headers["x-sluice-action"] == "pass", seconds)


def packed(file: Path, members: dict[str, bytes], *, types: dict[str, bytes] | None = None) -> Path:
    """A .tar.gz with these members, in this order, as any tar would write it. `types`: of a member that is no file."""
    with gzip.GzipFile("", "wb", 6, file.open("wb"), 0) as to, tarfile.open(fileobj=to, mode="w") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(body), (types or {}).get(name, tarfile.REGTYPE)
            tar.addfile(info, io.BytesIO(body))
    return file


def members(file: Path) -> dict[str, bytes]:
    """What is in a .tar.gz, in its order."""
    with tarfile.open(file) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def keyed(server: RedisServer, *but: str) -> dict[str, Any]:
    """Every key of a store with its value and whether it expires, without those whose name begins like one of `but`."""
    client = redis.Redis(port=server.port, decode_responses=True)
    found: dict[str, Any] = {}
    for key in client.scan_iter():
        if key.partition("}:")[2].startswith(but or ("\0",)):
            continue
        ends, kind = int(client.pttl(key)), client.type(key)  # type: ignore[arg-type]
        value: Any = {
            "string": client.get, "hash": client.hgetall, "list": lambda k: client.lrange(k, 0, -1), "set": client.smembers,
            "zset": lambda k: client.zrange(k, 0, -1, withscores=True),
        }[str(kind)](key)  # fmt: skip
        found[key] = (kind, value, ends >= 0)
    return found
