"""Live entries as they come in: what one may say, and the row that it becomes. Law: a passage is fingerprinted on arrival and never stored
or returned; a term that would stand in every text is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app import clock
from app.detectors.blocklist import pack
from app.errors import RequestError
from app.keys import Keys
from app.passages import fingerprint
from app.store.tables import Row, gone
from app.taxonomy import taxonomy
from app.text import fold

AT_ONCE = 500
"""Entries of a list that one call brings or removes at most."""
_LAST_YEAR = 2199
NAMED = r"^[\w.-]{1,64}$"
"""What a list may be called."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EntryScope(_Strict):
    """`app`: an app id, or '*' for all."""

    app: str = Field(default="*", pattern=r"^(\*|[a-z0-9][a-z0-9_-]{0,62})$")
    directions: list[Literal["prompt", "answer"]] = Field(default=["prompt", "answer"], min_length=1, max_length=2)


class Correction(_Strict):
    """What is right where an entry is wrong: shown instead where the entry replaces. `source`: where it can be read."""

    zh: str = Field(min_length=1, max_length=2000)
    en: str = Field(min_length=1, max_length=2000)
    source: str | None = Field(default=None, max_length=500, pattern=r"^https?://\S+$")


class EntryIn(_Strict):
    """A blocklist entry as a moderator sends it. A passage is fingerprinted on arrival and never stored or returned. `list`: the
    operator's list that it is of."""

    term: str | None = Field(default=None, max_length=200)
    passage: str | None = Field(default=None, max_length=60_000)
    category: str
    action: Literal["flag", "mask", "replace", "block"] = "block"
    tier: Literal["certain", "suspect"] = "certain"
    scope: EntryScope = EntryScope()
    reason: str = Field(min_length=1, max_length=1000)
    expires_at: datetime | None = None
    correction: Correction | None = None
    list: str | None = Field(default=None, pattern=NAMED)

    @field_validator("category")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in taxonomy():
            raise ValueError("no such category; the ids are in docs/categories.md")
        return value

    @field_validator("term")
    @classmethod
    def _long_enough(cls, value: str | None) -> str | None:
        if value is not None:
            value = " ".join(value.split())  # as it was pasted: with spaces or a line break around it
            letters = [c for c in fold(value) if c.isalnum()]
            # One Han character, or two Latin letters, stand in nearly every text.
            if len(letters) < (2 if any(c >= "\u2e80" for c in letters) else 4):
                raise ValueError("too short: at least 2 Chinese characters or 4 letters or digits")
        return value

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, value: datetime | None) -> datetime | None:
        if value is not None:
            if value.tzinfo is None:
                raise ValueError("must say its zone, for example 2027-01-31T00:00:00+08:00")
            try:
                value = value.astimezone(UTC)
            except OverflowError:
                raise ValueError("is too far ahead") from None
            if value.timestamp() <= clock.now():
                raise ValueError("is in the past")
            if value.year > _LAST_YEAR:
                raise ValueError("is too far ahead")
        return value

    @model_validator(mode="after")
    def _one(self) -> EntryIn:
        if (self.term is None) == (self.passage is None):
            raise ValueError("give either 'term' or 'passage'")
        return self


def acts(entry: EntryIn) -> bool:
    """It changes what people get, by itself."""
    return entry.action != "flag" and entry.tier == "certain"


def public(row: Row) -> Row:
    """An entry as it is returned: a passage's fingerprint stays inside."""
    return {k: v for k, v in row.items() if k != "fingerprint"} | (
        {"kind": "passage"} if "fingerprint" in row else {"kind": "term"}
    )


def written(entry: EntryIn, who: str, keys: Keys) -> Row:
    """The row of an entry, without its id. Raises RequestError for a passage that cannot be one."""
    row: Row = entry.model_dump(mode="json", exclude={"term", "passage", "correction", "list"})
    row["created_at"] = clock.stamp()
    row["owner"] = who
    if entry.list is not None:
        row["list"] = entry.list
    if entry.correction is not None:
        row["correction"] = entry.correction.model_dump(exclude_none=True)
    if entry.term is not None:
        row["term"] = entry.term
    else:
        try:
            row["fingerprint"] = pack(fingerprint(entry.passage or "", keys.kid, keys.derive("fingerprint")))
        except ValueError as e:
            raise RequestError(f"passage: {e}", code="invalid_request", param="passage", status=422) from None
    if entry.expires_at is not None:
        row["expires_at"] = entry.expires_at.isoformat()
    return row


def gone_row(row: Row) -> Row:
    """The row once it is deleted: nothing that it said."""
    left = {k: v for k, v in row.items() if k not in ("version", "term", "fingerprint", "correction")}
    return left | gone(row["id"])
