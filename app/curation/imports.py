"""Imports: what a list from elsewhere would do to a category, and doing it.

Law: a plan writes nothing; `apply` writes all of it or nothing, and never over what somebody else wrote meanwhile.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from app.curation.diff import cell, changed
from app.curation.files import CELLS, day, shipped, sound, today
from app.curation.page import Page
from app.curation.source import source
from app.curation.wording import bare, reads_as_name, short
from app.detectors import lexicon as lexicons
from app.detectors.lexicon import term_of
from app.errors import LexiconError
from app.taxonomy import taxonomy
from app.text import fold

SHRINK = 0.2
"""Share of a category that an import may take away without being told to."""
_SUGGESTED = 5

What = Literal["added", "unchanged", "updated", "removed", "refused"]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one line. `notes`: why. `allow`: phrases that hold the term, for its allow column."""

    where: str
    term: str
    what: What
    tier: str = ""
    notes: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """An import before it is done. `against`: why it may not be done; '' if it may."""

    path: Path
    category: str
    changes: list[Change]
    text: bytes
    read: bytes | None
    """The file as it was read; None: there was none."""
    against: str = ""

    @property
    def counts(self) -> dict[str, int]:
        return {name: sum(c.what == name for c in self.changes) for name in get_args(What)}


def plan(
    folder: Path,
    file: Path,
    category: str,
    *,
    owner: str,
    reason: str,
    basis: str = "",
    tier: str = "",
    replace_all: bool = False,
    shrink: bool = False,
) -> Plan:
    """What importing `file` into a category of `folder` would do. Owner, reason and basis fill cells that the file leaves
    empty; `tier` is what a line without one asks for (suspect if it is ''). Raises LexiconError if a file cannot be read."""
    if category not in taxonomy():
        raise LexiconError(f"--category {category}: no such category; the ids are in docs/categories.md")
    for name, said in (("owner", owner), ("reason", reason), ("basis", basis)):
        if (not said.strip() and name != "basis") or _broken(said):
            raise LexiconError(f"--{name}: must be one line of text without a tab")
    target = folder / category / "terms.tsv"
    known = {line.folded: line for line in sound(folder)}
    lexicons.load(folder)  # a term that stands twice is told before more are added
    page = Page(target)
    fill = {"owner": owner, "reason": reason, "basis": basis, "added": today().isoformat()}
    changes: list[Change] = []
    seen: dict[str, str] = {}
    fresh: dict[str, dict[str, str]] = {}
    for where, cells in source(file):
        said = " ".join(cells.get("term", "").split())
        key = fold(said)
        old = known.get(key)
        mine = old if old is not None and old.term.category == category else None
        try:
            if key in seen:
                raise LexiconError(f"stands twice in the file: {seen[key]}")
            seen[key] = where
            if old is not None and mine is None:
                raise LexiconError(f"stands in {old.term.category} too ({old.where}); keep one")
            row, notes = _admitted(cells, mine.row if mine else {}, fill, tier, category)
        except LexiconError as e:
            changes.append(Change(where, said, "refused", notes=(str(e).removeprefix(": "),)))
            continue
        if mine is None:
            fresh[key] = row
            changes.append(Change(where, said, "added", row["tier"], notes))
        elif altered := changed(mine.row, row):
            page.put(mine.number, row)
            told = tuple(f"{name}: {was or '-'} → {now or '-'}" for name, was, now in altered)
            changes.append(Change(where, said, "updated", row["tier"], notes + told))
        else:
            changes.append(Change(where, said, "unchanged", cell(row, "tier"), notes))
    own = [line for line in known.values() if line.term.category == category]
    gone = [line for line in own if line.folded not in seen] if replace_all else []
    for line in gone:
        page.drop(line.number)
        changes.append(Change(line.where, line.term.term, "removed", line.term.tier))
    for key in sorted(fresh):
        page.add(fresh[key])
    allow = _holding(folder, fresh.keys())
    changes = [replace(c, allow=allow.get(fold(c.term), ())) if c.what == "added" else c for c in changes]
    against = ""
    left = len(own) - len(gone) + len(fresh)
    if own and left < len(own) * (1 - SHRINK) and not shrink:
        against = f"{category} would shrink from {len(own)} to {left} terms, by more than {SHRINK:.0%}"
    return Plan(target, category, changes, page.text(), page.raw, against)


def apply(plan: Plan) -> None:
    """Write it: whole or not at all. Raises LexiconError if it may not be done or the file changed since it was read."""
    if plan.against:
        raise LexiconError(f"{plan.path}: {plan.against}")
    try:
        plan.path.parent.mkdir(exist_ok=True)
        mode = plan.path.stat().st_mode & 0o777 if plan.path.exists() else 0o644
        handle, name = tempfile.mkstemp(prefix=".terms-", suffix=".tsv", dir=plan.path.parent)
        made = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(plan.text)
                out.flush()
                os.fsync(out.fileno())
            made.chmod(mode)
            lexicons.read(made, plan.category)
            if (plan.path.read_bytes() if plan.path.exists() else None) != plan.read:
                raise LexiconError(f"{plan.path}: somebody else changed it just now; run the import again")
            made.replace(plan.path)
        finally:
            made.unlink(missing_ok=True)
    except OSError as e:
        raise LexiconError(f"{plan.path}: cannot be written ({e.strerror})") from None


def _admitted(
    cells: Mapping[str, str], old: Mapping[str, str], fill: Mapping[str, str], tier: str, category: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The line as it will stand, and what had to be changed about it. Raises LexiconError with the reason to refuse it."""
    if broken := [name for name, said in cells.items() if _broken(said)]:
        raise LexiconError(f"column {broken[0]}: holds a tab or a line break")
    term = " ".join(cells.get("term", "").split())
    if term.startswith("#"):
        raise LexiconError("column term: begins with #, as comments do; leave the # out")
    row = {name: old.get(name, "") for name in CELLS} | {name: said for name, said in cells.items() if said.strip()}
    row["term"] = old.get("term") or term
    row |= {name: said for name, said in fill.items() if not row[name].strip()}
    notes = []
    if not cells.get("tier", "").strip():
        row["tier"] = tier or (cell(old, "tier") if old else "suspect")
    term_of(row, category, "")
    if row["added"]:
        day(row["added"], "")
    named = reads_as_name(row["term"])
    why = (
        "reads as a person, place or organisation" if named
        else "has less than 4 Han characters and 2 words" if short(row["term"])
        else "is a bare noun" if bare(row["term"])
        else ""
    )  # fmt: skip
    stays = bool(old) and cell(old, "tier") == "certain" and not named
    if cell(row, "tier") == "certain" and why and not stays:
        row["tier"] = "suspect"
        notes.append(f"suspect, not certain: it {why}")
    if named and not (row["reason"].strip() and row["basis"].strip()):
        raise LexiconError(f"{why}: needs a reason and a legal basis (--basis, or the column basis)")
    return row, tuple(notes)


def _broken(said: str) -> bool:
    return any(ch in said for ch in "\t\n\r")


def _holding(folder: Path, wanted: Set[str]) -> dict[str, tuple[str, ...]]:
    """Folded term -> the allow phrases of the folder and the shipped ones that hold it and more, the shortest first."""
    made: dict[str, list[str]] = defaultdict(list)
    sizes = sorted({len(term) for term in wanted})
    every = {*lexicons.phrases(folder), *lexicons.phrases(shipped())} if wanted else ()
    for phrase in sorted(every, key=lambda phrase: (len(phrase), phrase)):
        folded = fold(phrase)
        inside = {
            folded[at : at + size] for size in sizes if size < len(folded) for at in range(len(folded) - size + 1)
        }
        for term in inside & wanted:
            made[term].append(phrase)
    return {term: tuple(phrases[:_SUGGESTED]) for term, phrases in made.items()}
