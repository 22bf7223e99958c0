"""The invariant of streams, through every API: no character of a match in any event, all text before it delivered, nothing lost or
said twice; for every term, disguise and place, however the model's deltas and the network cut it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import pytest

from app import policy
from app.demo import speech
from app.demo.speech import Answer, Call
from app.policy import Policy
from app.streaming import MASK, Channel
from app.taxonomy import taxonomy
from app.types import Scope
from tests import reading
from tests.contract.test_evasion_streams import composed, disguised, lexicon, read
from tests.driving import Path

CLEAN = Answer(
    "船夫把缆绳解开，慢慢向对岸划去。The lamps came on.",
    "先想一想。",
    (Call("c9", "look_up", '{"q": "河 \\u9762", "n": 1}'),),
)
PLACES = ("content", "reasoning", "arguments")


@cache
def rules(action: str) -> Policy:
    """Every category does `action`."""
    lines = "".join(f"  {id}: {{answer: {action}}}\n" for id in taxonomy())
    # Help has words of its own; here all is shown alike.
    words = f'surrogates: {{self_harm: {{zh: "{reading.REFUSAL} {{decision}}", en: "{{decision}}"}}}}'
    return policy.parse(f"categories:\n{lines}{words}".encode()).common


@cache
def path(action: str) -> Path:
    return Path(rules(action), [lexicon()], [lexicon()])


def expected(text: str, action: str) -> tuple[str, bool]:
    """What of a text its client gets, and whether it is stopped: from the whole text at once."""
    channel = Channel([lexicon()], rules(action), Scope("default", "answer"), readers=[lexicon()])
    released = channel.push(text) + channel.finish()
    return released, channel.stopped is not None


def put(text: str, place: str, dice: random.Random) -> Answer:
    """The clean answer with `text` in its place; a call's arguments may escape any of it."""
    if place == "content":
        return Answer(text, CLEAN.reasoning, CLEAN.calls)
    if place == "reasoning":
        return Answer(CLEAN.text, text, CLEAN.calls)
    whole = json.dumps(text, ensure_ascii=False)[1:-1]
    if dice.random() < 0.5:
        whole = "".join(
            json.dumps(c)[1:-1] if dice.random() < 0.5 and c not in '"\\' and c >= " " else c for c in whole
        )
    return Answer(CLEAN.text, CLEAN.reasoning, (Call("c1", "look_up", f'{{"q": "{whole}"}}'),))


def cutter(text_cut: int, dice: random.Random) -> speech.Cut:
    """Deltas: 2 to 6 of them, one by one (0), or random ones (1)."""

    def cut(text: str) -> Sequence[str]:
        if text_cut == 0 or len(text) < 2:
            return list(text)
        if text_cut == 1:
            at = sorted({0, len(text), *(dice.randint(0, len(text)) for _ in range(dice.randint(1, 40)))})
        else:
            at = sorted({0, len(text), *(dice.randint(1, len(text)) for _ in range(text_cut - 1))})
        return [text[a:b] for a, b in pairwise(at)]

    return cut


def check(
    text: str, dice: random.Random, api: speech.Chat | speech.Completions | speech.Responses | speech.Messages
) -> bool:
    """One answer through one API; True if it was stopped."""
    action = dice.choice(("block", "block", "mask"))
    place = dice.choice(PLACES if not isinstance(api, speech.Completions) else PLACES[:1])
    answer = put(text, place, dice)
    several = isinstance(api, speech.Chat) and dice.random() < 0.3
    answers = [CLEAN, answer] if several else [answer]
    cut, pieces = cutter(dice.choice((0, 0, 1, 2, 3, 4, 6)), dice), dice.choice((0, 0, 0, 1, 7, 100))
    raw, x = path(action).streamed(api, answers, cut, pieces)
    got = reading.read(api.route, raw)
    choice = len(answers) - 1
    spoken = f'{{"q": "{text}"}}' if place == "arguments" else text
    released, stopped = expected(spoken, action)
    said = {"content": got.text, "reasoning": got.reasoning, "arguments": got.arguments}[place](choice)
    why = (api.route, action, place, text, said)
    if place == "arguments":
        if stopped:
            closed = '"}' if len(released) >= 7 else ""
            said = f'{{"q": "{json.loads(said + closed, strict=False)["q"]}' if closed else said
        else:
            said = f'{{"q": "{json.loads(said, strict=False)["q"]}"}}'
    assert said == released, why
    assert got.stopped(choice) is stopped, why
    assert x.leaked == 0, why
    if several:
        assert got.text(0) == CLEAN.text and got.endings[0] == "tool_calls", why
    if not stopped:
        assert (got.text(choice), got.reasoning(choice)) == tuple(
            released if where == place else own
            for where, own in (("content", CLEAN.text), ("reasoning", CLEAN.reasoning if not isinstance(api, speech.Completions) else ""))
        ), why  # fmt: skip
        assert MASK in said or released == spoken, why
    return stopped


def texts(dice: random.Random) -> Iterator[str]:
    """Every case of the suite, every term of it disguised, then any mixture for ever."""
    cases, terms = read("cases.jsonl"), [row["term"] for row in read("terms.jsonl")]
    yield from (row["text"] for row in cases)
    yield from (f"前文{disguised(term, dice)}后文" for term in terms)
    while True:
        yield composed(cases, terms, dice)


def test_every_term_and_disguise_in_every_place_of_every_api_leaks_nothing_and_loses_nothing() -> None:
    dice = random.Random(11)
    source = texts(dice)
    rows = [next(source) for _ in range(1532)]
    stopped = 0
    for n, text in enumerate(dice.sample(rows, 700)):
        stopped += check(text, dice, speech.ALL[n % 4])
    assert 200 < stopped < 600


def test_every_way_to_cut_a_term_in_two_or_three_leaks_nothing() -> None:
    text = "前文刷\u200b单返利后文"
    released, _ = expected(text, "block")
    for api in speech.ALL:
        for i in range(len(text)):
            for j in range(i, len(text)):
                pieces = [p for p in (text[:i], text[i:j], text[j:]) if p]
                raw, _ = path("block").streamed(api, [Answer(text)], lambda t, p=pieces: p if t else [])  # type: ignore[misc]
                got = reading.read(api.route, raw)
                assert got.text() == released and got.stopped(), (api.route, i, j)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_a_hundred_thousand_random_streams_leak_nothing_and_lose_nothing() -> None:
    dice = random.Random(13)
    source = texts(dice)
    stopped = sum(check(next(source), dice, speech.ALL[n % 4]) for n in range(100_000))
    assert 20_000 < stopped < 90_000
