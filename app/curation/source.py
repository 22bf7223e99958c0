"""A list from elsewhere, to be imported: CSV, TSV or a term a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.curation.files import CELLS, text
from app.errors import LexiconError


def source(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(where, cells) of each line of an import file: by its header if it has one, else by its name. Raises LexiconError."""
    said = text(file)
    mark = _mark(file, said.split("\n", 1)[0].rstrip("\r"))
    if not mark:
        for number, line in enumerate(said.split("\n"), 1):
            if line.strip() and not line.startswith("#") and (number, line.strip()) != (1, "term"):
                yield f"{file}:{number}", {"term": line.rstrip("\r")}
        return
    reader = csv.reader(io.StringIO(said, newline=""), delimiter=mark, strict=True)
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


def _mark(file: Path, first: str) -> str:
    """What parts the cells; '' in a file of a term a line."""
    by_name = {".csv": ",", ".tsv": "\t"}
    if mark := by_name.get(file.suffix.lower()):
        return mark
    headed = (mark for mark in "\t," if mark in first and "term" in (cell.strip('" ') for cell in first.split(mark)))
    return next(headed, "")


def _header(cells: Sequence[str], where: str) -> list[str]:
    """The columns by the first line; a file of one column need not name it."""
    names = [cell.strip() for cell in cells]
    if "term" not in names:
        if len(names) == 1:
            return ["term"]
        raise LexiconError(f"{where}: the first line must name the columns, 'term' among them")
    if unknown := [name for name in names if name not in CELLS]:
        raise LexiconError(f"{where}: column {unknown[0]!r} is unknown; the columns are {', '.join(CELLS)}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise LexiconError(f"{where}: column {twice!r} stands twice")
    return names
