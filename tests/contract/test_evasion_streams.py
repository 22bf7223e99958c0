"""Streams of disguised terms: however a text is cut, what is found, let go and stopped is that of the whole text, and no
character of what blocks or masks is ever let go."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from app import policy
from app.detectors.lexicon import Lexicon, Term, cues, phrases
from app.policy import Policy
from app.policyfile import CategoryRule, Rules
from app.streaming import MASK, Channel
from app.taxonomy import taxonomy
from app.types import Action, Finding, Scope

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "evasion"

PROSE = (
    "清晨的河面上浮着一层薄雾，船夫把缆绳解开，慢慢向对岸划去。",
    "图书馆在三楼新开了一间阅览室，窗边的座位总是最先坐满。",
    "外婆把晒好的豆子收进陶罐，又在门口种了两行葱。",
    "火车晚点了四十分钟，站台上的人都在看雨。",
    "The baker opens at six, and by seven the street smells of bread. ",
    "We walked along the canal until the lamps came on. ",
    "She keeps her letters in a tin box under the stairs. ",
    "第 3 章讲的是坐标系，第 4 章讲的是向量。\n",
)
"""Ordinary sentences to stand before and after."""
_NOISE = ("\u200b", "\u2060", "\ufe0f", " ", "*", "·", "-", "_", "\u0301", "**", "~")
_ESCAPED = (
    lambda c: f"&#{ord(c)};",
    lambda c: f"&#x{ord(c):x};",
    lambda c: f"&amp;#{ord(c)};",
    lambda c: f"&#38;#{ord(c)};",
    lambda c: quote(c) if not c.isascii() else f"%{ord(c):02X}",
    lambda c: quote(quote(c)) if not c.isascii() else f"%25{ord(c):02x}",
    lambda c: f"\\u{ord(c):04x}",
    lambda c: f"\\u{{{ord(c):x}}}",
    lambda c: f"<b>{c}</b>",
    lambda c: f"&lt;i&gt;{c}&lt;/i&gt;",
    lambda c: f"[{c}](u)",
    lambda c: {"i": "!", "l": "|", "t": "+", "a": "@", "s": "$", "e": "3", "o": "0"}.get(c, c),
)
_TAILS = (
    "&",
    "&#",
    "&#3617",
    "&am",
    "%",
    "%e8%b",
    "%25e",
    "\\",
    "\\u8d",
    "<",
    "<b",
    "</",
    "](",
    "](x",
    "!",
    "+",
    "&lt;b",
)
"""What a text may end in, or a delta: the beginning of something."""


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SUITE / name).read_text("utf-8").splitlines()]


@cache
def lexicon() -> Lexicon:
    terms = [Term(row["term"], row["category"]) for row in read("terms.jsonl")]
    return Lexicon(terms, phrases(ROOT / "lexicons"), cues(ROOT / "lexicons"))


@cache
def rules(action: str) -> Policy:
    every = CategoryRule(answer=action, prompt=action)
    return Policy(Rules(categories=dict.fromkeys(taxonomy(), every)), "draft_2023_04", "test")


class Outcome(NamedTuple):
    """What a client or the journal may notice of a text."""

    findings: list[Finding]
    released: str
    stopped: Action | None
    degraded: list[str]


def fed(pieces: Sequence[str], action: str) -> Outcome:
    channel = Channel([lexicon()], rules(action), Scope("default", "answer"), readers=[lexicon()])
    released = "".join([channel.push(piece) for piece in pieces]) + channel.finish()
    findings = sorted(channel.findings, key=lambda f: (f.start, f.end, f.category, f.rule))
    return Outcome(findings, released, channel.stopped, channel.degraded + channel.unread)


def in_deltas(text: str, dice: random.Random) -> list[str]:
    """The text in 1 to 6 deltas."""
    places = sorted(dice.randint(0, len(text)) for _ in range(dice.randrange(6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def check(text: str, dice: random.Random, action: str = "block") -> Outcome:
    """The outcome of the whole text, once that of each cut is known to be the same."""
    whole = fed([text], action)
    for pieces in (in_deltas(text, dice), list(text)):
        assert fed(pieces, action) == whole, (text, pieces)
    assert whole.degraded == []
    covered = [f for f in whole.findings if f.action >= Action.MASK]
    if whole.stopped is not None:
        end = min(f.start for f in covered if f.action.stops)
        assert whole.released == text[:end], text
    else:
        assert len(whole.released) == len(text), text
    for f in covered:
        assert set(whole.released[f.start : f.end]) <= {MASK}, text
    hidden = {i for f in covered for i in range(f.start, f.end)}
    assert all(whole.released[i] == text[i] for i in range(len(whole.released)) if i not in hidden), text
    return whole


def disguised(term: str, dice: random.Random) -> str:
    """The term with some of its characters escaped, marked up or replaced, and something between them."""
    way = dice.choice(_ESCAPED)
    share = dice.choice((0.0, 0.4, 1.0))
    between = dice.choice(_NOISE) if dice.random() < 0.4 else ""
    made = [way(c) if dice.random() < share else c for c in term]
    return between.join(made)


def composed(cases: Sequence[dict[str, str]], terms: Sequence[str], dice: random.Random) -> str:
    """A text of several disguised terms, beginnings of escapes, noise, and prose around them."""
    parts = []
    for _ in range(dice.randint(1, 4)):
        kind = dice.random()
        if kind < 0.35:
            parts.append(dice.choice(cases)["text"])
        elif kind < 0.65:
            parts.append(disguised(dice.choice(terms), dice))
        elif kind < 0.8:
            parts.append(dice.choice(PROSE))
        elif kind < 0.9:
            parts.append(dice.choice(terms)[: dice.randint(1, 3)] + dice.choice(_TAILS))
        else:
            parts.append(dice.choice(_NOISE) * dice.choice((1, 3, 9, 40)))
    if dice.random() < 0.3:
        parts.append(dice.choice(_TAILS))
    before = "".join(dice.choices(PROSE, k=dice.choice((0, 0, 1, 3, 12))))
    after = "".join(dice.choices(PROSE, k=dice.choice((0, 0, 1, 12))))
    text = before + "".join(parts) + after
    if dice.random() < 0.15:
        text = "".join(c + dice.choice(_NOISE[:3]) if dice.random() < 0.3 else c for c in text)
    return text


def test_a_disguised_term_gives_the_same_however_it_is_cut_and_leaks_nothing() -> None:
    dice = random.Random(3)
    stopped = sum(check(case["text"], dice).stopped is not None for case in dice.sample(read("cases.jsonl"), 450))
    assert stopped > 200


def test_a_mask_hides_a_disguised_term_whole() -> None:
    dice = random.Random(4)
    masked = sum(MASK in check(case["text"], dice, "mask").released for case in dice.sample(read("cases.jsonl"), 150))
    assert masked > 70


def test_composed_disguises_give_the_same_however_they_are_cut() -> None:
    dice = random.Random(5)
    cases, terms = read("cases.jsonl"), [row["term"] for row in read("terms.jsonl")]
    for _ in range(150):
        check(composed(cases, terms, dice), dice, dice.choice(("block", "mask", "flag")))


@pytest.mark.parametrize(
    "text",
    [
        "赌&#21338;，好", "赌%e5%8d%9a，好", "赌%25e5%258d%259a，好", "赌\\u535a，好", "赌&lt;b&gt;博，好", "赌&#x26;#21338;，好",
        "%25e8%25b5%258c博，好", "&#x26;#36172;&#21338;，好", "%26%2336172%3b博，好", "coc&#97;ine, yes",
        "今天&" + "amp;" * 8 + "#36172;博，好", "e2⑧杠，好", "买" + "卖" * 10 + "淫，好",
        "<r&#36172;博，好", "好<a title=&#36172;&#21338;>，好", "<!--sat on fake passpor+ wh<!-    ",
        "枪\\u652\\x66>，好", "代&#x&#x35;b5%35，好", "刷单<<i>x\\u{3e}返利，好", "枪\\u6<b>52f，好", "\\u97<b>5e&amp;#27861集资，好",
    ],
)  # fmt: skip
def test_half_a_disguise_holds_what_is_before_it(text: str) -> None:
    assert check(text, random.Random(zlib.crc32(text.encode()))).stopped is Action.BLOCK


@pytest.mark.parametrize("lead", range(9))
def test_a_long_run_of_encoded_bytes_is_never_cut_within_a_character(lead: int) -> None:
    said = "今天天气很好我们一起去公园里面散步然后赌博，" + "河面上浮着一层薄雾船夫把缆绳解开" * 2
    assert check("x" * lead + quote(said), random.Random(lead)).stopped is Action.BLOCK


def _broken(dice: random.Random) -> tuple[list[str], str]:
    """Terms of few letters, some with a space, a mark or Han in them, and a text of their parts with spaces and marks between."""
    terms = set()
    for _ in range(dice.randint(1, 12)):
        term = "".join(dice.choices("abcdel", k=dice.randint(2, 6)))
        at = dice.randint(1, len(term) - 1)
        if dice.random() < 0.4:
            term = term[:at] + dice.choice(" - '") + term[at:]
        if dice.random() < 0.15:
            term += dice.choice("毒品枪") + dice.choice(("", "ab"))
        terms.add(dice.choice("013@") + term if dice.random() < 0.1 else term)
    parts = []
    for _ in range(dice.randint(1, 4)):
        term = dice.choice(sorted(terms))
        between = dice.choice(("", " ", "  ", "-", ". ", ", ", "\n", "* ", "\u200b"))
        at = dice.randint(0, len(term))
        parts += [
            dice.choice(
                (between.join(term), term[:at] + between + term[at:], term[:at] + between, term[:at] + term[at:] * 2)
            )
        ]
    return sorted(terms), dice.choice(("", " ")).join(parts)


@pytest.mark.parametrize("count", [600, pytest.param(60_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_latin_word_that_a_space_breaks_off_is_held_only_where_it_may_go_on(count: int) -> None:
    dice, stopped = random.Random(count), 0
    for n in range(count):
        if n % 20 == 0:
            terms, _ = _broken(dice)
            used = Lexicon([Term(t, "illegal_acts") for t in terms])
        text = _broken(dice)[1] if n % 3 else " ".join(dice.choices([*terms, *(t[:2] for t in terms)], k=3))

        def shown(pieces: Sequence[str], used: Lexicon = used) -> Outcome:
            channel = Channel([used], rules("block"), Scope("x", "answer"))
            released = "".join([channel.push(piece) for piece in pieces]) + channel.finish()
            return Outcome(channel.findings, released, channel.stopped, channel.degraded)

        whole = shown([text])
        assert shown(list(text)) == whole == shown(in_deltas(text, dice)), (terms, text)
        stopped += whole.stopped is not None
    assert count // 10 < stopped


def test_a_word_of_code_is_not_held_behind_its_end() -> None:
    used = Lexicon([Term(t, "illegal_acts") for t in ("streetlamp", "nonesuch", "not alone")])
    for text, held in (("def f(x: str, ", 0), ("-> None:\n", 0), ("a str-", 4), ("it is not ", 4), ("s t r ", 6)):
        channel = Channel([used], rules("block"), Scope("x", "answer"))
        channel.push(text)
        assert channel.screened - channel.released == held, text


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_composed_disguises_give_the_same_however_they_are_cut() -> None:
    dice = random.Random(6)
    cases, terms = read("cases.jsonl"), [row["term"] for row in read("terms.jsonl")]
    stopped = 0
    for case in cases:
        stopped += check(case["text"], dice).stopped is not None
    for _ in range(20_000):
        action = dice.choice(("block", "block", "mask", "flag"))
        stopped += check(composed(cases, terms, dice), dice, action).stopped is not None
    assert stopped > 5_000


def _tag(text: str) -> str:
    """`text` in tag characters, which nobody sees."""
    return "".join(chr(0xE0000 + ord(c)) for c in text)


_ODD = (
    ("[x](黑<br>社<br>会了 ok", 4, 15),
    ("<!--[三](http://a.b)级片.yes ab", 5, 21),
    ("<a href=\"毒品", 9, 11),
    ("[a](毒<i>品", 4, 9),
    ("[a](毒<i>品 x", 4, 9),
    ("&lt;r暴<b>力量", 5, 10),
    ("<div 毒&#21697;", 5, 14),
    (f"a {_tag('meth')} b c", 2, 6),
    (f"{_tag('fake id')} x", 0, 7),
    (_tag("meth"), 0, 4),
    (f"x{_tag('meth')}", 1, 5),
    ("abc 毒\u0300品\u0300\ufe0f x", 4, 9),
    ("毒\u0300品\u0300\u0301", 0, 5),
)  # fmt: skip
"""(a text whose end may have been the beginning of a tag, or that nobody sees, where its term stands)."""


@pytest.mark.parametrize(("text", "start", "end"), _ODD)
def test_half_a_tag_and_what_nobody_sees_are_the_same_however_they_are_cut(text: str, start: int, end: int) -> None:
    terms = ("毒品", "黑社会", "三级片", "meth", "fake id", "暴力")
    lexicon = Lexicon([Term(t, "illegal_acts") for t in terms])

    def shown(chunks: Sequence[str]) -> tuple[list[Finding], str, Action | None]:
        channel = Channel([lexicon], policy.parse(b"").common, Scope("x", "answer"), readers=[lexicon])
        released = "".join([channel.push(chunk) for chunk in chunks] + [channel.finish()])
        return channel.findings, released, channel.stopped

    whole = shown([text])
    assert [(f.start, f.end) for f in whole[0]] == [(start, end)]
    for one in range(1, len(text)):
        for other in range(one, len(text), 4):
            assert shown([text[:one], text[one:other], text[other:]]) == whole
    assert shown(list(text)) == whole
