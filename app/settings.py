"""Settings: the only reader of the environment. Law: an unknown SLUICE_ name or an unsafe combination refuses to start.

Every variable is `SLUICE_` + the field's name in capitals; docs/configuration.md lists them. A change needs a restart.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import SettingsError

PREFIX = "SLUICE_"
_SECRET = {
    "upstream_key",
    "surrogate_key",
    "guard_key",
    "alert_key",
    "alert_url",
    "secret_key",
    "admin_token",
    "redis_url",
    "oidc_client_secret",
}


def packaged(name: str) -> Path:
    """A data folder: beside the package in a checkout, inside it in a wheel."""
    inside = Path(str(files("app"))) / name
    return inside if inside.exists() else inside.parent.parent / name


class Settings(BaseModel):
    """Defaults are those of the contract. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstream_url: str = Field(
        "http://127.0.0.1:8000/v1", description="the model's base, as the OpenAI client takes it, ending in /v1"
    )
    upstream_key: str | None = Field(
        None, description="the model's key; unset: the client's own credentials pass through"
    )
    upstream_connect_timeout: float = Field(2.0, gt=0)
    upstream_first_token_timeout: float = Field(60.0, gt=0)
    upstream_idle_timeout: float = Field(30.0, gt=0)
    surrogate_upstream: str | None = Field(
        None,
        description="a safe model's base, ending in /v1: asked where an answer was stopped before its first character",
    )
    surrogate_key: str | None = Field(None, description="the safe model's key")
    surrogate_model: str | None = Field(None, description="the safe model's name; unset: the one the client asked for")
    answer_max_characters: int = Field(4 << 20, ge=1024, description="what a model may say in one answer")
    answer_max_seconds: float = Field(3600.0, gt=0)
    client_header_timeout: float = Field(10.0, gt=0, description="for all headers of a request")
    client_body_timeout: float = Field(60.0, gt=0, description="for all of a request's body")
    client_stall_timeout: float = Field(60.0, gt=0, description="a client that reads nothing for so long is cut off")
    max_exchanges: int | None = Field(
        None, ge=1, description="at once in each worker; unset: as many as its file descriptors allow"
    )
    memory_limit: int | None = Field(
        None, ge=64, description="MiB that each worker may have; unset: its share of the container's"
    )
    drain_timeout: float = Field(
        8.0, ge=0, description="that running answers get to end in when Sluice is told to stop"
    )
    host: str = "127.0.0.1"
    port: int = Field(8100, ge=0, le=65535)
    ops_host: str = "127.0.0.1"
    ops_port: int = Field(8101, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: int = Field(8102, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=256)
    redis_url: str | None = Field(None, description="unset: a private server is started in DATA_DIR")
    redis_replicas: int = Field(
        0, ge=0, le=8, description="replicas that must have a report, a decision or an entry before it is acknowledged"
    )
    data_dir: Path = Path(".sluice")
    deployment: str = Field("default", pattern=r"^[a-z0-9_-]{1,40}$", description="names the keys in a shared Redis")
    policy: Path = Field(default_factory=lambda: Path(str(files("app"))) / "policy.yaml")
    apps: Path | None = None
    lexicons: Path = Field(default_factory=lambda: packaged("lexicons"))
    models: Path = Field(default_factory=lambda: packaged("models"))
    guard: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$",
        description="a guard model: the name of its folder in MODELS",
    )
    guard_url: str | None = Field(None, description="the server that it runs at")
    guard_key: str | None = Field(None, description="the server's key")
    guard_path: Path | None = Field(None, description="or the folder on this machine that it is run from")
    guard_threads: int = Field(1, ge=1, le=256, description="of the process that runs it")
    clean: Path | None = Field(None, description="a folder of *.txt: texts, one a line, that no report may hide")
    alert_url: str | None = Field(None, description="where alerts about due dates are posted, as JSON")
    alert_key: str | None = Field(None, description="sent there as a bearer token")
    secret_key: str | None = None
    admin_token: str | None = None
    console_url: str | None = Field(
        None, description="where browsers reach the console, for example https://ops.example.internal/console"
    )
    oidc_issuer: str | None = Field(None, max_length=500, description="the OpenID provider, exactly as it names itself")
    oidc_client_id: str | None = Field(
        None, pattern=r"^[\x20-\x7e]{1,200}$", description="the name that it knows Sluice by"
    )
    oidc_client_secret: str | None = Field(None, description="unset: a public client, by PKCE alone")
    oidc_roles: str | None = Field(None, description="how groups become roles: claim=value:role,value:role")

    def shown(self) -> dict[str, str]:
        """Effective values under their environment names, secrets masked."""
        return {
            PREFIX + name.upper(): "" if value is None else "********" if _secret(name, value) else str(value)
            for name, value in self.model_dump().items()
        }


def _secret(name: str, value: Any) -> bool:
    # An address with credentials is refused later, but `doctor` shows it first. Of an alert's the path may be the secret.
    return name in _SECRET or (
        name in ("upstream_url", "surrogate_upstream", "guard_url", "oidc_issuer", "console_url")
        and any(c in value for c in "@?#")
    )


def loopback(host: str) -> bool:
    """True where only this machine can connect."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (command-line options) win.

    Raises SettingsError naming every variable at fault and the way out.
    """
    source = os.environ if environ is None else environ
    # An empty value means unset: compose files and unit files write `NAME=`.
    values: dict[str, Any] = {
        k.removeprefix(PREFIX).lower(): v for k, v in source.items() if k.startswith(PREFIX) and v != ""
    }
    values.update({k: v for k, v in overrides.items() if v is not None})
    try:
        return Settings(**values)
    except ValidationError as e:
        lines = []
        for error in e.errors(include_input=False, include_url=False):
            name = PREFIX + ".".join(map(str, error["loc"])).upper()
            if error["type"] == "extra_forbidden":
                lines.append(
                    f"{name}: no such setting (未知设置); the known ones are in docs/configuration.md and `sluice doctor`"
                )
            else:
                lines.append(f"{name}: {error['msg']}")
        raise SettingsError("\n".join(lines)) from None


def _unsound(name: str, address: str, key: str, *, base: bool = True) -> list[str]:
    """What is wrong with a model's URL, if anything; `base`: it is one as the OpenAI client takes it."""
    try:
        url = urlsplit(address)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        url, sound = urlsplit(""), False
    if not sound:
        return [f"{PREFIX}{name} must be an http or https URL, for example http://127.0.0.1:8000/v1"]
    if base and not url.path.rstrip("/").endswith("/v1"):
        return [f"{PREFIX}{name} must end in /v1, as the OpenAI client takes it"]
    if "@" in url.netloc or url.query or url.fragment:
        return [f"{PREFIX}{name} must carry no credentials, query or fragment; the key goes into {PREFIX}{key}"]
    return []


def _guardless(settings: Settings) -> list[str]:
    """Why the settings name no guard that could be asked, if they name half of one."""
    places = [place for place in (settings.guard_url, settings.guard_path) if place is not None]
    if settings.guard is None and places:
        return [
            "SLUICE_GUARD must name the guard's folder in SLUICE_MODELS where SLUICE_GUARD_URL or SLUICE_GUARD_PATH is set"
        ]
    if settings.guard is not None and len(places) != 1:
        return [
            "SLUICE_GUARD needs one of SLUICE_GUARD_URL (a server) and SLUICE_GUARD_PATH (a folder here), and not both"
        ]
    if settings.guard_url is not None:
        # A hook has whatever path it has.
        return _unsound("GUARD_URL", settings.guard_url, "GUARD_KEY", base=False)
    return []


Scope = Literal["review", "lists", "audit", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_NAMED = re.compile(r"([a-z][a-z0-9_-]{0,31})(?:/([a-z+]+))?:(\S{16,})\Z")


_MEANT = re.compile(r"[a-z][a-z0-9_-]{0,31}(/\S*)?:")
"""How a name before a token begins: what begins so and goes on otherwise is a mistake, and not one token for everything."""


class Admin(NamedTuple):
    """Whose token it is, and what it may do."""

    name: str
    scopes: frozenset[Scope] = frozenset(SCOPES)


def admins(token: str) -> dict[str, Admin]:
    """Token -> whose it is. SLUICE_ADMIN_TOKEN is one token, which is `admin`'s, or `name:token,name/scope+scope:token…`: who decides is
    written down, and what needs a second reviewer needs two names; without scopes a token may do everything. Raises SettingsError for a
    name that stands twice, and for a scope that is none."""
    parts = [part.strip() for part in token.split(",")]
    found = [_NAMED.match(part) for part in parts]
    if not token:
        return {}
    if not all(found):
        if len(parts) > 1 or _MEANT.match(token):
            at = next(n for n, m in enumerate(found, 1) if m is None)
            raise SettingsError(
                f"SLUICE_ADMIN_TOKEN: part {at} is no name:token or name/scope+scope:token, with a token of at least 16 characters"
            )
        return {token: Admin("admin")}
    named: dict[str, Admin] = {}
    for m in found:
        assert m is not None
        asked = m[2].split("+") if m[2] else SCOPES
        scopes = frozenset(scope for scope in SCOPES if scope in asked)
        if len(scopes) != len(set(asked)):
            raise SettingsError(f"SLUICE_ADMIN_TOKEN: {m[1]}: the scopes are {', '.join(SCOPES)}, joined by +")
        named[m[3]] = Admin(m[1], scopes)
    if len({who.name for who in named.values()}) != len(parts):
        raise SettingsError("SLUICE_ADMIN_TOKEN: a name or a token stands twice")
    return named


Role = Literal["reviewer", "lead", "operator", "auditor"]
ROLES: tuple[Role, ...] = get_args(Role)


class Mapped(NamedTuple):
    """Which roles a claim of an ID token gives: by its value, or by each that it lists."""

    claim: str
    roles: Mapping[str, frozenset[Role]]


def mapped(text: str) -> Mapped:
    """SLUICE_OIDC_ROLES: `claim=value:role,value:role`. The last colon ends a value, which may hold others; one value may stand twice, with
    two roles. Raises SettingsError for anything else."""
    claim, _, rows = text.partition("=")
    found: dict[str, frozenset[Role]] = {}
    for at, row in enumerate(rows.split(","), 1):
        value, _, named = (part.strip() for part in row.rpartition(":"))
        role = next((role for role in ROLES if role == named), None)
        if not claim.strip() or not value or role is None:
            raise SettingsError(
                f"SLUICE_OIDC_ROLES: part {at} is not as in groups=sluice-reviewers:reviewer,sluice-leads:lead; "
                f"the roles (角色) are {', '.join(ROLES)}"
            )
        found[value] = found.get(value, frozenset()) | {role}
    return Mapped(claim.strip(), found)


def _overheard(name: str, address: str, example: str) -> list[str]:
    """What is wrong with an address that logins pass through, if anything: whoever reads along is whoever logs in."""
    try:
        url = urlsplit(address)
        host = url.hostname or ""
        private = url.scheme == "https" or (url.scheme == "http" and loopback(host))
        sound = private and bool(host) and url.port != 0 and all("!" <= c <= "~" for c in address)
    except ValueError:
        sound = False
    if not sound:
        return [
            f"{PREFIX}{name} must be an https URL, for example {example}; http only on loopback (须为 https 地址，仅本机可用 http)"
        ]
    if any(c in address for c in "@?#"):
        return [f"{PREFIX}{name} must carry no credentials, query or fragment (不得带口令、查询或片段)"]
    return []


def _loginless(settings: Settings) -> list[str]:
    """Why nobody could log in by OpenID Connect, or anybody, where the settings name a provider or half of one."""
    needed = {
        "OIDC_ISSUER": settings.oidc_issuer,
        "OIDC_CLIENT_ID": settings.oidc_client_id,
        "OIDC_ROLES": settings.oidc_roles,
    }
    reasons = []
    if settings.oidc_client_secret is not None or any(value is not None for value in needed.values()):
        for name, value in (needed | {"CONSOLE_URL": settings.console_url}).items():
            if value is None:
                reasons.append(
                    f"{PREFIX}{name} must be set where a login by OpenID Connect is (用 OIDC 登录须设置此项); "
                    "docs/console.md says to what, and without any SLUICE_OIDC_… there is none"
                )
    if settings.oidc_issuer is not None:
        reasons += _overheard("OIDC_ISSUER", settings.oidc_issuer, "https://id.example.internal")
    if settings.console_url is not None:
        reasons += _overheard("CONSOLE_URL", settings.console_url, "https://ops.example.internal/console")
    if settings.oidc_roles is not None:
        try:
            mapped(settings.oidc_roles)
        except SettingsError as e:
            reasons.append(str(e))
    return reasons


def unsafe(settings: Settings, *, app_keys: bool) -> list[str]:
    """Reasons not to serve with these settings; empty if none. `app_keys`: the apps file names at least one key."""
    reasons = _unsound("UPSTREAM_URL", settings.upstream_url, "UPSTREAM_KEY")
    if settings.surrogate_upstream is not None:
        reasons += _unsound("SURROGATE_UPSTREAM", settings.surrogate_upstream, "SURROGATE_KEY")
    reasons += _guardless(settings)
    reasons += _loginless(settings)
    if settings.alert_url is not None:
        reasons += _unsound("ALERT_URL", settings.alert_url, "ALERT_KEY", base=False)
    if settings.upstream_key and not loopback(settings.host) and not app_keys:
        reasons.append(
            "SLUICE_UPSTREAM_KEY with the non-loopback SLUICE_HOST would be an open proxy on your bill (开放代理): "
            "name the apps and their keys in the file of SLUICE_APPS, or bind SLUICE_HOST to 127.0.0.1"
        )
    if settings.redis_url and not settings.secret_key:
        reasons.append(
            "SLUICE_SECRET_KEY must be set when SLUICE_REDIS_URL is: replicas share it; "
            "`python -c 'import secrets; print(secrets.token_urlsafe(48))'` makes one"
        )
    named = admins(settings.admin_token or "")
    if not loopback(settings.admin_host) and min(map(len, named), default=0) < 32:
        reasons.append("SLUICE_ADMIN_HOST is not loopback: SLUICE_ADMIN_TOKEN must be set, at least 32 characters each")
    return reasons


def metrics_folder(settings: Settings) -> Path:
    """A fresh folder for this run's metrics. Must be in the environment before prometheus_client is imported."""
    folder = settings.data_dir.absolute() / "run" / f"metrics-{os.getpid()}"
    for old in folder.parent.glob("metrics-*"):
        if old == folder or not Path("/proc", old.name.removeprefix("metrics-")).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder
