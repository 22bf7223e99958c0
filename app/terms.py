"""A compiled list of terms: where they occur in folded text, and what of its tail may still become one.

Law: a pure function of the text. `find` returns what acts alone, once nothing that may follow can change it, and a `hold`
before which every hit is known. `read` returns the weaker views' findings, which only ever flag, and holds nothing back.
Views nominate, align.py confirms. Engine: daachorse, charwise; a second automaton over every proper prefix + SENTINEL
gives the live prefix without any support from the engine (docs/adr/0004, 0011).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from daachorse import CharwiseDoubleArrayAhoCorasick as Automaton

from app import views, words
from app.align import GAP, REPEATS, RIGHT, Aligned, Open, align, first_run, pair, reversed_term, split_term, weak
from app.text import SENTINEL, fold, is_han, is_word

CONTEXT = 32
"""Folded characters of settled text that may be looked back at: allow phrases start no further left."""
REACH = 160
"""Folded characters that a match of a weaker view spans at most."""
_TOKEN = 1024
"""Characters of base64 or hexadecimal digits at most; longer runs are data."""
PAIRS = 2_000
"""Terms of two Han characters up to which each is also looked for with one of them replaced: a list with more of them
would have every second pair of ordinary text for a candidate."""

Array = np.ndarray[Any, np.dtype[Any]]

_PLAIN: frozenset[str] = frozenset()
_END = 1 << 62
_SOUND, _SHAPE, _PAIR, _REVERSED, _ROT13, _SPLIT = range(6)

_LATIN = re.compile("[a-z][a-z'’]+")
_MIXED = re.compile(r"[a-z]")
_BETWEEN = re.compile(r"[a-z0-9@$]{1,2}(?=[\u4e00-\u9fff])")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{6,}={0,2}")
_CODED = re.compile(
    "[a-z0-9+/_-][A-Z]|[A-Z][0-9+/]|[0-9A-Fa-f]{2}[ ,:0-9A-Fa-f]{6}|0[xX][0-9A-Fa-f]{2}|[\U000e0020-\U000e007e]"
)
"""Without one of these a text holds nothing encoded."""
_HEX = re.compile(r"(?:(?:0[xX])?[0-9A-Fa-f]{2}[ ,:]{0,2}){4,400}")
_TAGS = re.compile("[\U000e0020-\U000e007e]{3,}")


class Hit(NamedTuple):
    """Term `number` at folded `start:end`; the techniques by which it was disguised, folding apart."""

    start: int
    end: int
    number: int
    techniques: frozenset[str] = _PLAIN


class Terms:
    """`terms`: folded, distinct, not empty. `allow[i]`: folded phrases that hold terms[i] and make it harmless.
    `phrases`: folded ones that make harmless whatever they cover.

    Building costs about 30 µs a term and holds the interpreter; `arrays` and `of` carry what was built to another process.
    """

    def __init__(
        self, terms: Sequence[str], allow: Mapping[int, Sequence[str]] | None = None, phrases: Sequence[str] = ()
    ) -> None:
        self._terms: Sequence[str] = terms
        self._strong = Lookup(_skeletons(terms))
        self._literal = Lookup((t, i) for i, t in enumerate(terms) if _odd(t))
        self._weak = Lookup(_weaker(terms), live=False)
        # No term but a Latin one begins further back in a run than the run it begins with itself.
        self._run = max((first_run(t) for t in terms), default=1)
        short = [(i, t) for i, t in enumerate(terms) if len(t) == 2 and all(map(is_han, t))]
        self._pairs = _Index((t, i) for i, t in short)
        self._syllables = _Index((sound, i) for i, t in short for sound in _readings(t))
        self._phrases = Lookup(((p, 0) for p in phrases), live=False)
        self._allow: dict[int, list[tuple[int, str]]] = {}
        for i, own in (allow or {}).items():
            for phrase in own:
                self._spare(i, phrase)
        for phrase in phrases:
            for index in self._held_by(phrase):
                self._spare(index, phrase)
        self._last = "", ""

    def works(self) -> bool:
        """True if some of the terms, spread over the list, are found as they are."""
        step = max(1, len(self._terms) // 20)
        tried = range(0, len(self._terms), step)
        found = sum(any(hit.number == i for hit in self.find(self._terms[i], 0, True)[0]) for i in tried)
        # The segmenter may stand against a bare term, but not against most.
        return found * 2 >= len(tried)

    def _held_by(self, phrase: str) -> set[int]:
        found = [n for _, _, n in self._strong.find(views.skeleton(phrase))]
        return {owner >> 8 for n in found for owner in self._strong.owners(n) if self._terms[owner >> 8] != phrase}

    def arrays(self) -> dict[str, Array]:
        """What was built, for `of`."""
        made = {
            "terms": _bytes("\0".join(self._terms)),
            "run": np.array([self._run]),
            "allow": _bytes(json.dumps(sorted(self._allow.items()))),
        }
        for name in ("strong", "literal", "weak", "phrases", "pairs", "syllables"):
            part: Lookup | _Index = getattr(self, f"_{name}")
            made |= {f"{name}.{key}": value for key, value in part.arrays().items()}
        return made

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Terms:
        """The inverse of `arrays`. Trusts them: whoever stores them checks that they are whole."""
        made = cls.__new__(cls)
        made._terms = _Texts(arrays["terms"].tobytes().decode())
        made._allow = {i: [(at, p) for at, p in own] for i, own in json.loads(arrays["allow"].tobytes())}
        for name in ("strong", "literal", "weak", "phrases"):
            setattr(made, f"_{name}", Lookup.of(_part(arrays, name)))
        for name in ("pairs", "syllables"):
            setattr(made, f"_{name}", _Index.of(_part(arrays, name)))
        made._run = int(arrays["run"][0])
        made._last = "", ""
        return made

    def __len__(self) -> int:
        return len(self._terms)

    def _spare(self, index: int, phrase: str) -> None:
        places = [(at, phrase) for at in _places(self._terms[index], phrase)]
        if places:
            self._allow.setdefault(index, []).extend(places)

    def find(self, text: str, since: int, final: bool) -> tuple[list[Hit], int]:
        """Hits that start at or after `since`, and the hold. `text[:since]` is context; `final`: nothing follows."""
        size = len(text)
        hits: dict[Hit, None] = {}
        hold = self._find(text, since, final, hits) if self._strong else size
        if self._literal:
            hold = min(hold, self._exact(text, since, final, hits))
        return list(hits), hold

    def _find(self, text: str, since: int, final: bool, hits: dict[Hit, None]) -> int:
        """By the skeleton: of the text as it is, with its escapes decoded, and with symbols as letters."""
        hold = self._look(text, since, final, hits)
        base = max(0, since - CONTEXT)
        if not views.has_marks(text, base):
            return hold
        size = len(text)
        stop = size if final else views.open_escape(text, since, size)
        shown = stop if final else views.open_tag(text, since, stop)
        # What an open escape decodes to may complete another one, left of it.
        hold = min(hold, stop if stop == size else views.open_escape(text, since, stop))
        for leet in (False, True):
            # What is decoded begins before `since`: a word's left edge is a matter of decoded text too.
            decoded = views.decode(text, base, shown, leet, shown < size and not leet, final)
            if decoded is not None:
                hold = min(hold, max(since, decoded.hold), self._decoded(decoded, since, final, hits))
        return hold

    def _decoded(self, decoded: views.Decoded, since: int, final: bool, hits: dict[Hit, None]) -> int:
        found: dict[Hit, None] = {}
        first = bisect_left(decoded.starts, since)
        hold = self._look(decoded.text, first, final, found)
        for hit in found:
            names = {n for n in decoded.techniques[hit.start : hit.end] if n}
            if any(
                decoded.ends[i] != decoded.starts[i + 1]
                for i in range(hit.start, hit.end - 1)
                if not decoded.techniques[i]
            ):
                names.add("markup")
            if names:
                span = decoded.starts[hit.start], decoded.ends[hit.end - 1]
                hits[Hit(*span, hit.number, hit.techniques | names)] = None
        return decoded.starts[hold] if hold < len(decoded.text) else _END

    def _look(self, text: str, since: int, final: bool, hits: dict[Hit, None]) -> int:
        size = len(text)
        rest = text[since:] if since else text
        dense = self._dense(rest)
        found = self._strong.find(dense)
        places: list[int] | None = None
        hold = size
        if not final:
            tail = self._strong.live(dense)
            if tail:
                places = views.skeleton_places(rest)
                hold = self._live(text, since, places, tail)
        for first, _, number in found:
            if places is None:
                places = views.skeleton_places(rest)
            begin = places[first] + since
            stop = places[first + 1] + since if first + 1 < len(places) else size
            for owner in self._strong.owners(number):
                index, dropped = owner >> 8, (owner & 255) - 1
                for start in _starts(text, begin, stop):
                    verdict = self._confirm(text, start, index, final, dropped)
                    if isinstance(verdict, Open):
                        hold = min(hold, start)
                    elif verdict is not None:
                        hits[Hit(verdict.start, verdict.end, index, verdict.techniques)] = None
        return hold

    def _dense(self, text: str) -> str:
        """The skeleton, computed once for a text that is looked at and then read."""
        known, dense = self._last
        if known is not text:
            dense = views.skeleton(text)
            self._last = text, dense
        return dense

    def _live(self, text: str, since: int, places: list[int], starts: list[int]) -> int:
        """Start of the longest suffix that may still become a term: no gap in it is wider than GAP, no run longer than REPEATS."""
        size = len(text)
        # From the end back to the first gap that no match can span.
        reach, after = len(places), size - since
        while reach:
            gap = text[places[reach - 1] + since + 1 : after + since]
            if len(gap) > GAP and _spans(gap):
                break
            reach -= 1
            after = places[reach]
        for first in sorted(starts):
            if first < reach:
                continue
            stop = places[first + 1] + since if first + 1 < len(places) else size
            begins = _starts(text, places[first] + since, stop)
            for start in (
                begins if is_word(text[begins[-1]]) or text[begins[-1]] in views.LEET else begins[-self._run :]
            ):
                # In the middle of a Latin word no term can start: it would fail its left boundary. A digit may stand for 二.
                if not (start and is_word(text[start - 1]) and (is_word(text[start]) or text[start] in views.LEET)) or (
                    text[start].isdecimal()
                ):
                    return start
        return size

    def _confirm(self, text: str, start: int, index: int, final: bool, dropped: int = -1) -> Aligned | Open | None:
        verdict = align(text, start, self._terms[index], final, dropped)
        if verdict is None or index not in self._allow:
            return verdict
        for at, phrase in self._allow[index]:
            begin = start - at
            if begin < 0:
                continue
            if text.startswith(phrase, begin):
                return None
            if not final and len(text) < begin + len(phrase) and phrase.startswith(text[begin:]):
                verdict = Open(start)
        return verdict

    def _exact(self, text: str, since: int, final: bool, hits: dict[Hit, None]) -> int:
        """Terms that are (nearly) all symbols, as they are."""
        size = len(text)
        hold = size
        if not final:
            live = [s + since for s in self._literal.live(text[since:])]
            hold = min((s for s in live if not (s and is_word(text[s]) and is_word(text[s - 1]))), default=size)
        for start, end, number in self._literal.find(text[since:]):
            start, end = start + since, end + since
            if start and is_word(text[start]) and is_word(text[start - 1]):
                continue
            for index in self._literal.owners(number):
                verdict: Aligned | Open | None = Aligned(start, end, _PLAIN)
                if is_word(text[end - 1]):
                    if end == size and not final:
                        verdict = Open(start)
                    elif end < size and is_word(text[end]):
                        continue
                for at, phrase in self._allow.get(index, ()):
                    begin = start - at
                    if begin >= 0 and text.startswith(phrase, begin):
                        verdict = None
                    elif (
                        begin >= 0 and verdict and not final
                        and len(text) < begin + len(phrase) and phrase.startswith(text[begin:])
                    ):  # fmt: skip
                        verdict = Open(start)
                if isinstance(verdict, Open):
                    hold = min(hold, start)
                elif verdict is not None:
                    hits[Hit(start, end, index)] = None
        return hold

    # The weaker views.

    def read(self, text: str, original: str, since: int, final: bool) -> tuple[list[Hit], int]:
        """What the weaker views find from `since` on, and up to where they have. `original` folds to `text`."""
        hold = len(text) if final else max(since, len(text) - REACH - RIGHT)
        hits: dict[Hit, None] = {}
        if self._weak and hold > since:
            base = max(0, since - CONTEXT)
            part = text[base:] if base else text
            found = [hit for hit in self._weaker(part) if not self._spared(part, hit)]
            decoded = views.decode(part, 0, len(part)) if views.has_marks(part, 0) else None
            if decoded is not None:
                for hit in self._weaker(decoded.text):
                    names = {n for n in decoded.techniques[hit.start : hit.end] if n}
                    span = decoded.starts[hit.start], decoded.ends[hit.end - 1]
                    found.append(Hit(*span, hit.number, hit.techniques | names))
            for hit in found:
                if since <= hit.start + base < hold and hit.end - hit.start <= REACH:
                    hits[hit._replace(start=hit.start + base, end=hit.end + base)] = None
        self._last = "", ""  # nobody's text stays
        hold = self._encoded(text, original, since, hold, final, hits)
        return [h for h in hits if h.start < hold], hold

    def _weaker(self, text: str) -> Iterator[Hit]:
        skeleton = self._dense(text)
        spelt: _Spelt | None = None
        sounds = shapes = sound = shape = ""
        if _MIXED.search(text):
            spelt = _Spelt(text)
            if not spelt.syllables:
                spelt = None
        if spelt is not None or not text.isascii():
            sounds, shapes = views.SOUND.each(spelt.text if spelt else text), views.SHAPE.each(text)
            sound, shape = sounds.replace("\1", ""), shapes.replace("\1", "")
        at_sound = len(skeleton) + 1
        at_shape = at_sound + len(sound) + 1
        ways: dict[int, list[int]] = {}
        parts: list[tuple[int, int, str]] = []
        for first, last, number in self._weak.find(f"{skeleton}\0{sound}\0{shape}" if sound else skeleton):
            for owner in self._weak.owners(number):
                kind, index = owner & 7, owner >> 3
                hit: Aligned | None = None
                if kind == _SOUND and at_sound <= first < at_shape:
                    shown = spelt.text if spelt else text
                    way = ways.get(_SOUND) or ways.setdefault(_SOUND, views.places(sounds))
                    picked = way[first - at_sound : last - at_sound]
                    spans = [(i, i + 1) for i in picked] if spelt is None else list(map(spelt.span, picked))
                    hit = weak(text, spans, self._terms[index], "".join([shown[i] for i in picked]))
                elif kind == _SHAPE and first >= at_shape:
                    way = ways.get(_SHAPE) or ways.setdefault(_SHAPE, views.places(shapes))
                    picked = way[first - at_shape : last - at_shape]
                    spans = [(i, i + 1) for i in picked]
                    hit = weak(text, spans, self._terms[index], "".join([text[i] for i in picked]))
                elif kind >= _PAIR and last < at_sound:
                    way = ways.get(-1) or ways.setdefault(-1, views.skeleton_places(text))
                    start, end = way[first], way[last - 1] + 1
                    if kind == _SPLIT:
                        if end - start == last - first:
                            parts.append((start, end, chr(index)))
                    elif end - start == len(self._terms[index]):
                        hit = _skeletal(kind, text, start, end, self._terms[index])
                if hit is not None:
                    yield Hit(hit.start, hit.end, index, hit.techniques)
        if parts:
            yield from self._composed(text, parts)
        if spelt is not None and self._syllables:
            yield from self._spelt(text, spelt)
        for gap in _BETWEEN.finditer(text) if self._pairs else ():
            start, end = gap.start() - 1, gap.end() + 1
            surface = text[start : start + 1] + text[end - 1]
            for between in self._pairs.get(surface):
                hit = weak(text, [(start, start + 1), (end - 1, end)], self._terms[between], surface)
                if hit is not None:
                    yield Hit(hit.start, hit.end, between, hit.techniques)

    def _spared(self, text: str, hit: Hit) -> bool:
        """A shipped phrase covers the hit."""
        base = max(0, hit.start - CONTEXT)
        part = text[base : hit.end + CONTEXT]
        return any(a + base <= hit.start and hit.end <= b + base for a, b, _ in self._phrases.find(part))

    def _composed(self, text: str, parts: list[tuple[int, int, str]]) -> Iterator[Hit]:
        """Terms that show once characters taken apart are put together again."""
        group: list[tuple[int, int, str]] = []
        for part in sorted(parts, key=lambda p: (p[0], -p[1])):
            if group and part[0] < group[-1][1]:
                continue
            if group and part[0] - group[-1][1] > CONTEXT:
                yield from self._compose(text, group)
                group = []
            group.append(part)
        yield from self._compose(text, group)

    def _compose(self, text: str, group: list[tuple[int, int, str]]) -> Iterator[Hit]:
        made: list[str] = []
        spans: list[tuple[int, int]] = []
        at = max(0, group[0][0] - CONTEXT)
        stop = min(len(text), group[-1][1] + CONTEXT)
        for start, end, ch in [*group, (stop, stop, "")]:
            made.append(text[at:start])
            spans.extend((i, i + 1) for i in range(at, start))
            made.append(ch)
            spans.append((start, end))
            at = end
        hits: dict[Hit, None] = {}
        self._look("".join(made), 0, True, hits)
        for h in hits:
            pieces = [(a, b) for a, b in spans[h.start : h.end] if b - a > 1]
            if pieces:
                hit = split_term(text, spans[h.start][0], spans[h.end - 1][1], pieces, self._terms[h.number])
                if hit is not None:
                    yield Hit(hit.start, hit.end, h.number, hit.techniques | h.techniques)

    def _spelt(self, text: str, spelt: _Spelt) -> Iterator[Hit]:
        """Terms of two Han characters of which one or both are written in Latin letters."""
        shown = spelt.text
        for i in spelt.syllables:
            before, after = _beside(shown, i, -1), _beside(shown, i, 1)
            if before is not None and not _is_syllable(shown[before]):
                yield from self._pair_spelt(text, spelt, before, i)
            if after is not None:
                yield from self._pair_spelt(text, spelt, i, after)

    def _pair_spelt(self, text: str, spelt: _Spelt, one: int, other: int) -> Iterator[Hit]:
        a, b = spelt.text[one], spelt.text[other]
        (start, stop), (begin, end) = spelt.span(one), spelt.span(other)
        for index in self._syllables.get(_sound(a) + _sound(b)):
            term = self._terms[index]
            if _is_syllable(a) and _is_syllable(b):
                if begin - stop > 1 or not _whole_words(text, start, end):
                    continue
            else:
                latin = (start, stop) if _is_syllable(a) else (begin, end)
                if begin > stop or text[slice(*latin)] in _ENGLISH or not _whole_token(text, *latin):
                    continue
                if (b if _is_syllable(a) else a) != term[_is_syllable(a)]:
                    continue
            yield Hit(start, end, index, frozenset({"pinyin"}))

    def _encoded(
        self, text: str, original: str, since: int, hold: int, final: bool, hits: dict[Hit, None]
    ) -> int:  # fmt: skip
        """Base64 and hexadecimal that decode to text with a term in it."""
        if not _CODED.search(original):
            return hold
        for name, shape, undo in (("base64", _ENCODED, _base64), ("hex", _HEX, _hex), ("tag", _TAGS, _tags)):
            at = folded = 0
            for found in shape.finditer(original):
                raw = undo(found[0]) if len(found[0]) <= _TOKEN else None
                if raw is None:
                    continue
                folded += len(fold(original[at : found.start()]))
                at, start = found.start(), folded
                if start < since or (start >= hold and not final):
                    continue
                if found.end() == len(original) and not final:
                    hold = min(hold, start)
                    continue
                inner = fold(raw)
                within, _ = self.find(inner, 0, True)
                end = start + len(fold(found[0].rstrip(" ,:")))
                for h in within:
                    hits[Hit(start, end, h.number, h.techniques | {name})] = None
        return hold


def _starts(text: str, begin: int, stop: int) -> list[int]:
    """Places in text[begin:stop] where a match may begin: the first and the last characters of a run (and of its repeats
    beyond noise)."""
    if stop - begin <= 1:
        return [begin]
    return [i for i in range(begin, stop) if not views.is_noise(text[i])][-REPEATS - 1 :]


def _spans(gap: str) -> bool:
    """No match reaches over `gap`: noise, and repeats of the character before it."""
    noise = repeats = 0
    for ch in gap:
        if views.is_noise(ch):
            noise += 1
        else:
            noise, repeats = 0, repeats + 1
        if noise > GAP or repeats > REPEATS:
            return True
    return False


class _Texts(Sequence[str]):
    """Many short strings in the memory of one, U+0000 between (no folded text holds it)."""

    def __init__(self, joined: str) -> None:
        self._joined = joined
        breaks = np.flatnonzero(np.frombuffer(joined.encode("utf-32-le"), np.uint32) == 0)
        self._ends = np.append(breaks, len(joined)).astype(np.uint32) if joined else breaks.astype(np.uint32)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return self._joined[int(self._ends[i - 1]) + 1 if i else 0 : int(self._ends[i])]


class _Index:
    """Numbers by a key of two characters."""

    def __init__(self, owned: Iterable[tuple[str, int]]) -> None:
        pairs = sorted({(ord(key[0]) << 32 | ord(key[1]), number) for key, number in owned})
        self._keys = np.array([k for k, _ in pairs], np.uint64)
        self._numbers = np.array([n for _, n in pairs], np.int64)

    def __bool__(self) -> bool:
        return len(self._keys) > 0

    def get(self, key: str) -> list[int]:
        if len(key) != 2 or not len(self._keys):
            return []
        wanted = np.uint64(ord(key[0]) << 32 | ord(key[1]))
        first = int(self._keys.searchsorted(wanted))
        if first == len(self._keys) or self._keys[first] != wanted:
            return []
        found: list[int] = self._numbers[first : self._keys.searchsorted(wanted, "right")].tolist()
        return found

    def arrays(self) -> dict[str, Array]:
        return {"keys": self._keys, "numbers": self._numbers}

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> _Index:
        made = cls(())
        made._keys, made._numbers = arrays["keys"], arrays["numbers"]
        return made


class Lookup:
    """Patterns with the numbers (0 or more, 63 bits) of those that own them, and the automata over them."""

    def __init__(self, owned: Iterable[tuple[str, int]], live: bool = True) -> None:
        owners: dict[str, int] = {}
        shared: dict[str, list[int]] = {}
        for pattern, owner in owned:
            known = owners.setdefault(pattern, owner)
            if known != owner:
                shared.setdefault(pattern, [known]).append(owner)
        # A pattern of several owners has -1 - the place of its row in _shared.
        self._shared = list(shared.values())
        for row, pattern in enumerate(shared):
            owners[pattern] = -1 - row
        self._owners = np.fromiter(owners.values(), np.int64, len(owners))
        self._automaton = Automaton(list(owners)) if owners else None
        self._longest = max(map(len, owners), default=0)
        prefixes = {p[:n] for p in owners for n in range(1, len(p))} if live else ()
        self._prefixes = Automaton([p + SENTINEL for p in prefixes]) if prefixes else None

    def arrays(self) -> dict[str, Array]:
        """What was built, for `of`."""
        return {
            "owners": self._owners,
            "shared": _bytes(json.dumps(self._shared)),
            "longest": np.array([self._longest]),
            "automaton": np.frombuffer(self._automaton.serialize() if self._automaton else b"", np.uint8),
            "prefixes": np.frombuffer(self._prefixes.serialize() if self._prefixes else b"", np.uint8),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Lookup:
        made = cls(())
        made._owners, made._shared = arrays["owners"], json.loads(arrays["shared"].tobytes())
        made._longest = int(arrays["longest"][0])
        made._automaton = _restored(arrays["automaton"])
        made._prefixes = _restored(arrays["prefixes"])
        return made

    def __bool__(self) -> bool:
        return self._automaton is not None

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, pattern) of every occurrence."""
        return self._automaton.find_overlapping(text) if self._automaton is not None else []

    def owners(self, number: int) -> Sequence[int]:
        owner = int(self._owners[number])
        return (owner,) if owner >= 0 else self._shared[-1 - owner]

    def live(self, text: str) -> list[int]:
        """Starts of the suffixes of `text` that may still become a pattern."""
        if self._prefixes is None:
            return []
        base = max(0, len(text) - self._longest + 1)
        tail = text[base:] if base else text
        return [start + base for start, _, _ in self._prefixes.find_overlapping(tail + SENTINEL)]


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _part(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The arrays of one part, by their names within it."""
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def _restored(array: Array) -> Automaton | None:
    return Automaton.deserialize(array.tobytes()) if array.size else None


def _odd(term: str) -> bool:
    """Too little of it is letters for a skeleton."""
    return len(views.skeleton(term)) < 2


def _skeletons(terms: Sequence[str]) -> Iterator[tuple[str, int]]:
    for i, term in enumerate(terms):
        dense = views.skeleton(term)
        if len(dense) < 2:
            continue
        plain = i << 8
        yield dense, plain
        if not any("a" <= c <= "z" for c in term):
            continue
        for letters in ("i", "l", "il"):
            if any(c in term for c in letters):
                made = _ones(term, letters)
                if len(made) >= 3:
                    yield made, plain
        if term.isascii() and term.isalpha() and 4 <= len(term) < 250:
            for at in range(1, len(term) - 1):
                if term[at] in "aeiou":
                    made = views.skeleton(term[:at] + term[at + 1 :])
                    if len(made) >= 3:
                        yield made, plain + at + 1


def _ones(term: str, letters: str) -> str:
    """The skeleton of `term` with `letters` written as 1."""
    return views.skeleton("".join("1" if c in letters else c for c in term))


def _weaker(terms: Sequence[str]) -> Iterator[tuple[str, int]]:
    han = [all(map(is_han, t)) for t in terms]
    short = [i for i, t in enumerate(terms) if han[i] and len(t) == 2]
    composed: set[str] = set()
    for i, term in enumerate(terms):
        if han[i] and len(term) >= 3:
            for sound in _readings(term):
                yield sound, i << 3 | _SOUND
            yield views.SHAPE.apply(term), i << 3 | _SHAPE
        dense = views.skeleton(term)
        if len(dense) >= 2 and (han[i] or len(term) >= 4):
            back = dense[::-1]
            if back != dense:
                yield back, i << 3 | _REVERSED
        if len(dense) >= 4 and term.isascii():
            yield views.skeleton(codecs.encode(term, "rot13")), i << 3 | _ROT13
        if len(term) >= 2:
            composed.update(c for c in term if is_han(c))
    for ch in composed:
        for made in views.splits(ch):
            dense = views.skeleton(fold(made))
            if len(dense) == len(made) and not words.is_word(made):
                yield dense, ord(ch) << 3 | _SPLIT
    if len(short) <= PAIRS:
        for i in short:
            a, b = tuple(terms[i])
            yield views.SHAPE.apply(terms[i]), i << 3 | _SHAPE
            for other in dict.fromkeys(views.same_sound(b) + views.same_look(b)):
                if not words.is_word(a + other):
                    yield views.skeleton(a + other), i << 3 | _PAIR
            for other in dict.fromkeys(views.same_sound(a) + views.same_look(a)):
                if not words.is_word(other + b):
                    yield views.skeleton(other + b), i << 3 | _PAIR
            for one in views.near(a):
                for other in views.near(b):
                    yield views.skeleton(one + other), i << 3 | _PAIR


def _readings(term: str) -> list[str]:
    """`term` as syllables: the usual readings, and each with one character read the other way."""
    usual = views.SOUND.apply(term)
    if len(usual) != len(term):
        return []
    made = [usual]
    for at, ch in enumerate(term):
        for other in views.sounds(ch)[1:2]:
            made.append(usual[:at] + (views.syllable(other) or "") + usual[at + 1 :])
    return made[:3]


def _skeletal(kind: int, text: str, start: int, end: int, term: str) -> Aligned | None:
    if kind == _PAIR:
        return pair(text, start, end, term)
    if kind == _REVERSED:
        return reversed_term(text, start, end, term) if text[start:end] == term[::-1] else None
    if (start and is_word(text[start - 1])) or (end < len(text) and is_word(text[end])):
        return None
    return Aligned(start, end, frozenset({"rot13"})) if text[start:end] == codecs.encode(term, "rot13") else None


_ENGLISH = frozenset(["a", "ai", "an", "can", "e", "he", "me", "men", "o", "she", "you"])
"""Syllables that stand in Chinese text as words of their own."""
_LONE = frozenset(["m", "n", "ng", "hm", "hng", "r"])
"""Readings of interjections: no syllable of a word."""
_PARSED: dict[str, tuple[str, ...] | None] = {}


def _parse(token: str) -> tuple[str, ...] | None:
    """A Latin token as pinyin syllables, the longest first; None if it is none."""
    made = _parse_from(token.replace("’", "'").rstrip("'"), 0) if len(token) <= 24 else None
    if len(_PARSED) < 1 << 14:
        _PARSED[token] = made
    return made


def _parse_from(token: str, at: int) -> tuple[str, ...] | None:
    if at == len(token):
        return ()
    if token[at] == "'" and at:
        return _parse_from(token, at + 1)
    for size in range(min(6, len(token) - at), 0, -1):
        if token[at : at + size] not in _LONE and views.syllable(token[at : at + size]) is not None:
            rest = _parse_from(token, at + size)
            if rest is not None:
                return token[at : at + size], *rest
    return None


class _Spelt:
    """A text with its Latin tokens that are pinyin as private characters, one for each syllable."""

    def __init__(self, text: str) -> None:
        made: list[str] = []
        self.syllables: list[int] = []  # where they are in self.text
        self._spans: list[tuple[int, int]] = []
        at = size = 0
        for found in _LATIN.finditer(text):
            token = found[0]
            names = _PARSED[token] if token in _PARSED else _parse(token)
            if not names:
                continue
            begin = found.start()
            made.append(text[at:begin])
            size += begin - at
            for name in names:
                begin = text.index(name, begin)
                made.append(views.syllable(name) or "")
                self.syllables.append(size)
                self._spans.append((begin, begin + len(name)))
                size += 1
                begin += len(name)
            at = found.end()
        made.append(text[at:])
        self.text = "".join(made) if at else text

    def span(self, i: int) -> tuple[int, int]:
        """Where character i of self.text stands in the text."""
        k = bisect_right(self.syllables, i) - 1
        if k < 0:
            return i, i + 1
        start, end = self._spans[k]
        past = i - self.syllables[k]
        return (start, end) if not past else (end + past - 1, end + past)


def _beside(shown: str, i: int, step: int) -> int | None:
    """The next character that sounds, at most one of noise away."""
    for at in (i + step, i + 2 * step):
        if not 0 <= at < len(shown):
            return None
        if _sound(shown[at]):
            return at
        if not views.is_noise(shown[at]):
            return None
    return None


def _is_syllable(ch: str) -> bool:
    return "\ue000" <= ch <= "\ue7ff"


def _sound(ch: str) -> str:
    made = views.SOUND[ord(ch)]
    return chr(made) if isinstance(made, int) else ""


def _whole_token(text: str, start: int, end: int) -> bool:
    return not (start and is_word(text[start - 1])) and not (end < len(text) and is_word(text[end]))


_BESIDE = re.compile("[a-z]+")


def _whole_words(text: str, start: int, end: int) -> bool:
    """Two syllables are whole tokens, and the three tokens on either side (up to Han text) are no English."""
    if not _whole_token(text, start, end):
        return False
    before, after = text[max(0, start - CONTEXT) : start], text[end : end + CONTEXT]
    before = before[max((i + 1 for i, c in enumerate(before) if is_han(c)), default=0) :]
    after = after[: next((i for i, c in enumerate(after) if is_han(c)), len(after))]
    beside = [*_BESIDE.findall(before)[-3:], *_BESIDE.findall(after)[:3]]
    return all(_parse(token) is not None for token in beside)


def _base64(token: str) -> str | None:
    if token.islower() or token.isdigit() or (token.isalpha() and token.istitle()):
        return None
    try:
        raw = base64.b64decode(
            token.rstrip("=") + "=" * (-len(token.rstrip("=")) % 4), altchars=b"-_" if {"-", "_"} & set(token) else None
        )
    except (binascii.Error, ValueError):
        return None
    return _readable(raw)


def _hex(token: str) -> str | None:
    digits = re.sub("0[xX]|[ ,:]", "", token)
    return _readable(bytes.fromhex(digits)) if not digits.isdigit() or len(digits) >= 8 else None


def _tags(token: str) -> str:
    """Tag characters are ASCII that nobody sees (but a model reads)."""
    return "".join(chr(ord(c) - 0xE0000) for c in token)


def _readable(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) >= 2 and text.replace("\n", " ").isprintable() else None


def _places(term: str, phrase: str) -> Iterable[int]:
    at = phrase.find(term)
    while at >= 0:
        yield at
        at = phrase.find(term, at + 1)
