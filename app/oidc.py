"""Logging people in by an OpenID provider (OpenID Connect Core 1.0): the authorization code flow with PKCE.

Law: nobody is logged in but by an ID token that is signed by a key of the provider the operator named, made for us, now, and for this very
login (state, nonce, verifier: each of 256 random bits). No token, code, secret or claim is logged, kept or repeated; of a person only
subject, name and roles leave this module. What the provider says of itself is cached: a start never waits for it, and a login asks it for
one thing, the exchange of the code.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

from app import clock, identity, metrics, strictjson
from app.errors import LoginError, RequestError, SettingsError, UpstreamError
from app.outbound import Outbound, Target, target
from app.settings import Role, Settings, loopback, mapped

log = logging.getLogger("sluice.oidc")
T = TypeVar("T")

RETURN = "/login/return"
"""Where under SLUICE_CONSOLE_URL the provider sends a browser back to: the redirect address to register there."""
_WITHIN = 6.0
"""Seconds for one call of the provider, from connecting to the last byte."""
_BODY_MAX, _TOKEN_MAX, _CODE_MAX, _ADDRESS_MAX = identity.SET_MAX, 1 << 16, 4096, 2000
"""Bytes of an answer; characters of an ID token, which may list many groups, of a code, and of an address."""
_EVERY, _STALE = 300.0, 86_400.0
"""Seconds for which a copy of what the provider says of itself is new enough; and for which it is used where the provider is away."""
_SOON, _AGAIN = 10.0, 1.0
"""Seconds at least between two looks that an unknown key caused, and after one that failed."""
_LIFETIME, _LEEWAY = 900.0, 60.0
"""Seconds from `iat` for which an ID token is taken, whatever its `exp` says, and by which the two clocks may differ."""
_NAME_MAX = 80
_SUBJECT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
"""OpenID Connect Core 1.0, 2: at most 255 ASCII characters."""

_SAID = {
    # The browser's part.
    "state": "这次登录不是从这里发起的，请重新登录 (this login was not begun here, or by another browser: begin again)",
    "issuer": "应答来自另一身份提供方 (the answer is another provider's)",
    "access_denied": "您或身份提供方未同意登录 (you or the provider did not agree to the login)",
    "refused": "身份提供方未予登录 (the provider refused the login; its own log says why)",
    "code": "身份提供方未给出授权码 (the provider sent no code)",
    # The exchange.
    "invalid_grant": "授权码已用过、已过期或不属于本次登录，请重新登录 (the code was used before, or is another login's: begin again)",
    "invalid_client": "身份提供方不认本客户端 (the provider does not take SLUICE_OIDC_CLIENT_ID with SLUICE_OIDC_CLIENT_SECRET)",
    "exchange": "身份提供方拒绝兑换授权码 (the provider refused to exchange the code; its own log says why)",
    # The provider.
    "unreachable": "无法连接身份提供方 (the provider cannot be reached)",
    "late": "身份提供方未及时应答 (the provider did not answer in time)",
    "failing": "身份提供方出错 (the provider failed: HTTP 5xx)",
    "garbage": "身份提供方的应答无法读取 (the provider's answer cannot be read)",
    "metadata": "身份提供方的自述不符或不完整 (what the provider says of itself is not complete, not safe, or not of SLUICE_OIDC_ISSUER)",
    # The ID token.
    "malformed": "身份令牌无法读取 (the ID token cannot be read)",
    "algorithm": "身份令牌的签名算法不可用 (the ID token is signed in a way that is not accepted)",
    "unknown_key": "身份令牌的签名密钥未知 (the ID token is signed by a key that the provider does not list)",
    "signature": "身份令牌的签名无效 (the ID token's signature is wrong)",
    "claims": "身份令牌缺少必需内容 (the ID token lacks what it must say, or says it in another form)",
    "token_issuer": "身份令牌由他人签发 (the ID token is another issuer's)",
    "audience": "身份令牌不是发给本客户端的 (the ID token is for another client)",
    "expired": "身份令牌已过期 (the ID token has expired)",
    "future": "身份令牌尚未生效，请检查时钟 (the ID token is of the future: compare the two clocks)",
    "nonce": "身份令牌不属于本次登录，请重新登录 (the ID token is another login's: begin again)",
}
"""What a LoginError says, by its code."""
_STATUS = {"unreachable": 502, "failing": 502, "garbage": 502, "metadata": 502, "late": 504}


class Pending(NamedTuple):
    """A login that was begun. Kept by the caller where only that browser's session reaches it, for minutes, and taken out before `finish`
    is called: it serves once. JSON-able as it stands, or by `_asdict()`."""

    state: str
    nonce: str
    verifier: str


class Person(NamedTuple):
    """`subject`: `oidc:` and the provider's `sub`, printable ASCII, at most 260 characters; it never changes and is nobody else's. `name`:
    for showing only, printable, at most 80 characters. `roles`: none where no group of the person's has one."""

    subject: str
    name: str
    roles: frozenset[Role]


class _Metadata(NamedTuple):
    """What a provider says of itself (OpenID Connect Discovery 1.0, 3; RFC 9207, 3)."""

    authorize: str
    exchange: Target
    jwks: Target
    methods: tuple[str, ...]
    algorithms: tuple[str, ...]
    scopes: tuple[str, ...]
    names_itself: bool


class _Copy(Generic[T]):
    """A copy of what is fetched. It is renewed by whoever needs it: one fetch at a time, of which all that wait get the outcome."""

    def __init__(self, fetch: Callable[[], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._value: T | None = None
        self._at = self._tried = float("-inf")
        self._fault: LoginError | None = None
        self._task: asyncio.Task[None] | None = None

    async def get(self, *, anew: bool = False) -> T:
        """`anew`: not the copy, unless it was fetched a moment ago. Raises LoginError."""
        if self._due(anew):
            if self._task is None:
                self._task = asyncio.create_task(self._renew())
            # Whoever leaves does not end it for the others.
            await asyncio.shield(self._task)
        if not self._usable():
            raise self._fault or _refusal("unreachable")
        assert self._value is not None
        return self._value

    def _usable(self) -> bool:
        return self._value is not None and clock.now() - self._at <= _STALE

    def _due(self, anew: bool) -> bool:
        now = clock.now()
        if self._task is not None:
            return anew or not self._usable()
        if self._fault is not None and 0 <= now - self._tried < _AGAIN:
            return False
        return not 0 <= now - self._at < (_SOON if anew else _EVERY)

    async def _renew(self) -> None:
        try:
            self._value, self._fault = await self._fetch(), None
            self._at = clock.now()
            metrics.RELOADS.labels("oidc", "ok").inc()
        except LoginError as e:
            self._fault = e
            metrics.RELOADS.labels("oidc", "failed").inc()
            log.error("the OpenID provider was not read, an older copy stays", extra={"error": e.code})
        finally:
            self._tried, self._task = clock.now(), None

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Provider:
    """An OpenID provider (OpenID Connect Core 1.0; discovery 1.0; RFC 6749, 7636, 9207)."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError where `settings.unsafe` would have refused."""
        if not (settings.oidc_issuer and settings.oidc_client_id and settings.oidc_roles and settings.console_url):
            raise SettingsError("SLUICE_OIDC_ISSUER: a login needs OIDC_CLIENT_ID, OIDC_ROLES and CONSOLE_URL too")
        self._issuer, self._client = settings.oidc_issuer, settings.oidc_client_id
        self._secret = settings.oidc_client_secret
        self._mapped = mapped(settings.oidc_roles)
        self._redirect = settings.console_url.rstrip("/") + RETURN
        self._outbound = Outbound(3.0, _WITHIN, _WITHIN)
        self._metadata, self._keys = _Copy(self._discovered), _Copy(self._listed)
        self._warm: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Open for logins. Nothing is waited for: a provider that is away now may be back when somebody logs in."""
        await self._outbound.start()
        self._warm = asyncio.create_task(self._looked())

    async def stop(self) -> None:
        if self._warm is not None:
            self._warm.cancel()
            await asyncio.gather(self._warm, return_exceptions=True)
        await self._metadata.stop()
        await self._keys.stop()
        await self._outbound.close()

    async def begin(self) -> tuple[str, Pending]:
        """The address to send the browser to, and what `finish` needs. Raises LoginError where the provider is away and was never seen."""
        try:
            metadata = await self._metadata.get()
        except LoginError as e:
            metrics.LOGINS.labels(e.code).inc()
            raise
        pending = Pending(*(secrets.token_urlsafe(32) for _ in range(3)))
        scopes = ["openid", "profile"]
        if self._mapped.claim in metadata.scopes:
            scopes.append(self._mapped.claim)
        challenge = hashlib.sha256(pending.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect,
            "scope": " ".join(scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return metadata.authorize + ("&" if "?" in metadata.authorize else "?") + urlencode(query), pending

    async def finish(self, pending: Pending, query: Mapping[str, str]) -> Person:
        """Who came back. `query`: what the browser brought to the redirect address, each name once. Raises LoginError."""
        try:
            person = await self._finished(pending, query)
        except LoginError as e:
            metrics.LOGINS.labels(e.code).inc()
            raise
        metrics.LOGINS.labels("ok").inc()
        return person

    async def _finished(self, pending: Pending, query: Mapping[str, str]) -> Person:
        # First of all: only the browser that began may end it, with an error too (RFC 6749, 10.12).
        if not hmac.compare_digest(query.get("state", "").encode(errors="replace"), pending.state.encode()):
            raise _refusal("state")
        metadata = await self._metadata.get()
        # RFC 9207, 2.4; one that is sent unasked must be right all the same.
        if query.get("iss", None if metadata.names_itself else self._issuer) != self._issuer:
            raise _refusal("issuer")
        if "error" in query:
            raise _refusal("access_denied" if query["error"] == "access_denied" else "refused")
        code = query.get("code", "")
        if not 0 < len(code) <= _CODE_MAX or not code.isprintable():
            raise _refusal("code")
        return self._person(await self._believed(await self._exchanged(code, pending, metadata), pending, metadata))

    # ---- the provider's documents

    async def _looked(self) -> None:
        try:
            await self._keys.get()
        except LoginError:
            pass  # it was logged, and whoever logs in asks anew

    async def _discovered(self) -> _Metadata:
        """OpenID Connect Discovery 1.0, 4. Raises LoginError."""
        address = target(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        said = _object(await self._call("GET", address, otherwise="metadata"))
        if said.get("issuer") != self._issuer:
            raise _refusal("metadata")
        public = _words(said.get("id_token_signing_alg_values_supported"), identity.PUBLIC)
        return _Metadata(
            self._address(said.get("authorization_endpoint")),
            target(self._address(said.get("token_endpoint"))),
            target(self._address(said.get("jwks_uri"))),
            # 3: the default is client_secret_basic.
            _words(said.get("token_endpoint_auth_methods_supported"), ("client_secret_basic",)),
            # A provider may narrow what is accepted, never widen it.
            tuple(a for a in public if a in identity.PUBLIC),
            _words(said.get("scopes_supported"), ()),
            said.get("authorization_response_iss_parameter_supported") is True,
        )

    def _address(self, value: Any) -> str:
        """One of the provider's addresses: as safe as the issuer's own. Raises LoginError."""
        plain = self._issuer.startswith("http://")
        try:
            if not isinstance(value, str) or len(value) > _ADDRESS_MAX or not all("!" <= c <= "~" for c in value):
                raise ValueError
            url = urlsplit(value)
            host = url.hostname or ""
            safe = url.scheme == "https" or (plain and url.scheme == "http" and loopback(host))
            if safe and host and url.port != 0 and "@" not in url.netloc and "#" not in value:
                return value
        except ValueError:
            pass
        raise _refusal("metadata")

    async def _listed(self) -> identity.KeySet:
        """Raises LoginError."""
        metadata = await self._metadata.get()
        keys = identity.KeySet()
        raw = await self._call("GET", metadata.jwks)
        try:
            keys.take(raw)
        except SettingsError:
            raise _refusal("garbage") from None
        return keys

    # ---- one login

    async def _exchanged(self, code: str, pending: Pending, metadata: _Metadata) -> str:
        """The ID token that the code is worth (RFC 6749, 4.1.3; RFC 7636, 4.5). Raises LoginError."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": pending.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._secret is None:
            form["client_id"] = self._client
        elif "client_secret_basic" in metadata.methods:
            # RFC 6749, 2.3.1: both are encoded before they are joined.
            pair = f"{quote_plus(self._client)}:{quote_plus(self._secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif "client_secret_post" in metadata.methods:
            form |= {"client_id": self._client, "client_secret": self._secret}
        else:
            raise _refusal("metadata")
        body = urlencode(form).encode()
        said = _object(await self._call("POST", metadata.exchange, headers, body, expected=(200, 400, 401)))
        if "error" in said:
            known = said["error"] in ("invalid_grant", "invalid_client")
            raise _refusal(said["error"] if known else "exchange")
        token = said.get("id_token")
        if not isinstance(token, str) or str(said.get("token_type")).lower() != "bearer":
            raise _refusal("garbage")
        if len(token) > _TOKEN_MAX:
            raise _refusal("malformed")
        return token

    async def _believed(self, token: str, pending: Pending, metadata: _Metadata) -> dict[str, Any]:
        """The claims of an ID token that is to be believed (OpenID Connect Core 1.0, 3.1.3.7). Raises LoginError."""
        try:
            keys = await self._keys.get()
            try:
                claims = identity.said(token, keys.key, metadata.algorithms)
            except identity.Refused as e:
                if str(e) != "unknown_key":
                    raise
                # Keys are changed without notice (10.1.1): one more look.
                claims = identity.said(token, (await self._keys.get(anew=True)).key, metadata.algorithms)
            identity.until(claims, issuer=self._issuer, audience=self._client, lifetime=_LIFETIME, leeway=_LEEWAY)
        except identity.Refused as e:
            raise _refusal("token_issuer" if str(e) == "issuer" else str(e)) from None
        audience = claims["aud"]
        # Where there are several, one of them asked, and says so.
        several = isinstance(audience, list) and len(audience) > 1
        if claims.get("azp", None if several else self._client) != self._client:
            raise _refusal("audience")
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(
            nonce.encode(errors="replace"), pending.nonce.encode()
        ):
            raise _refusal("nonce")
        return claims

    def _person(self, claims: Mapping[str, Any]) -> Person:
        """Raises LoginError for a subject that is none."""
        subject = claims["sub"]
        if not _SUBJECT.fullmatch(subject):
            raise _refusal("claims")
        names = (_shown(claims.get(claim)) for claim in ("name", "preferred_username", "email"))
        values = _claim(claims, self._mapped.claim)
        listed = [values] if isinstance(values, str) else values if isinstance(values, list) else []
        none: frozenset[Role] = frozenset()
        roles = none.union(*(self._mapped.roles.get(v, none) for v in listed if isinstance(v, str)))
        return Person(f"oidc:{subject}", next(filter(None, names), _shown(subject)), roles)

    async def _call(
        self,
        method: str,
        address: Target,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        expected: tuple[int, ...] = (200,),
        otherwise: str = "garbage",
    ) -> bytes:
        """The whole answer, within the deadline. Raises LoginError."""
        try:
            async with asyncio.timeout(_WITHIN):
                reply = await self._outbound.open(method, address, headers or {"Accept": "application/json"}, body)
                try:
                    if reply.status not in expected:
                        raise _refusal("failing" if reply.status >= 500 else otherwise)
                    return await reply.read(_BODY_MAX)
                finally:
                    reply.close()
        except TimeoutError:
            raise _refusal("late") from None
        except UpstreamError as e:
            known = {"upstream_timeout": "late", "upstream_protocol_error": "garbage"}
            raise _refusal(known.get(e.code, "unreachable")) from None


def _refusal(code: str) -> LoginError:
    return LoginError(_SAID[code], code=code, status=_STATUS.get(code, 401))


def _object(raw: bytes) -> dict[str, Any]:
    """Raises LoginError."""
    try:
        said = strictjson.loads(raw)
    except RequestError:
        raise _refusal("garbage") from None
    if not isinstance(said, dict):
        raise _refusal("garbage")
    return said


def _words(value: Any, default: tuple[str, ...]) -> tuple[str, ...]:
    """A list of words as a provider's document has them; `default` where it has none."""
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else default


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or else by the way to it: `realm_access.roles` is `roles` within `realm_access`."""
    found: Any = claims
    for part in (name,) if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _shown(value: Any) -> str:
    """What can be shown of a name: nothing that hides, turns around or breaks what stands beside it."""
    text = "".join(c if c.isprintable() else " " for c in value) if isinstance(value, str) else ""
    return " ".join(text.split())[:_NAME_MAX].strip()
