"""The guard that the settings name. Law: it follows its model.toml. One that cannot be read stops nothing; it is missed, visibly, where it
is asked, and there again once its file is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from pathlib import Path

from app import modelfile
from app.errors import GuardError, ModelError
from app.guards import formats
from app.guards.guard import Answers, ModelGuard
from app.guards.local import Local
from app.guards.remote import Remote
from app.modelfile import GuardFile
from app.settings import Settings
from app.taxonomy import taxonomy
from app.types import Candidate, Scope

log = logging.getLogger("sluice.guards")


class NamedGuard:
    """A Guard (app.types) as the folder of SLUICE_MODELS describes it now. Where that cannot be read, it is asked wherever a guard would
    be and never has an answer: what then happens, policy says. `key`: see `described`."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        assert settings.guard is not None
        self.name = settings.guard
        self._settings, self._key = settings, key
        self.source: Path = settings.models / self.name / modelfile.NAME
        self._guard: ModelGuard | None = None
        try:
            self._guard = described(settings, key)
        except ModelError as e:
            log.error("guard cannot be used, its questions go unanswered", extra={"guard": self.name, "reason": str(e)})

    @property
    def version(self) -> str:
        return self._guard.version if self._guard is not None else "none"

    @property
    def covers(self) -> Set[str]:
        # One that covered nothing would be asked nothing, and nobody would see that it is not there.
        return self._guard.covers if self._guard is not None else frozenset(taxonomy())

    async def start(self) -> None:
        if self._guard is not None:
            await self._guard.start()

    async def close(self) -> None:
        if self._guard is not None:
            await self._guard.close()

    async def reload(self) -> None:
        """Go on as the folder now describes it; what is asked meanwhile is asked of the new one, and of the old one what it already was.
        Raises ModelError, and all stays as it was, where it cannot be read."""
        fresh, old = described(self._settings, self._key), self._guard
        await fresh.start()
        self._guard = fresh
        if old is not None:
            await old.close()

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        """See app.types.Guard. Raises GuardError, of "missing" while it cannot be read."""
        if self._guard is None:
            raise GuardError("missing")
        return await self._guard.judge(text, since, scope)


def described(settings: Settings, key: bytes) -> ModelGuard:
    """The guard that the settings name, not started. `key`: of the fingerprints by which it remembers. Raises ModelError that says what
    is wrong with its folder."""
    name = settings.guard
    assert name is not None
    folder = settings.models / name
    file = modelfile.read(folder)
    if not isinstance(file, GuardFile):
        raise ModelError(f"{folder}: kind must be 'guard'")
    try:
        format = formats.of(file.format)
    except ModelError as e:
        raise ModelError(f"{folder / modelfile.NAME}: {e}") from None
    return ModelGuard(name, file, format, _answers(settings, file, name), key)


def _answers(settings: Settings, file: GuardFile, name: str) -> Answers:
    if settings.guard_url is not None:
        return Remote(settings.guard_url, settings.guard_key, file)
    assert settings.guard_path is not None
    return Local(settings.guard_path, file, name, settings.guard_threads)
