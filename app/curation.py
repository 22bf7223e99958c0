"""Curation: what an operator asks of lexicon files. Faults, differences, imports, measures.

Law: returns data and prints nothing; changes nothing except by `apply`. A count is told beside what was measured and never
judged: nothing here says that there are too few terms. How a term is found is the engine's to say, so whatever is asked
about a sentence is asked of the engine (Lexicon.scan and .read), never of the text. docs/lexicons.md.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from app import clock, settings, strictjson, words
from app.detectors import lexicon as lexicons
from app.detectors import rules
from app.detectors.lexicon import COLUMNS, OPTIONAL, Lexicon, Term, term_of
from app.errors import LexiconError, RequestError
from app.moderation import Moderator, conclude
from app.policy import Policies, taxonomy
from app.text import fold, is_han
from app.types import Action, Candidate, Scope, Tier, Verdict

BROAD: dict[Tier, float] = {"certain": 1, "suspect": 20}
"""Hits per 100,000 characters of clean text at most; from two hits on."""
SHRINK = 0.2
"""Share of a category that an import may take away without being told to."""
SOON = timedelta(days=30)
_SUGGESTED = 5
_ALL = COLUMNS + OPTIONAL
_SCOPE = Scope("default", "answer")
_NAMES = ("nr", "ns", "nt")
_NOBODY = frozenset(
    "银行卡 明星 雷达 安乐死 象牙 老东西 老太婆 外国 山区 城市 老虎 老虎机 小姐 阿姨 高清 康复 包邮 钟点房 胡说 海洛因 王八蛋".split()
)
"""Ordinary words that the dictionary tags as names."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault of one line. `kind`: a key of KINDS. Line 0: the file as a whole."""

    path: str
    line: int
    kind: str
    said: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


KINDS = {
    "unreadable": "读不了",
    "duplicate": "重复",
    "shadowed": "被覆盖",
    "expired": "已过期",
    "short": "太短",
    "broad": "太宽",
    "hit": "应中未中",
    "clean": "误中",
    "allow": "无效放行语",
    "missing": "缺字段",
    "name": "像人名、地名或机构名",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A term, the cells it was written in, and where."""

    path: str
    number: int
    row: Mapping[str, str]
    term: Term

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    @property
    def folded(self) -> str:
        return fold(self.term.term)


def shipped() -> Path:
    """The folder that comes with Sluice, whatever SLUICE_LEXICONS says."""
    return settings.read({}).lexicons


# ---- what a term reads like


def reads_as_name(term: str) -> bool:
    """Most of it is a name of a person, place or organisation to the segmenter. It knows Chinese names only."""
    tagged = words.tags(fold(term))
    named = sum(len(word) for word, tag in tagged if tag.startswith(_NAMES) and word not in _NOBODY)
    return 2 * named > sum(not ch.isspace() for ch in fold(term))


def short(term: str) -> bool:
    """Too short to incite, instruct, sell or disclose: fewer than 4 Han characters and fewer than 2 words."""
    folded = fold(term)
    spoken = "".join(" " if is_han(ch) else ch for ch in folded)
    return sum(map(is_han, folded)) < 4 and len(re.findall(r"[^\W_]+(?:['’][^\W_]+)*", spoken)) < 2


def bare(term: str) -> bool:
    """Nothing but nouns and what describes them: no verb, no offer. It knows Chinese only."""
    tagged = [(word, tag) for word, tag in words.tags(fold(term)) if any(map(is_han, word))]
    return bool(tagged) and all(tag.startswith(("n", "a", "b", "m", "q", "uj")) for _, tag in tagged)


# ---- reading all of a folder


def _problem(path: Path, e: LexiconError, line: int = 0) -> Problem:
    told = str(e).removeprefix(str(path))
    place = re.match(r"(?::(\d+))?: ", told)
    return (
        Problem(str(path), int(place[1] or line), "unreadable", told[place.end() :])
        if place
        else Problem(str(path), line, "unreadable", told)
    )


def _table(path: Path) -> Iterator[tuple[int, dict[str, str] | LexiconError]]:
    """The lines of a terms.tsv as lexicon.rows reads them, except that one it refuses stands as the error in its place."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        header = lines[0].decode().rstrip("\r").split("\t")
    except (OSError, UnicodeDecodeError):
        header = []
    if "term" not in header or len(set(header)) < len(header) or not set(header) <= set(_ALL):
        try:
            for _ in lexicons.rows(path, _ALL, "term"):
                pass
        except LexiconError as e:
            yield 1, e
        return
    for number, raw in enumerate(lines[1:], 2):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            yield number, LexiconError(f"{path}:{number}: not UTF-8")
            continue
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) > len(header):
            message = f"{path}:{number}: {len(cells)} cells, but the first line names {len(header)} columns"
            yield number, LexiconError(message)
            continue
        yield number, dict(zip(header, cells, strict=False))


def _each(file: Path, folder: Path, read: Callable[[Path], list[_T]]) -> tuple[list[_T], list[Problem]]:
    """What `read` makes of a copy of `folder` with this file alone, and every fault: a line at fault is blanked and read on."""
    problems: list[Problem] = []
    if not file.exists():
        return [], problems
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as e:
        return [], [Problem(str(file), 0, "unreadable", f"cannot be read ({e.strerror})")]
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        while True:
            copy.write_bytes(b"\n".join(lines))
            try:
                return read(Path(made)), problems
            except LexiconError as e:
                found = _problem(file, LexiconError(str(e).replace(made, str(folder))))
                problems.append(found)
                if found.line < 2 or not lines[found.line - 1].strip():
                    return [], problems
                lines[found.line - 1] = b""


def _sheet(folder: Path) -> tuple[list[Line], list[Problem]]:
    """Every line of every terms.tsv that can be read, and what cannot. Raises LexiconError if there is no folder."""
    if not folder.is_dir():
        raise LexiconError(f"{folder}: no such folder; set SLUICE_LEXICONS to one with <category>/terms.tsv in it")
    lines: list[Line] = []
    problems: list[Problem] = []
    for file in sorted(folder.glob("*/terms.tsv")):
        category = file.parent.name
        if category not in taxonomy():
            said = f"the folder {category!r} is not a category; the ids are in docs/categories.md"
            problems.append(Problem(str(file), 0, "unreadable", said))
            continue
        toml = file.parent / "category.toml"
        try:
            stances = lexicons.stances_of(toml)
        except LexiconError as e:
            problems.append(_problem(toml, e))
            stances = frozenset()
        for number, row in _table(file):
            try:
                if isinstance(row, LexiconError):
                    raise row
                term = term_of(row, category, f"{file}:{number}", stances)
                if row.get("added"):
                    _day(row["added"], f"{file}:{number}")
            except LexiconError as e:
                problems.append(_problem(file, e, number))
            else:
                lines.append(Line(str(file), number, row, term))
    return lines, problems


def _day(cell: str, where: str) -> date:
    try:
        return date.fromisoformat(cell)
    except ValueError:
        raise LexiconError(f"{where}: column added: must be a date like 2027-06-30") from None


def _sound(folder: Path) -> list[Line]:
    """Every line. Raises LexiconError for the first that cannot be read."""
    lines, problems = _sheet(folder)
    for problem in sorted(problems):
        raise LexiconError(f"{problem.where}: {problem.said}")
    return lines


def _today() -> date:
    return datetime.fromtimestamp(clock.now()).date()


def _over(term: Term) -> bool:
    return term.expires is not None and term.expires < _today()


def _found(lexicon: Lexicon, text: str) -> list[Candidate]:
    """What the engine finds in original text and policy would not let pass, in either view."""
    folded = fold(text)
    strong = _acting(lexicon.scan(folded, 0, True, _SCOPE).candidates)
    weak = _acting(lexicon.read(folded, text, 0, True, _SCOPE).candidates)
    return strong + [
        w for w in weak if not any(s.rule == w.rule and s.start < w.end and w.start < s.end for s in strong)
    ]


def _acting(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.tier != "cleared" and c.techniques.isdisjoint(c.off)]


def _rules(lexicon: Lexicon, text: str) -> set[str]:
    return {c.rule for c in _found(lexicon, text)}


# ---- lint


def lint(folder: Path, corpus: Sequence[Path] = ()) -> list[Problem]:
    """Every problem of every file, in order of file and line. `corpus`: files of clean text, a text a line; without any,
    the clean sentences of this folder and of the shipped one. Raises LexiconError if a folder or corpus cannot be read."""
    lines, problems = _sheet(folder)
    phrases, wrong = _each(folder / "allow.tsv", folder, lexicons.phrases)
    cues, more = _each(folder / "cues.tsv", folder, lexicons.cues)
    problems += wrong + more
    for file in sorted(folder.glob("*/rules.tsv")):
        problems += _each(file, folder, rules.load)[1]
    for line in lines:
        problems += [Problem(line.path, line.number, kind, said) for kind, said in _cells(line)]
    problems += _duplicates(lines)
    live = [line for line in lines if not _over(line.term)]
    lexicon = Lexicon({line.term.rule: line.term for line in live}.values(), phrases, cues)
    for line in live:
        problems += [Problem(line.path, line.number, kind, said) for kind, said in _sentences(lexicon, line)]
    problems += _shadowed(lexicon, live)
    problems += _broad(lexicon, live, _corpus(corpus) if corpus else _clean(lines))
    return sorted(set(problems))


def _cells(line: Line) -> Iterator[tuple[str, str]]:
    """Faults that a line shows by itself."""
    term, row = line.term, line.row
    if _over(term):
        yield "expired", f"「{term.term}」 since {term.expires}; take it out or give it a later day"
    if missing := [name for name in ("owner", "reason") if not row.get(name, "").strip()]:
        yield "missing", f"「{term.term}」 has no {' and no '.join(missing)}"
    if term.tier == "certain" and short(term.term):
        yield "short", f"「{term.term}」 is certain with less than 4 Han characters and 2 words; make it suspect"
    if reads_as_name(term.term):
        wants = [name for name in ("reason", "basis") if not row.get(name, "").strip()]
        if term.tier == "certain":
            yield "name", f"「{term.term}」 is certain; make it suspect, with a reason and a legal basis"
        elif wants:
            yield "name", f"「{term.term}」 needs a {' and a '.join(wants)} (column {', '.join(wants)})"
    for phrase in term.allow:
        alone = Lexicon([replace(term, allow=(), stances=frozenset(), expires=None)])
        if not _found(alone, phrase):
            yield "allow", f"「{phrase}」 covers nothing: 「{term.term}」 is not found in it anyway; take it out"


def _duplicates(lines: Iterable[Line]) -> Iterator[Problem]:
    first: dict[str, Line] = {}
    for line in lines:
        if (other := first.setdefault(line.folded, line)) is not line:
            said = f"「{line.term.term}」 is the same as {other.where} after folding; keep one"
            yield Problem(line.path, line.number, "duplicate", said)


def _sentences(lexicon: Lexicon, line: Line) -> Iterator[tuple[str, str]]:
    """Its own sentences, by the whole engine."""
    term = line.term
    if term.hit and term.rule not in _rules(lexicon, term.hit):
        yield "hit", f"「{term.term}」 is not found in its sentence 「{term.hit}」"
    if term.clean and term.rule in _rules(lexicon, term.clean):
        yield "clean", f"「{term.term}」 is found in its clean sentence 「{term.clean}」"


def _shadowed(lexicon: Lexicon, lines: Sequence[Line]) -> Iterator[Problem]:
    """Terms that never matter, since another of the category is found wherever they are and does as much."""
    by_rule: dict[str, list[Line]] = defaultdict(list)  # two terms in some hundred thousand share a rule
    for line in lines:
        by_rule[line.term.rule].append(line)
    for line in lines:
        found = {c.rule for c in lexicon.scan(line.folded, 0, True, _SCOPE).candidates if not c.techniques}
        for other in (other for rule in sorted(found) for other in by_rule[rule]):
            inside = other.folded != line.folded and other.folded in line.folded
            if inside and line.term.category == other.term.category and _covers(other, line):
                said = f"「{line.term.term}」 never matters: it contains 「{other.term.term}」 ({other.where}); take one out"
                yield Problem(line.path, line.number, "shadowed", said)
                break


def _covers(inner: Line, outer: Line) -> bool:
    a, b = inner.term, outer.term
    return (
        (a.tier == "certain" or b.tier == "suspect")
        and a.stances <= b.stances
        and a.off <= b.off
        and (a.expires is None or (b.expires is not None and a.expires >= b.expires))
    )


def _broad(lexicon: Lexicon, lines: Iterable[Line], texts: Iterable[str]) -> Iterator[Problem]:
    hits: Counter[str] = Counter()
    size = 0
    for text in texts:
        size += len(text)
        hits.update(c.rule for c in _found(lexicon, text))
    for line in lines:
        count, most = hits[line.term.rule], BROAD[line.term.tier]
        rate = count * 100_000 / size if size else 0.0
        if count >= 2 and rate > most:
            said = (
                f"「{line.term.term}」 hits {count} times in {size:,} characters of clean text: {rate:.1f} per 100,000, at most "
                f"{most} for {line.term.tier}; make it longer, give it allow phrases"
                + ", or make it suspect"
                * (most == 1)
            )
            yield Problem(line.path, line.number, "broad", said)


def _clean(lines: Iterable[Line]) -> list[str]:
    """Every clean sentence of these lines and of the shipped ones, once."""
    return sorted({t.clean for t in [*(line.term for line in lines), *lexicons.load(shipped())] if t.clean})


def _corpus(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        yield from _text(file).splitlines()


def _text(file: Path) -> str:
    """Raises LexiconError that names the byte and the way out."""
    try:
        raw = file.read_bytes()
    except OSError as e:
        raise LexiconError(f"{file}: cannot be read ({e.strerror})") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        at = f"{file}:{raw[: e.start].count(10) + 1}: not UTF-8 (byte {e.start})"
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise LexiconError(f"{at}; it is UTF-16: iconv -f UTF-16 -t UTF-8 {file.name} > new") from None
        try:
            raw.decode("gb18030")
        except UnicodeDecodeError:
            raise LexiconError(at) from None
        raise LexiconError(f"{at}; it reads as GB18030: iconv -f GB18030 -t UTF-8 {file.name} > new") from None


# ---- diff


@dataclass(slots=True)
class Difference:
    """What changed in one category: terms as written; of a changed one (cell, before, after)."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)


def diff(old: Path, new: Path) -> dict[str, Difference]:
    """Category (or the name of another file of a lexicon) -> what changed; empty if nothing did. Raises LexiconError."""
    made: dict[str, Difference] = {}
    before, after = ({(line.term.category, line.folded): line for line in _sound(folder)} for folder in (old, new))
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        cells = [] if was is None or now is None else _changed(was.row, now.row)
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


def _changed(was: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    cells = [(name, _cell(was, name), _cell(now, name)) for name in _ALL]
    return [cell for cell in cells if cell[1] != cell[2]]


def _cell(row: Mapping[str, str], name: str) -> str:
    return row.get(name, "").strip() or ("certain" if name == "tier" else "")


def _beside(folder: Path) -> list[Path]:
    """The files of a lexicon other than its terms."""
    return [*folder.glob("*.tsv"), *folder.glob("*/rules.tsv"), *folder.glob("*/category.toml")]


def _entries(file: Path) -> dict[str, None]:
    """Its lines without comments."""
    lines = _text(file).splitlines() if file.exists() else []
    return {line: None for line in lines if line.strip() and not line.startswith("#")}


# ---- import

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
        names = ("added", "unchanged", "updated", "removed", "refused")
        return {name: sum(c.what == name for c in self.changes) for name in names}


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
    known = {line.folded: line for line in _sound(folder)}
    lexicons.load(folder)  # a term that stands twice is told before more are added
    page = _Page(target)
    fill = {"owner": owner, "reason": reason, "basis": basis, "added": _today().isoformat()}
    changes: list[Change] = []
    seen: dict[str, str] = {}
    fresh: dict[str, dict[str, str]] = {}
    for where, cells in _source(file):
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
        elif altered := _changed(mine.row, row):
            page.put(mine.number, row)
            told = tuple(f"{name}: {was or '-'} → {now or '-'}" for name, was, now in altered)
            changes.append(Change(where, said, "updated", row["tier"], notes + told))
        else:
            changes.append(Change(where, said, "unchanged", _cell(row, "tier"), notes))
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


def _broken(cell: str) -> bool:
    return any(ch in cell for ch in "\t\n\r")


def _admitted(
    cells: Mapping[str, str], old: Mapping[str, str], fill: Mapping[str, str], tier: str, category: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The line as it will stand, and what had to be changed about it. Raises LexiconError with the reason to refuse it."""
    if broken := [name for name, cell in cells.items() if _broken(cell)]:
        raise LexiconError(f"column {broken[0]}: holds a tab or a line break")
    said = " ".join(cells.get("term", "").split())
    if said.startswith("#"):
        raise LexiconError("column term: begins with #, as comments do; leave the # out")
    row = {name: old.get(name, "") for name in _ALL} | {name: cell for name, cell in cells.items() if cell.strip()}
    row["term"] = old.get("term") or said
    row |= {name: cell for name, cell in fill.items() if not row[name].strip()}
    notes = []
    if not cells.get("tier", "").strip():
        row["tier"] = tier or (_cell(old, "tier") if old else "suspect")
    term_of(row, category, "")
    if row["added"]:
        _day(row["added"], "")
    named = reads_as_name(row["term"])
    why = (
        "reads as a person, place or organisation" if named
        else "has less than 4 Han characters and 2 words" if short(row["term"])
        else "is a bare noun" if bare(row["term"])
        else ""
    )  # fmt: skip
    stays = bool(old) and _cell(old, "tier") == "certain" and not named
    if _cell(row, "tier") == "certain" and why and not stays:
        row["tier"] = "suspect"
        notes.append(f"suspect, not certain: it {why}")
    if named and not (row["reason"].strip() and row["basis"].strip()):
        raise LexiconError(f"{why}: needs a reason and a legal basis (--basis, or the column basis)")
    return row, tuple(notes)


class _Page:
    """The lines of a terms.tsv, to be changed one by one and written back as they were otherwise."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes() if path.exists() else None
        text = "\t".join(_ALL) + "\n" if self.raw is None else self.raw.decode()
        self._bom = "\ufeff" if text.startswith("\ufeff") else ""
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._lines: list[str | None] = list(text.removeprefix(self._bom).removesuffix("\n").split("\n"))
        self._columns = (self._lines[0] or "").rstrip("\r").split("\t")

    def put(self, number: int, row: Mapping[str, str]) -> None:
        self._lines[number - 1] = self._written(row)

    def drop(self, number: int) -> None:
        self._lines[number - 1] = None

    def add(self, row: Mapping[str, str]) -> None:
        if last := (self._lines[-1] or "").rstrip("\r"):
            self._lines[-1] = last + self._end.removesuffix("\n")
        self._lines.append(self._written(row))

    def _written(self, row: Mapping[str, str]) -> str:
        if more := [name for name in _ALL if row.get(name) and name not in self._columns]:
            self._columns += more
            self._lines[0] = "\t".join(self._columns) + self._end.removesuffix("\n")
        line = "\t".join(row.get(name, "") for name in self._columns)
        if line.startswith("#"):
            raise LexiconError(f"column {self._columns[0]}: begins with #, as comments do; leave the # out")
        return line + self._end.removesuffix("\n")

    def text(self) -> bytes:
        return (self._bom + "".join(f"{line}\n" for line in self._lines if line is not None)).encode()


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


def _source(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, cells) of each line of an import file: by its header if it has one, else by its name. Raises LexiconError."""
    text = _text(file)
    first = text.split("\n", 1)[0].rstrip("\r")
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".txt") or kind == ".txt":
        headed = [
            mark for mark in "\t," if "term" in (cell.strip('" ') for cell in first.split(mark)) and mark in first
        ]
        mark = headed[0] if headed else ""
    else:
        mark = "," if kind == ".csv" else "\t"
    if not mark:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.startswith("#") and (number, line.strip()) != (1, "term"):
                yield f"{file}:{number}", {"term": line.rstrip("\r")}
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    columns: list[str] = []
    while True:
        where = f"{file}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as e:
            raise LexiconError(f"{where}: not {'CSV' if mark == ',' else 'TSV'} ({e})") from None
        if cells is None:
            return
        if not columns:
            columns = _header(cells, where)
            if columns == [cell.strip() for cell in cells]:
                continue
        if any(cell.strip() for cell in cells) and not (mark == "\t" and cells[0].startswith("#")):
            if len(cells) > len(columns):
                raise LexiconError(f"{where}: {len(cells)} cells, but the file has {len(columns)} columns")
            yield where, dict(zip(columns, cells, strict=False))


def _header(cells: Sequence[str], where: str) -> list[str]:
    """The columns by the first line; a file of one column need not name it."""
    names = [cell.strip() for cell in cells]
    if "term" not in names:
        if len(names) == 1:
            return ["term"]
        raise LexiconError(f"{where}: the first line must name the columns, 'term' among them")
    if unknown := [name for name in names if name not in _ALL]:
        raise LexiconError(f"{where}: column {unknown[0]!r} is unknown; the columns are {', '.join(_ALL)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise LexiconError(f"{where}: column {twice!r} stands twice")
    return names


# ---- audit


@dataclass(frozen=True, slots=True)
class Account:
    """One category as its files stand. Counts of sentences are pairs: (those found, all)."""

    category: str
    zh: str
    en: str
    clause: str
    certain: int
    suspect: int
    recall: tuple[int, int]
    """Its hit sentences."""
    false_own: tuple[int, int]
    """Its own clean sentences, found by any of its terms."""
    false_other: tuple[int, int]
    """The clean sentences of all other categories, found by any of its terms."""
    newest: date | None
    age_days: int | None
    expiring: list[tuple[str, date]]
    """(term, day) of those that expire within SOON."""


def audit(folder: Path) -> list[Account]:
    """Every risk type of the taxonomy, in its order. Raises LexiconError."""
    lines = [line for line in _sound(folder) if not _over(line.term)]
    lexicon = Lexicon([line.term for line in lines], lexicons.phrases(folder), lexicons.cues(folder))
    by_category: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_category[line.term.category].append(line)
    recalled = Counter(
        line.term.category for line in lines if line.term.hit and line.term.rule in _rules(lexicon, line.term.hit)
    )
    own: Counter[str] = Counter()
    other: Counter[str] = Counter()
    sentences = [(line.term.category, line.term.clean) for line in lines if line.term.clean]
    for category, sentence in sentences:
        for found in {c.category for c in _found(lexicon, sentence)}:
            (own if found == category else other)[found] += 1
    made = []
    for row in taxonomy().values():
        mine = by_category[row.id]
        days = [date.fromisoformat(line.row["added"]) for line in mine if line.row.get("added")]
        newest = max(days, default=None)
        clean = sum(category == row.id for category, _ in sentences)
        made.append(
            Account(
                row.id, row.zh, row.en, row.clause,
                sum(line.term.tier == "certain" for line in mine), sum(line.term.tier == "suspect" for line in mine),
                (recalled[row.id], sum(bool(line.term.hit) for line in mine)),
                (own[row.id], clean), (other[row.id], len(sentences) - clean),
                newest, (_today() - newest).days if newest else None,
                sorted(
                    ((t.term, t.expires) for t in (line.term for line in mine) if t.expires and t.expires <= _today() + SOON),
                    key=lambda pair: (pair[1], pair[0]),
                ),
            )
        )  # fmt: skip
    return made


# ---- test


@dataclass(slots=True)
class Sentences:
    """Every hit and clean sentence of a lexicon through the engine."""

    hits: int = 0
    clean: int = 0
    failed: list[Problem] = field(default_factory=list)


def test(folder: Path) -> Sentences:
    """Raises LexiconError."""
    lines = [line for line in _sound(folder) if not _over(line.term)]
    lexicon = Lexicon([line.term for line in lines], lexicons.phrases(folder), lexicons.cues(folder))
    made = Sentences(sum(bool(line.term.hit) for line in lines), sum(bool(line.term.clean) for line in lines))
    for line in lines:
        made.failed += [Problem(line.path, line.number, kind, said) for kind, said in _sentences(lexicon, line)]
    return made


@dataclass(slots=True)
class Tally:
    """Of one technique or kind: by language (found, all), and the ids of what went wrong."""

    by_language: dict[str, tuple[int, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        return sum(found for found, _ in self.by_language.values())

    @property
    def all(self) -> int:
        return sum(count for _, count in self.by_language.values())

    def count(self, language: str, found: bool) -> None:
        had, count = self.by_language.get(language, (0, 0))
        self.by_language[language] = had + found, count + 1


@dataclass(slots=True)
class Suite:
    """A measured suite. `recall`: by technique; `false`: by kind of clean sentence; the context file: flagged, stopped, all."""

    recall: dict[str, Tally]
    false: dict[str, Tally]
    context: int
    flagged: int
    stopped: list[str]


def suite(folder: Path, terms: Sequence[Term], phrases: Sequence[str], policies: Policies) -> Suite:
    """Put the sentences of a suite folder (cases, clean, context .jsonl) through the engine with these terms only.
    Raises LexiconError if a file is missing or a line is wrong."""
    moderator = _moderator(terms, phrases, policies)
    recall: dict[str, Tally] = {}
    for row in _jsonl(folder / "cases.jsonl", "technique"):
        found = any(f.action > Action.PASS for f in _verdict(moderator, row["text"]).findings)
        _count(recall, row["technique"], row, found, wrong=not found)
    false: dict[str, Tally] = {}
    for row in _jsonl(folder / "clean.jsonl", "kind"):
        found = bool(_verdict(moderator, row["text"]).findings)
        _count(false, row["kind"], row, found, wrong=found)
    weaker = _moderator([replace(term, tier="suspect") for term in terms], phrases, policies)
    made = Suite(recall, false, 0, 0, [])
    for row in _jsonl(folder / "context.jsonl", "kind"):
        action = _verdict(weaker, row["text"]).action
        made.context += 1
        made.flagged += action is Action.FLAG
        if action.stops:
            made.stopped.append(row["id"])
    return made


def _count(tallies: dict[str, Tally], name: str, row: Mapping[str, str], found: bool, wrong: bool) -> None:
    tally = tallies.setdefault(name, Tally())
    tally.count(row["lang"], found)
    if wrong:
        tally.wrong.append(row["id"])


def _moderator(terms: Iterable[Term], phrases: Sequence[str], policies: Policies) -> Moderator:
    lexicon = Lexicon(terms, phrases)
    return Moderator([lexicon], policies, [lexicon])


def _verdict(moderator: Moderator, text: str) -> Verdict:
    policy = moderator.policies.common
    channel = moderator.channel(_SCOPE, policy)
    channel.push(text)
    channel.finish()
    return conclude([channel], policy, _SCOPE)


def _jsonl(file: Path, label: str) -> Iterator[dict[str, str]]:
    """Objects with id, lang, text and `label`, all strings."""
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strictjson.loads(line.encode())
        except RequestError as e:
            raise LexiconError(f"{file}:{number}: {e.message}") from None
        wanted = ("id", "lang", "text", label)
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in wanted):
            raise LexiconError(f"{file}:{number}: must be an object with the strings {', '.join(wanted)}")
        yield row
