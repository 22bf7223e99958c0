"""Is it the term? A place that a view nominates is aligned with the term, character by character, in the folded text.

Law: a pure function of the text around the place. It says yes (with the span and the techniques that made the difference),
no, or that what follows decides. Every gate that keeps ordinary speech from tripping stands here; each has its clean twins
in tests/evasion/clean.jsonl. Where a rule was measured, docs/adr/0011 has the figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from app import views, words
from app.text import is_han, is_word

GAP = 8
"""Noise characters between two characters of a term at most."""
REPEATS = 8
"""How often a character is repeated at most."""
LEFT, RIGHT = 8, 4
"""Folded characters around a candidate that the segmenter sees: a fixed window, so the verdict is a function of the text."""
SHORT, LONG = 3, 6
"""Terms of at most SHORT Han characters must not lie across a word boundary at either edge. Up to LONG they must not at
both: confirming one edge would let a suffix hide them. Longer ones do not collide with ordinary text by chance."""
AROUND = 16
"""Folded characters around evenly spaced ones (消 毒 品 质) that are looked at for more of them."""

_SCRIPT = 12
"""Characters beside a look-alike that show the script of the text."""
_MARKS = frozenset("。、,;:!?…")
_JOINS = frozenset(" \t\n\r-_·'")
_JOINED = re.compile(r"[ \t_·'-]*|[ \t]*\r?\n[ \t]*|\S*")
"""What stands for the space in a term: joiners, a line's end, or marks without a space. With one, a mark ends a sentence or a cell."""
_LONE = frozenset(".,;:!?/&'’\"“”|+=(){}[]<>\\")
"""What stands by itself within English words and code that are no disguise: who're, hero|in, her}{oin."""
_NEVER_DOUBLED = frozenset("ahijkquvwxy")
"""Letters that English words all but never double."""
PARTICLES = frozenset(
    "的了着过吗呢吧啊呀嘛是在也都就还很不没有我你您他她它们这那个从往向把被对给和与及或而则且但以于其所之者只已可会要能再又去来说看想让叫比最更"
)
"""Characters that stand beside any other: a pair with one of them is too common to be a disguise."""
_ODD_ONSET = re.compile(
    "(?!bl|br|ch|cl|cr|dr|dw|fl|fr|gh|gl|gn|gr|kn|ph|pl|pr|ps|rh|sc|sh|sk|sl|sm|sn|sp|sq|st|sw|th|tr|ts|tw|wh|wr)"
    "[bcdfghjklmnpqrstvwxyz]{2}|y[^aeiou]"
)
"""Two letters that no English word begins with."""
_MASKS = frozenset("!|*#?._-x×")


class Aligned(NamedTuple):
    """A term at folded start:end. `techniques`: names, none for a plain one."""

    start: int
    end: int
    techniques: frozenset[str]


class Open(NamedTuple):
    """What follows decides; `start` must be held."""

    start: int


_Verdict = Aligned | Open | None


def align(text: str, start: int, term: str, final: bool, dropped: int = -1) -> _Verdict:
    """Does folded `term` stand at text[start:], whatever was put between or in the place of its characters?

    `dropped`: the index of a letter of `term` in whose place a symbol must stand (f*ck), -1 for none.
    """
    size = len(text)
    latin = is_word(term[0]) or term[0] in views.LEET
    if latin and start and is_word(text[start - 1]):
        return None
    names: set[str] = set()
    gaps: list[tuple[int, str]] = []  # (index of the term's character after it, the noise)
    doubled: dict[int, int] = {}  # index of the term's character -> how often it was repeated
    exact = leet = symbols = 0
    foreign: list[str] = []
    at, own, last = start, False, ""
    loose = False  # its parts only stand side by side, if nothing else disguises it
    j = 0
    while j < len(term):
        want = term[j]
        if views.is_noise(want):
            if want in _JOINS:
                own = True
            else:
                if at == size:
                    return None if final else Open(start)
                if text[at] != want:
                    return None
                at += 1
            j += 1
            continue
        begin = at
        while at < size and views.is_noise(text[at]):
            at += 1
        if at - begin > GAP:
            return None
        if j == dropped:
            if at == size and not final:
                return Open(start)
            if not 0 < at - begin <= 2 or not _MASKS.issuperset(text[begin:at]):
                return None
            names.add("leet")
            symbols += 1
            j += 1
            last = ""
            continue
        if at == size:
            return None if final else Open(start)
        ch = text[at]
        how = _same(ch, want)
        if how is None:
            if last and str(views.SKELETON[ord(ch)]) == last:
                if not latin and j == first_run(term):
                    return None  # a later start is the term
                doubled[j - 1] = doubled.get(j - 1, 0) + 1
                if doubled[j - 1] > REPEATS:
                    return None
                loose = loose or (latin and any(map(str.isspace, text[begin:at])))
                at += 1
                continue
            return None
        if own:
            loose = loose or not _JOINED.fullmatch(text, begin, at)
        elif at > begin and j and not (dropped == j - 1 >= 0):
            gaps.append((j, text[begin:at]))
        own = False
        if how:
            names.add(how)
            if how == "leet":
                leet += 1
                symbols += not ch.isalnum()
            elif how == "homoglyph":
                foreign.append(ch)
        else:
            exact += 1
        last = str(views.SKELETON[ord(ch)])
        at += 1
        j += 1
    end = at
    if is_word(term[-1]):
        while end < size and str(views.SKELETON[ord(text[end])]) == last and is_word(text[end]):
            doubled[len(term) - 1] = doubled.get(len(term) - 1, 0) + 1
            if doubled[len(term) - 1] > REPEATS:
                return None
            end += 1
        if end == size:
            if not final:
                return Open(start)
        elif is_word(text[end]):
            return None
    letters = sum(is_word(c) for c in term)
    han = sum(map(is_han, term))
    if doubled:
        names.add("repeat")
        if not _repeats(term, doubled, han > 0):
            # 六六合合彩彩: what stands before and after goes on in the same way.
            if not han or (text[start - 1 : start] != term[0] and text[end : end + 1] not in ("", term[-1])):
                return None
            if text[start - 1 : start] != term[0] and end == size:
                return None if final else Open(start)
    if leet + symbols and not (letters >= 4 or (letters >= 3 and symbols)):
        return None
    if leet and not symbols and (exact + len(foreign)) * 5 < letters * 2:
        return None
    if foreign:
        strange = _is_foreign(text, start, end, final)
        if strange is not False:
            return None if strange else Open(start)
    spaced = _spaced(term, gaps)
    if loose and not (spaced or (gaps and _latin_gaps(gaps))):
        return None
    even = _even(gaps) if spaced else ""
    if gaps:
        names.add("noise")
        if not (_han_gaps(term, gaps) if han else spaced or _latin_gaps(gaps)):
            return None
        if even and not han:
            more = _beside(text, start, end, even, is_word, final)
            if more is None:
                return Open(start)
            if _goes_on(more[0][::-1]) or _goes_on(more[1]):
                return None
        listed = _listed(text, start, end, gaps, final)
        if listed is not False:
            return None if listed else Open(start)
    if 0 < han <= LONG and han == len(term):
        verdict = _stands(text, start, end, term, [j for j, _ in gaps], bool(doubled), even, final)
        if verdict is not True:
            return None if verdict is False else Open(start)
    return Aligned(start, end, frozenset(names))


def _same(ch: str, want: str) -> str | None:
    """'' if `ch` is the term's character, the technique if it stands for it, None if it is another."""
    if ch == want:
        return ""
    if "a" <= want <= "z":
        if ch in views.HOMOGLYPH:
            return "homoglyph" if views.HOMOGLYPH[ch] == want else None
        if ch == "1":
            return "leet" if want in "il" else None
        return "leet" if ch in views.LEET and views.SKELETON[ord(ch)] == ord(want) else None
    style = views.digit(want)
    if style and views.digit(ch) == style:
        return "digit"
    if want in views.HOMOGLYPH or ch in views.HOMOGLYPH:
        return "homoglyph" if views.SKELETON[ord(ch)] == views.SKELETON[ord(want)] else None
    return None


def first_run(term: str) -> int:
    """How many characters `term` begins with that are one."""
    n = 1
    while n < len(term) and term[n] == term[0]:
        n += 1
    return n


def _repeats(term: str, doubled: dict[int, int], han: bool) -> bool:
    if han:
        # 看看 and 妈妈 are words of their own.
        return not all(n == 1 and is_han(term[j]) and words.is_word(term[j] * 2) for j, n in doubled.items())
    if max(doubled.values()) >= 2 or len(doubled) >= 2:
        return True
    return all(term[j] in _NEVER_DOUBLED for j in doubled)


def _is_foreign(text: str, start: int, end: int, final: bool) -> bool | None:
    """The look-alikes stand in text of their own script: a whole word of it, among letters that look like no Latin one.
    None if what follows decides."""
    if any(c.isascii() and c.isalpha() for c in text[start:end]):
        return False
    around = text[max(0, start - _SCRIPT) : start] + text[end : end + _SCRIPT]
    if any(is_word(c) and not c.isascii() and c not in views.HOMOGLYPH for c in around):
        return True
    return False if final or len(text) >= end + _SCRIPT else None


def _han_gaps(term: str, gaps: list[tuple[int, str]]) -> bool:
    """Noise between Han characters; a single mark of a sentence is the sentence's own."""
    if len(gaps) > 1 or len(term) > 4:
        return True
    gap = gaps[0][1].strip()
    return not gap or not _MARKS.issuperset(gap)


def _listed(text: str, start: int, end: int, gaps: list[tuple[int, str]], final: bool) -> bool | None:
    """The one mark between the pieces goes on beside them: a list (红/白/粉), an identifier (pen_is_open), a table
    (| 枪 | 支 |). None if what follows decides."""
    mark = gaps[0][1].strip()
    if len(gaps) > 1 or len(mark) != 1:
        return False
    if mark != gaps[0][1]:
        before, after = text[max(0, start - GAP) : start].rstrip(), text[end : end + GAP].lstrip()
        if before.endswith(mark) and not before[-2:-1].strip():
            return True
        if after in ("", mark) and not final and len(text) < end + GAP:
            return None
        return after.startswith(mark) and not after[1:2].strip()
    if start > 1 and text[start - 1] == mark and text[start - 2].isalnum():
        return True
    after = text[end : end + 2]
    if len(after) == 2 or final or (after and after[0] != mark):
        return len(after) == 2 and after[0] == mark and after[1].isalnum()
    return None


def _spaced(term: str, gaps: list[tuple[int, str]]) -> bool:
    """There is noise between all characters that the term has side by side."""
    inner = (j for j in range(1, len(term)) if not views.is_noise(term[j]) and not views.is_noise(term[j - 1]))
    return bool(gaps) and {j for j, _ in gaps}.issuperset(inner)


def _even(gaps: list[tuple[int, str]]) -> str:
    """The gap that all of them are, or ''."""
    return gaps[0][1] if len({gap for _, gap in gaps}) == 1 else ""


def _latin_gaps(gaps: list[tuple[int, str]]) -> bool:
    """Pieces joined by symbols: words that stand side by side are no term."""
    if any(c.isspace() for _, gap in gaps for c in gap):
        return False
    return len(gaps) > 1 or not _LONE.issuperset(gaps[0][1]) or "||" in gaps[0][1]  # || hides a spoiler


def _goes_on(letters: str) -> bool:
    """Letters one by one beside a term spelt so make another word of it (m e t h o d); a and i may be words themselves."""
    return letters[:1].isalpha() and letters not in ("a", "i")


def _beside(
    text: str, start: int, end: int, gap: str, kind: Callable[[str], bool], final: bool
) -> tuple[str, str] | None:
    """The characters before and after start:end that stand alone behind the same gap. None if what follows decides."""
    step = len(gap) + 1
    at, stop = start, end
    while start - at + step <= AROUND and at >= step and text.startswith(gap, at - len(gap)) and kind(text[at - step]):
        if at > step and kind(text[at - step - 1]):
            break
        at -= step
    while stop - end + step <= AROUND:
        between, ahead = text[stop : stop + len(gap)], text[stop + len(gap) : stop + step + 1]
        if not gap.startswith(between) or not all(map(kind, ahead[:1])) or any(map(kind, ahead[1:])):
            break
        if len(ahead) < 2 and not final:
            return None
        if not ahead:
            break
        stop += step
    return text[at:start:step], text[end + len(gap) : stop : step]


def _stands(
    text: str, start: int, end: int, term: str, cuts: list[int], repeated: bool, even: str, final: bool
) -> bool | None:
    """True if `term` at start:end is no part of other words; None if what follows decides."""
    before, after = _window(text, start, end)
    if end + len(after) == len(text) and len(after) < RIGHT and not final:
        return None
    sides = _beside(text, start, end, even, _shown, final) if even else ("", "")
    if sides is None:
        return None
    before, after = before or sides[0], after or sides[1][:RIGHT]
    if repeated and before.endswith(term[0]):
        before = ""  # the run that the term begins with
    at_start, at_end = words.crossed(before + term + after, len(before), len(before) + len(term))
    if len(term) > SHORT:
        return not (at_start and at_end)
    if at_start or at_end:
        return False
    if (
        len(term) == 2
        and before
        and after
        and words.is_word(before[-1] + term[0])
        and words.is_word(term[1] + after[0])
    ):
        return False  # 打赌博得: two words as well
    for cut in cuts:
        # Each half for itself must not begin or end in the middle of a word: 赌，博客.
        if words.crosses(before + term[:cut], len(before), len(before) + cut):
            return False
        if words.crosses(term[cut:] + after, 0, len(term) - cut):
            return False
    return True


def weak(text: str, places: list[tuple[int, int]], term: str, surface: str) -> Aligned | None:
    """A Han term by sound or shape. `surface`: the Han characters at `places` (one per character of `term`; a private
    one for a syllable in Latin letters). All the text that may decide is there.
    """
    start, end = places[0][0], places[-1][1]
    tight = end - start == len(term)  # nothing between, and no syllable of several letters
    if tight and surface == term:
        return None  # as it is: the skeleton's to find
    seen = _seen(surface, term)
    if seen is None:
        return None
    names, anchored, latin = seen
    gaps = [] if tight else [(j, text[places[j - 1][1] : places[j][0]]) for j in range(1, len(places))]
    gaps = [(j, gap) for j, gap in gaps if gap]
    if any(len(gap) > GAP for _, gap in gaps):
        return None
    if latin:
        # Whole tokens only; letters of another word between two syllables are no noise.
        if any(map(str.isalnum, "".join(gap for _, gap in gaps))):
            return None
        if len(term) < 4 and ((start and is_word(text[start - 1])) or (end < len(text) and is_word(text[end]))):
            return None
        return Aligned(start, end, names)
    inside = [gap for _, gap in gaps if not all(map(views.is_noise, gap))]
    if inside:
        # Letters, digits or signs for them between the characters: one or two in a gap, and nothing else changed.
        if names or any(len(gap) > 2 for gap in inside):
            return None
        names = _INTERLEAVED
    elif not names or (gaps and not _han_gaps(term, gaps)):
        return None  # without a name, the skeleton's to find
    elif gaps:
        names |= _NOISE
    # What the segmenter says costs most, and comes last. What stands alone in its window has no word across its edges.
    even = _even(gaps) if len(gaps) == len(term) - 1 else ""
    if not anchored and not _alone(text, start, end, surface):
        return None
    if (anchored or even) and _crossed(text, start, end, surface, even):
        return None
    return Aligned(start, end, names)


_INTERLEAVED, _NOISE = frozenset({"interleave"}), frozenset({"noise"})


@lru_cache(1 << 13)
def _seen(surface: str, term: str) -> tuple[frozenset[str], bool, bool] | None:
    """What tells `surface` from `term`, whatever the text: the techniques, whether something of it holds the rest (a short term of
    which nothing is as it was needs more), whether there are syllables in Latin letters. None where it is not the term in any text.
    """
    changed = [(ch, want) for ch, want in zip(surface, term, strict=True) if ch != want]
    short = len(term) <= SHORT
    if short and not PARTICLES.isdisjoint([ch for ch, _ in changed]):
        return None
    names: set[str] = set()
    exact = len(term) - len(changed)
    latin = evidence = unlike = 0
    for ch, want in changed:
        if "\ue000" <= ch <= "\uf8ff":
            latin += 1
            names.add("pinyin")
        elif _same(ch, want) is not None:
            exact += 1
        elif alike := views.looks_like(ch, want):
            names.add("lookalike")
            evidence += alike
        elif views.sounds_like(ch, want):
            names.add("homophone")
        else:
            unlike += 1
    if unlike > 1 or (unlike and not _known(surface, term, evidence)):
        return None
    if len(term) == 2:
        if "lookalike" in names and evidence < 2 * (2 - exact) and not (exact and _shaped(surface, term)):
            return None  # two pieces of evidence for each that is redrawn
        if names == {"homophone"} or not PARTICLES.isdisjoint(surface):
            return None
    anchored = bool(exact or latin or not short)
    if not anchored and not PARTICLES.isdisjoint(surface):
        return None
    if names and not latin and ((short and not _single(surface, term)) or words.is_word(surface)):
        return None
    return frozenset(names), anchored, latin > 0


def _shaped(surface: str, term: str) -> bool:
    return all(a == b or views.same_shape(a, b) for a, b in zip(surface, term, strict=True))


def _known(surface: str, term: str, evidence: int) -> bool:
    """A term of four characters or more that shows in spite of one that is another altogether: the others are well redrawn."""
    return (
        len(term) > SHORT
        and evidence >= len(term)
        and PARTICLES.isdisjoint(surface)
        and _single(surface, term)
        and all(map(is_han, surface))
    )


def pair(text: str, start: int, end: int, term: str) -> Aligned | None:
    """A term of two Han characters, one of them replaced: both must be words of their own here, and no word together."""
    surface = text[start:end]
    kept = [a == b for a, b in zip(surface, term, strict=True)]
    if all(kept):
        return None
    ch, want = surface[kept.index(False)], term[kept.index(False)]
    if not PARTICLES.isdisjoint(surface):
        return None
    name = "lookalike" if views.looks_like(ch, want) else "homophone"
    if words.is_word(surface) or not _alone(text, start, end, surface):
        return None
    return Aligned(start, end, frozenset({name}))


def _window(text: str, start: int, end: int) -> tuple[str, str]:
    left = start
    while left and start - left < LEFT and _shown(text[left - 1]):
        left -= 1
    right = end
    while right < len(text) and right - end < RIGHT and _shown(text[right]):
        right += 1
    return text[left:start], text[end:right]


def _shown(ch: str) -> bool:
    return is_han(ch) and ch not in views.STROKES


def _crossed(text: str, start: int, end: int, surface: str, even: str = "") -> bool:
    before, after = _window(text, start, end)
    if even and (sides := _beside(text, start, end, even, _shown, True)):
        before, after = before or sides[0], after or sides[1][:RIGHT]
    return words.crosses(before + surface + after, len(before), len(before) + len(surface))


def _alone(text: str, start: int, end: int, surface: str) -> bool:
    """Every character of `surface` is a word of its own in its window."""
    before, after = _window(text, start, end)
    return words.singles(before + surface + after, len(before), len(before) + len(surface))


def _single(surface: str, term: str) -> bool:
    """No two neighbours of `surface` that the term has not are a word: 目睹博物馆 is full of words."""
    return not any(
        surface[j : j + 2] != term[j : j + 2] and words.is_word(surface[j : j + 2]) for j in range(len(surface) - 1)
    )


def reversed_term(text: str, start: int, end: int, term: str) -> Aligned | None:
    """`term` backwards, with nothing between."""
    if is_word(term[0]) or is_word(term[-1]):
        if (start and is_word(text[start - 1])) or (end < len(text) and is_word(text[end])):
            return None
        if len(term) == 4 and not _ODD_ONSET.match(text, start):
            return None
    elif _crossed(text, start, end, text[start:end]):
        return None
    if len(term) <= SHORT and not _alone(text, start, end, text[start:end]):
        return None
    return Aligned(start, end, frozenset({"reversed"}))


def split_term(text: str, start: int, end: int, pieces: list[tuple[int, int]], term: str) -> Aligned | None:
    """A term with characters taken apart; `pieces`: where in `text` the parts stand."""
    before, after = _window(text, start, end)
    surface = text[start:end]
    if words.crosses(before + surface + after, len(before), len(before) + len(surface)):
        return None
    for a, b in pieces:
        if words.is_word(text[a:b]) and len(term) < 4:
            return None
    return Aligned(start, end, frozenset({"split"}))
