"""A compiled list of terms: where they occur in folded text, and what of its tail may still become one.

Law: a pure function of the text. `find` returns what acts alone, once nothing that may follow can change it, and a `hold`
before which every hit is known. `read` returns the weaker views' findings, which only ever flag, and holds nothing back.
Views nominate, align.py confirms (docs/adr/0011).
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from app import forms, views
from app.align import AROUND, Aligned, Open, align, first_run, pair, reversed_term, split_term, weak
from app.automaton import Array, Hits, Live, Places
from app.codes import coded
from app.ends import Ends, starts_in
from app.lookup import Index, Lookup, Texts, as_bytes, part_of
from app.pinyin import ENGLISH, Spelt, beside, is_syllable, sound, whole_token, whole_words
from app.redrawn import Redrawn, anchors
from app.text import fold, is_han, is_word

CONTEXT = 32
"""Folded characters of settled text that may be looked back at: allow phrases start no further left."""
KEPT = 128
"""Folded characters of settled text that are kept: an escape takes many for one."""
REACH = 160
"""Folded characters that a match of a weaker view spans at most."""
_PLAIN: frozenset[str] = frozenset()
_SPELT = frozenset({"pinyin"})
_LOOKUPS = {
    "strong": views.SKELETON, "breaks": views.SKELETON, "literal": None, "weak": views.SKELETON, "sounds": views.SOUND,
    "shapes": views.SHAPE, "phrases": None,
}  # fmt: skip
_INDEXES = ("pairs", "syllables", "anchors")
_END = 1 << 62
_MIXED = re.compile(r"[a-z]")
_BETWEEN = re.compile(
    "[a-z0-9@$€£¥](?<=[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U000323af〇々].)[a-z0-9@$€£¥]?(?=[\u4e00-\u9fff])"
)
"""One or two between two Han characters."""


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
        self._terms = Texts(terms)
        self._strong = Lookup(forms.strong(terms), views.SKELETON, live=True)
        self._breaks = Lookup(((made, 0) for made in forms.breaks(terms)), views.SKELETON)
        self._literal = Lookup(((t, i) for i, t in enumerate(terms) if forms.odd(t)), live=True)
        weak = list(forms.weaker(terms))
        self._weak = Lookup((w for w in weak if w[1] & 7 >= forms.PAIR), views.SKELETON)
        self._sounds = Lookup(((form, owner >> 3) for form, owner in weak if owner & 7 == forms.SOUND), views.SOUND)
        self._shapes = Lookup(((form, owner >> 3) for form, owner in weak if owner & 7 == forms.SHAPE), views.SHAPE)
        # No term but a Latin one begins further back in a run than the run it begins with itself.
        self._run = max((first_run(t) for t in terms), default=1)
        short = [(i, t) for i, t in enumerate(terms) if len(t) == 2 and all(map(is_han, t))]
        self._pairs = Index((t, i) for i, t in short)
        self._syllables = Index((sound, i) for i, t in short for sound in forms.readings(t))
        self._anchors = Index(anchors(terms))
        self._phrases = Lookup((p, 0) for p in phrases)
        self._ready()
        self._allow: dict[int, list[tuple[int, str]]] = {}
        for i, own in (allow or {}).items():
            for phrase in own:
                self._spare(i, phrase)
        for phrase in phrases:
            for index in self._held_by(phrase):
                self._spare(index, phrase)

    def works(self) -> bool:
        """True if some of the terms, spread over the list, are found as they are."""
        step = max(1, len(self._terms) // 20)
        tried = range(0, len(self._terms), step)
        found = sum(any(hit.number == i for hit in self.find(self._terms[i], 0, True)[0]) for i in tried)
        # The segmenter may stand against a bare term, but not against most.
        return found * 2 >= len(tried)

    def _held_by(self, phrase: str) -> set[int]:
        found = [n for n, _ in self._strong.find(phrase)]
        return {owner >> 8 for n in found for owner in self._strong.owners(n) if self._terms[owner >> 8] != phrase}

    def arrays(self) -> dict[str, Array]:
        """What was built, for `of`."""
        made = {"run": np.array([self._run]), "allow": as_bytes(json.dumps(sorted(self._allow.items())))}
        for name in ("terms", *_LOOKUPS, *_INDEXES):
            kept: Texts | Lookup | Index = getattr(self, f"_{name}")
            made |= {f"{name}.{key}": value for key, value in kept.arrays().items()}
        return made

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Terms:
        """The inverse of `arrays`. Trusts them: whoever stores them checks that they are whole."""
        made = cls.__new__(cls)
        made._terms = Texts.of(part_of(arrays, "terms"))
        made._allow = {i: [(at, p) for at, p in own] for i, own in json.loads(arrays["allow"].tobytes())}
        for name, table in _LOOKUPS.items():
            setattr(made, f"_{name}", Lookup.of(part_of(arrays, name), table))
        for name in _INDEXES:
            setattr(made, f"_{name}", Index.of(part_of(arrays, name)))
        made._run = int(arrays["run"][0])
        made._ready()
        return made

    def _ready(self) -> None:
        """What is no array, but made of them."""
        self._drawn = Redrawn(self._anchors, self._terms)
        self._ends = Ends(self._strong, self._breaks, self._run)
        self._said = self._syllables.seconds()  # most pairs of a text are nobody's

    def __len__(self) -> int:
        return len(self._terms)

    def _spare(self, index: int, phrase: str) -> None:
        places = [(at, phrase) for at in _places(self._terms[index], phrase)]
        if places:
            self._allow.setdefault(index, []).extend(places)

    def find(self, text: str, since: int, final: bool) -> tuple[list[Hit], int]:
        """Hits that start at or after `since`, and the hold. `text[:since]` is context; `final`: nothing follows."""
        found, hold = (self._strong.find(text, since), len(text)) if final else self._ends.look(text, since)
        base = since - KEPT if since > KEPT else 0
        marks = views.marks(text, base)
        odd, live = self._literal.watch(text, since)
        if not (found or marks or odd or live):
            return [], hold
        hits: dict[Hit, None] = {}
        hold = self._told(text, found, hold, final, hits)
        if marks is not None:
            hold = min(hold, self._shown(text, base, since, final, marks, hits))
        hold = min(hold, self._exact(text, odd, live, final, hits))
        return list(hits), hold

    def _shown(self, text: str, base: int, since: int, final: bool, marks: views.Marks, hits: dict[Hit, None]) -> int:
        """What shows with escapes decoded, tags taken out, symbols as letters."""
        size = len(text)
        stop = size if final else views.open_escape(text, since, size)
        shown = [stop] if final else views.open_tags(text, since, stop)
        # What an open escape decodes to may complete another one, left of it.
        hold = stop if stop == size else views.open_escape(text, since, stop)
        ways = []  # (leet, tags, until)
        if marks.escapes or marks.tags:
            ways += [(False, True, until) for until in shown]
        if marks.leet:
            ways += [(True, True, until) for until in shown]
        if marks.escapes:
            ways.append((False, False, stop))  # a tag, decoded or not, may turn out to be none or hide an escape
        for leet, tags, until in ways:
            # What is decoded begins before `since`: a word's left edge is a matter of decoded text too.
            always = until < size and not leet
            for decoded in views.decode(text, base, until, leet, always, None if final else since, tags):
                # Past what may yet be a tag nothing is sure, but that it must be waited for.
                sure = decoded.sure and (until == shown[0] or not tags)
                found = hits if sure else {}
                hold = min(hold, decoded.hold, self._decoded(decoded, since, final, found))
                if not sure:
                    hold = min([hold, *(hit.start for hit in found)])
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
        found, hold = (self._strong.find(text, since), len(text)) if final else self._ends.look(text, since)
        return self._told(text, found, hold, final, hits)

    def _told(self, text: str, found: Hits, hold: int, final: bool, hits: dict[Hit, None]) -> int:
        """What of `found` is a term; the hold moves back to what the end leaves open."""
        for number, places in found:
            for owner in self._strong.owners(number):
                index, dropped = owner >> 8, (owner & 255) - 1
                for start in starts_in(text, places[0], places[1]):
                    verdict = self._confirm(text, start, index, final, dropped)
                    if isinstance(verdict, Open):
                        hold = min(hold, start)
                    elif verdict is not None:
                        hits[Hit(verdict.start, verdict.end, index, verdict.techniques)] = None
        return hold

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

    def _exact(self, text: str, found: Hits, live: Live | None, final: bool, hits: dict[Hit, None]) -> int:
        """Terms that are (nearly) all symbols, as they are."""
        size = len(text)
        hold = size
        if live is not None and not final:
            begins = (live.places[at] for at in live.starts)
            hold = min((s for s in begins if not (s and is_word(text[s]) and is_word(text[s - 1]))), default=size)
        for number, places in found:
            start, end = places[0], places[-1] + 1
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
        hold = len(text) if final else max(since, len(text) - REACH - AROUND)
        hits: dict[Hit, None] = {}
        if (self._weak or self._sounds) and hold > since:
            base = max(0, since - KEPT)
            part = text[base:] if base else text
            found = [hit for hit in self._weaker(part) if not self._spared(part, hit)]
            for decoded in views.decode(part, 0, len(part)) if views.marks(part, 0) else ():
                for hit in self._weaker(decoded.text):
                    names = {n for n in decoded.techniques[hit.start : hit.end] if n}
                    span = decoded.starts[hit.start], decoded.ends[hit.end - 1]
                    found.append(Hit(*span, hit.number, hit.techniques | names))
            for hit in found:
                if since <= hit.start + base < hold and hit.end - hit.start <= REACH:
                    hits[hit._replace(start=hit.start + base, end=hit.end + base)] = None
        hold = self._coded(original, since, hold, final, hits)
        return [h for h in hits if h.start < hold or final], hold

    def _weaker(self, text: str) -> Iterator[Hit]:
        spelt: Spelt | None = None
        if _MIXED.search(text):
            spelt = Spelt(text)
            if not spelt.syllables:
                spelt = None
        if spelt is not None or not text.isascii():
            yield from self._alike(text, spelt)
        parts: list[tuple[int, int, str]] = []
        for number, places in self._weak.find(text):
            start, end = places[0], places[-1] + 1
            for owner in self._weak.owners(number):
                kind, index = owner & 7, owner >> 3
                if kind == forms.SPLIT:
                    if end - start == len(places):
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

    def _alike(self, text: str, spelt: Spelt | None) -> Iterator[Hit]:
        """Terms by sound, by shape, and with characters drawn as others."""
        shown = spelt.text if spelt is not None else text
        tried: set[tuple[int, Places]] = set()
        for number, places in self._sounds.find(shown):
            spans = [(i, i + 1) for i in places] if spelt is None else list(map(spelt.span, places))
            surface = "".join([shown[i] for i in places])
            for index in self._sounds.owners(number):
                tried.add((index, tuple([start for start, _ in spans])))
                hit = weak(text, spans, self._terms[index], surface)
                if hit is not None:
                    yield Hit(hit.start, hit.end, index, hit.techniques)
        # What one of them has asked is not asked again: a text of nothing but disguises would pay for it three times.
        others = [
            (index, places) for number, places in self._shapes.find(text) for index in self._shapes.owners(number)
        ]
        if self._drawn:
            others += self._drawn.find(text)
        for index, places in others:
            if (index, places) in tried:
                continue
            tried.add((index, places))
            surface = "".join([text[i] for i in places])
            hit = weak(text, [(i, i + 1) for i in places], self._terms[index], surface)
            if hit is not None:
                yield Hit(hit.start, hit.end, index, hit.techniques)

    def _spared(self, text: str, hit: Hit) -> bool:
        """A shipped phrase covers the hit."""
        base = max(0, hit.start - CONTEXT)
        part = text[base : hit.end + CONTEXT]
        return any(p[0] + base <= hit.start and hit.end <= p[-1] + 1 + base for _, p in self._phrases.find(part))

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
        begin = at = max(0, group[0][0] - CONTEXT)
        stop = min(len(text), group[-1][1] + CONTEXT)
        for start, end, ch in group:
            made += text[at:start], ch
            at = end
        made.append(text[at:stop])
        hits: dict[Hit, None] = {}
        self._look("".join(made), 0, True, hits)
        if not hits:
            return
        spans: list[tuple[int, int]] = []
        for start, end, _ in group:
            spans.extend((i, i + 1) for i in range(begin, start))
            spans.append((start, end))
            begin = end
        spans.extend((i, i + 1) for i in range(begin, stop))
        for h in hits:
            pieces = [(a, b) for a, b in spans[h.start : h.end] if b - a > 1]
            if pieces:
                hit = split_term(text, spans[h.start][0], spans[h.end - 1][1], pieces, self._terms[h.number])
                if hit is not None:
                    yield Hit(hit.start, hit.end, h.number, hit.techniques | h.techniques)

    def _spelt(self, text: str, spelt: Spelt) -> Iterator[Hit]:
        """Terms of two Han characters of which one or both are written in Latin letters."""
        shown = spelt.text
        for i, (start, stop) in zip(spelt.syllables, spelt.spans, strict=True):
            for step in (-1, 1):
                at = beside(shown, i, step)
                if at is None:
                    continue
                other = shown[at]
                both = is_syllable(other)
                if both and step < 0:
                    continue  # asked from there
                first, second = (sound(other), shown[i]) if step < 0 else (shown[i], sound(other))
                if second not in self._said.get(first, ""):
                    continue
                begin, end = spelt.span(at)
                if both:
                    meant = begin - stop <= 1 and whole_words(text, start, end)
                else:
                    touches = end >= start if step < 0 else begin <= stop
                    meant = touches and text[start:stop] not in ENGLISH and whole_token(text, start, stop)
                if meant:
                    span = (begin, stop) if step < 0 else (start, end)
                    for index in self._syllables.get(first + second):
                        if both or self._terms[index][step > 0] == other:
                            yield Hit(*span, index, _SPELT)

    def _coded(self, original: str, since: int, hold: int, final: bool, hits: dict[Hit, None]) -> int:
        """What stands in a code; the hold moves back to one that the end leaves open."""
        name, at, folded = "", 0, 0
        for code in coded(original):
            if code.name != name:
                name, at, folded = code.name, 0, 0
            folded += len(fold(original[at : code.start]))
            at, start = code.start, folded
            if start < since or (start >= hold and not final):
                continue
            if code.open and not final:
                hold = min(hold, start)
                continue
            end = start + len(fold(original[code.start : code.end]))
            for h in self.find(fold(code.text), 0, True)[0]:
                hits[Hit(start, end, h.number, h.techniques | {name})] = None
        return hold


def _skeletal(kind: int, text: str, start: int, end: int, term: str) -> Aligned | None:
    if kind == forms.PAIR:
        return pair(text, start, end, term)
    if kind == forms.REVERSED:
        return reversed_term(text, start, end, term) if text[start:end] == term[::-1] else None
    if (start and is_word(text[start - 1])) or (end < len(text) and is_word(text[end])):
        return None
    return Aligned(start, end, frozenset({"rot13"})) if text[start:end] == codecs.encode(term, "rot13") else None


def _places(term: str, phrase: str) -> Iterable[int]:
    at = phrase.find(term)
    while at >= 0:
        yield at
        at = phrase.find(term, at + 1)
