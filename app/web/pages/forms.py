"""The forms of the users' pages: their fields, what was typed, and what is wrong with it.

Law: what may be sent is what the API takes, by the API's own models; here it is only read from a form and said of a field. What was typed
comes back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from app.complaints import APPEALS, KINDS
from app.errors import RequestError
from app.taxonomy import taxonomy
from app.web.complaints import AppealIn, ComplaintIn
from app.web.reports import ReportIn

LARGEST = 2 << 20
"""Bytes of a form: two texts of 60,000 Chinese characters, nine bytes each, and what goes with them."""
_MOST = 40
"""Fields of a form that are read."""


class Field(NamedTuple):
    """`mark`: whether it must be filled in; '': it depends on another. `proof`: stands apart, with what proves a delivery."""

    name: str
    kind: Literal["area", "line", "choice", "list"] = "line"
    mark: Literal["needed", "optional", ""] = ""
    rows: int = 3
    proof: bool = False
    options: tuple[str, ...] = ()


_PROOF = (Field("decision_id", proof=True), Field("receipt", proof=True))


class Fault(NamedTuple):
    """What is wrong with a field: a key of words.toml, and what goes into its text."""

    words: str
    values: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Form:
    """`model`: what the API takes."""

    name: str
    model: type[BaseModel]
    fields: tuple[Field, ...]

    def check(self, typed: Mapping[str, str]) -> Any:
        """The model of what was typed. Raises Wrong."""
        filled = [(f, typed[f.name]) for f in self.fields if typed[f.name].strip()]
        said: dict[str, Any] = {f.name: text if f.kind == "area" else text.strip() for f, text in filled}
        faults: dict[str, Fault] = {}
        quote = said.pop("quote", "").strip()
        if quote and "text" in said:
            start = said["text"].find(quote)
            if start < 0:
                faults["quote"] = Fault("faults.quote")
            else:
                said["passage"] = (start, start + len(quote))
        try:
            given = self.model.model_validate(said)
        except ValidationError as e:
            raise Wrong(faults | self._faults(e)) from None
        if faults:
            raise Wrong(faults)
        return given

    def _faults(self, e: ValidationError) -> dict[str, Fault]:
        found: dict[str, Fault] = {}
        for error in e.errors(include_input=False, include_url=False):
            # A rule over several fields begins with the name of the one to look at.
            words = error["msg"].removeprefix("Value error, ").replace(":", " ").split()
            name = str(error["loc"][0]) if error["loc"] else words[0]
            name = name if name in {f.name for f in self.fields} else self.fields[0].name
            field = next(f for f in self.fields if f.name == name)
            if error["type"] == "string_too_long":
                found[name] = Fault("faults.too_long", error["ctx"])
            elif field.kind in ("choice", "list"):
                found[name] = Fault("faults.choose")
            else:
                found[name] = Fault("faults.missing" if error["type"] == "missing" else f"faults.{name}")
        return found


class Wrong(Exception):
    """What was typed cannot be sent as it is; by field."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        super().__init__("a form is wrong")
        self.faults = faults


REPORT = Form("report", ReportIn, (
    Field("text", "area", "needed", rows=6), Field("quote", "area", "optional", rows=2),
    Field("category", "list", "optional", options=tuple(taxonomy())), Field("comment", "area", "optional"),
    Field("prompt", "area", "optional"), *_PROOF,
))  # fmt: skip
COMPLAIN = Form("complain", ComplaintIn, (
    Field("kind", "choice", "needed", options=KINDS), Field("comment", "area"), Field("text", "area", "optional", rows=5), *_PROOF,
))  # fmt: skip
APPEAL = Form("appeal", AppealIn, (
    Field("kind", "choice", "needed", options=APPEALS), Field("decision_id"), Field("prompt", "area"),
    Field("comment", "area", "optional"),
))  # fmt: skip
STATUS = (Field("ticket", mark="needed"), Field("token", mark="needed"))


def read(raw: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """What was typed in the fields of these names, '' where nothing was. Raises RequestError for what is no form.

    A browser writes each line's end as CR LF (HTML, 4.10.22.4); a text has LF, and it is that text which a receipt proves.
    """
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError:
        raise RequestError("the form cannot be read", code="invalid_form") from None
    given = dict(pairs)
    return {name: given.get(name, "").replace("\r\n", "\n").replace("\r", "\n") for name in names}
