"""The desk: everything that people work with at the admin port, in one place. Law: it holds and does nothing; what is done is done by the
parts, for the API and for the console alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from app import evidence, transparency
from app.agreements import Agreements
from app.claims import Claims
from app.complaints import Complaints
from app.errors import SettingsError
from app.history import History
from app.keys import Keys
from app.playground import Playground
from app.policy import Policies
from app.register import Register
from app.review import Review
from app.settings import Settings
from app.statements import Archive
from app.store.cases import Cases
from app.store.tables import Entries, Row, Shadows, Statements
from app.subjects import Subjects

T = TypeVar("T")


class Kept(Generic[T]):
    """What a file says: read again once it has changed; one that cannot be read leaves what was, as it does in the workers. `load` raises
    SettingsError, and so does the first call."""

    def __init__(self, path: Path | None, load: Callable[[], T]) -> None:
        self._path, self._load = path, load
        self._seen: object = None
        self._value: T | None = None

    def __call__(self) -> T:
        try:
            s = self._path.stat() if self._path is not None else None
            now: object = None if s is None else (s.st_mtime_ns, s.st_size, s.st_ino)
        except OSError:
            now = "gone"
        if self._value is None or now != self._seen:
            try:
                self._value = self._load()
            except SettingsError:
                if self._value is None:
                    raise
            self._seen = now
        return self._value


@dataclass(frozen=True, slots=True)
class Desk:
    """`statements`: the table that `archive` follows. `replica`: what the workers of this replica enforce. `policies`: those of the file,
    read now; `apps`: the ids of the apps file, read now."""

    settings: Settings
    keys: Keys
    entries: Entries
    shadows: Shadows
    review: Review
    claims: Claims
    register: Register
    history: History
    cases: Cases
    complaints: Complaints
    subjects: Subjects
    agreements: Agreements
    statements: Statements
    archive: Archive
    playground: Playground
    replica: Callable[[], dict[str, Any]]
    policies: Callable[[], Policies]
    apps: Callable[[], set[str]]

    async def evidence(self, now: Policies) -> Row:
        """What an auditor is given. Raises StoreError."""
        workers = self.replica().get("workers", [])
        return await evidence.collected(
            self.cases, self.complaints, self.entries, now, self.keys, workers, self.archive, self.settings.models
        )

    async def transparency(self, half: str, public: bool = False) -> Row:
        """The report of a half-year, "2026H2". Raises RequestError, StoreError."""
        return await transparency.collected(self.cases, self.complaints, half, public=public)
