"""What the matching bench works on: prose, and terms that do not occur in it. Drawn with a fixed seed.

Law: the text is clean, so what is measured is the cost of looking, which is what nearly every text costs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import accumulate
from pathlib import Path

from daachorse import CharwiseDoubleArrayAhoCorasick as Automaton

from app.text import fold, is_han

SEED = 20_260_101
CATEGORY = "other_prohibited"
_HAN = 0.82
_LENGTHS = {2: 12, 3: 20, 4: 38, 5: 12, 6: 10, 8: 8}
"""Characters of a Chinese term: how many of a hundred."""
_WORDS = (
    "able acid air arm back bag ball band bank base bell belt bird block blue board boat body bolt bone book box bread "
    "brick bus cake camp cap car card cart case cat chain city clay clock cloud coal coat code corn cow cup dark data "
    "day deck deep desk dish dog door dress drum dry dust ear east edge egg eye farm field fig file film fire fish flag "
    "flat floor fog foot fork fox fuel game gate glass glue goat gold grass green grid hall hand hat hay head heat hill "
    "hook horn house ice ink iron jar key kit lace lake lamp land leaf lid light line lion lock map milk mill moon moss "
    "mud nail neck nest net night note oak oil oven owl pan path pen pig pine pipe pit plum pond port post pot rail rain "
    "red reed rice ring road rock roof room root rope rose rug sail salt sand sea seed ship shoe silk sky snow soap soil "
    "star steel stone sun tail tea tide tin top tree van wall war wax web well west wheat wind wine wolf wood wool yard"
).split()


def prose(characters: int) -> str:
    """Words of jieba's dictionary by their frequency, as sentences: for a clone that has no other text at hand."""
    rng = random.Random(SEED)
    rows = [line.split() for line in (files("jieba") / "dict.txt").read_text("utf-8").splitlines()]
    # No names of people, places or organisations.
    kept = {
        w: int(n) for w, n, tag in rows if tag[:2] not in ("nr", "ns", "nt") and len(w) <= 4 and all(map(is_han, w))
    }
    words, weights = list(kept), list(accumulate(kept.values()))
    made: list[str] = []
    size = 0
    while size < characters:
        sentence = rng.choices(words, cum_weights=weights, k=rng.randint(5, 20))
        if rng.random() < 0.2:
            sentence[rng.randrange(len(sentence))] = rng.choice(_WORDS)
        if rng.random() < 0.6:
            sentence[len(sentence) // 2] += "，"
        made.append("".join(sentence) + rng.choice(["。", "。", "！", "。\n"]))
        size += len(made[-1])
    return "".join(made)


def terms(text: str, count: int) -> list[str]:
    """`count` folded terms that `text` does not hold, any first part of them of the same mixture."""
    rng = random.Random(SEED)
    folded = fold(text)
    drawn = {
        size: _drawn(folded, _chinese(rng, folded, size), round(count * _HAN * n / 100) + 1)
        for size, n in _LENGTHS.items()
    }
    drawn[0] = _drawn(folded, _english(rng), round(count * (1 - _HAN)) + 1)
    made = [term for same in drawn.values() for term in same]
    rng.shuffle(made)
    return made[:count]


def _chinese(rng: random.Random, text: str, size: int) -> Iterator[str]:
    counts = {ch: n for ch, n in Counter(text).items() if is_han(ch)}
    chars, weights = list(counts), [n**0.75 for n in counts.values()]
    while True:
        yield from map("".join, zip(*(rng.choices(chars, weights, k=10_000) for _ in range(size)), strict=True))


def _english(rng: random.Random) -> Iterator[str]:
    while True:
        term = "".join(rng.choices(_WORDS, k=rng.choice((2, 3, 3))))
        if 6 <= len(term) <= 12:
            yield term


def _drawn(text: str, source: Iterator[str], count: int) -> list[str]:
    made: dict[str, None] = {}
    while len(made) < count:
        fresh: dict[str, None] = {}
        while len(fresh) < count - len(made):
            term = next(source)
            if term not in made:
                fresh[term] = None
        names = list(fresh)
        automaton = Automaton(names)
        seen = {number for line in text.splitlines() for _, _, number in automaton.find_overlapping(line)}
        made |= dict.fromkeys(name for i, name in enumerate(names) if i not in seen)
    return list(made)


def slices(text: str, size: int, count: int) -> list[str]:
    """Random pieces of `text`, `size` characters each."""
    rng = random.Random(SEED + size)
    starts = [rng.randrange(len(text) - size) for _ in range(count)]
    return [text[at : at + size] for at in starts]


def deltas(text: str) -> list[str]:
    """`text` as a model would send it: 1 to 6 characters at a time."""
    rng = random.Random(SEED)
    made, at = [], 0
    while at < len(text):
        size = rng.randint(1, 6)
        made.append(text[at : at + size])
        at += size
    return made


def folder(path: Path, listed: Sequence[str], note: str = "synthetic") -> Path:
    """A lexicon folder of these terms. Suspect: a chance hit flags, and the text is screened to its end."""
    place = path / CATEGORY
    place.mkdir(parents=True)
    lines = ["term\ttier\towner\treason\tadded", *(f"{t}\tsuspect\tbench\t{note}\t2026-01-01" for t in listed)]
    (place / "terms.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return path
