"""Long runs: many random answers, cut at random, get the findings and the text of the plain answer."""

from __future__ import annotations

import random

import pytest

from app import policy, settings
from app.detectors import shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon, load
from app.streaming import Channel
from app.types import Scope
from tests.conftest import WORD
from tests.texts import answer, cut


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_thousand_random_answers_do_not_depend_on_how_they_are_cut() -> None:
    conf = settings.read({})
    blocklist = Blocklist()
    scope = Scope("default", "answer")
    row = {"id": "ent_1", "term": WORD, "category": "violence", "action": "block"}
    blocklist.load([row | {"scope": {"app": "*", "directions": ["answer"]}}])
    detectors = shipped(Lexicon(load(conf.lexicons)), blocklist)
    rules = policy.load(conf.policy).common
    dice = random.Random(1)
    stopped = 0
    for _ in range(100_000):
        text = answer(dice)
        plain, streamed = (Channel(detectors, rules, scope) for _ in range(2))
        whole = plain.push(text) + plain.finish()
        pieces = "".join([streamed.push(p) for p in cut(text, dice)] + [streamed.finish()])
        assert pieces == whole, text
        assert streamed.findings == plain.findings, text
        assert streamed.stopped == plain.stopped, text
        stopped += plain.stopped is not None
    assert 20_000 < stopped < 80_000
