"""model.toml: what a folder of SLUICE_MODELS holds. Law: read and checked whole; the files it names are those whose hashes it
gives, or the model is not used.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import ModelError
from app.policyfile import explain
from app.taxonomy import taxonomy

NAME = "model.toml"
OTHER = "other"
"""Stands in `labels` for every label of the model that is not listed there."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Strict):
    """Of one category: from `flag` on a score flags; from `ask` on it is a reason to ask a guard. Probabilities."""

    flag: float = Field(gt=0, le=1)
    ask: float = Field(gt=0, le=1)


class Source(_Strict):
    """What a model was made from: `texts` of it were used, `violating` of them as what is to be found, the others as what is not."""

    name: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=200)
    texts: int = Field(ge=0)
    violating: int = Field(ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the file; none where it is the project's or the operator's own."""


class GramsFile(_Strict):
    """A model of app.grams."""

    kind: Literal["grams"]
    version: str = Field(min_length=1, max_length=60)
    files: dict[str, str]
    categories: dict[str, Thresholds]
    sources: list[Source] = []


class GuardFile(_Strict):
    """A guard model of somebody else: how it is asked (app.guards.formats), and what its labels mean here."""

    kind: Literal["guard"]
    format: str
    model: str = ""
    """The name that a server knows it by."""
    labels: dict[str, list[str]] = Field(min_length=1)
    """Its label -> categories. One that means nothing here is listed with none. One that is not listed is what OTHER is; where that
    is not listed either, a text that is harmful by such labels alone has no answer: it never passes for harmless."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """From which of its own scores on it says that a text is harmful, where it gives scores; what a service flags is harmful anyway."""
    window: int = Field(default=4000, ge=100, le=100_000)
    """Characters that it is shown at most; of a longer text overlapping windows."""
    policy: str = ""
    """What it is told to look for, where its format takes a policy in words."""
    files: dict[str, str] = {}


_KINDS: dict[str, type[GramsFile | GuardFile]] = {"grams": GramsFile, "guard": GuardFile}


def read(folder: Path) -> GramsFile | GuardFile:
    """Raises ModelError that names the file and the key."""
    path = folder / NAME
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ModelError(
            f"{path}: cannot be read ({e.strerror}); a folder of SLUICE_MODELS holds a model.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ModelError(f"{path}: not valid TOML: {e}") from None
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ModelError(f"{path}: kind: one of {', '.join(_KINDS)}")
    try:
        file = _KINDS[kind].model_validate(value)
    except ValidationError as e:
        raise ModelError(explain(e, str(path))) from None
    named = file.categories if isinstance(file, GramsFile) else [c for cs in file.labels.values() for c in cs]
    for category in named:
        if category not in taxonomy():
            raise ModelError(f"{path}: {category!r} is no category; the ids are in docs/categories.md")
    return file


def checked(folder: Path, file: GramsFile | GuardFile, name: str) -> bytes:
    """The content of a file that model.toml names. Raises ModelError if it is not there or another one."""
    path = folder / name
    expected = file.files.get(name)
    if expected is None:
        raise ModelError(f"{folder / NAME}: files: {name} is missing")
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror})") from None
    if hashlib.sha256(raw).hexdigest() != expected:
        raise ModelError(f"{path}: its SHA-256 is not the one in model.toml; take the file again, or train")
    return raw
