"""The guard that the settings name. Law: one that cannot be read stops nothing; it is missed, visibly, where it is asked."""

from __future__ import annotations

import logging

from app import modelfile
from app.errors import GuardError, ModelError
from app.guards import formats
from app.guards.guard import Answers, ModelGuard
from app.guards.local import Local
from app.guards.remote import Remote
from app.keys import Keys
from app.modelfile import GuardFile
from app.policy import taxonomy
from app.settings import Settings
from app.types import Candidate, Scope

log = logging.getLogger("sluice.guards")


class Absent:
    """A guard (app.types.Guard) whose folder cannot be read. It is asked wherever a guard would be and never has an answer: what then
    happens, policy says."""

    version = "none"

    def __init__(self, name: str) -> None:
        self.name = name
        # One that covered nothing would be asked nothing, and nobody would see that it is not there.
        self.covers = frozenset(taxonomy())

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def judge(self, text: str, since: int, scope: Scope) -> list[Candidate]:
        """Raises GuardError("missing")."""
        raise GuardError("missing")


def guard_of(settings: Settings, keys: Keys) -> ModelGuard | Absent | None:
    """The guard that the settings name, None where they name none."""
    name = settings.guard
    if name is None:
        return None
    folder = settings.models / name
    try:
        file = modelfile.read(folder)
        if not isinstance(file, GuardFile):
            raise ModelError(f"{folder}: kind must be 'guard'")
        format = formats.of(file.format)
    except (ModelError, GuardError) as e:
        reason = f"{folder}: no such format of guard models" if isinstance(e, GuardError) else str(e)
        log.error("guard cannot be used, its questions go unanswered", extra={"guard": name, "reason": reason})
        return Absent(name)
    return ModelGuard(name, file, format, _answers(settings, file, name), keys.derive("fingerprint"))


def _answers(settings: Settings, file: GuardFile, name: str) -> Answers:
    if settings.guard_url is not None:
        return Remote(settings.guard_url, settings.guard_key, file)
    assert settings.guard_path is not None
    return Local(settings.guard_path, file, name, settings.guard_threads)
