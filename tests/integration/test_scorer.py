"""The shipped kind of scorer in a gateway: it flags and says its scores, and without its files texts are flagged until they are back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from app import metrics
from app.modelfile import Thresholds
from tests.conftest import Model, Running, wait_for
from tests.scorers import small

Make = Callable[..., Running]
CALM, BAD = "今天的河面很静。", "坏东西坏东西坏东西。"


def last(gateway: Running) -> dict[str, Any]:
    """What the journal says of the newest answer."""
    wait_for(lambda: bool(gateway.journal()))
    answer: dict[str, Any] = gateway.journal()[-1]["answer"]
    return answer


def refused() -> float:
    """Reloads of a model that came to nothing."""
    return metrics.RELOADS.labels("model", "failed")._value.get()  # type: ignore[no-any-return]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return small(tmp_path / "models", Thresholds(flag=0.8, ask=0.7))


def test_what_it_suspects_is_delivered_and_flagged_plain_and_streamed(
    make_gateway: Make, model: Model, models: Path
) -> None:
    gateway = make_gateway(models=models)
    model.script.chat(CALM + BAD)
    for stream in (False, True):
        answer = gateway.chat("说吧", stream=stream)
        assert answer.status_code == 200
    wait_for(lambda: len(gateway.journal()) == 2)
    for record in gateway.journal():
        assert record["answer"]["action"] == "flag" and record["answer"]["degraded"] == []
        (found,) = record["answer"]["findings"]
        assert (found["category"], found["rule"], found["end"]) == ("violence", "grams/violence", len(CALM + BAD))


def test_the_openai_client_gets_scores_under_its_names_and_ours(make_gateway: Make, models: Path) -> None:
    gateway = make_gateway(models=models)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="k")
    calm, bad = client.moderations.create(input=[CALM * 3, CALM + BAD]).results
    assert not calm.flagged and 0 < calm.category_scores.violence < 0.5 and not calm.categories.violence
    assert bad.flagged and bad.categories.violence and bad.category_scores.violence > 0.8
    assert bad.category_scores.illicit_violent == bad.category_scores.violence, (
        "our category stands under three of theirs"
    )
    own = bad.sluice["category_scores"]  # type: ignore[attr-defined]
    assert own == {"violence": pytest.approx(bad.category_scores.violence, abs=1e-4)}


@pytest.mark.parametrize("harm", ["missing", "another", "no folder"])
@pytest.mark.parametrize("word", ["flag", "pass"])
def test_without_its_files_policy_decides_and_they_are_taken_again_without_a_restart(
    make_gateway: Make, model: Model, models: Path, harm: str, word: str
) -> None:
    weights = models / "grams" / "weights.npz"
    whole = weights.read_bytes()
    aside = models.with_name("aside")
    if harm == "no folder":
        models.rename(aside)
    elif harm == "missing":
        weights.unlink()
    else:
        weights.write_bytes(whole[:-1] + b"x")
    gateway = make_gateway(f"degraded: {{scorer: {word}}}", models=models)
    model.script.chat(CALM)
    answer = gateway.chat("说吧").json()
    assert answer["sluice"]["action"] == word
    assert last(gateway)["degraded"] == ["grams"]
    if harm == "no folder":
        aside.rename(models)
    else:
        weights.write_bytes(whole)
    wait_for(
        lambda: (
            gateway.chat("说吧").json()["sluice"]["action"] == "pass"
            and not gateway.journal()[-1]["answer"]["degraded"]
        )
    )
    model.script.chat(BAD)
    assert gateway.chat("说吧").json()["sluice"]["action"] == "flag"


def test_files_that_go_bad_while_it_runs_are_not_taken(make_gateway: Make, model: Model, models: Path) -> None:
    gateway = make_gateway(models=models)
    before = refused()
    (models / "grams" / "weights.npz").write_bytes(b"nonsense")
    wait_for(lambda: refused() > before)
    model.script.chat(BAD)
    assert gateway.chat("说吧").json()["sluice"]["action"] == "flag"
    assert last(gateway)["degraded"] == []


def test_a_detector_in_shadow_is_recorded_and_flags_nothing(make_gateway: Make, model: Model, models: Path) -> None:
    gateway = make_gateway("shadow: [grams]", models=models)
    model.script.chat(BAD)
    assert gateway.chat("说吧").json()["sluice"]["action"] == "pass"
    (found,) = last(gateway)["findings"]
    assert found["shadow"] and found["rule"] == "grams/violence"
