"""policy.yaml changes while the gateway runs: taken whole within three seconds, or not at all, and never in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app import metrics
from tests.conftest import WORD, Model, Running, chunk, said, wait_for

Make = Callable[..., Running]
SHADOW = "shadow: [violence]"
SECONDS = 10.0
"""A changed file is looked at once a second; the rest is for a machine that is busy."""


def count(name: str, **labels: str) -> float:
    """One sample of the metrics text."""
    wanted = name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "} "
    return sum(float(line.split()[-1]) for line in metrics.render().decode().splitlines() if line.startswith(wanted))


def reloads(outcome: str) -> float:
    return count("sluice_reloads_total", file="policy", outcome=outcome)


def policy_file(gateway: Running) -> Path:
    return gateway.gateway.settings.policy


def blocks(gateway: Running) -> bool:
    return gateway.chat(WORD).json()["sluice"]["action"] == "block"


@pytest.fixture
def strict(make_gateway: Make) -> Running:
    """A gateway whose own policy file blocks WORD."""
    gateway = make_gateway("blocked_as: answer")
    gateway.block(WORD)
    assert blocks(gateway)
    return gateway


def test_a_changed_policy_takes_effect_by_itself(strict: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before, version = reloads("ok"), strict.gateway.status()["policy"]
    policy_file(strict).write_text(SHADOW)
    assert wait_for(lambda: not blocks(strict), SECONDS) < SECONDS
    assert reloads("ok") == before + 1 and strict.gateway.status()["policy"] != version
    assert "policy reloaded" in caplog.text
    # Replaced as editors and config maps do it: a new file under the old name.
    new = policy_file(strict).with_suffix(".new")
    new.write_text("blocked_as: error")
    os.replace(new, policy_file(strict))
    wait_for(lambda: strict.chat(WORD).status_code == 400, SECONDS)


BROKEN = {
    "shadow: [violence": "not valid YAML at line 1",
    SHADOW + "\nno_such_key: 1": "no_such_key",
    SHADOW + "\ncategories: {no_such_category: {answer: pass}}": "no_such_category",
    SHADOW + "\n" + SHADOW: "stands twice",
    SHADOW + "\nunmoderated_routes: [/metrics]": "/metrics",
}


def test_a_broken_policy_keeps_the_old_one_and_is_counted_and_told(
    make_gateway: Make, caplog: pytest.LogCaptureFixture
) -> None:
    gateways = {broken: make_gateway("blocked_as: answer") for broken in BROKEN}
    before = reloads("failed")
    for broken, gateway in gateways.items():
        gateway.block(WORD)
        policy_file(gateway).write_text(broken)
    wait_for(lambda: reloads("failed") == before + len(BROKEN), SECONDS)
    told = [r for r in caplog.records if "old one stays" in r.getMessage()]
    for broken, gateway in gateways.items():
        assert [r for r in told if BROKEN[broken] in r.reason and r.levelno >= logging.ERROR], broken  # type: ignore[attr-defined]
        assert blocks(gateway)
        policy_file(gateway).write_text(SHADOW)
    for gateway in gateways.values():
        wait_for(lambda: not blocks(gateway), SECONDS)  # noqa: B023


def test_a_policy_that_is_gone_for_a_moment_stays_in_force_until_it_is_back(strict: Running) -> None:
    before = reloads("failed")
    policy_file(strict).unlink()
    with pytest.raises(AssertionError, match="in vain"):
        wait_for(lambda: not blocks(strict) or reloads("failed") > before, 1.5)
    policy_file(strict).write_text(SHADOW)
    wait_for(lambda: not blocks(strict), SECONDS)


def test_an_answer_under_way_keeps_the_policy_it_began_with(strict: Running, model: Model) -> None:
    model.script.stream = [chunk(0, {"content": "前"}), 1.5, chunk(0, {"content": WORD}), chunk(0, {}, "stop")]
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], "stream": True}
    version = strict.gateway.status()["policy"]
    with strict.http.stream("POST", "/v1/chat/completions", json=body) as response:
        parts = response.iter_raw()
        raw = next(parts)
        policy_file(strict).write_text(SHADOW)
        wait_for(lambda: strict.gateway.status()["policy"] != version, SECONDS)
        raw += b"".join(parts)
    assert said(raw).startswith("前\n\n") and WORD not in raw.decode()
    assert not blocks(strict)


def test_an_unmoderated_route_passes_and_is_counted_and_no_other_does(make_gateway: Make, model: Model) -> None:
    gateway = make_gateway("unmoderated_routes: [/v1/embeddings]")
    gateway.block(WORD)
    before = count("sluice_unmoderated_total", route="/v1/embeddings")
    model.script.plain = (200, {}, b'{"data": [{"embedding": [0.5]}], "note": "' + WORD.encode() + b'"}')
    body = {"model": "m", "input": WORD, "dimensions": 2}
    for n in (1, 2):
        response = gateway.http.post("/v1/embeddings", json=body)
        assert response.status_code == 200 and response.content == model.script.plain[2]
        assert model.script.asked[-1] == body
        assert count("sluice_unmoderated_total", route="/v1/embeddings") == before + n
    for path in ("/v1/embeddings/x", "/v1/audio/speech", "/v1/embedding", "/v1/Embeddings"):
        assert gateway.http.post(path, json=body).status_code == 404
    assert blocks(gateway) and len(model.script.asked) == 2
    policy_file(gateway).write_text("unmoderated_routes: []")
    wait_for(lambda: gateway.http.post("/v1/embeddings", json=body).status_code == 404, SECONDS)
