"""Apps: the clients of the gateway, their keys and limits, their policy section, and what says who a user is.

Law: without an apps file there is one app, `default`, and the client's own credentials pass through; with one, a request without a listed
key is refused. Keys are kept as SHA-256 (they are random, not passwords) and never shown. What an app does not say it has from
`defaults`, and what that does not say is safe for the operator's bill. A file that changes is taken whole or not at all.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app import clock
from app.deadlines import SHANGHAI
from app.errors import PolicyError, RequestError, SettingsError
from app.identity import ANYWHERE, NOBODY, Assertion, Identity, IdentityRule, Proxies
from app.keys import Keys
from app.policyfile import explain, read_yaml
from app.types import Subject

Reach = Literal["generate", "moderate", "report"]
"""What a key may be used for: the model's routes; /v1/moderations; reports, complaints and appeals."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitRule(_Strict):
    """What an app may use, over all replicas; 0: no limit. `choices`: n of one request; `max_tokens`: what a request may ask for."""

    per_minute: int = Field(default=600, ge=0, le=1_000_000)
    concurrent: int = Field(default=64, ge=0, le=100_000)
    choices: int = Field(default=8, ge=0, le=128)
    max_tokens: int = Field(default=0, ge=0, le=10_000_000)


SAFE = LimitRule()
UNLIMITED = LimitRule(per_minute=0, concurrent=0, choices=0)


_NAME = r"[a-z0-9]+(?:-+[a-z0-9]+)*"
_ORIGIN = re.compile(rf"(https?)://{_NAME}(?:\.{_NAME})*(?::([1-9][0-9]{{0,4}}))?")
_IMPLIED = {"http": 80, "https": 443}


class PagesRule(_Strict):
    """The users' pages (docs/embed.md). `origins`: sites that may frame them and call the report routes from a browser. `open`: they take
    reports for this app from people who have no key."""

    origins: list[str] = Field(default=[], max_length=100)
    open: bool = False

    @field_validator("origins")
    @classmethod
    def _exact(cls, value: list[str]) -> list[str]:
        """As browsers send an origin (RFC 6454, 6.2): each stands in a header of ours as it is."""
        for origin in value:
            found = _ORIGIN.fullmatch(origin) if len(origin) <= 300 else None
            if found is None:
                raise ValueError(
                    "must be origins as browsers send them, like https://chat.example or http://127.0.0.1:3000: scheme, host and "
                    "perhaps a port, in lower case, without a path, a wildcard or a slash at the end"
                )
            if found[2] is not None and not _IMPLIED[found[1]] != int(found[2]) <= 65535:
                raise ValueError(
                    "the port of an origin must be below 65536, and is left out where it is 443 of https or 80 of http"
                )
        return value


class _Key(_Strict):
    """A key: `expires`: its last day (Shanghai)."""

    sha256: str
    expires: date | None = None
    scopes: list[Reach] = Field(default=["generate", "moderate", "report"], min_length=1)


class _Shared(_Strict):
    """What an app may have from `defaults`."""

    trusted_headers: dict[str, str] = Field(
        default={},
        description="subject: the header that carries the user's id; conversation: the one that carries a conversation's",
    )
    proxies: list[str] = Field(
        default=[], description="networks from which headers are believed; none: from everywhere"
    )
    identity: IdentityRule | None = None
    limits: LimitRule = LimitRule()
    pages: PagesRule = PagesRule()

    @field_validator("proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError("must be networks like 10.0.0.0/8 or single addresses") from None
        return value


class _Row(_Shared):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    keys: list[str | _Key] = Field(
        default=[], description="sha256:<64 hex digits> of each key, or {sha256, expires, scopes}"
    )
    policy: str | None = Field(None, description="section of the policy file; default: the app's id")


class _File(_Strict):
    defaults: dict[str, Any] = {}
    apps: list[dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class App:
    """`policy`: the section of the policy file. Headers: lower-case, '' if none is trusted. `origins`, `open`: see PagesRule."""

    id: str
    policy: str
    subject_header: str = ""
    conversation_header: str = ""
    limits: LimitRule = SAFE
    proxies: Proxies = ANYWHERE
    identity: Identity | None = None
    origins: tuple[str, ...] = ()
    open: bool = False

    def asserted(self, headers: Mapping[str, str], peer: str = "") -> Assertion:
        """Who is vouched for."""
        return NOBODY if self.identity is None else self.identity.of(headers, peer)

    def _header(self, headers: Mapping[str, str], name: str, peer: str) -> str | None:
        believed = not self.proxies or self.proxies.trusted(peer)
        return headers.get(name) if name and believed else None

    def subject(self, headers: Mapping[str, str], keys: Keys, peer: str = "", user: str = "") -> Subject | None:
        """The pseudonym of the user whom a token (`user`) or a trusted header names, if any."""
        named = user or self._header(headers, self.subject_header, peer)
        return Subject(self.id, keys.pseudonym(self.id, named)) if named else None

    def readers(self, headers: Mapping[str, str], keys: Keys, peer: str = "", user: str = "") -> tuple[str, ...]:
        """Under which names answers to this request are screened, under every key, the newest first: the user's, and the conversation's,
        as far as a token (`user`) or headers name them."""
        mine = user or self._header(headers, self.subject_header, peer)
        talk = self._header(headers, self.conversation_header, peer)
        named = [
            names for names in (mine and keys.reporters(self.id, mine), talk and keys.talks(self.id, talk)) if names
        ]
        return tuple(name for names in zip(*named, strict=True) for name in names)


class _Known(NamedTuple):
    app: App
    until: float
    scopes: frozenset[str]


class Apps:
    """All apps, found by key."""

    def __init__(self, apps: list[tuple[App, list[_Key]]]) -> None:
        self.all = frozenset(app for app, _ in apps)
        self._by_hash = {
            key.sha256.removeprefix("sha256:"): _Known(app, _end(key.expires), frozenset(key.scopes))
            for app, keys in apps for key in keys
        }  # fmt: skip
        self._only = apps[0][0] if not self._by_hash else None

    @property
    def ids(self) -> set[str]:
        """Every app's id."""
        return {app.id for app in self.all}

    @property
    def keyed(self) -> bool:
        """True if any app has a key: then every request needs one."""
        return bool(self._by_hash)

    @property
    def origins(self) -> frozenset[str]:
        """Sites that some app lets in."""
        return frozenset(origin for app in self.all for origin in app.origins)

    def named(self, id: str) -> App | None:
        """The app of this id; for '' the only one there is. None: no such app, or '' with several."""
        return next((app for app in self.all if id == app.id or (not id and len(self.all) == 1)), None)

    @property
    def sections(self) -> dict[str, str]:
        """App id -> its section of the policy."""
        return {app.id: app.policy for app in self.all}

    def take(self, fresh: Apps) -> None:
        """Put another file's apps in the place of these. Raises SettingsError where that would open or close the door for everybody."""
        if fresh.keyed != self.keyed:
            raise SettingsError("SLUICE_APPS: whether apps need keys cannot change while Sluice runs; restart it")
        self.all, self._by_hash, self._only = fresh.all, fresh._by_hash, fresh._only

    def follow_on(self, before: Apps) -> None:
        """Take over the keys of issuers that are named as before: they were fetched already, and their place may be away now."""
        rings = {i.rule: i.keyring for app in before.all if (i := app.identity) is not None and i.keyring.remote}
        for app in self.all:
            if app.identity is not None:
                app.identity.keyring = rings.get(app.identity.rule, app.identity.keyring)

    async def start(self) -> None:
        for app in self.all:
            if app.identity is not None:
                await app.identity.keyring.start()

    async def stop(self) -> None:
        for app in self.all:
            if app.identity is not None:
                await app.identity.keyring.stop()

    def identify(self, headers: Mapping[str, str], reach: Reach = "generate") -> App:
        """The app of a request by `Authorization: Bearer` or `x-api-key`. Raises RequestError 401, or 403 for a key that was not given
        for this."""
        if self._only is not None:
            return self._only
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").removeprefix(
            "bearer "
        )
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        for known, row in self._by_hash.items():
            if hmac.compare_digest(known, digest):
                if clock.now() >= row.until:
                    raise RequestError(
                        "this app key has expired; use its successor", code="expired_api_key", status=401
                    )
                if reach not in row.scopes:
                    raise RequestError(
                        f"this app key is not for {reach!r}; its scopes are {', '.join(sorted(row.scopes))}",
                        code="key_scope", status=403,
                    )  # fmt: skip
                return row.app
        raise RequestError(
            "this gateway needs an app key as `Authorization: Bearer …`", code="invalid_api_key", status=401
        )


def _end(day: date | None) -> float:
    return (
        float("inf")
        if day is None
        else datetime.combine(day + timedelta(days=1), datetime.min.time(), SHANGHAI).timestamp()
    )


def sources(path: Path | None) -> list[Path]:
    """The files that make the apps of a file: it, and the key files that it names."""
    if path is None:
        return []
    try:
        file = _read(path)
    except SettingsError:
        return [path]
    named = [row.identity for row in file if row.identity is not None]
    files = [i.shared_key or (Path(i.jwks) if i.jwks and not i.jwks.startswith("https://") else None) for i in named]
    return [path, *filter(None, files)]


def _read(path: Path) -> list[_Row]:
    """Raises SettingsError naming the field at fault."""
    name = str(path)
    try:
        file = _File.model_validate(read_yaml(path.read_bytes(), name))
        shared = _Shared.model_validate(file.defaults)
    except OSError as e:
        raise SettingsError(f"SLUICE_APPS: {path} cannot be read ({e.strerror})") from None
    except ValidationError as e:
        raise SettingsError(f"SLUICE_APPS: {explain(e, name)}") from None
    except PolicyError as e:
        raise SettingsError(f"SLUICE_APPS: {e}") from None
    rows = []
    for at, given in enumerate(file.apps):
        merged = {k: getattr(shared, k) for k in shared.model_fields_set} | given
        for part in ("limits", "trusted_headers", "pages"):
            if isinstance(given.get(part), dict) and isinstance(file.defaults.get(part), dict):
                merged[part] = file.defaults[part] | given[part]
        try:
            rows.append(_Row.model_validate(merged))
        except ValidationError as e:
            raise SettingsError(f"SLUICE_APPS: {explain(e, name, 'apps', str(at))}") from None
    return rows


def load(path: Path | None) -> Apps:
    """Raises SettingsError naming the field at fault."""
    if path is None:
        return Apps([(App("default", "default", limits=UNLIMITED, open=True), [])])
    apps: list[tuple[App, list[_Key]]] = []
    seen: set[str] = set()
    for row in _read(path):
        where = f"SLUICE_APPS: {path}: apps.{row.id}"
        if row.id in seen:
            raise SettingsError(f"SLUICE_APPS: {path}: the app {row.id!r} stands twice")
        seen.add(row.id)
        if unknown := sorted(set(row.trusted_headers) - {"subject", "conversation"}):
            raise SettingsError(f"{where}.trusted_headers.{unknown[0]}: no such key; 'subject' and 'conversation' are")
        keys = []
        for given in row.keys:
            key = _Key(sha256=given) if isinstance(given, str) else given
            digest = key.sha256.removeprefix("sha256:")
            if digest == key.sha256 or len(digest) != 64 or not all(c in "0123456789abcdef" for c in digest):
                raise SettingsError(f"{where}.keys: each must be sha256: and 64 lower-case hex digits")
            if digest in seen:
                raise SettingsError(f"{where}.keys: one key names two apps")
            seen.add(digest)
            keys.append(key)
        if row.identity is not None and (row.identity.verified or row.identity.minor) and not row.proxies:
            raise SettingsError(
                f"{where}.proxies: must name the proxy whose identity headers are believed, for example [10.0.0.5]"
            )
        proxies = Proxies(tuple(map(ipaddress.ip_network, row.proxies)))
        try:
            identity = None if row.identity is None else Identity(row.identity, proxies)
        except SettingsError as e:
            raise SettingsError(f"{where}.{e}") from None
        subject, talk = (row.trusted_headers.get(name, "").lower() for name in ("subject", "conversation"))
        app = App(
            row.id, row.policy or row.id, subject, talk, row.limits, proxies, identity,
            tuple(dict.fromkeys(row.pages.origins)), row.pages.open,
        )  # fmt: skip
        apps.append((app, keys))
    if len(apps) > 1 and any(not keys for _, keys in apps):
        raise SettingsError(f"SLUICE_APPS: {path}: with several apps each needs at least one key")
    return Apps(apps)
