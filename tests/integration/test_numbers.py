"""What is counted of a stream: characters held, milliseconds held, characters leaked, characters screened against released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.types import Candidate, Scope
from tests.conftest import WORD, Model, Running, chunk, wait_for

Make = Callable[..., Running]
DONE = b"data: [DONE]\n\n"


class Alarm:
    """A guard that stops a sentence with one word in it."""

    name, version, covers = "alarm", "1", frozenset[str]()

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        if scope.direction == "answer" and "警报" in text[since:]:
            return [Candidate(since + text[since:].index("警报"), len(text), "violence", self.name, "alarm")]
        return []


def _record(gateway: Running) -> dict[str, Any]:
    """The journal's line of a stream."""
    before = len(gateway.journal())
    response = gateway.chat("说吧", stream=True)
    assert response.status_code == 200
    wait_for(lambda: len(gateway.journal()) > before)
    return gateway.journal()[-1]


def _says(model: Model, *pieces: str | float) -> None:
    """The model says these deltas; a float waits."""
    model.script.stream = [
        p if isinstance(p, float) else chunk(0, {"content": p}) for p in pieces
    ] + [chunk(0, {}, "stop"), DONE]  # fmt: skip


def test_what_is_held_is_counted_in_characters_and_milliseconds(gateway: Running, model: Model) -> None:
    _says(model, "前言", WORD[:4], 0.2, "，不是它。")
    held = _record(gateway)
    assert held["held_max"] == 4 and 150 < held["held_ms"] < 2000
    assert held["leaked"] == 0 and held["screened"] == held["released"] == len("前言" + WORD[:4] + "，不是它。")
    _says(model, "没有什么。", 0.1, "真的。")
    assert _record(gateway)["held_ms"] < 50


def test_what_a_classifier_finds_too_late_is_counted_as_leaked_and_in_strict_mode_nothing_is(
    make_gateway: Make, model: Model
) -> None:
    text = "今天的河面很静，也没有什么风。这里有警报，请不要看。后面还有一句，很长很长。"
    for mode in ("prompt", "strict"):
        gateway = make_gateway(f"stream: {{mode: {mode}}}\nguard: {{when: always}}")
        gateway.gateway.moderator.guards.append(Alarm())
        _says(model, *text)
        kept = _record(gateway)
        assert kept["answer"]["action"] == "block" and kept["screened"] >= kept["released"]
        assert (kept["leaked"] == 0) is (mode == "strict"), kept
