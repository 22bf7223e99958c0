"""Identity: who vouches for the person behind a request, and for what. Draft Measures, Article 9.

Law: an assertion only, never an identity: of a token nothing is kept but issuer, class and time; name and number are not even read. A token
is believed only where the operator's own configuration says by which keys and algorithms (RFC 7519, 7517; the attacks of RFC 8725): an
algorithm is never taken from the token, a public key never serves as a shared one, an address in a header is never followed. Keys are
fetched in the background; no request waits for a network. The only importer of PyJWT: what else reads tokens (app/oidc.py) asks here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import ipaddress
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jwt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app import clock, metrics, strictjson
from app.errors import RequestError, SettingsError, UpstreamError
from app.outbound import Outbound, target

log = logging.getLogger("sluice.identity")

TOKEN_MAX = 8192
"""Characters of a token."""
SET_MAX, _KEYS_MAX = 1 << 18, 100
"""Bytes of a key set, and keys in it."""
PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_RSA = PUBLIC[:6]
_SHARED = ("HS256", "HS384", "HS512")
_EVERY, _SOON = 300.0, 10.0
"""Seconds between two looks at a key set; and at least, where a token names a key that is not in it."""
_FIRST = 3.0
"""Seconds that a start waits for the first one."""
_STALE = 86_400.0
"""Seconds for which a key set that cannot be fetched anew is still believed."""
_KNOWN = 4096

Kind = Literal["verified", "unverified", "none"]
"""The class of an assertion: a real name was checked; it was not; nobody vouches."""


class Assertion(NamedTuple):
    """What was asserted. `user`: the provider's opaque subject, of which only a pseudonym is ever made. `fault`: why a token is not
    believed, '' where it is or none came."""

    kind: Kind = "none"
    issuer: str = ""
    minor: bool = False
    user: str = ""
    fault: str = ""


NOBODY = Assertion()


class IdentityRule(BaseModel):
    """How an app's users are vouched for. By a signed token: `issuer`, `audience`, and `jwks` (a file or an https address) or
    `shared_key` (a file with at least 32 bytes), in `header`. Or by headers that a named proxy sets: `verified`, `minor`; then only
    the app's `proxies` may send them. Claims are `true` or they are not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(default="", max_length=200, pattern=r"^[\x21-\x7e]*$")
    audience: str = Field(default="", max_length=200)
    jwks: str | None = Field(default=None, max_length=500)
    shared_key: Path | None = None
    algorithms: tuple[str, ...] = ()
    header: str = Field(default="x-sluice-identity", pattern=r"^[A-Za-z0-9-]{1,64}$")
    verified_claim: str = Field(default="real_name_verified", min_length=1, max_length=100)
    minor_claim: str = Field(default="minor", min_length=1, max_length=100)
    lifetime: int = Field(default=3600, ge=60, le=86_400)
    leeway: int = Field(default=30, ge=0, le=300)
    verified: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,64}$")
    minor: str = Field(default="", pattern=r"^[A-Za-z0-9-]{0,64}$")

    @field_validator("algorithms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [a for a in value if a not in PUBLIC + _SHARED]:
            # `none` and what nobody should use any more are not among them.
            raise ValueError(f"unknown algorithm {unknown[0][:20]!r}; they are {', '.join(PUBLIC + _SHARED)}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> IdentityRule:
        if self.jwks is not None and self.shared_key is not None:
            raise ValueError("jwks or shared_key, not both: a public key must never be taken for a shared one")
        if self.jwks is not None or self.shared_key is not None:
            if not (self.issuer and self.audience):
                raise ValueError("issuer and audience must be said where a token is expected")
            fitting = PUBLIC if self.jwks is not None else _SHARED
            if unfit := [a for a in self.algorithms if a not in fitting]:
                raise ValueError(f"algorithms: {unfit[0]} does not go with {'jwks' if self.jwks else 'shared_key'}")
            if self.jwks is not None and self.jwks.startswith("http://"):
                raise ValueError("jwks: must be an https address or a file: whoever changes it on the way is anybody")
        elif not self.verified and not self.minor:
            raise ValueError("say jwks or shared_key for tokens, or the headers `verified` and `minor` of a proxy")
        return self


class Refused(Exception):
    """A token that is not believed. The message is a word for the metrics: malformed, algorithm, unknown_key, signature, claims, issuer,
    audience, expired, future."""


class KeySet:
    """Public keys of one issuer by their ids, as a JSON Web Key Set lists them (RFC 7517)."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[dict[str, Any], jwt.PyJWK]] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def take(self, raw: bytes) -> None:
        """Put the keys of `raw` in the place of those before. Raises SettingsError for what is no key set; one key that is of no use does
        not spoil the others."""
        try:
            listed = strictjson.loads(raw)["keys"]
            if not isinstance(listed, list) or len(listed) > _KEYS_MAX:
                raise ValueError
        except (RequestError, ValueError, KeyError, TypeError):
            raise SettingsError("identity.jwks: is no JSON Web Key Set (RFC 7517)") from None
        found: dict[str, tuple[dict[str, Any], jwt.PyJWK]] = {}
        for at, row in enumerate(listed):
            # A shared key in a public set is no secret.
            if (
                not isinstance(row, dict)
                or row.get("kty") not in ("RSA", "EC", "OKP")
                or row.get("use", "sig") != "sig"
            ):
                continue
            try:
                key = jwt.PyJWK(row)
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
            found[str(row.get("kid", f"#{at}"))] = row, key
        if not found:
            raise SettingsError("identity.jwks: holds no public key that signs")
        self._keys = found

    def key(self, kid: Any, algorithm: str) -> jwt.PyJWK | None:
        """What a token of this header must be signed by; None: nothing known."""
        found = self._keys.get(kid) if isinstance(kid, str) else None
        if kid is None and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            return None
        row, key = found
        # A set may leave the algorithm to the token; only among those of the key's own kind.
        return jwt.PyJWK(row, algorithm) if row["kty"] == "RSA" and "alg" not in row and algorithm in _RSA else key


def said(token: str, key: Callable[[Any, str], Any], algorithms: Sequence[str]) -> dict[str, Any]:
    """What a token says whose signature holds (RFC 7515, 5.2; RFC 8725). `key`: (kid, algorithm) -> the key that is known under them, or
    None. Raises Refused."""
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Refused("malformed") from None
    algorithm = head.get("alg")
    if algorithm not in algorithms:
        raise Refused("algorithm")
    if "crit" in head or "b64" in head or not _one_spelling(token.rpartition(".")[2]):
        # An extension that we do not know must be understood (RFC 7515, 4.1.11).
        raise Refused("malformed")
    found = key(head.get("kid"), str(algorithm))
    if found is None:
        raise Refused("unknown_key")
    try:
        options = cast("Any", {"enforce_minimum_key_length": True})
        raw = jwt.PyJWS(algorithms).decode_complete(token, found, algorithms, options)["payload"]
        claims = strictjson.loads(raw)
    except (jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
        raise Refused("algorithm") from None
    except jwt.InvalidSignatureError:
        raise Refused("signature") from None
    except (jwt.PyJWTError, RequestError, ValueError, TypeError):
        raise Refused("malformed") from None
    if not isinstance(claims, dict):
        raise Refused("claims")
    return claims


def _one_spelling(signature: str) -> bool:
    """The library skips what is no base64url and does not look at bits that are left over: the same signature in other letters."""
    try:
        raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except (binascii.Error, ValueError):
        return False
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == signature


def until(claims: Mapping[str, Any], *, issuer: str, audience: str, lifetime: float, leeway: float) -> float:
    """Until when these claims hold, seconds since the epoch (RFC 7519, 4.1): by our own clock, which the tests turn; the library would ask
    the machine's. Raises Refused."""
    now = clock.now()
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 256:
        raise Refused("claims")
    times = [claims.get(name, 0) for name in ("exp", "iat", "nbf")]
    if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and abs(t) < 1e12 for t in times):
        raise Refused("claims")
    expires, issued, begins = map(float, times)
    if claims.get("iss") != issuer:
        raise Refused("issuer")
    named = claims.get("aud")
    if audience not in (named if isinstance(named, list) else [named]):
        raise Refused("audience")
    if not expires or not issued:
        raise Refused("claims")
    if now >= expires + leeway or now >= issued + lifetime + leeway:
        raise Refused("expired")
    if max(issued, begins) > now + leeway:
        raise Refused("future")
    return min(expires, issued + lifetime) + leeway


class Keyring:
    """The keys of one issuer: of a file, or of an address that is looked at in the background."""

    def __init__(self, rule: IdentityRule) -> None:
        self._rule = rule
        self._set = KeySet()
        self._shared: bytes | None = None
        self._read = float("-inf")
        self.generation = 0
        """Changes with the keys: what was believed by others is believed no more."""
        self._wanted, self._looked = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._remote = rule.jwks is not None and rule.jwks.startswith("https://")
        if rule.shared_key is not None:
            self._shared = _file(rule.shared_key, "shared_key").strip()
            if len(self._shared) < 32:
                raise SettingsError("identity.shared_key: the file must hold at least 32 bytes")
        elif rule.jwks is not None and not self._remote:
            self._take(_file(Path(rule.jwks), "jwks"))

    def _take(self, raw: bytes) -> None:
        """Raises SettingsError."""
        self._set.take(raw)
        self.generation += 1
        self._read = clock.now()

    def key(self, kid: Any, algorithm: str) -> jwt.PyJWK | bytes | None:
        """What a token of this header must be signed by; None: nothing known."""
        if self._shared is not None:
            return self._shared
        if self._remote and clock.now() - self._read > _STALE:
            return None
        found = self._set.key(kid, algorithm)
        if found is None:
            self._wanted.set()
        return found

    @property
    def remote(self) -> bool:
        """Its keys come from an address."""
        return self._remote

    async def start(self) -> None:
        """Begin to follow; the first look gets a moment, so that a start refuses nobody whose token is good."""
        if self._remote and self._task is None:
            self._task = asyncio.create_task(self._follow())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST):
                    await self._looked.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _follow(self) -> None:
        outbound = Outbound(3.0, 5.0, 5.0)
        await outbound.start()
        try:
            while True:
                try:
                    reply = await outbound.open("GET", target(str(self._rule.jwks)), {}, None)
                    try:
                        if reply.status != 200:
                            raise UpstreamError("no key set there", code="upstream_status")
                        self._take(await reply.read(SET_MAX))
                    finally:
                        reply.close()
                    metrics.RELOADS.labels("jwks", "ok").inc()
                except (UpstreamError, SettingsError, ValueError) as e:
                    metrics.RELOADS.labels("jwks", "failed").inc()
                    log.error("key set not read, the old one stays", extra={"error": type(e).__name__})
                self._looked.set()
                await asyncio.sleep(_SOON)
                self._wanted.clear()
                try:
                    async with asyncio.timeout(_EVERY if self._set else _SOON):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
        finally:
            await outbound.close()


class Identity:
    """One app's rule at work. `proxies`: networks whose headers are believed."""

    def __init__(self, rule: IdentityRule, proxies: Proxies) -> None:
        self.rule, self._proxies = rule, proxies
        self._tokens = rule.jwks is not None or rule.shared_key is not None
        self.keyring = Keyring(rule)
        self._known: dict[bytes, tuple[float, Assertion]] = {}
        self._generation = self.keyring.generation

    def of(self, headers: Mapping[str, str], peer: str) -> Assertion:
        """What a request asserts. Never raises: what is not believed says so in `fault`."""
        found = self._token(headers) if self._tokens else self._header(headers, peer)
        metrics.IDENTITY.labels(found.fault or found.kind).inc()
        return found

    def _header(self, headers: Mapping[str, str], peer: str) -> Assertion:
        names = self.rule.verified.lower(), self.rule.minor.lower()
        if not any(name and name in headers for name in names):
            return NOBODY
        if not self._proxies.trusted(peer):
            return Assertion(fault="untrusted_peer")
        verified, minor = (bool(name) and headers.get(name, "").strip().lower() in ("true", "1") for name in names)
        return Assertion("verified" if verified else "unverified", self.rule.issuer or "proxy", minor)

    def _token(self, headers: Mapping[str, str]) -> Assertion:
        token = headers.get(self.rule.header.lower(), "").strip().removeprefix("Bearer ")
        if not token:
            return NOBODY
        if len(token) > TOKEN_MAX:
            return Assertion(fault="oversized")
        if self._generation != self.keyring.generation:
            self._known, self._generation = {}, self.keyring.generation
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(digest)
        if known is not None and clock.now() < known[0]:
            return known[1]
        try:
            end, found = self._believed(token)
        except Refused as e:
            return Assertion(fault=str(e))
        self._known[digest] = end, found
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
        return found

    def _believed(self, token: str) -> tuple[float, Assertion]:
        """Until when, and what. Raises Refused."""
        rule = self.rule
        claims = said(token, self.keyring.key, rule.algorithms or (PUBLIC if rule.jwks is not None else _SHARED[:1]))
        end = until(claims, issuer=rule.issuer, audience=rule.audience, lifetime=rule.lifetime, leeway=rule.leeway)
        kind: Kind = "verified" if claims.get(rule.verified_claim) is True else "unverified"
        return end, Assertion(kind, rule.issuer, claims.get(rule.minor_claim) is True, claims["sub"])


@dataclass(frozen=True, slots=True)
class Proxies:
    """Networks from which headers are believed; without any, from everywhere (where the operator sets them himself)."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.networks)

    def trusted(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.split("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.networks)


ANYWHERE = Proxies()


def _file(path: Path, field: str) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise SettingsError(f"identity.{field}: {path} cannot be read ({e.strerror})") from None
    if len(raw) > SET_MAX:
        raise SettingsError(f"identity.{field}: {path} is too large")
    return raw
