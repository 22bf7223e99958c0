"""Stance: by which cues a sentence shows that it reports, teaches, refutes, asks for help or tells a story.

Law: a pure function of the sentence around a place, at most REACH folded characters on either side. It finds cues; what
they lower, the lexicon's rows say. Live entries never ask.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.lookup import Lookup
from app.terms import CONTEXT
from app.text import fold, is_word

STANCES = ("law", "report", "teaching", "refutation", "help", "fiction", "history")
_REACH = CONTEXT
_ENDS = frozenset("。!?;\n…")


class Cues:
    """`rows`: (stance, cue as written)."""

    def __init__(self, rows: Iterable[tuple[str, str]] = ()) -> None:
        self.rows = sorted(rows)
        self._cues = Lookup(((fold(cue), 1 << STANCES.index(stance)) for stance, cue in self.rows))

    def around(self, text: str, start: int, end: int, final: bool) -> list[int] | None:
        """A mask of stances for each different cue in the sentence that holds folded text[start:end], beside it. None if
        the sentence is not over and what follows may hold one."""
        left = start
        while left and start - left < _REACH and text[left - 1] not in _ENDS and text[left - 2 : left] != ". ":
            left -= 1
        right = end
        while (
            right < len(text) and right - end < _REACH and text[right] not in _ENDS and text[right : right + 2] != ". "
        ):
            right += 1
        if right == len(text) and right - end < _REACH and not final:
            return None
        found: dict[int, int] = {}
        for side in (text[left:start], text[end:right]):
            for number, places in self._cues.find(side):
                first, last = places[0], places[-1] + 1
                whole = not (first and is_word(side[first - 1]) and is_word(side[first])) and not (
                    last < len(side) and is_word(side[last]) and is_word(side[last - 1])
                )
                if whole:
                    for mask in self._cues.owners(number):
                        found[number] = found.get(number, 0) | mask
        return list(found.values())
