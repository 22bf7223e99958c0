"""Forms: what a term looks like in each view, listed when a list is compiled.

Law: a form only nominates; align.py has the last word. One place to add a weaker form: a kind, a line in `weaker`, and how it
is confirmed in terms.py.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from itertools import combinations

from app import views, words
from app.text import fold, is_han

PAIRS = 2_000
"""Terms of two Han characters up to which each is also looked for with one of them replaced by its sound, and Han terms up to
which each is looked for redrawn: with more of them, every second pair of ordinary text would be a candidate."""
SOUND, SHAPE, PAIR, REVERSED, ROT13, SPLIT = range(6)


def odd(term: str) -> bool:
    """Too little of it is letters for a skeleton."""
    return len(views.skeleton(term)) < 2


def strong(terms: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(skeleton, number of the term << 8 | place of a dropped letter + 1) of what acts alone."""
    for i, term in enumerate(terms):
        dense = views.skeleton(term)
        if len(dense) < 2:
            continue
        plain = i << 8
        yield dense, plain
        if not any("a" <= c <= "z" for c in term):
            continue
        for made in _ones(term):
            if len(made) >= 3:
                yield made, plain
        if term.isascii() and term.isalpha() and 4 <= len(term) < 250:
            for at in range(1, len(term) - 1):
                if term[at] in "aeiou":
                    made = views.skeleton(term[:at] + term[at + 1 :])
                    if len(made) >= 3:
                        yield made, plain + at + 1


def breaks(terms: Sequence[str]) -> Iterator[str]:
    """Skeletons of what stands before a space or a mark of a term's own, and of every Latin beginning of a term with Han in it:
    where a space breaks them off, they may go on."""
    for term in terms:
        mixed = any(map(is_han, term))
        for at, char in enumerate(term):
            if at and (mixed or views.is_noise(char)):
                yield views.skeleton(term[:at])
            if mixed and not views.skeleton(char).isascii():
                break


def _ones(term: str) -> Iterator[str]:
    """The skeletons of `term` with letters that look like 1 written so: any of up to three, of more all of a kind."""
    places = [at for at, c in enumerate(term) if c in "il"]
    kinds = ([at for at in places if term[at] in kind] for kind in ("i", "l", "il"))
    for some in (s for n in (1, 2, 3) for s in combinations(places, n)) if len(places) <= 3 else kinds:
        if some:
            yield views.skeleton("".join("1" if at in some else c for at, c in enumerate(term)))


def weaker(terms: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(form, number of the term or character << 3 | kind) of what only flags."""
    han = [all(map(is_han, t)) for t in terms]
    short = [i for i, t in enumerate(terms) if han[i] and len(t) == 2]
    composed: set[str] = set()
    for i, term in enumerate(terms):
        if han[i] and len(term) >= 3:
            for sound in readings(term):
                yield sound, i << 3 | SOUND
            shape = views.SHAPE.apply(term)
            if len(shape) == len(term):  # a lone stroke has none: it is noise
                yield shape, i << 3 | SHAPE
        dense = views.skeleton(term)
        if len(dense) >= 2 and (han[i] or len(term) >= 4) and (len(term) > 2 or len(short) <= PAIRS):
            back = dense[::-1]
            if back != dense:
                yield back, i << 3 | REVERSED
        if len(dense) >= 4 and term.isascii():
            yield views.skeleton(codecs.encode(term, "rot13")), i << 3 | ROT13
        if len(term) >= 2:
            composed.update(c for c in term if is_han(c))
    for ch in sorted(composed):
        for made in views.splits(ch):
            dense = views.skeleton(fold(made))
            if len(dense) == len(made) and not words.is_word(made):
                yield dense, ord(ch) << 3 | SPLIT
    if len(short) <= PAIRS:
        for i in short:
            a, b = tuple(terms[i])
            for other in views.same_sound(b):
                if not words.is_word(a + other):
                    yield views.skeleton(a + other), i << 3 | PAIR
            for other in views.same_sound(a):
                if not words.is_word(other + b):
                    yield views.skeleton(other + b), i << 3 | PAIR


def readings(term: str) -> list[str]:
    """`term` as syllables: the usual readings, and each with one character read the other way."""
    usual = views.SOUND.apply(term)
    if len(usual) != len(term):
        return []
    made = [usual]
    for at, ch in enumerate(term):
        for other in views.sounds(ch)[1:2]:
            made.append(usual[:at] + (views.syllable(other) or "") + usual[at + 1 :])
    return made[:3]
