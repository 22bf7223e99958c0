"""Exceptions: prompts that an upheld appeal lets through. Law: one is of an exact folded text, an app and a category, and ends by a date;
no part of a text, no other app and no other category passes by it. Kept as a MAC, like everything of a text.

Prompts alone: of an answer that is streamed nobody knows before its end that it is the excepted text, and a verdict must not depend on
that; what stopped an answer wrongly is mended where it stands, at the entry or the term (docs/adr/0021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app import clock
from app.keys import Keys
from app.text import fold


class Exceptions:
    """Those in force, as the store's table gives them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._rows: dict[str, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def foreign(self) -> int:
        """Those whose key this replica does not have: nothing passes by them."""
        return sum(id.partition(".")[0] not in self._keys.kids for id in self._rows)

    def change(self, rows: dict[str, dict[str, Any] | None], version: int, whole: bool) -> None:
        """Put changed rows into force (None: no longer), or the `whole` table."""
        merged = {**({} if whole else self._rows), **rows}
        self._rows = {id: row for id, row in merged.items() if row is not None}

    def of(self, app: str, text: str) -> frozenset[str]:
        """The categories that this very text is excepted from."""
        if not self._rows:
            return frozenset()
        marks = exception_marks(self._keys, app, text)
        found = (self._rows.get(f"{mark}.{c}") for mark in marks for c in self._categories())
        return frozenset(row["category"] for row in found if row is not None)

    def _categories(self) -> set[str]:
        return {row["category"] for row in self._rows.values()}


def exception_marks(keys: Keys, app: str, text: str) -> list[str]:
    """The MACs of a folded text within an app, the newest key first."""
    folded = fold(text)
    return [
        f"{kid}.{keys.mac('fingerprint', 'exception', app, folded, kid=kid).hex()}" for kid in keys.all("fingerprint")
    ]


def exception(keys: Keys, app: str, text: str, category: str, until: float, matter: str) -> dict[str, Any]:
    """A row."""
    return {
        "id": f"{exception_marks(keys, app, text)[0]}.{category}", "app": app, "category": category, "matter": matter,
        "expires_at": clock.stamp(until).replace("Z", "+00:00"),
    }  # fmt: skip
