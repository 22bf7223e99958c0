"""Apps: the clients of the gateway, their keys, their policy section, and which header names a user.

Law: without an apps file there is one app, `default`, and the client's own credentials pass through; with one, a
request without a listed key is refused. Keys are kept as SHA-256 (they are random, not passwords) and never shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import PolicyError, RequestError, SettingsError
from app.keys import Keys
from app.policy import explain, read_yaml
from app.types import Subject


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    keys: list[str] = Field(default=[], description="sha256:<64 hex digits> of each key")
    policy: str | None = Field(None, description="section of the policy file; default: the app's id")
    trusted_headers: dict[str, str] = Field(
        default={},
        description="subject: the header that carries the user's id; conversation: the one that carries a conversation's",
    )


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    apps: list[_Row] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class App:
    """`policy`: the section of the policy file. Headers: lower-case, '' if none is trusted."""

    id: str
    policy: str
    subject_header: str = ""
    conversation_header: str = ""

    def subject(self, headers: Mapping[str, str], keys: Keys) -> Subject | None:
        """The pseudonym of the user that a trusted header names, if any."""
        user = headers.get(self.subject_header) if self.subject_header else None
        return Subject(self.id, keys.pseudonym(self.id, user)) if user else None

    def readers(self, headers: Mapping[str, str], keys: Keys) -> tuple[str, ...]:
        """Under which names answers to this request are screened, under every key, the newest first: the user's, and the conversation's,
        as far as headers name them."""
        user = headers.get(self.subject_header) if self.subject_header else None
        talk = headers.get(self.conversation_header) if self.conversation_header else None
        named = [
            names for names in (user and keys.reporters(self.id, user), talk and keys.talks(self.id, talk)) if names
        ]
        return tuple(name for names in zip(*named, strict=True) for name in names)


class Apps:
    """All apps, found by key."""

    def __init__(self, apps: list[tuple[App, list[str]]]) -> None:
        self._by_hash = {digest: app for app, hashes in apps for digest in hashes}
        self._only = apps[0][0] if not self._by_hash else None

    @property
    def all(self) -> set[App]:
        """Every app."""
        return {*self._by_hash.values(), *filter(None, [self._only])}

    @property
    def ids(self) -> set[str]:
        """Every app's id."""
        return {app.id for app in self.all}

    @property
    def keyed(self) -> bool:
        """True if any app has a key: then every request needs one."""
        return bool(self._by_hash)

    def identify(self, headers: Mapping[str, str]) -> App:
        """The app of a request by `Authorization: Bearer` or `x-api-key`. Raises RequestError 401."""
        if self._only is not None:
            return self._only
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").removeprefix(
            "bearer "
        )
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        for known, app in self._by_hash.items():
            if hmac.compare_digest(known, digest):
                return app
        raise RequestError(
            "this gateway needs an app key as `Authorization: Bearer …`", code="invalid_api_key", status=401
        )


def load(path: Path | None) -> Apps:
    """Raises SettingsError naming the field at fault."""
    if path is None:
        return Apps([(App("default", "default"), [])])
    try:
        file = _File.model_validate(read_yaml(path.read_bytes(), str(path)))
    except OSError as e:
        raise SettingsError(f"SLUICE_APPS: {path} cannot be read ({e.strerror})") from None
    except ValidationError as e:
        raise SettingsError(f"SLUICE_APPS: {explain(e, str(path))}") from None
    except PolicyError as e:
        raise SettingsError(f"SLUICE_APPS: {e}") from None
    apps: list[tuple[App, list[str]]] = []
    seen: set[str] = set()
    for row in file.apps:
        if row.id in seen:
            raise SettingsError(f"SLUICE_APPS: {path}: the app {row.id!r} stands twice")
        seen.add(row.id)
        if unknown := sorted(set(row.trusted_headers) - {"subject", "conversation"}):
            raise SettingsError(
                f"SLUICE_APPS: {path}: apps.{row.id}.trusted_headers.{unknown[0]}: no such key; 'subject' and 'conversation' are"
            )
        hashes = []
        for key in row.keys:
            digest = key.removeprefix("sha256:")
            if digest == key or len(digest) != 64 or not all(c in "0123456789abcdef" for c in digest):
                raise SettingsError(
                    f"SLUICE_APPS: {path}: apps.{row.id}.keys: each must be sha256: and 64 lower-case hex digits"
                )
            if digest in seen:
                raise SettingsError(f"SLUICE_APPS: {path}: apps.{row.id}.keys: one key names two apps")
            seen.add(digest)
            hashes.append(digest)
        headers = (row.trusted_headers.get(name, "").lower() for name in ("subject", "conversation"))
        apps.append((App(row.id, row.policy or row.id, *headers), hashes))
    if len(apps) > 1 and any(not hashes for _, hashes in apps):
        raise SettingsError(f"SLUICE_APPS: {path}: with several apps each needs at least one key")
    return Apps(apps)
