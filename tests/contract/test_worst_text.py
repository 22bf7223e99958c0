"""The worst text costs time in proportion to its length, and never holds the event loop.

Texts are composed of what costs the engine most: beginnings that never end, runs that every view nominates, escapes of
escapes. Each is looked at in two sizes; figures are the best of a few runs, for the machine is shared.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from functools import cache
from statistics import median
from time import perf_counter

import pytest

from app import settings, views
from app.detectors import readers, shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon, Term, cues, load, phrases
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import CategoryRule, Rules
from app.taxonomy import taxonomy
from app.types import Scope, Slot

SCOPE = Scope("default", "answer")
LOOP_MS = 20.0
GROWTH = 6.0
"""How much longer a text of four times the length may take."""
_CHARACTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
_SYLLABLES = ("ang", "an", "gan", "gang", "xian", "yi", "shi", "zhuang", "e", "de")


@cache
def made(size: int) -> list[Term]:
    """So many made-up terms."""
    dice = random.Random(1)
    terms = {"".join(dice.choices(_CHARACTERS, k=dice.choice((3, 4, 5, 6)))) for _ in range(size)}
    return [Term(term, "abuse_spam", "suspect") for term in sorted(terms)]


@cache
def lexicon(size: int) -> Lexicon:
    """The shipped lexicon, and so many made-up terms."""
    folder = settings.read({}).lexicons
    return Lexicon([*load(folder), *made(size)], phrases(folder), cues(folder))


@cache
def moderator(size: int) -> Moderator:
    blocklist = Blocklist()
    rules = Policies(flags(), {})
    return Moderator(shipped(lexicon(size), blocklist), rules, readers(lexicon(size), blocklist))


@cache
def flags() -> Policy:
    """Everything is flagged and nothing stops a text: the most that there can be to do."""
    every = CategoryRule(answer="flag", prompt="flag")
    return Policy(Rules(categories=dict.fromkeys(taxonomy(), every)), "draft_2023_04", "test")


def _swapped(term: str, others: Callable[[str], str], dice: random.Random) -> str:
    """The term with one character replaced by one of its `others`."""
    at = dice.randrange(len(term))
    return term[:at] + dice.choice(others(term[at]) or term[at]) + term[at + 1 :]


def fragments(size: int) -> dict[str, Callable[[random.Random], str]]:
    """By name, how to make one more piece of a nasty text."""
    folder = settings.read({}).lexicons
    terms = [t.term for t in (*load(folder), *made(size)[:2000])]
    han = [t for t in terms if all("\u4e00" <= c <= "\u9fff" for c in t)]
    latin = [t for t in terms if t.isascii()]
    said = [cue for _, cue in cues(folder)]
    return {
        "first characters": lambda d: han[0][0],
        "first characters of many": lambda d: d.choice(han)[0],
        "beginnings": lambda d: d.choice(han)[:-1],
        "Latin beginnings": lambda d: d.choice(latin)[:-1] + " ",
        "noise": lambda d: d.choice("*·。、 -_"),
        "one letter": lambda d: "a",
        "terms": lambda d: d.choice(han),
        "Latin terms": lambda d: d.choice(latin) + " ",
        "one term": lambda d: han[0],
        "terms and cues": lambda d: d.choice(han) + d.choice(said),
        "cues": lambda d: d.choice(said),
        "spaced terms": lambda d: " ".join(d.choice(han)) + " ",
        "invisible between": lambda d: "\u200b".join(d.choice(han)),
        "invisible": lambda d: "\u200b",
        "repeats": lambda d: "".join(c * d.randint(1, 9) for c in d.choice(han)),
        "homophones": lambda d: _swapped(d.choice(han), views.same_sound, d),
        "look-alikes": lambda d: _swapped(d.choice(han), views.same_look, d),
        "split characters": lambda d: _swapped(d.choice(han), lambda c: "".join(views.splits(c)[:1]), d),
        "components": lambda d: "".join(views.splits(d.choice(d.choice(han)))[:1]),
        "reversed": lambda d: d.choice(han)[::-1],
        "letters between": lambda d: "a".join(d.choice(han)),
        "syllables": lambda d: d.choice(_SYLLABLES) + " ",
        "long syllables": lambda d: "".join(d.choices(_SYLLABLES[:4], k=7))[:23] + "v ",
        "pinyin": lambda d: " ".join(views.sounds(c)[0] for c in d.choice(han) if views.sounds(c)) + " ",
        "ampersands": lambda d: "&amp;",
        "one ampersand": lambda d: "amp;",
        "entities": lambda d: f"&#{ord(d.choice(d.choice(han)))};",
        "percents of percents": lambda d: "%25252525",
        "bytes": lambda d: f"%{d.randrange(256):02x}",
        "half characters": lambda d: "%e8%b5",
        "open escapes": lambda d: "\\u",
        "escapes": lambda d: f"\\u{ord(d.choice(d.choice(han))):04x}",
        "open links": lambda d: "](",
        "open tags": lambda d: "<a",
        "tags": lambda d: "<a>",
        "open comments": lambda d: "<!--",
        "exclamation marks": lambda d: "!",
        "symbols and letters": lambda d: d.choice("a!|+l1$@"),
        "base64 digits": lambda d: d.choice("ABCDEFGHabcdefgh0123456789+/"),
        "base64": lambda d: base64.b64encode((d.choice(han) * 3).encode()).decode() + " ",
        "hexadecimal digits": lambda d: d.choice("0123456789abcdef"),
        "hexadecimal": lambda d: (d.choice(han) * 3).encode().hex() + ". ",
        "one to eighteen": lambda d: "\ufdfa",
        "digits": lambda d: d.choice("一二三壹1①"),
        "mailboxes": lambda d: "a@",
    }


def text_of(make: Callable[[random.Random], str], length: int, seed: int = 1) -> str:
    dice = random.Random(seed)
    parts, size = [], 0
    while size < length:
        part = make(dice) or "口"
        parts.append(part)
        size += len(part)
    return "".join(parts)[:length]


def mixed(size: int, length: int, seed: int) -> str:
    """A text of stretches of several kinds, drawn at random."""
    dice = random.Random(seed)
    makes = dice.sample(sorted(fragments(size).items()), 4)
    parts, at = [], 0
    while at < length:
        part = text_of(dice.choice(makes)[1], dice.choice((8, 60, 400)), dice.randrange(1 << 30))
        parts.append(part)
        at += len(part)
    return "".join(parts)[:length]


def seconds(size: int, text: str, delta: int) -> float:
    """How long the text takes in deltas of so many characters."""
    channel = moderator(size).channel(SCOPE, flags())
    started = perf_counter()
    for at in range(0, len(text), delta):
        channel.push(text[at : at + delta])
    channel.finish()
    taken = perf_counter() - started
    assert not channel.degraded + channel.unread, "the engine failed"
    return taken


def growth(size: int, make: Callable[[int], str], length: int, delta: int, runs: int = 3) -> float:
    """time(4 n) / time(n), each the best of some runs."""
    short, long = make(length), make(4 * length)
    seconds(size, short, delta)
    return min(seconds(size, long, delta) for _ in range(runs)) / min(seconds(size, short, delta) for _ in range(runs))


def kinds() -> list[str]:
    return sorted(fragments(0))


@pytest.mark.long
@pytest.mark.parametrize("delta", [3, 2048], ids=["streamed", "plain"])
def test_four_times_the_worst_text_takes_about_four_times_as_long(delta: int) -> None:
    length = 2048 if delta == 2048 else 512
    for name, make in fragments(0).items():
        ratio = growth(0, lambda n, make=make: text_of(make, n), length, delta, 1)  # type: ignore[misc]
        if ratio > GROWTH:  # again, in case the machine was busy
            ratio = growth(0, lambda n, make=make: text_of(make, n), 2 * length, delta)  # type: ignore[misc]
        assert ratio <= GROWTH, name


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("delta", [3, 2048], ids=["streamed", "plain"])
@pytest.mark.parametrize("size", [0, 50_000])
@pytest.mark.parametrize("name", kinds())
def test_a_long_text_of_one_kind_takes_time_in_proportion(name: str, size: int, delta: int) -> None:
    make = fragments(size)[name]
    assert growth(size, lambda n: text_of(make, n), 16_384 if delta == 2048 else 4096, delta) <= GROWTH


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(25))
def test_a_long_text_of_mixed_kinds_takes_time_in_proportion(seed: int) -> None:
    assert growth(50_000, lambda n: mixed(50_000, n, seed), 16_384, 2048) <= GROWTH


async def _gaps(size: int, text: str) -> tuple[float, float]:
    """(the longest time in ms that a heartbeat waited too long, seconds in all) while a plain text is screened."""
    longest, done = 0.0, False

    async def beat() -> None:
        nonlocal longest
        while not done:
            before = perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, (perf_counter() - before) * 1000 - 1)

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.01)
    longest = 0.0
    started = perf_counter()
    await moderator(size).judge([Slot(("content",), text, "assistant")], SCOPE, flags())
    taken = perf_counter() - started
    done = True
    await heart
    return longest, taken


def held(size: int, text: str, runs: int) -> float:
    """The median over some runs of the longest time that the loop was held, in milliseconds."""
    found = [asyncio.run(_gaps(size, text))[0] for _ in range(runs)]
    print(f"held {median(found):.1f} ms (median), {max(found):.1f} ms (largest)")
    return median(found)


@pytest.mark.long
@pytest.mark.parametrize("name", ["one ampersand", "base64 digits", "long syllables", "bytes", "syllables"])
def test_the_event_loop_goes_on_while_a_nasty_text_is_screened(name: str) -> None:
    assert held(0, text_of(fragments(0)[name], 16_384), 3) <= LOOP_MS


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [0, 50_000])
@pytest.mark.parametrize("name", kinds())
def test_a_megabyte_of_the_worst_never_holds_the_event_loop(name: str, size: int) -> None:
    assert held(size, text_of(fragments(size)[name], 1_000_000), 3) <= LOOP_MS
