"""The users' pages of the client port: report, complain, appeal, look up what became of it; and the script that brings them into a chatbot.
Draft Measures, Articles 13 and 15. docs/embed.md

Law: they work without a script, in Chinese and in English, for people who have no key and no account. What is sent is what the API takes.
A ticket and its token are in no address, and nothing that was typed is. There are no cookies, so another site's request has nothing of
the visitor's to ride on; a form that another site sends is refused all the same, unless that site is one of the app's (in a frame of ours
a form is our own). Nothing inline, nothing from elsewhere; only the app's sites may frame a page. What was typed comes back as text.
"""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from app import csp
from app.apps import App, Apps
from app.callers import Callers
from app.complaints import Complaints
from app.disclosure import PAGES
from app.errors import Limited, RequestError, StoreError
from app.keys import Keys
from app.moderation import Moderator
from app.policy import Policy
from app.reports import Reports, Sender
from app.store.tables import Row
from app.taxonomy import taxonomy
from app.web import asgi
from app.web.complaints import appealed, complained
from app.web.pages.forms import APPEAL, COMPLAIN, LARGEST, REPORT, STATUS, Fault, Form, Wrong, read
from app.web.reports import body_of, sender_of, state_of, taken

LANGUAGES = {"zh": "zh-CN", "en": "en"}
_FILES = {"pages.css": "text/css", "pages.js": "text/javascript", "report.js": "text/javascript"}
_FOR_EVER, _FOR_NOW = "public, max-age=31536000, immutable", "public, max-age=300"
_KEY_MAX = 200
_CODES = {
    "receipt_mismatch": ("receipt", "faults.receipt_mismatch"), "empty_passage": ("text", "faults.empty_passage"),
    "not_proved": ("prompt", "faults.not_proved"), "not_found": ("kind", "faults.no_standing"),
}  # fmt: skip
"""Errors of ours that are said of a field: code -> field, words."""

Send = Callable[[Any, Sender, str], Awaitable[Row]]


# ---- what they are made of


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """Every text of the pages: "part.name" -> language -> text."""
    parts = tomllib.loads((files(__package__) / "words.toml").read_text("utf-8"))
    return {f"{part}.{name}": said for part, row in parts.items() for name, said in row.items()}


@cache
def _file(name: str) -> tuple[bytes, str]:
    """A file that browsers fetch, and the tag of its content."""
    raw = (files(__package__) / name).read_bytes()
    return raw, hashlib.sha256(raw).hexdigest()[:16]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def language_of(asked: str, accept: str) -> str:
    """'zh' or 'en': what is asked for, else what an Accept-Language header (RFC 9110, 12.5.4) likes better; Chinese where it is even."""
    if asked in LANGUAGES:
        return asked
    liked = {"zh": 0.0, "en": 0.0}
    for part in accept.lower().split(","):
        tag, _, weight = part.partition(";")
        primary = tag.strip().split("-")[0]
        try:
            weighed = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if primary in liked:
            liked[primary] = max(liked[primary], weighed)
    return "en" if liked["en"] > liked["zh"] else "zh"


class _Visit(NamedTuple):
    """One request of a page. `name`: what `?app=` says; `app`: the app that it names, or the only one."""

    request: Request
    here: str
    name: str
    app: App | None
    language: str

    @classmethod
    def of(cls, request: Request, apps: Apps, here: str) -> _Visit:
        query, accept = request.query_params, request.headers.get("accept-language", "")
        name = query.get("app", "")
        return cls(request, here, name, apps.named(name), language_of(query.get("lang", ""), accept))

    def say(self, key: str, **values: Any) -> str:
        return words()[key][self.language].format(**values)

    def to(self, page: str, language: str = "", *, embed: bool | None = None) -> str:
        """The address of another page for the same app, relative to any of ours. A language that was not asked for is left to the
        browser."""
        query = self.request.query_params
        asked = language or query.get("lang", "")
        embed = query.get("embed") == "1" if embed is None else embed
        named = {
            "app": self.app.id if self.name and self.app is not None else "",
            "lang": asked if asked in LANGUAGES else "",
            "embed": "1" if embed else "",
        }
        given = urlencode({k: v for k, v in named.items() if v})
        return page + (f"?{given}" if given else "")

    def asset(self, name: str) -> str:
        return f"{name}?v={_file(name)[1]}"

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """The whole answer."""
        origins = self.app.origins if self.app is not None else ()
        text = _templates().get_template(template).render(
            visit=self, say=self.say, to=self.to, language=self.language, tag=LANGUAGES[self.language], here=self.here,
            other=next(one for one in LANGUAGES if one != self.language), words=words(),
            embed=self.request.query_params.get("embed") == "1", origins=" ".join(origins), **values,
        )  # fmt: skip
        headers = {
            "content-security-policy": csp.served(origins), "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
            "cache-control": "no-store", "content-language": LANGUAGES[self.language], "vary": "accept-language",
        }  # fmt: skip
        return HTMLResponse(text, status, headers)

    def notice(self, name: str, status: int) -> Response:
        """A page that says why there is no form."""
        title, text = self.say(f"notices.{name}"), self.say(f"notices.{name}_text")
        return self.page("notice.html", status, title=title, text=text)

    @property
    def foreign(self) -> bool:
        """Another site's page makes the browser send this, and it is none of the app's (Fetch Metadata; where a browser says nothing of
        the kind, as over plain HTTP, by the Origin)."""
        headers = self.request.headers
        origin, site = headers.get("origin", "null"), headers.get("sec-fetch-site")
        if self.app is not None and origin in self.app.origins:
            return False
        if site is not None:
            return site not in ("same-origin", "none")
        # A form of a page without referrers has the origin "null".
        return origin != "null" and urlsplit(origin).netloc != headers.get("host")


# ---- the pages


def page_routes(
    api: FastAPI,
    apps: Apps,
    callers: Callers,
    keys: Keys,
    reports: Reports,
    complaints: Complaints,
    moderator: Moderator,
) -> None:
    """Add them. They are pages, not API: none stands in the OpenAPI document."""

    def policy(visit: _Visit) -> Policy:
        return moderator.policies.of(visit.app.policy) if visit.app is not None else moderator.policies.common

    def days(visit: _Visit) -> int:
        return policy(visit).rules.reports.days

    @api.get(PAGES, include_in_schema=False)
    async def index(request: Request) -> Response:
        visit = _Visit.of(request, apps, "")
        if visit.name and visit.app is None:
            return visit.notice("unknown", 404)
        return visit.page("index.html", days=days(visit))

    def shut(visit: _Visit) -> Response | None:
        """Why nothing can be sent here; None: it can."""
        if visit.app is None:
            return visit.notice("unknown", 404) if visit.name else visit.notice("which", 400)
        return None if visit.app.open else visit.notice("closed", 403)

    def filled(
        visit: _Visit, form: Form, typed: Mapping[str, str], *, key: str = "", status: int = 200,
        faults: Mapping[str, Fault] | None = None, alert: str = "",
    ) -> Response:  # fmt: skip
        """The form with what was typed. `key`: of what may have been sent; '': a new one. `alert`: what is wrong with the whole."""
        said = {name: visit.say(fault.words, **fault.values) for name, fault in (faults or {}).items()}
        return visit.page(
            "form.html", status, form=form, typed=typed, faults=said, alert=alert, days=days(visit), fresh=not (said or alert),
            key=key or secrets.token_urlsafe(18), names={id: getattr(c, visit.language) for id, c in taxonomy().items()},
        )  # fmt: skip

    def add(form: Form, send: Send) -> None:
        names = tuple(f.name for f in form.fields)

        @api.get(PAGES + form.name, include_in_schema=False)
        async def shown(request: Request) -> Response:
            visit = _Visit.of(request, apps, form.name)
            return shut(visit) or filled(visit, form, dict.fromkeys(names, ""))

        @api.post(PAGES + form.name, include_in_schema=False)
        async def sent(request: Request) -> Response:
            visit = _Visit.of(request, apps, form.name)
            typed = await posted(visit, (*names, "key", "without"))
            if isinstance(typed, Response):
                return typed
            if (closed := shut(visit)) is not None:
                return closed
            assert visit.app is not None
            key = typed["key"][:_KEY_MAX]
            if typed["without"]:
                typed["receipt"] = ""
            try:
                who = sender_of(callers.visitor(visit.app, asgi.headers(request.scope), asgi.peer(request.scope)), keys)
                done = await send(form.check(typed), who, key or secrets.token_urlsafe(18))
            except Wrong as e:
                return filled(visit, form, typed, key=key, status=422, faults=e.faults)
            except Limited as e:
                return limited(visit, form, typed, key, e.seconds)
            except StoreError:
                return filled(visit, form, typed, key=key, status=503, alert=visit.say("notices.down"))
            except RequestError as e:
                if e.retry is not None:
                    return limited(visit, form, typed, key, e.retry)
                if e.code == "idempotency_key_reused":
                    return filled(visit, form, typed, status=409, alert=visit.say("notices.reused"))
                if e.code not in _CODES:
                    return filled(visit, form, typed, key=key, status=e.status, alert=visit.say("faults.refused"))
                name, said = _CODES[e.code]
                return filled(visit, form, typed, key=key, status=422, faults={name: Fault(said)})
            return visit.page("sent.html", form=form, done=done)

        def limited(visit: _Visit, form: Form, typed: Mapping[str, str], key: str, seconds: int) -> Response:
            alert = visit.say("notices.limited", seconds=seconds)
            response = filled(visit, form, typed, key=key, status=429, alert=alert)
            response.headers["retry-after"] = str(seconds)
            return response

    add(REPORT, lambda given, who, key: taken(reports, given, who, key))
    add(COMPLAIN, lambda given, who, key: complained(complaints, given, who, key))
    add(APPEAL, lambda given, who, key: appealed(complaints, given, who, key))

    def looked_up(
        visit: _Visit, ticket: str = "", status: int = 200, found: Row | None = None, **said: Any
    ) -> Response:
        """A token that was typed does not come back."""
        more = {"faults": {}, "alert": ""} | said
        return visit.page(
            "status.html", status, fields=STATUS, typed={"ticket": ticket, "token": ""}, found=found, **more
        )

    @api.get(PAGES + "status", include_in_schema=False)
    async def status(request: Request) -> Response:
        visit = _Visit.of(request, apps, "status")
        return visit.notice("unknown", 404) if visit.name and visit.app is None else looked_up(visit)

    @api.post(PAGES + "status", include_in_schema=False)
    async def state(request: Request) -> Response:
        visit = _Visit.of(request, apps, "status")
        typed = await posted(visit, ("ticket", "token"))
        if isinstance(typed, Response):
            return typed
        ticket, token = typed["ticket"].strip(), typed["token"].strip()
        if empty := [f.name for f in STATUS if not typed[f.name].strip()]:
            return looked_up(visit, ticket, 422, faults={name: visit.say("faults.missing") for name in empty})
        try:
            standing = await state_of(reports, ticket, token)
            found = {"ticket": ticket, "state": standing} if standing else await complaints.state(ticket, token)
        except StoreError:
            return looked_up(visit, ticket, 503, alert=visit.say("notices.down"))
        if found is None:
            return looked_up(visit, ticket, 404, alert=visit.say("faults.unknown"))
        return looked_up(visit, ticket, found=found)

    def serve(name: str, kind: str) -> None:
        raw, tag = _file(name)

        @api.get(PAGES + name, include_in_schema=False)
        async def file(request: Request) -> Response:
            headers = {
                "etag": f'"{tag}"', "cache-control": _FOR_EVER if request.query_params.get("v") == tag else _FOR_NOW,
                "x-content-type-options": "nosniff", "cross-origin-resource-policy": "cross-origin",
            }  # fmt: skip
            if request.headers.get("if-none-match") == headers["etag"]:
                return Response(status_code=304, headers=headers)
            return Response(raw, headers=headers, media_type=kind)

    for name, kind in _FILES.items():
        serve(name, kind)


async def posted(visit: _Visit, names: tuple[str, ...]) -> dict[str, str] | Response:
    """What was typed, or the page that says why it is not read."""
    if visit.foreign:
        return visit.notice("elsewhere", 403)
    kind = visit.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return visit.notice("garbled", 415)
    try:
        return read(await body_of(visit.request, LARGEST), names)
    except RequestError as e:
        return visit.notice("large" if e.status == 413 else "garbled", e.status)
