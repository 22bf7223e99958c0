"""An OpenID provider for the tests, on a real socket: it does what the standards ask of one, checks what a client must send, signs with
real keys, and errs where it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import httpx

from app.web import asgi
from tests import tokens
from tests.conftest import _Thread

KEYS = tokens.Provider()
CLIENT, SECRET = "sluice console", "s3cret/with:odd+characters %"
"""Both are to be encoded before they are joined (RFC 6749, 2.3.1)."""
CONSOLE = "https://ops.example.test/console"
REDIRECT = CONSOLE + "/login/return"
SUBJECT = "canary-subject-7"
Answer = Callable[[asgi.Send], Awaitable[None]]


class OpenID:
    """`about`: what it says of itself, over the usual. `person`: claims of whoever logs in, None to leave one out; `mangle`: does
    something to each ID token. `kid`: of the key that signs. `instead`: path -> what is answered there instead. `asked`: the paths, in
    order; `forms`: what came to the token endpoint. `seen`: every code and token that was given out."""

    def __init__(self, thread: Callable[[OpenID], _Thread]) -> None:
        self.keys, self.kid, self.listed = KEYS, "r", ["r", "e"]
        self.secret: str | None = SECRET
        self.about: dict[str, Any] = {}
        self.person: dict[str, Any] = {}
        self.mangle: Callable[[str], str] = lambda token: token
        self.header: dict[str, Any] = {}
        self.instead: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.seen: list[str] = []
        self.wrong: list[str] = []
        """What a client did that it must not."""
        self._codes: dict[str, dict[str, str]] = {}
        self.thread = thread(self)
        self.issuer = f"http://127.0.0.1:{self.thread.port}/realm"

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        path = scope["path"].removeprefix("/realm")
        self.asked.append(path)
        if path in self.instead:
            await self.instead[path](send)
        elif path == "/.well-known/openid-configuration":
            await asgi.respond_json(send, 200, self.metadata())
        elif path == "/jwks":
            await asgi.respond_json(send, 200, self.keys.key_set(*self.listed))
        elif path == "/authorize":
            query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode(), strict_parsing=True).items()}
            await asgi.respond(send, 303, b"", [(b"location", self._agreed(query).encode())])
        else:
            raw = await asgi.read_body(receive, asgi.headers(scope), 1 << 16)
            form = {k: v[0] for k, v in parse_qs(raw.decode(), strict_parsing=True).items()}
            self.forms.append(form)
            status, said = self._exchanged(form, asgi.headers(scope))
            await asgi.respond_json(send, status, said)

    def metadata(self) -> dict[str, Any]:
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize?tenant=a%20b",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
            "authorization_response_iss_parameter_supported": True,
        }
        return {k: v for k, v in (said | self.about).items() if v is not None}

    def _agreed(self, query: dict[str, str]) -> str:
        asked = (query.get("response_type"), query.get("client_id"), query.get("redirect_uri"), query.get("tenant"))
        if asked != ("code", CLIENT, REDIRECT, "a b") or query.get("code_challenge_method") != "S256":
            self.wrong.append(f"authorize: {asked}")
        code = secrets.token_urlsafe(24)
        self.seen.append(code)
        self._codes[code] = query
        return f"{REDIRECT}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def _exchanged(self, form: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if not self._known(form, headers):
            return 401, {"error": "invalid_client"}
        # A code serves once, whoever brings it (RFC 6749, 4.1.2).
        query = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            query is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != query["redirect_uri"]
            or query["code_challenge"] != challenge.rstrip(b"=").decode()
        ):
            return 400, {"error": "invalid_grant", "error_description": SUBJECT}
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": SUBJECT, "nonce": query["nonce"], "real_name_verified": None,
            "name": "Canary Name", "groups": ["sluice-reviewers", "others"],
        }  # fmt: skip
        token = self.mangle(self.keys.token(self.kid, header=self.header, **(claims | self.person)))
        access = secrets.token_urlsafe(24)
        self.seen += [token, access]
        return 200, {"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token}

    def _known(self, form: dict[str, str], headers: dict[str, str]) -> bool:
        basic = headers.get("authorization", "")
        if basic and "client_secret" in form:
            self.wrong.append("two ways to authenticate at once (RFC 6749, 2.3)")
        if basic:
            pair = base64.b64decode(basic.removeprefix("Basic ")).decode().split(":")
            return [unquote_plus(part) for part in pair] == [CLIENT, self.secret]
        return form.get("client_id") == CLIENT and form.get("client_secret") == self.secret


def agree(address: str) -> dict[str, str]:
    """What a browser brings back whose user agreed."""
    answer = httpx.get(address, verify=False)  # no time for a list of authorities that nobody asks
    assert answer.status_code == 303, answer.text
    back = urlsplit(answer.headers["location"])
    assert back._replace(query="").geturl() == REDIRECT
    return {k: v[0] for k, v in parse_qs(back.query).items()}


@contextmanager
def provider(*, up: bool = True) -> Iterator[OpenID]:
    """One that runs; or, not `up`, one that is away until its `thread` is entered."""
    made = OpenID(lambda app: _Thread(app, "off"))
    if up:
        made.thread.__enter__()
    yield made
    if made.thread.is_alive():
        made.thread.__exit__()


# ---- what is answered instead


def saying(body: bytes, status: int = 200, **headers: str) -> Answer:
    async def answer(send: asgi.Send) -> None:
        await asgi.respond(send, status, body, [(k.encode(), v.encode()) for k, v in headers.items()])

    return answer


async def silent(send: asgi.Send) -> None:
    await asyncio.sleep(30)


async def dripping(send: asgi.Send) -> None:
    """A byte at a time, for ever: no silence is long."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(300):
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.sleep(0.1)


async def endless(send: asgi.Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10_000):
        await send({"type": "http.response.body", "body": b" " * 65_536, "more_body": True})
