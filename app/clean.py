"""The clean corpus: what is said everywhere and harms nobody, by which a passage or a term is looked at before it may act for all.

Law: no report, however many bring it, puts such a text up for others (docs/reports.md); no gram of it stands for a near copy. Made of the
greetings, disclaimers and provisions of app/data/clean, the harmless texts that the scorer was trained and the banks are made of, what the
policy's own surrogates say, and a folder of the operator's own texts (SLUICE_CLEAN). Read once, when it is first asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.errors import SettingsError
from app.passages import compact
from app.text import fold

RUN = 18
"""Letters and digits in a row that a passage must share with a clean text to be of it."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Clean:
    """`models`: the folder that holds the scorer's harmless texts; `own`: a folder of text files, a text a line; `more`: further texts."""

    def __init__(self, models: Path, own: Path | None = None, more: Iterable[str] = ()) -> None:
        self._models, self._own, self._more = models, own, tuple(more)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Clean:
        """A corpus of these texts alone."""
        made = cls(Path())
        made.lines = list(map(fold, texts))
        return made

    @cached_property
    def lines(self) -> list[str]:
        """Every text, folded. Raises SettingsError where the operator's folder cannot be read."""
        return list(dict.fromkeys(text for text in map(fold, self._texts()) if text.strip()))

    def _texts(self) -> Iterator[str]:
        data = files("app") / "data"
        for file in (data / "clean").iterdir():
            yield from _lines(file.read_text("utf-8"))
        for name in ("should_not_refuse", "counter_speech"):
            for line in (data / "banks" / f"{name}.jsonl").read_text("utf-8").splitlines():
                yield json.loads(line)["text"]
        scorer = self._models / "grams"
        if (everyday := scorer / "everyday.tsv").exists():
            yield from (line.partition("\t")[2] for line in everyday.read_text("utf-8").splitlines())
        yield from self._more
        if self._own is not None:
            try:
                for path in sorted(self._own.glob("*.txt")):
                    yield from _lines(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError) as e:
                raise SettingsError(
                    f"SLUICE_CLEAN: {self._own} cannot be read as UTF-8 text ({type(e).__name__})"
                ) from None

    @cached_property
    def _grams(self) -> NDArray[np.uint64]:
        """Hashes of every run of RUN letters and digits, sorted."""
        # A text ends with what stands in none, so that no run reaches over its end.
        return np.unique(hashes("\0".join(map(compact, self.lines))))

    @cached_property
    def _dense(self) -> str:
        return "\0".join(map(compact, self.lines))

    def knows(self, text: str) -> bool:
        """`text` shares a run with a clean text, or stands in one whole."""
        dense = compact(fold(text))
        if len(dense) < RUN:
            return bool(dense) and dense in self._dense
        return bool(self._known(dense).any())

    def __contains__(self, gram: object) -> bool:
        """So many letters and digits in a row (more than RUN) stand in a clean text."""
        return isinstance(gram, str) and bool(self._known(gram).all())

    def _known(self, dense: str) -> NDArray[np.bool_]:
        """Of each run of `dense`, whether it stands in a clean text."""
        runs, known = hashes(dense), self._grams
        if not len(known):
            return np.zeros(len(runs), bool)
        # They are sorted; np.isin would sort them again each time.
        found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, runs), len(known) - 1)] == runs
        return found

    def hits(self, term: str) -> list[str]:
        """The clean texts that hold `term`, folded."""
        wanted = fold(term.strip())
        return [line for line in self.lines if wanted in line] if wanted else []


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip() and not line.startswith("#"))


def hashes(dense: str) -> NDArray[np.uint64]:
    """Of each run of RUN characters, one after the other (a polynomial modulo 2**64: for looking up, not for hiding)."""
    codes = np.frombuffer(dense.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + np.uint64(1)
    count = len(codes) - RUN + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    made = np.zeros(count, np.uint64)
    for at in range(RUN):
        made = made * _BASE + codes[at : at + count]
    return made
