"""Lexicon files as an operator wrote them: every line with where it stands, and every line that cannot be read.

Law: a line at fault hides no other; what a line means is app.detectors.lexicon's to say, and its errors are told as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

from app import clock, settings, strictjson
from app.detectors import lexicon as lexicons
from app.detectors.lexicon import COLUMNS, OPTIONAL, Term, term_of
from app.errors import LexiconError, RequestError
from app.taxonomy import taxonomy
from app.text import fold

CELLS = COLUMNS + OPTIONAL
"""Every column of a terms.tsv."""
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

    @property
    def over(self) -> bool:
        """Its last day has passed."""
        return self.term.expires is not None and self.term.expires < today()

    def problem(self, kind: str, said: str) -> Problem:
        return Problem(self.path, self.number, kind, said)


def shipped() -> Path:
    """The folder that comes with Sluice, whatever SLUICE_LEXICONS says."""
    return settings.read({}).lexicons


def today() -> date:
    return datetime.fromtimestamp(clock.now()).date()


def day(cell: str, where: str) -> date:
    """What the column added says. Raises LexiconError."""
    try:
        return date.fromisoformat(cell)
    except ValueError:
        raise LexiconError(f"{where}: column added: must be a date like 2027-06-30") from None


def sheet(folder: Path) -> tuple[list[Line], list[Problem]]:
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
                    day(row["added"], f"{file}:{number}")
            except LexiconError as e:
                problems.append(_problem(file, e, number))
            else:
                lines.append(Line(str(file), number, row, term))
    return lines, problems


def sound(folder: Path) -> list[Line]:
    """Every line. Raises LexiconError for the first that cannot be read."""
    lines, problems = sheet(folder)
    for problem in sorted(problems):
        raise LexiconError(f"{problem.where}: {problem.said}")
    return lines


def each(file: Path, folder: Path, read: Callable[[Path], list[_T]]) -> tuple[list[_T], list[Problem]]:
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


def text(file: Path) -> str:
    """All of a UTF-8 file. Raises LexiconError that names the byte and the way out."""
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


def objects(file: Path) -> Iterator[tuple[str, Any]]:
    """(where, value) of each line of a JSON lines file. Raises LexiconError."""
    for number, line in enumerate(text(file).split("\n"), 1):
        if line.strip():
            where = f"{file}:{number}"
            try:
                yield where, strictjson.loads(line.encode())
            except RequestError as e:
                raise LexiconError(f"{where}: {e.message}") from None


def _table(path: Path) -> Iterator[tuple[int, dict[str, str] | LexiconError]]:
    """The lines of a terms.tsv as lexicon.rows reads them, except that one it refuses stands as the error in its place."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        header = lines[0].decode().rstrip("\r").split("\t")
    except (OSError, UnicodeDecodeError):
        header = []
    if "term" not in header or len(set(header)) < len(header) or not set(header) <= set(CELLS):
        try:
            for _ in lexicons.rows(path, CELLS, "term"):
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


def _problem(path: Path, e: LexiconError, line: int = 0) -> Problem:
    """Takes the place out of what `e` says, if it names one."""
    told = str(e).removeprefix(str(path))
    if place := re.match(r"(?::(\d+))?: ", told):
        return Problem(str(path), int(place[1] or line), "unreadable", told[place.end() :])
    return Problem(str(path), line, "unreadable", told)
