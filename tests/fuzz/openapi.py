"""Every route of the admin port and of the client port that OpenAPI describes, asked what its description allows and what it does not.

Law: no answer is a 5xx, each is one that the route documents, and what the description forbids is not taken. Routes are asked with ids that
exist and with made-up ones.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup

from app.main import create_app
from app.settings import read
from tests import scorers
from tests.conftest import SECRET, TOKEN, WORD, Script, Whole, served, whole_gateway

POLICY = "reports: {per_reporter: 1000, per_source: 100000}\n"
"""Of the gateway that is asked: else it would answer with 429 and nothing else."""
_MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
_EXPECTED = ("400", "401", "404", "409", "413", "415", "422", "429")
# Rules that go over several fields are no part of a JSON schema: what it allows may still be refused.
_NOT_CHECKED = ["positive_data_acceptance"]


@dataclass(frozen=True)
class Known:
    """What names something that is there, and what may be said of it: a body that is taken as it stands."""

    path: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Api:
    """One port's routes: where they are, what describes them, what every call carries."""

    url: str
    document: dict[str, Any]
    headers: dict[str, str]
    known: dict[str, Known]


def _client_document() -> dict[str, Any]:
    """The client port does not serve its own."""
    with tempfile.TemporaryDirectory() as folder:
        more: dict[str, Any] = {"data_dir": Path(folder), "secret_key": SECRET, "models": scorers.models()}
        return create_app(read({}, upstream_url="http://127.0.0.1:9/v1", **more)).api.openapi()


def apis(gateway: Whole) -> list[Api]:
    """Both, with something of everything in the store."""
    document = gateway.call("GET", "/openapi.json").raise_for_status().json()
    text = f"这里有{WORD}，也有别的话。"
    report = {"text": text, "category": "violence"}
    complaint = {"kind": "pi_delete", "text": text, "comment": "请删除"}
    appeal = {"kind": "blocked_prompt", "decision_id": "dec_1", "prompt": text}
    entry = {"term": WORD, "category": "violence", "reason": "示例"}
    statement = {"kind": "guidance", "zh": "请理性使用。"}
    agreement = {"app": "default", "user": "u-1", "agreement": "v1"}
    person = {"app": "default", "user": "u-1"}

    def sent(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(gateway.http.post(path, json=body).raise_for_status().json())

    def put(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(gateway.call("POST", path, json=body).raise_for_status().json())

    reported, complained = sent("/sluice/v1/reports", report), sent("/sluice/v1/complaints", complaint)
    kept, agreed, _ = put("/entries", entry), put("/agreements", agreement), put("/statements", statement)
    case, ticket = {"name": reported["ticket"]}, {"ticket": complained["ticket"]}
    mine = Known(ticket, {"X-Sluice-Status-Token": complained["status_token"]})
    first, words = Known({"kind": "guidance", "version": "1"}), {"name": "words"}
    client = {
        "/reports": Known(body=report),
        "/reports/{ticket}": Known({"ticket": reported["ticket"]}, {"X-Sluice-Status-Token": reported["status_token"]}),
        "/complaints": Known(body=complaint),
        "/complaints/{ticket}": mine,
        "/appeals": Known(body=appeal),
        "/appeals/{ticket}": mine,
        "/disclosure/{kind}/{version}": first,
    }
    admin = {
        "/entries": Known(body=entry),
        "/entries/{id}": Known({"id": kept["id"]}),
        "/lists/{name}/entries": Known(words, body={"entries": [entry]}),
        "/lists/{name}/remove": Known(words, body={"ids": [kept["id"]]}),
        "/history/rollback": Known(body={"to": 0, "reason": "示例", "expected_version": 1}),
        "/cases/{name}": Known(case),
        "/cases/{name}/decision": Known(case, body={"decision": "confirm", "reason": "示例"}),
        "/cases/{name}/evidence": Known(case),
        "/complaints/{ticket}": Known(ticket),
        "/complaints/{ticket}/decision": Known(ticket, body={"decision": "uphold", "reason": "示例"}),
        "/complaints/{ticket}/evidence": Known(ticket),
        "/standings/{id}/decision": Known(body={"decision": "lift", "reason": "示例"}),
        "/agreements": Known(body=agreement),
        "/agreements/{id}": Known({"id": agreed["id"]}),
        "/statements": Known(body=statement),
        "/statements/{kind}/{version}": first,
        "/privacy/export": Known(body=person),
        "/privacy/erase": Known(body=person),
    }
    return [
        Api(gateway.url, _client_document(), {}, {"/sluice/v1" + path: known for path, known in client.items()}),
        Api(
            gateway.admin, document, {"Authorization": f"Bearer {TOKEN}"},
            {"/sluice/v1/admin" + path: known for path, known in admin.items()},
        ),
    ]  # fmt: skip


def _changed(case: Any, good: dict[str, Any], which: int) -> Any:
    """A call with a good body, of which at most one field is what `case` made up."""
    made_up = sorted(case.body)[which : which + 1] if isinstance(case.body, dict) else []
    case.body = good | {name: case.body[name] for name in made_up}
    return case


def operations(api: Api) -> Iterator[Any]:
    """Those of a port, as schemathesis has them."""
    schema = schemathesis.openapi.from_dict(api.document)
    schema.config.update(base_url=api.url)
    schema.config.generation.update(with_security_parameters=False)  # every call carries ours
    schema.config.checks.update(excluded_check_names=_NOT_CHECKED)
    schema.config.checks.negative_data_rejection.expected_statuses = list(_EXPECTED)
    for found in schema.get_all_operations():
        yield found.ok()


def ask(api: Api, operation: Any, examples: int, dice: int = 0) -> str:
    """Ask one route `examples` times at random, after the cases that its description itself suggests. What is wrong, as a command that
    shows it; '' where nothing is."""
    ways = [operation.as_strategy(mode) for mode in _MODES]
    if (known := api.known.get(operation.path)) is not None:
        there = {"path_parameters": known.path or None, "headers": known.headers or None}
        ways += [operation.as_strategy(mode, **there) for mode in _MODES]
        if known.body is not None and operation.method == "post":
            whole = operation.as_strategy(GenerationMode.POSITIVE, **there)
            ways.append(st.builds(_changed, whole, st.just(known.body), st.integers(0, 20)))

    @seed(dice)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.one_of(ways))
    def at_random(case: Any) -> None:
        case.call_and_validate(headers=api.headers)

    try:
        generation = operation.schema.config.generation_for(operation=operation, phase="coverage")
        for case in operation.schema.iter_coverage_cases(
            operation, generation_modes=list(_MODES), generation_config=generation
        ):
            case.call_and_validate(headers=api.headers)
        at_random()
    except (Failure, FailureGroup) as e:
        return str(e)
    return ""


def alive(gateway: Whole) -> bool:
    """After all that, it serves."""
    return gateway.ready()["ready"] is True and httpx.get(gateway.ops + "/healthz").status_code == 200


def main(seconds: float) -> int:
    """Ask every route again and again for so long; the exit status."""
    found: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "policy.yaml").write_text(POLICY)
        port = stack.enter_context(served(Script()))
        gateway = stack.enter_context(
            whole_gateway(folder, f"http://127.0.0.1:{port}/v1", POLICY=str(folder / "policy.yaml"))
        )
        end, dice = time.monotonic() + seconds, 0
        asked = [(api, operation) for api in apis(gateway) for operation in operations(api)]
        while time.monotonic() < end:
            for api, operation in asked:
                if operation.label in found or time.monotonic() > end:
                    continue
                if wrong := ask(api, operation, 25, dice):
                    found[operation.label] = wrong
                    print(f"## {operation.label}\n{wrong}", flush=True)
            dice += 1
        if not alive(gateway) or '"level": "error"' in (folder / "log").read_text(errors="replace"):
            found["the gateway"] = (folder / "log").read_text(errors="replace")[-20_000:]
            print(found["the gateway"])
    print(f"asked {len(asked)} routes in {dice} rounds; {len(found)} of them answered wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
