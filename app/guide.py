"""The guideline of a category: what belongs there and what does not, in the words that reviewers decide by. Draft Measures, Article 8.

Law: data/guide.toml alone says so; every category has both halves in both languages, for what does not belong weighs as much as what does.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Guide(NamedTuple):
    """Each: language -> words."""

    belongs: dict[str, str]
    not_: dict[str, str]


@cache
def guides() -> dict[str, Guide]:
    """Of every category, by id."""
    rows = tomllib.loads((files("app") / "data" / "guide.toml").read_text("utf-8"))
    usual = rows.pop("usual")
    return {
        id: Guide({"zh": row["zh"], "en": row["en"]}, {k: row.get(f"not_{k}", usual[k]) for k in ("zh", "en")})
        for id, row in rows.items()
    }


def guide(id: str) -> Guide:
    """Raises KeyError for what is no category."""
    return guides()[id]
