"""Diff: what two lexicon folders do not have in common. The order of lines and columns, and comments, are no difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.curation.files import CELLS, sound, text


@dataclass(slots=True)
class Difference:
    """What changed in one category: terms as written; of a changed one (cell, before, after)."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)


def diff(old: Path, new: Path) -> dict[str, Difference]:
    """Category (or the name of another file of a lexicon) -> what changed; empty if nothing did. Raises LexiconError."""
    made: dict[str, Difference] = {}
    before, after = ({(line.term.category, line.folded): line for line in sound(folder)} for folder in (old, new))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        cells = [] if was is None or now is None else changed(was.row, now.row)
        if was is not None and now is not None and not cells:
            continue
        part = made.setdefault(key[0], Difference())
        if was is None and now is not None:
            part.added.append(now.term.term)
        elif was is not None and now is None:
            part.removed.append(was.term.term)
        elif now is not None:
            part.changed[now.term.term] = cells
    names = {file.relative_to(folder) for folder in (old, new) for file in _beside(folder)}
    for name in sorted(names):
        was_there, is_there = (_entries(folder / name) for folder in (old, new))
        if was_there != is_there:
            made[str(name)] = Difference(
                [x for x in is_there if x not in was_there], [x for x in was_there if x not in is_there]
            )
    return made


def changed(was: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(column, before, after) of each cell that says something else."""
    cells = [(name, cell(was, name), cell(now, name)) for name in CELLS]
    return [(name, before, after) for name, before, after in cells if before != after]


def cell(row: Mapping[str, str], name: str) -> str:
    """What a cell says; an empty tier says certain."""
    return row.get(name, "").strip() or ("certain" if name == "tier" else "")


def _beside(folder: Path) -> list[Path]:
    """The files of a lexicon other than its terms."""
    return [*folder.glob("*.tsv"), *folder.glob("*/rules.tsv"), *folder.glob("*/category.toml")]


def _entries(file: Path) -> dict[str, None]:
    """Its lines without comments."""
    lines = text(file).splitlines() if file.exists() else []
    return {line: None for line in lines if line.strip() and not line.startswith("#")}
