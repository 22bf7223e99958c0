"""model.toml: what a folder of SLUICE_MODELS holds. Law: read and checked whole; the files it names are those whose hashes it
gives, or the model is not used.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import ModelError
from app.policy import explain, taxonomy

NAME = "model.toml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Strict):
    """Of one category: from `flag` on a score flags; from `ask` on it is a reason to ask a guard. Probabilities."""

    flag: float = Field(gt=0, le=1)
    ask: float = Field(gt=0, le=1)


class GramsFile(_Strict):
    """A model of app.grams."""

    kind: Literal["grams"]
    version: str = Field(min_length=1, max_length=60)
    files: dict[str, str]
    categories: dict[str, Thresholds]


class GuardFile(_Strict):
    """A guard model of somebody else: how it is asked (app.guards.formats), and what its labels mean here."""

    kind: Literal["guard"]
    format: str
    model: str = ""
    """The name that a server knows it by."""
    labels: dict[str, list[str]]
    """Its label -> categories; a label that is not listed says nothing here."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """From which of its own scores on it says that a text is harmful, where it gives scores."""
    window: int = Field(default=4000, ge=100, le=100_000)
    """Characters that it is shown at most; of a longer text overlapping windows."""
    policy: str = ""
    """What it is told to look for, where its format takes a policy in words."""
    files: dict[str, str] = {}


AnyFile = Annotated[GramsFile | GuardFile, Field(discriminator="kind")]


class _Document(_Strict):
    model: AnyFile


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
    try:
        file = _Document.model_validate({"model": value}).model
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
