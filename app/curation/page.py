"""A terms.tsv to be changed line by line. Law: whatever is not changed stays byte for byte, comments and line ends too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.curation.files import CELLS
from app.errors import LexiconError


class Page:
    """The lines of the file, or of a new one. `raw`: the file as it was read; None: there was none."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes() if path.exists() else None
        text = "\t".join(CELLS) + "\n" if self.raw is None else self.raw.decode()
        self._bom = "\ufeff" if text.startswith("\ufeff") else ""
        self._return = "\r" if "\r\n" in text else ""
        self._lines: list[str | None] = list(text.removeprefix(self._bom).removesuffix("\n").split("\n"))
        self._columns = (self._lines[0] or "").rstrip("\r").split("\t")

    def put(self, number: int, row: Mapping[str, str]) -> None:
        """Another line in the place of line `number`, from 1. Raises LexiconError."""
        self._lines[number - 1] = self._written(row)

    def drop(self, number: int) -> None:
        self._lines[number - 1] = None

    def add(self, row: Mapping[str, str]) -> None:
        """A line at the end. Raises LexiconError."""
        if last := (self._lines[-1] or "").rstrip("\r"):
            self._lines[-1] = last + self._return
        self._lines.append(self._written(row))

    def text(self) -> bytes:
        return (self._bom + "".join(f"{line}\n" for line in self._lines if line is not None)).encode()

    def _written(self, row: Mapping[str, str]) -> str:
        if more := [name for name in CELLS if row.get(name) and name not in self._columns]:
            self._columns += more
            self._lines[0] = "\t".join(self._columns) + self._return
        line = "\t".join(row.get(name, "") for name in self._columns)
        if line.startswith("#"):
            raise LexiconError(f"column {self._columns[0]}: begins with #, as comments do; leave the # out")
        return line + self._return
