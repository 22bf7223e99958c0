"""Banks of labelled texts, as JSON lines. Law: a row is taken whole or refused by file, line and field, and what is said of it never
quotes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from app import strictjson
from app.errors import RequestError, TrainingError
from app.taxonomy import taxonomy

SHIPPED = ("should_refuse.jsonl", "should_not_refuse.jsonl", "counter_speech.jsonl")
HARMLESS, VIOLATING, UNDECIDED = 0, 1, 2
_NAME_MOST = 80


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled text. `category`: what it violates, or what it could be mistaken for; `aspect`: what a gate or the bank sorts it by."""

    text: str
    label: int
    category: str = ""
    aspect: str = ""
    lang: str = ""
    source: str = ""


class Fault(NamedTuple):
    """A row that was refused. `field`: empty where it is no object."""

    where: str
    field: str
    said: str

    def __str__(self) -> str:
        return f"{self.where}: " + (f"{self.field}: " if self.field else "") + self.said


def shipped() -> list[Path]:
    """The project's own banks."""
    return [Path(str(files("app"))) / "data" / "banks" / name for name in SHIPPED]


def read(file: Path) -> Iterator[Row | Fault]:
    """Every line that is not blank. Raises TrainingError if the file cannot be read."""
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as e:
        raise TrainingError(f"{file}: cannot be read (读不了): {e.strerror}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _row(line, f"{file}:{number}")


def _row(line: bytes, where: str) -> Row | Fault:
    try:
        value = strictjson.loads(line)
    except RequestError as e:
        said = e.message.removeprefix("the body ").replace(" at line 1 column", " at column")
        return Fault(where, e.param or "", f"{said} (不是一行合格的 JSON)")
    if not isinstance(value, dict):
        return Fault(where, "", 'must be an object like {"text": "…", "label": 1} (须为 JSON 对象)')
    text, label = value.get("text"), value.get("label")
    if not isinstance(text, str) or not text.strip():
        return Fault(where, "text", "must be a string that is not empty (须为非空字符串)")
    if isinstance(label, bool) or label not in (HARMLESS, VIOLATING, UNDECIDED):
        return Fault(where, "label", "must be 1 violating, 0 harmless or 2 undecided (须为 1 违规、0 无害、2 未定)")
    names: dict[str, str] = {}
    for field in ("category", "aspect", "lang", "source"):
        given = value.get(field)
        if said := _wrong(field, given):
            return Fault(where, field, said)
        names[field] = given or ""
    return Row(text, int(label), **names)


def _wrong(field: str, given: Any) -> str:
    """What is wrong with a row's name for something; names stand in reports, so a text must not pass for one."""
    if given is None or given == "":
        return ""
    if not isinstance(given, str):
        return "must be a string (须为字符串)"
    if field == "category" and given not in taxonomy():
        return "is no category; the ids are in docs/categories.md (没有这个类别)"
    if len(given) > _NAME_MOST or not given.isprintable():
        return f"must be one line of at most {_NAME_MOST} characters (须为一行，最多 {_NAME_MOST} 字)"
    return ""
