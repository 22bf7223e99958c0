"""The same answers through every API, plain and streamed in random cuts, in both modes: one verdict and one text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from app.demo import speech
from app.demo.speech import Answer, Call
from app.types import Candidate, Scope
from tests import reading
from tests.conftest import WORD, Model, Running, wait_for
from tests.texts import answer, cut

Make = Callable[..., Running]
MODES = ("prompt", "strict")


class Sentences:
    """A guard: a sentence of the cat is flagged, one of the weather that comes second is stopped."""

    name, version, covers = "sentences", "1", frozenset[str]()

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        found = []
        if "the cat" in text[since:]:
            found.append(Candidate(since, len(text), "abuse_spam", self.name, "cat"))
        if "天气" in text[since:] and text.count("天气") > 3:
            found.append(Candidate(since, len(text), "false_harmful_info", self.name, "weather"))
        return found


def _gateway(make: Make, mode: str) -> Running:
    rules = "{abuse_spam: {answer: flag}, false_harmful_info: {answer: block}}"
    gateway = make(f"stream: {{mode: {mode}, every: 40}}\nguard: {{when: always}}\ncategories: {rules}")
    gateway.block(WORD)
    gateway.gateway.moderator.guards.append(Sentences())
    return gateway


def _both(
    gateway: Running, model: Model, api: Any, given: Answer, dice: random.Random
) -> list[tuple[str, reading.Read]]:
    model.script.plain = (200, {}, orjson.dumps(api.plain(given)))
    model.script.stream = list(api.stream(lambda text: cut(text, dice), given))
    got = []
    for stream in (False, True):
        read = reading.of(api.route, gateway.http.post(api.route, json=api.ask("说吧", stream=stream)))
        got.append((read.sluice["decision"], read))
    return got


def _differ(gateway: Running, model: Model, count: int, seed: int) -> None:
    dice = random.Random(seed)
    rows: list[list[tuple[str, reading.Read]]] = []
    stopped = 0
    for n in range(count):
        text = answer(dice)
        if n % 2:
            given, apis = Answer(text), speech.ALL
        else:
            # Where a text is said makes no difference either.
            parts = [answer(dice), text, json.dumps({"q": answer(dice), "n": n}, ensure_ascii=False)]
            given, apis = (
                Answer(parts[1], parts[0], (Call("c1", "look_up", parts[2]),)),
                speech.ALL[:1] + speech.ALL[2:],
            )
        row = [pair for api in apis for pair in _both(gateway, model, api, given, dice)]
        rows.append(row)
        (first,) = {read.sluice["action"] for _, read in row}
        for i, (_, read) in enumerate(row):
            if first in ("pass", "flag", "mask"):
                plain = row[0][1]
                assert (read.text(), read.reasoning()) == (plain.text(), plain.reasoning()), (n, read.route)
                assert [json.loads(a) for a in read.all("arguments")] == [json.loads(a) for a in plain.all("arguments")]
                assert len(read.text()) == len(given.text), (n, read.route)
            else:
                assert read.stopped(), (n, read.route)
                assert i % 2 or not read.text(), (n, read.route)
        stopped += first == "block"
    decisions = [decision for row in rows for decision, _ in row]
    wait_for(lambda: len(gateway.journal()) >= len(decisions), 10)
    records = {r["decision"]: r["answer"] for r in gateway.journal()}
    for n, row in enumerate(rows):
        told = [records[decision] for decision, _ in row]
        for (_, read), one in zip(row, told, strict=True):
            assert one == told[0], (n, read.route, json.dumps([one, told[0]], ensure_ascii=False))
    assert count * 0.2 < stopped < count * 0.9


@pytest.mark.parametrize("mode", MODES)
def test_one_answer_gets_one_verdict_and_one_text_in_every_api_plain_and_streamed(
    make_gateway: Make, model: Model, mode: str
) -> None:
    _differ(_gateway(make_gateway, mode), model, 60, 21)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_answers_get_one_verdict_and_one_text_in_every_api_plain_and_streamed(
    make_gateway: Make, model: Model, mode: str
) -> None:
    _differ(_gateway(make_gateway, mode), model, 1000, 22)
