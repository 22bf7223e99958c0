"""Check points and what judges whole texts there: the same questions, verdicts and texts however a stream is cut, in both modes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import checkpoints, policy
from app.demo import speech
from app.demo.speech import Answer, Call
from app.detectors.lexicon import Lexicon, Term
from app.moderation import Moderator, Outcome, outcome_of
from app.policy import Policies, Policy
from app.policyfile import CategoryRule, GuardRule, Rules, StreamRule
from app.streaming import MASK, Channel
from app.types import Action, Candidate, Scope
from tests import reading
from tests.conftest import chunk
from tests.driving import Path

SCOPE = Scope("default", "answer")
MODES = ("prompt", "strict")
PIECES = (
    "今天的河面很静。", "船夫把缆绳解开，慢慢划向对岸！", "The lamps came on. ", "A long walk, and no end of it ", "坏词一",
    "看看警示短语在哪", "坏词二", "坏词三", "……", "\n", "好。", "Ok? ", "\u200b", "１２", "e\u0301", "字" * 50,
)  # fmt: skip
"""坏词一 is flagged by the guard, 坏词二 masked, 坏词三 stopped; 警示短语 is a term that stops."""
LEXICON = Lexicon([Term("警示短语", "violence")])


class Words:
    """A guard: in what is new to it, a sentence with one of three words is a finding of that sentence; late for one in four
    where it dawdles."""

    name, version, covers = "words", "1", frozenset[str]()

    def __init__(self, dice: random.Random | None = None) -> None:
        self.dice = dice
        self.asked: list[tuple[str, int]] = []

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        self.asked.append((text, since))
        for _ in range(self.dice.choice((0, 0, 1, 3)) if self.dice else 0):
            await asyncio.sleep(0)
        categories = {"坏词一": "abuse_spam", "坏词二": "personal_information", "坏词三": "false_harmful_info"}
        return [
            Candidate(since + text[since:].index(word), len(text), category, self.name, word)
            for word, category in categories.items()
            if word in text[since:]
        ]


def rules_of(mode: str, every: int = 40) -> Policy:
    rule = {
        "abuse_spam": CategoryRule(answer="flag"),
        "personal_information": CategoryRule(answer="mask"),
        "false_harmful_info": CategoryRule(answer="block"),
        "violence": CategoryRule(answer="block"),
    }
    stream = StreamRule(mode=mode, every=every)  # type: ignore[arg-type]
    return Policy(Rules(categories=rule, stream=stream, guard=GuardRule(when="always")), "draft_2023_04", "test")


def fed(pieces: Sequence[str], mode: str, guard: Words, dice: random.Random | None = None) -> tuple[Outcome, str]:
    """What comes of a text: asked about at once, or (in the mode where text does not wait) after the next few pieces."""
    rules = rules_of(mode)
    moderator = Moderator([LEXICON], Policies(rules, {}), guards=[guard])
    channel = moderator.channel(SCOPE, rules)

    async def run() -> str:
        out = ""
        for piece in pieces:
            out += channel.push(piece)
            if mode == "strict" or dice is None or dice.random() < 0.4:
                out += await moderator.answer(channel, SCOPE, rules)
        out += channel.finish()
        return out + await moderator.answer(channel, SCOPE, rules)

    text = asyncio.run(run())
    return outcome_of(channel), text


def told(outcome: Outcome) -> tuple[object, ...]:
    """What does not depend on how fast the answers came."""
    findings = sorted(outcome.findings, key=lambda f: (f.start, f.end, f.category, f.rule))
    return findings, outcome.stopped, sorted(outcome.degraded), sorted(outcome.unread)


@pytest.mark.parametrize("mode", MODES)
def test_however_a_text_is_cut_the_guard_is_asked_the_same_and_the_outcome_is_the_same(mode: str) -> None:
    dice = random.Random(7)
    stops = 0
    for n in range(400):
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 10)))
        whole_guard = Words()
        whole, said = fed([text], mode, whole_guard)
        stops += whole.stopped is not None
        cuts = sorted(dice.randint(0, len(text)) for _ in range(dice.randrange(8)))
        for pieces in (list(text), [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]):
            guard = Words(dice)
            outcome, streamed = fed([p for p in pieces if p], mode, guard, dice)
            assert told(outcome) == told(whole), (n, text, pieces)
            assert guard.asked == whole_guard.asked, (n, text, pieces)
            if mode == "strict":
                assert streamed == said, (n, text, pieces)
    assert 100 < stops < 350


def test_in_strict_mode_no_character_of_a_finding_goes_out_and_all_before_it_does() -> None:
    dice = random.Random(8)
    for _ in range(300):
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 10)))
        rules = rules_of("strict")
        moderator = Moderator([LEXICON], Policies(rules, {}), guards=[Words()])
        channel = moderator.channel(SCOPE, rules)

        async def run(channel: Channel = channel, text: str = text, moderator: Moderator = moderator) -> str:
            out = ""
            for ch in text:
                out += channel.push(ch) + await moderator.answer(channel, SCOPE, rules_of("strict"))
            return out + channel.finish() + await moderator.answer(channel, SCOPE, rules_of("strict"))

        out = asyncio.run(run())
        stop = min((f.start for f in channel.findings if f.action.stops), default=len(text))
        expected = list(text[:stop])
        for f in channel.findings:
            if f.action is Action.MASK:
                expected[f.start : f.end] = MASK * (min(f.end, stop) - f.start)
        assert out == "".join(expected)
        assert channel.leaked == 0


def test_in_prompt_mode_text_does_not_wait_and_what_it_lets_go_too_early_is_counted() -> None:
    rules = rules_of("prompt")
    moderator = Moderator([LEXICON], Policies(rules, {}), guards=[Words()])
    channel = moderator.channel(SCOPE, rules)
    first = channel.push("今天的河面很静，也没有什么风。") + channel.push("这里有坏词三，到此为止。")
    assert first == "今天的河面很静，也没有什么风。这里有坏词三，到此为止。"
    asyncio.run(moderator.answer(channel, SCOPE, rules))
    assert channel.stopped is Action.BLOCK
    (found,) = channel.findings
    assert found.start == first.index("坏词三") and channel.leaked == len(first) - found.start
    assert channel.push("后文") == "" == channel.finish()


class Failing:
    """A guard that fails, or never answers."""

    name, version, covers = "failing", "1", frozenset[str]()

    def __init__(self, how: str) -> None:
        self.how = how

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        if self.how == "hangs":
            await asyncio.sleep(60)
        raise ValueError(text)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_guard_that_fails_or_is_late_flags_the_text_and_holds_it_no_longer(mode: str, how: str) -> None:
    rules = Policy(Rules(stream=StreamRule(mode=mode), guard=GuardRule(when="always", ms=20)), "draft_2023_04", "test")  # type: ignore[arg-type]
    moderator = Moderator([LEXICON], Policies(rules, {}), guards=[Failing(how), Words()])
    channel = moderator.channel(SCOPE, rules)
    text = "今天的河面很静，也没有什么风。"

    async def run() -> str:
        out = channel.push(text) + await moderator.answer(channel, SCOPE, rules)
        return out + channel.finish() + await moderator.answer(channel, SCOPE, rules)

    assert asyncio.run(run()) == text
    assert channel.unread == ["failing"] and channel.stopped is None


@given(st.text("a字。! .?\n", max_size=400), st.integers(32, 120))
@settings(max_examples=200, deadline=None)
def test_check_points_are_a_function_of_the_text_alone(text: str, every: int) -> None:
    whole = list(checkpoints.points(text, 0, every))
    assert all(b - a <= every for a, b in zip([0, *whole], whole, strict=False))
    at: list[int] = []
    for size in range(len(text) + 1):
        at += checkpoints.points(text[:size], at[-1] if at else 0, every)
    assert at == whole


def test_a_question_shows_all_that_came_before_and_what_is_new() -> None:
    guard = Words()
    fed(["第一句话在这里，说的是天气如何。第二句话也在这里，说的是河边的船。没有说完"], "strict", guard)
    (one, first), (two, second), (three, third) = guard.asked
    assert (first, one[first:]) == (0, "第一句话在这里,说的是天气如何。")
    assert two[second:] == "第二句话也在这里,说的是河边的船。" and two[:second] == one
    assert three[third:] == "没有说完" and three[:third] == two


def test_one_long_delta_is_no_more_than_many_short_ones() -> None:
    text = "今天的河面很静，也没有什么风。" * 5000
    path = Path(policy.parse(b"{stream: {mode: strict}, guard: {when: always}}").common, [LEXICON], guards=[Words()])
    raw, x = path.streamed(speech.Chat(), [Answer(text)], lambda t: [t] if t else [])
    assert reading.read(reading.CHAT, raw).text() == text and x.answer.action is Action.PASS


def test_many_texts_of_one_answer_cost_no_more_than_their_length() -> None:
    calls = tuple(Call(f"c{n}", "look_up", '{"q": "河面很静。"}') for n in range(300))
    path = Path(policy.parse(b"guard: {when: always}").common, [LEXICON], guards=[Words()])
    began = time.perf_counter()
    path.streamed(speech.Chat(), [Answer("好。", "", calls)], lambda t: [t] if t else [])
    assert time.perf_counter() - began < 30, "seconds; it was quadratic"


class Late(Words):
    """A guard that answers the first question and none after."""

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        found = await super().judge(text, since, scope)
        if len(self.asked) > 1:
            await asyncio.sleep(60)
        return found


def test_a_guard_that_answers_once_and_then_never_holds_an_answer_up_only_so_long() -> None:
    guard = Late()
    path = Path(policy.parse(b"guard: {when: always, ms: 20}").common, [LEXICON], guards=[guard])
    text = "今天的河面很静，也没有什么风。" * 100
    began = time.perf_counter()
    raw, x = path.streamed(speech.Chat(), [Answer(text)], list)
    assert time.perf_counter() - began < 30, "seconds, where each late answer may take 60"
    assert reading.read(reading.CHAT, raw).text() == text
    assert x.answer.action is Action.FLAG and x.answer.degraded == ["words"] and len(guard.asked) == 4


def test_a_call_that_another_took_the_place_of_and_is_stopped_at_its_end_stops_the_answer() -> None:
    def called(id: str, arguments: str) -> bytes:
        call = {"index": 0, "id": id, "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        return chunk(0, {"tool_calls": [call]})

    rules = policy.parse(b"{categories: {false_harmful_info: {answer: block}}, guard: {when: always}}").common
    path = Path(rules, [LEXICON], guards=[Words()])
    calls = [called("a", '{"q": "坏词三"}'), called("b", '{"q": "河面"}')]
    events = [chunk(0, {"role": "assistant", "content": ""}), *calls, chunk(0, {}, "tool_calls")]
    raw, x = path.run(speech.Chat(), [*events, speech.DONE])
    got = reading.read(reading.CHAT, raw)
    assert got.stopped() and x.answer.category == "false_harmful_info" and "河面" not in got.arguments()
