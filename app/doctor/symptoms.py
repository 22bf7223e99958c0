"""What a check of `sluice doctor` says.

Law: a fault keeps Sluice from doing what its operator set it up for, and fails the command; a warning may be
meant so. Each names the setting and the way out; no value that is secret and no URL is ever part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from app.settings import Settings


class Symptom(NamedTuple):
    """`mark`: ✓ a fact, ! a warning, ✗ a fault."""

    mark: str
    text: str


Check = Callable[[Settings], Iterator[Symptom]]
"""Looks at one thing; a SluiceError, OSError or ValueError that it raises is a fault too."""


def fact(text: str) -> Symptom:
    return Symptom("✓", text)


def warning(text: str) -> Symptom:
    return Symptom("!", text)


def fault(text: str) -> Symptom:
    return Symptom("✗", text)
