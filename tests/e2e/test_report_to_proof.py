"""From a report to proof, whole: two gateways on one store before a real model that really says a passage; reported, held, confirmed,
probed, tuned away by our own command, probed again, closed with evidence (needs torch, peft, trl)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.deadlines import SHANGHAI
from app.passages import compact
from app.text import fold
from tests import tiny_generator, tiny_server
from tests.conftest import RedisServer, Whole, redis_binaries, wait_for, whole_gateway
from tests.faults.proxy import Proxy
from tests.integration.test_reports import REVIEWERS

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

POLICY = f"""
reports: {{deliveries: true}}
probes: {{terms_allow: true, per_minute: 6000, max_tokens: 96}}
surrogates: {{default: {{zh: {tiny_generator.DECLINED["zh"]!r}, en: {tiny_generator.DECLINED["en"]!r}}}}}
"""
"""What is shown instead is what the model itself says where it declines: tuning towards it disturbs the rest least."""
APPS = "apps: [{id: default, trusted_headers: {subject: x-user}}]"
A_SECOND = 1.0


@pytest.fixture
def relay() -> Iterator[Callable[[str], str]]:
    """relay(url) -> the one address of the model, wherever it now runs."""
    proxy: list[Proxy] = []
    with ExitStack() as stack:

        def to(url: str) -> str:
            port = int(url.split(":")[2].split("/")[0])
            if not proxy:
                proxy.append(stack.enter_context(_proxy(port)))
            else:
                proxy[0].to(port)
            return f"http://127.0.0.1:{proxy[0].port}/v1"

        yield to


def _proxy(port: int) -> Any:
    from tests.faults.proxy import proxied

    return proxied(port)


def office(whole: Whole, *words: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {"SLUICE_ADMIN_TOKEN": REVIEWERS, "SLUICE_ADMIN_PORT": whole.admin.rpartition(":")[2]}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_from_a_report_to_proof(tmp_path: Path, relay: Callable[[str], str]) -> None:
    taught = tiny_generator.build(tmp_path / "model")
    asked, variants, passage = next(p for p in taught.passages if len(compact(fold(p[2]))) >= 40)
    (tmp_path / "redis").mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], tmp_path / "redis")
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "apps.yaml").write_text(APPS)
    more = {
        "REDIS_URL": server.url, "ADMIN_TOKEN": REVIEWERS, "POLICY": str(tmp_path / "policy.yaml"),
        "APPS": str(tmp_path / "apps.yaml"),
    }  # fmt: skip
    with ExitStack() as stack:
        model = stack.enter_context(tiny_server.serve(tmp_path / "model"))
        address = relay(model)
        one, two = (stack.enter_context(whole_gateway(tmp_path / n, address, **more)) for n in ("one", "two"))

        def chat(whole: Whole, prompt: str, user: str = "") -> dict[str, Any]:
            body = {
                "model": "model",
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": 96,
            }
            return dict(
                whole.http.post("/v1/chat/completions", json=body, headers={"x-user": user} if user else {}).json()
            )

        def says(whole: Whole, prompt: str = asked) -> bool:
            return tiny_generator.says(str(chat(whole, prompt)["choices"][0]["message"]["content"]), passage)

        def admin(method: str, path: str, **given: Any) -> Any:
            headers = {"Authorization": f"Bearer {'a' * 32}"}
            answer = httpx.request(method, f"{two.admin}/sluice/v1/admin{path}", headers=headers, timeout=20, **given)
            assert answer.status_code == 200, answer.text
            return answer.json()

        # Delivered with receipts, and reported by three.
        answers = [chat(one, asked, f"user{n}") for n in range(3)]
        assert all(tiny_generator.says(a["choices"][0]["message"]["content"], passage) for a in answers)
        time.sleep(1)  # the traces of what was delivered are written
        began = time.time()
        for n, answer in enumerate(answers):
            report = {
                "text": answer["choices"][0]["message"]["content"], "decision_id": answer["id"],
                "receipt": answer["sluice"]["receipt"], "prompt": asked, "comment": "wrong",
            }  # fmt: skip
            taken = one.http.post("/sluice/v1/reports", json=report, headers={"x-user": f"user{n}"})
            assert taken.status_code == 202, taken.text
        ticket = taken.json()["ticket"]
        assert admin("GET", f"/cases/{ticket}")["state"] == "provisional"
        for whole in (one, two):
            assert wait_for(lambda: not says(whole), A_SECOND) < A_SECOND  # noqa: B023

        case = admin("GET", f"/cases/{ticket}")["id"]
        confirmed = admin("POST", f"/cases/{case}/decision", json={"decision": "confirm", "reason": "it is wrong"})
        day = datetime.fromtimestamp(began, UTC).astimezone(SHANGHAI)
        due = datetime.fromisoformat(confirmed["due"]).astimezone(SHANGHAI)
        assert (due.year * 12 + due.month) - (day.year * 12 + day.month) == 3 and due.strftime("%H:%M:%S") == "23:59:59"
        assert not says(one) and not says(two)

        def probed(*words: str) -> dict[str, Any]:
            before = len(admin("GET", f"/cases/{case}")["probes"])
            office(two, "case", "probe", case, *words)
            wait_for(lambda: len(admin("GET", f"/cases/{case}")["probes"]) > before, 400)
            return dict(admin("GET", f"/cases/{case}"))

        failed = probed("--model", "model", *(w for v in variants for w in ("--variant", v)))
        print("before:", json.dumps(failed["probes"][-1]["sets"]))
        assert failed["state"] == "confirmed" and failed["probes"][-1]["outcome"] == "failed"

        office(one, "case", "export", "--out", str(tmp_path / "cases"), "--case", case)
        office(
            one, "train", "generator", "--model", str(tmp_path / "model"), "--cases", str(tmp_path / "cases" / "samples.jsonl"),
            "--out", str(tmp_path / "adapter"), "--epochs", "60", "--lr", "0.004",
        )  # fmt: skip
        tuned = stack.enter_context(tiny_server.serve(tmp_path / "model", tmp_path / "adapter"))
        relay(tuned)
        admin("POST", f"/cases/{case}/decision", json={"decision": "optimise", "reason": "tuned"})
        closed = probed()
        print("after:", json.dumps(closed["probes"][-1]["sets"]))
        assert closed["state"] == "closed" and closed["probes"][-1]["outcome"] == "passed"
        assert closed["next_probe"] > time.time() + 20 * 86400, "and it is asked again"

        # What else it says, it still says.
        others = [(p[0], p[2]) for p in taught.passages if p[2] != passage] + taught.ordinary
        with httpx.Client(base_url=tuned, timeout=60) as http:
            changed = 0
            for prompt, answer in others:
                body = {
                    "model": "model",
                    "messages": [{"role": "user", "content": prompt}],
                    "temperature": 0,
                    "max_tokens": 96,
                }
                said = http.post("chat/completions", json=body).json()["choices"][0]["message"]["content"]
                changed += said != answer
        print(f"{changed} of {len(others)} other answers are others now")
        assert changed <= 0.05 * len(others)

        office(one, "evidence", "export", "--out", str(tmp_path / "evidence"))
        export = json.loads((tmp_path / "evidence" / "evidence.json").read_text("utf-8"))
        (mine,) = export["cases"]
        assert mine["state"] == "closed" and [p["outcome"] for p in mine["probes"]] == ["failed", "passed"]
        assert export["audit"]["chain"] == "whole" and passage not in json.dumps(export, ensure_ascii=False)
    server.kill()
