"""Views: what folded text looks like, sounds like or decodes to. The terms are brought into the same form and found there.

Law: a view loses information, so a match in it is a candidate and no more: `terms.py` aligns it with the folded text and
says which technique made the difference. Every view works character by character, so it has a way back.

The skeleton is the one view that acts alone: letters and digits only (what is noise stands in no word), look-alikes and
digit styles as one, runs as one character. `sound` and `shape` are weaker: a Han character as its syllable, or as what
is left of it without its radical.
"""

from __future__ import annotations

import html.entities
import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from app import native
from app.text import CharTable, fold, is_han

_marked = native.scan.marks if native.scan is not None else None

_LEET = {
    "0": "o",
    "3": "e",
    "4": "a",
    "5": "s",
    "7": "t",
    "8": "b",
    "9": "g",
    "@": "a",
    "$": "s",
    "€": "e",
    "£": "l",
    "¥": "y",
}
_STYLES = {
    "零": "0", "〇": "0", "一": "1", "壹": "1", "弌": "1", "幺": "1", "二": "2", "贰": "2", "弍": "2", "三": "3", "叁": "3", "弎": "3",
    "四": "4", "肆": "4", "五": "5", "伍": "5", "六": "6", "陆": "6", "七": "7", "柒": "7", "八": "8", "捌": "8", "九": "9", "玖": "9",
    "拾": "十", "佰": "百", "仟": "千",
}  # fmt: skip
# Han characters that a reader takes for one another at a glance, given one shape; what is measured is in looks.tsv.
_NEAR = (
    "口囗 日曰目 已己巳 末未 土士 王壬 干千于 戊戌戍 人入 大太犬 天夭 刀力刃 几儿 见贝 厂广 免兔 鸟乌 "
    "木术 今令 牛午 平乎 折拆析 由甲申 的旳 采釆 春舂 毒毐 白自 网冈 伐代 式弍 丸九 七匕 旦且 夫失 "
    "史吏 官宫 拔拨 治冶 洗冼 准淮 冷泠 侯候 斤斥 氏氐 享亨 毫豪 母毋 刺剌 戳戮 徒徙 崇祟 灸炙 盲肓 "
    "茶荼 赢羸 辨辩辫 汨汩 稍梢 蓝篮 提堤 陷馅 挣睁 下卞 博搏膊 赌睹 枪抢 弹惮 杀刹 淫滛 麻痳 炸诈 "
    "贩败 骗编 "
).split()


STROKES = frozenset("丶丨丿亅乛乚")
"""Han characters that are one stroke: put between others as a mark."""


def _latin() -> dict[str, str]:
    table = {"ӏ": "l", "ϲ": "c", "Ϲ": "c"}
    for line in (files("app") / "data" / "latin.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            letter, others = line.split("\t")
            for other in map(fold, others):
                if len(other) == 1 and not other.isascii():
                    table.setdefault(other, letter)  # what looks like i and l is i
    return table


HOMOGLYPH = _latin()
"""A letter of another script, or a small capital, to the Latin letter it looks like."""
LEET = frozenset(_LEET)


def digit(ch: str) -> str:
    """The digit that `ch` writes in another style, or ''."""
    if ch in _STYLES:
        return _STYLES[ch]
    return str(int(ch)) if len(ch) == 1 and ch.isdecimal() else ""


def _skeleton_of(ch: str) -> str:
    if ch in HOMOGLYPH:
        return HOMOGLYPH[ch]
    style = digit(ch)
    if style:
        return _LEET.get(style, style)
    if ch in _LEET:
        return _LEET[ch]
    return ch if ch.isalnum() and ch not in STROKES else ""


class _Han(NamedTuple):
    sounds: tuple[str, ...]
    shape: str
    splits: tuple[str, ...]


@cache
def _han() -> dict[str, _Han]:
    table = {}
    source = (files("app") / "data" / "han.tsv").read_text("utf-8")
    fold(source)  # every character of it is met at once
    for line in source.splitlines():
        if line.startswith("#"):
            continue
        ch, sounds, shape, splits, *_ = [*line.split("\t"), "", ""]
        if fold(ch) == ch:
            table[ch] = _Han(tuple(sounds.split(",")), fold(shape) or ch, tuple(s for s in splits.split(",") if s))
    for group in _NEAR:
        for ch in group[1:]:
            table[ch] = table[ch]._replace(shape=table[group[0]].shape)
    return table


@cache
def _glyphs() -> dict[str, dict[str, int]]:
    """Of a Han character: those whose glyphs resemble it as a whole, 2 for a close one (measured: scripts/make-tables)."""
    table: dict[str, dict[str, int]] = {}
    for line in (files("app") / "data" / "looks.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            ch, close, others = [*line.split("\t"), ""][:3]
            for other in close + others:
                table.setdefault(ch, {})[other] = table.setdefault(other, {})[ch] = 1 + (other in close)
    return table


@cache
def _syllables() -> dict[str, str]:
    """Every syllable of the readings, as a private character of its own."""
    names = sorted({s for row in _han().values() for s in row.sounds if s})
    return {name: chr(0xE000 + i) for i, name in enumerate(names)}


def _sound_of(ch: str) -> str:
    row = _han().get(ch)
    if row is not None and ch not in STROKES:
        return _syllables()[row.sounds[0]]
    return ch if "\ue000" <= ch <= "\ue7ff" else ""


def _shape_of(ch: str) -> str:
    row = _han().get(ch)
    return "" if ch in STROKES else row.shape if row is not None else ch if is_han(ch) else ""


SKELETON = CharTable(_skeleton_of, runs=True, beyond=False)
"""Letters and digits, look-alikes as one, runs as one character."""
SOUND = CharTable(_sound_of, beyond=False)
"""Han characters as syllables; nothing else. A private character (no folded text of ours holds one) stays."""
SHAPE = CharTable(_shape_of, beyond=False)


def meet() -> None:
    """Fill in the characters in use (GB 2312), which otherwise the first texts wait for."""
    known = bytes(range(0xA1, 0xFF))
    used = "".join(bytes([row, at]).decode("gb2312", "ignore") for row in range(0xB0, 0xF8) for at in known)
    fold(used)
    for table in (SKELETON, SOUND, SHAPE):
        table.meet(used)


def skeleton(folded: str) -> str:
    return SKELETON.apply(folded)


def is_noise(ch: str) -> bool:
    """True for what stands in no word: spaces, punctuation, symbols, emoji."""
    return SKELETON[ord(ch)] is None


def sounds(ch: str) -> tuple[str, ...]:
    """Toneless readings of a Han character, the commonest first; none for others."""
    row = _han().get(ch)
    return row.sounds if row is not None else ()


def syllables() -> Iterable[str]:
    """The name of every syllable."""
    return _syllables()


def syllable(name: str) -> str | None:
    """The private character of a syllable like 'du'; None if there is none."""
    return _syllables().get(name)


def splits(ch: str) -> tuple[str, ...]:
    """What a Han character may be taken apart into: 贝者 for 赌."""
    row = _han().get(ch)
    return row.splits if row is not None else ()


@cache
def _groups() -> tuple[dict[str, str], dict[str, str]]:
    """(syllable -> characters in use, shape -> characters)."""
    by_sound: dict[str, list[str]] = {}
    by_shape: dict[str, list[str]] = {}
    for ch, row in _han().items():
        by_shape.setdefault(row.shape, []).append(ch)
        if row.splits or is_common(ch):
            by_sound.setdefault(row.sounds[0], []).append(ch)
    return {k: "".join(v) for k, v in by_sound.items()}, {k: "".join(v) for k, v in by_shape.items()}


@lru_cache(1 << 13)
def same_sound(ch: str) -> str:
    """Characters in use whose first reading is one of `ch`'s."""
    by_sound, _ = _groups()
    return "".join(dict.fromkeys(c for s in sounds(ch) for c in by_sound.get(s, "") if c != ch))


@lru_cache(1 << 13)
def same_look(ch: str) -> str:
    """Characters of the same shape as `ch`, and those whose glyphs resemble its glyph."""
    row = _han().get(ch)
    _, by_shape = _groups()
    shaped = by_shape.get(row.shape, "") if row is not None else ""
    return "".join(c for c in dict.fromkeys([*_glyphs().get(ch, ()), *shaped]) if c != ch)


def sounds_like(a: str, b: str) -> bool:
    """True if `a`'s usual reading is one of `b`'s, or the other way round."""
    one, other = sounds(a), sounds(b)
    return bool(one and other) and (one[0] in other or other[0] in one)


def same_shape(a: str, b: str) -> bool:
    one, other = _han().get(a), _han().get(b)
    return one is not None and other is not None and one.shape == other.shape


def looks_like(a: str, b: str) -> int:
    """How much speaks for `a` being drawn for `b`, 0 if it does not look like it: a shape in common (1), a glyph that resembles
    it (1) or is close to it (2), and that `a` is a character one seldom sees (1)."""
    found = same_shape(a, b) + _glyphs().get(a, {}).get(b, 0)
    return found and found + (not is_common(a))


@cache
def is_common(ch: str) -> bool:
    """Of the 3,755 characters of the first level of GB 2312."""
    try:
        return ch.encode("gb2312") < b"\xd8"
    except UnicodeEncodeError:
        return False


# Escapes that a page or a program would show as the character itself.

_ESCAPE = re.compile(
    r"""(?P<entity>&(?:amp;){0,8}(?:\#[0-9]{1,7};?|\#x[0-9a-f]{1,6};?|[a-z][a-z0-9]{1,30};))
    |(?P<percent>(?:%(?:25){0,3}[0-9a-f]{2}|%u[0-9a-f]{4})+)
    |(?P<escape>(?:\\u[0-9a-f]{4}|\\u\{[0-9a-f]{1,6}\}|\\x[0-9a-f]{2})+)
    |(?P<leet>[!+|]+)
    |(?P<markup></?[a-z][^<>\n]{0,40}>|<!--[^<>\n]{0,40}-->|\]\([^()\s]{0,80}\))""",
    re.VERBOSE,
)
_UNTAGGED = re.compile(_ESCAPE.pattern[: _ESCAPE.pattern.index("|(?P<markup>")], re.VERBOSE)
_UNIT = re.compile(r"[%\\](?:u\{?([0-9a-f]{1,6})\}?|x?(?:25)*([0-9a-f]{2}))")
_OPEN = re.compile(
    r"""(?:&(?:amp;){0,8}(?:\#x?[0-9a-f]{0,7}|[a-z][a-z0-9]{0,30})?
    |(?:%(?:25){0,3}[c-f][0-9a-f](?:%(?:25){0,3}[89ab][0-9a-f]){0,2})?%(?:(?:25){0,3}[0-9a-f]{0,2}|u[0-9a-f]{0,4})
    |(?:\\x[c-f][0-9a-f](?:\\x[89ab][0-9a-f]){0,2})?\\(?:u[0-9a-f]{0,4}|u\{[0-9a-f]{0,6}|x[0-9a-f]{0,2})?
    |[!+|]+)\Z""",
    re.VERBOSE,
)
"""The bytes of a character belong together: were a run of them held in its middle, no character would be left of them."""
_OPEN_TAG = re.compile(r"(?:<(?:/?[a-z][^<>\n]{0,40}|/|!-{0,2}|!--[^<>\n]{0,40}-{0,2})?|\](?:\([^()\s]{0,80})?)\Z")
_MARK = re.compile(r"[&%\\<!+|\]]")
_ESCAPES = re.compile(r"&(?:[#a-z]|\Z)|%(?:[0-9a-fu]|\Z)|\\(?:[ux]|\Z)")
_TAGS = re.compile(r"<(?:[a-z/!]|\Z)|\](?:\(|\Z)")
_SIGNS = re.compile(r"[!+|][!+|]*")
_LONGEST = 96
"""Characters of an escape or a tag that is not complete yet, looked at from the end."""
_NAMES = {name.lower(): text for name, text in reversed(html.entities.html5.items()) if name.endswith(";")}


class Decoded(NamedTuple):
    """`text`: folded text decoded; its character i comes from starts[i]:ends[i] of the folded text, by techniques[i] or as
    it is (''). `hold`: where an escape begins that shows only once decoded and is not complete, or the
    length of the folded text. `sure`: it does not go past what may yet be a tag."""

    text: str
    starts: list[int]
    ends: list[int]
    techniques: list[str]
    hold: int
    sure: bool = True


class Marks(NamedTuple):
    """What there may be to decode, or may come to be by what follows."""

    escapes: bool
    tags: bool
    leet: bool


_MARKS = (None, *(Marks(bool(i & 1), bool(i & 2), bool(i & 4)) for i in range(1, 8)))


def marks(folded: str, since: int) -> Marks | None:
    """None where nothing from `since` on can be decoded."""
    return _MARKS[_marked(folded, since)] if _marked is not None else searched(folded, since)


def searched(folded: str, since: int) -> Marks | None:
    """`marks`, in Python."""
    if _MARK.search(folded, since) is None:
        return None
    size = len(folded)
    found = Marks(
        _ESCAPES.search(folded, since) is not None,
        _TAGS.search(folded, since) is not None,
        any(m.end() == size or _beside(folded, *m.span(), size) for m in _SIGNS.finditer(folded, since)),
    )
    return found if any(found) else None


def open_escape(folded: str, since: int, until: int) -> int:
    """Where an escape begins that what follows folded[:until] may complete or change; `until` if there is none."""
    found = _OPEN.search(folded, max(since, until - _LONGEST), until)
    return until if found is None else found.start()


def open_tags(folded: str, since: int, until: int) -> list[int]:
    """Up to where folded[:until] is to be looked at: to each tag that its end leaves incomplete (which can begin no term), and
    past them, for each may turn out to be none. Ascending, `until` the last."""
    at = max(since, until - _LONGEST)
    ending, found = folded[at:until], []
    while (tag := _OPEN_TAG.search(ending)) is not None:
        found.append(at + tag.start())
        ending = ending[tag.start() + 1 :]
        at = found[-1] + 1
    return [*found, until]


def decode(
    folded: str,
    since: int,
    until: int,
    leet: bool = False,
    always: bool = False,
    settled: int | None = None,
    tags: bool = True,
) -> list[Decoded]:
    """folded[since:until] with its escapes decoded and its tags taken out, twice over (an escaped tag, an entity of an
    entity); `leet`: and with symbols beside letters as the letters they stand for. None where nothing is (unless `always`).
    Several, where what is decoded may end in a tag. `settled`: where what is not settled begins, if more may follow. `tags`:
    False to leave them in, with what they hold.
    """
    once = _decode(folded, since, until, leet, always, tags)
    if once is None:
        return []
    size = len(once.text)
    first = size if settled is None else bisect_left(once.starts, settled)
    stop = size if settled is None else open_escape(once.text, first, size)
    made = []
    ends = [stop] if settled is None or not tags else open_tags(once.text, first, stop)
    for shown in ends:
        twice = _decode(once.text, 0, shown, False, shown < size, tags)
        if twice is None:
            made.append(once if shown == ends[0] else once._replace(sure=False))
            continue
        made.append(
            Decoded(
                twice.text,
                [once.starts[i] for i in twice.starts],
                [once.ends[i - 1] for i in twice.ends],
                [how or once.techniques[i] for how, i in zip(twice.techniques, twice.starts, strict=True)],
                once.starts[stop] if stop < size else len(folded),
                shown == ends[0],
            )
        )
    return made


def _decode(folded: str, since: int, until: int, leet: bool, always: bool, tags: bool) -> Decoded | None:
    if not always:
        there = marks(folded, since)
        if there is None or not (there.escapes or (tags and there.tags) or (leet and there.leet)):
            return None
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    names: list[str] = []
    at, hit = since, always
    # Looked for by its first character: the whole expression at every character costs fifty times as much.
    shape = _ESCAPE if tags else _UNTAGGED
    for mark in _MARK.finditer(folded, since, until):
        start = mark.start()
        if start < at or (found := shape.match(folded, start, until)) is None:
            continue
        kind = found.lastgroup or ""
        if kind == "leet" and not (leet and _beside(folded, *found.span(), until)):
            continue
        made = _decoded(kind, found[0])
        if made is None:
            continue
        hit = hit or leet == (kind == "leet")
        out.append(folded[at:start])
        starts += range(at, start)
        ends += range(at + 1, start + 1)
        names += [""] * (start - at)
        for text, begin, end in made:
            text = fold(text)
            out.append(text)
            starts += [start + begin] * len(text)
            ends += [start + end] * len(text)
            names += [kind] * len(text)
        at = found.end()
    if not hit:
        return None
    out.append(folded[at:until])
    starts += range(at, until)
    ends += range(at + 1, until + 1)
    names += [""] * (until - at)
    return Decoded("".join(out), starts, ends, names, len(folded))


def _beside(folded: str, start: int, end: int, until: int) -> bool:
    """A letter, a digit or a sign for one stands beside: after, if all they are is `!`, which ends a sentence as well."""
    if end < until and _SIGN.match(folded, end):
        return True
    return bool(start and _SIGN.match(folded, start - 1)) and folded[start:end].strip("!") != ""


_SIGN = re.compile(r"[a-z0-9@$]")


def _decoded(kind: str, source: str) -> list[tuple[str, int, int]] | None:
    """(text, its start and end in `source`) per character; None if it stands for nothing."""
    if kind == "markup":
        return []
    if kind == "leet":
        return [({"!": "i", "+": "t", "|": "l"}[c], i, i + 1) for i, c in enumerate(source)]
    if kind == "entity":
        name = source.replace("amp;", "")[1:]
        text = html.unescape("&" + name) if name.startswith("#") else _NAMES.get(name)
        return None if text is None else [(text, 0, len(source))]
    made: list[tuple[str, int, int]] = []
    units = [(int(m[1] or m[2], 16), m[1] is None, m.start(), m.end()) for m in _UNIT.finditer(source)]
    at = 0
    while at < len(units):
        code, byte, start, end = units[at]
        if not byte:
            made.append((chr(code) if code < 0x110000 else "", start, end))
            at += 1
            continue
        size = 1 if code < 0xC0 else 2 if code < 0xE0 else 3 if code < 0xF0 else 4
        part = units[at : at + size]
        try:
            text = bytes(u[0] for u in part if u[1]).decode()
        except UnicodeDecodeError:
            text, part = chr(code), part[:1]
        made.append((text, start, part[-1][3]))
        at += len(part)
    return made
