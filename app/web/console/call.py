"""A call of the console: who it is from, what it says, and the page that answers it.

Law: nothing is done for whoever is not logged in, may not do it, or comes from another page than one of ours; a form that cannot be taken
comes back with what was typed. Pages are made of text nodes alone: what a person wrote is never markup. Everything a page needs lies here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import clock
from app.accounts import NOBODY, Account, alias
from app.deadlines import SHANGHAI
from app.desk import Desk
from app.errors import Conflict, Limited, LoginError, RequestError, Reused, SluiceError, StoreError
from app.logins import Logins, Session
from app.oidc import Provider
from app.power import Power
from app.settings import Scope
from app.taxonomy import taxonomy
from app.web.console.words import ACTIONS, LEVELS, STATES, TECHNIQUES
from app.web.reports import body_of

log = logging.getLogger("sluice.console")

ROOT = "/console"
COOKIE = "sluice_console"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none, browsers say no origin of a form either
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_FIELDS = 2000

Form = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Office:
    """What the pages work with. `logins`: who is let in; `provider`: who vouches for them, None where nobody does."""

    desk: Desk
    logins: Logins
    power: Power
    provider: Provider | None = None

    @property
    def link(self) -> str:
        """Where browsers reach the console; '' where that is not set."""
        return self.desk.settings.console_url or ""


class Fault(NamedTuple):
    """What was wrong with a form: in words, the field, and the status of the answer."""

    said: str
    field: str
    status: int


def fault(e: SluiceError) -> Fault:
    """An exception as a page tells it."""
    if isinstance(e, RequestError):
        return Fault(e.message, (e.param or "").rpartition(".")[2], e.status)
    if isinstance(e, LoginError):
        return Fault(e.message, "", e.status)
    if isinstance(e, Conflict):
        return Fault(f"{e} 已有他人先行修改，此处显示最新内容", "expected_version", 409)
    if isinstance(e, Limited):
        return Fault(f"too many attempts; again in {e.seconds} s 尝试过多，请 {e.seconds} 秒后再试", "", 429)
    if isinstance(e, StoreError):
        return Fault(f"{e} 存储暂不可用，请稍后重试，所填内容未丢失", "", 503)
    return Fault(f"{e} 配置或文件有误，仍按原有配置运行", "", 503)


class Call:
    """One request. `session`: whose, None before somebody logged in."""

    def __init__(self, request: Request, office: Office, session: Session | None, form: Form, language: str) -> None:
        self.request, self.office, self.session, self.form, self.language = request, office, session, form, language

    @property
    def desk(self) -> Desk:
        return self.office.desk

    @property
    def account(self) -> Account:
        assert self.session is not None
        return self.session.account

    @property
    def who(self) -> str:
        """As the audit names them."""
        return self.account.id

    @property
    def part(self) -> bool:
        """The page asks for a part of itself (htmx)."""
        return self.request.headers.get("hx-request") == "true"

    def may(self, scope: Scope) -> bool:
        return self.session is not None and scope in self.account.scopes

    def path(self, name: str) -> str:
        """A part of the address, by its name in the route."""
        return str(self.request.path_params[name])

    def query(self, name: str, usual: str = "") -> str:
        return self.request.query_params.get(name, usual)

    def number(self, name: str, usual: int = 0) -> int:
        """Of the query; what is no number counts as the usual one."""
        said = self.query(name)
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else usual

    def one(self, name: str, usual: str = "") -> str:
        """A field of the form, without spaces around it."""
        return self.form.get(name, [usual])[0].strip()

    def many(self, name: str) -> list[str]:
        return [said for said in self.form.get(name, []) if said]

    def version(self, name: str = "expected_version") -> int | None:
        said = self.one(name)
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 16 else None

    @property
    def key(self) -> str:
        """The form's own Idempotency-Key: sent twice it is done once. Raises RequestError."""
        if not 1 <= len(said := self.one("key")) <= 100:
            raise RequestError("key: load the page again 请刷新页面", code="missing", param="key", status=422)
        return said

    def read(self, kind: type[BaseModel], /, **said: Any) -> Any:
        """What the form says as `kind` has it. Raises RequestError that names the field."""
        try:
            return kind.model_validate({k: v for k, v in said.items() if v not in (None, "")})
        except ValidationError as e:
            first = e.errors(include_input=False, include_url=False)[0]
            field = (
                str(first["loc"][0]) if first["loc"] else first["msg"].partition(":")[0].removeprefix("Value error, ")
            )
            raise RequestError(f"{field}: {first['msg']}", code="invalid", param=field, status=422) from None

    # ---- answers

    def t(self, zh: str, en: str, **values: Any) -> str:
        """The words in the reader's language; `values`: what stands in braces."""
        said = zh if self.language == "zh" else en
        return said.format(**values) if values else said

    def page(self, template: str, status: int = 200, *, fault: Fault | None = None, **values: Any) -> HTMLResponse:
        """A page, or a part of one. `fault`: what was wrong with the form that it answers. A part that a browser without scripts asks
        for is a page by itself."""
        if template.startswith("part_") and not self.part:
            url = self.request.url
            values |= {"inner": template, "back": url.path.rpartition("/")[0]}
            template = "whole.html"
        text = _templates().get_template(template).render(
            call=self, t=self.t, language=self.language, session=self.session, fault=fault, form=self.form,
            hidden=self._hidden, ROOT=ROOT, now=clock.now(), **_views(self), **values,
        )  # fmt: skip
        return HTMLResponse(text, fault.status if fault is not None else status)

    def _hidden(self) -> Markup:
        """What every form carries: whose it is, and a key by which it is done once."""
        form = self.session.form if self.session is not None else ""
        field = Markup('<input type="hidden" name="{}" value="{}">')
        return field.format("csrf", form) + field.format("key", secrets.token_hex(12))

    def onward(self, name: str) -> str:
        """Where somebody wants to go on to, of the form or else of the address: a page of ours or none."""
        said = self.one(name) or self.query(name)
        inside = said.startswith("/") and not said.startswith(("//", "/\\")) and said.isprintable()
        return said if inside else "/"

    def to(self, path: str, **query: Any) -> Response:
        """Go on elsewhere in the console."""
        asked = urlencode({k: v for k, v in query.items() if v not in (None, "")})
        return RedirectResponse(f"{ROOT}{path}" + (f"?{asked}" if asked else ""), 303)

    def alias(self, who: str) -> str:
        """A colleague outside the audit; what no person did is named as it is."""
        if not who or who in NOBODY:
            return _NOBODY.get(who, ("系统", "system"))[0 if self.language == "zh" else 1]
        mine = self.session is not None and who == self.account.id
        return alias(self.desk.keys, who) + (self.t("（我）", " (me)") if mine else "")


_NOBODY = {
    "report": ("举报触发", "a report"), "reporter": ("举报人", "the reporter"), "rule": ("规则", "the rule"), "time": ("到期", "time"),
}  # fmt: skip


_FAR = 32_503_680_000
"""The year 3000."""


def when(call: Call) -> Callable[[Any], str]:
    def told(at: Any) -> str:
        """A moment as its reader's clock shows it (UTC+8)."""
        if at in (None, ""):
            return "-"
        seconds = at if isinstance(at, int | float) else clock.seconds(str(at))
        if not 0 <= seconds < _FAR:
            return str(at)[:10]
        return datetime.fromtimestamp(seconds, UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M")

    return told


def _views(call: Call) -> dict[str, Any]:
    """What templates say things with."""
    at = 0 if call.language == "zh" else 1

    def category(id: str) -> str:
        found = taxonomy().get(id)
        return str(getattr(found, call.language)) if found is not None else id

    def word(table: Mapping[str, tuple[str, str]], of: str) -> str:
        return table.get(of, (of, of))[at]

    return {
        "category": category,
        "state": lambda s: word(STATES, s),
        "action": lambda a: word(ACTIONS, a),
        "level": lambda a: word(LEVELS, a),
        "technique": lambda a: " + ".join(word(TECHNIQUES, part) for part in str(a).split("+")),
        "categories": taxonomy(),
        "harm_of": lambda id: found.harm if (found := taxonomy().get(id)) is not None else 9,
        "when": when(call),
        "alias": call.alias,
        "static": static,
        "path": lambda said: quote(str(said), safe=""),
        "data": lambda value: json.dumps(value, ensure_ascii=False),
    }


class _Templates(Environment):
    """A name that is misspelt fails; what a row does not say is None."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else getattr(obj, attribute, None)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, dict):
            try:
                return obj[argument]  # a Counter has a zero of its own
            except KeyError:
                return None
        return super().getitem(obj, argument)


@cache
def _templates() -> Environment:
    return _Templates(
        loader=PackageLoader("app.web.console"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip


@cache
def asset(name: str) -> tuple[bytes, str] | None:
    """A file that pages need, and what tells this version of it from others; None: there is none."""
    kind = name.rpartition(".")[2]
    if "/" in name or kind not in KINDS:
        return None
    try:
        raw = (files("app.web.console") / "static" / name).read_bytes()
    except (OSError, ValueError):  # not there, or no name of a file at all
        return None
    return raw, hashlib.sha256(raw).hexdigest()[:12]


KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


def static(name: str) -> str:
    """The address of such a file: kept for ever, for another version has another."""
    found = asset(name)
    assert found is not None, name
    return f"{ROOT}/static/{name}?v={found[1]}"


# ---- pages


Handler = Callable[[Call], Awaitable[Response]]
Again = Callable[[Call, Fault], Awaitable[Response]]


class Page(NamedTuple):
    """A route. `needs`: scopes of which it takes one, none: to be logged in; `also`: those that it takes besides, all; `open`: nothing at
    all. `again`: what answers a form that could not be taken."""

    method: str
    path: str
    needs: tuple[Scope, ...]
    do: Handler
    open: bool = False
    again: Again | None = None
    also: tuple[Scope, ...] = ()


class Pages:
    """The routes of one part of the console, as they are written beside what they do."""

    def __init__(self) -> None:
        self.all: list[Page] = []

    def get(self, path: str, *needs: Scope, open: bool = False) -> Callable[[Handler], Handler]:
        return self._of("GET", path, needs, open, None, ())

    def post(
        self, path: str, *needs: Scope, open: bool = False, again: Again | None = None, also: tuple[Scope, ...] = ()
    ) -> Callable[[Handler], Handler]:
        return self._of("POST", path, needs, open, again, also)

    def _of(
        self, method: str, path: str, needs: tuple[Scope, ...], open: bool, again: Again | None, also: tuple[Scope, ...]
    ) -> Callable[[Handler], Handler]:
        def add(do: Handler) -> Handler:
            self.all.append(Page(method, path, needs, do, open, again, also))
            return do

        return add


def endpoint(page: Page, office: Office) -> Callable[[Request], Awaitable[Response]]:
    """What answers the requests of a page."""

    async def answer(request: Request) -> Response:
        call = Call(request, office, None, {}, _language(request))
        try:
            try:
                call.session = await office.logins.of(request.cookies.get(COOKIE, ""))
            except StoreError:
                if page.method == "POST":  # what was typed comes back all the same
                    _ours(request, office.link)
                    call.form = await _form(request)
                raise
            if call.session is not None:
                call.language = call.account.likes.language
            if page.method == "POST":
                _ours(request, office.link)
                call.form = await _form(request)
            if not page.open:
                if call.session is None:
                    return _out(call)
                if page.method == "POST" and not hmac.compare_digest(
                    call.one("csrf").encode(), call.session.form.encode()
                ):
                    raise RequestError(
                        "this page is of an earlier login; load it again 页面已过期，请刷新后重试", code="csrf", param="csrf", status=403
                    )  # fmt: skip
                if (page.needs and not any(map(call.may, page.needs))) or not all(map(call.may, page.also)):
                    raise RequestError(
                        "your roles do not include this; ask an operator 您的角色无此权限，请联系运维人员", code="scope", status=403
                    )  # fmt: skip
            return await page.do(call)
        except Reused:
            return await _again(
                page, call, Fault("this form was sent already with other words 该表单已提交过", "key", 409)
            )
        except SluiceError as e:
            return await _again(page, call, fault(e))

    async def whole(request: Request) -> Response:
        return headed(await answer(request))

    return whole


def headed(response: Response) -> Response:
    """With what every page says to a browser."""
    for name, said in HEADERS.items():
        response.headers.setdefault(name, said)
    return response


async def _again(page: Page, call: Call, found: Fault) -> Response:
    try:
        if page.again is not None and (page.open or call.session is not None) and found.status != 403:
            return await page.again(call, found)
    except SluiceError as e:
        found = fault(e)
    return call.page("part_fault.html" if call.part else "fault.html", fault=found)


def _out(call: Call) -> Response:
    """To the door; a part of a page says so in its place."""
    if call.part:
        said = "logged out; log in in another tab, nothing here is lost 登录已过期，请在新标签页登录，本页内容不会丢失"
        return call.page("part_fault.html", fault=Fault(said, "", 401))
    url = call.request.url
    back = url.path.removeprefix(ROOT) + (f"?{url.query}" if url.query else "") if call.request.method == "GET" else ""
    return call.to("/login", next=back if back not in ("", "/") else None)


def _ours(request: Request, link: str) -> None:
    """A form is sent by a page of ours alone. `link`: where browsers reach them, whatever a proxy makes of the address. Raises
    RequestError 403."""
    said = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    ours = {request.headers.get("host", "")} | ({urlsplit(link).netloc} if link else set())
    other = origin is not None and _place(origin) not in ours
    if said not in ("same-origin", "none") or other:
        raise RequestError("sent from another page 请求来自其他站点，已拒绝", code="cross_site", status=403)


def _place(address: str) -> str | None:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return None


async def _form(request: Request) -> Form:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise RequestError("content-type: must be application/x-www-form-urlencoded", code="invalid_value", status=415)
    raw = await body_of(request)
    try:
        pairs = parse_qsl(raw.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:  # too many fields, or no UTF-8
        raise RequestError("the form cannot be read 表单无法解析", code="invalid_value", status=400) from None
    form: dict[str, list[str]] = {}
    for name, said in pairs:
        form.setdefault(name, []).append(said.replace("\r\n", "\n"))
    return form


def _language(request: Request) -> str:
    """Of whoever is not known yet: what was asked for, else the browser's; Chinese first."""
    asked = request.query_params.get("lang")
    if asked in ("zh", "en"):
        return asked
    liked = request.headers.get("accept-language", "zh").lower()
    return "en" if "zh" not in liked and "en" in liked else "zh"
