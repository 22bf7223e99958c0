"""The doors: the first account by a one-time link, logging in by password or provider, logging out."""

from __future__ import annotations

import json

from starlette.responses import HTMLResponse, Response

from app import strictjson
from app.errors import LoginError, RequestError
from app.logins import WHOLE
from app.oidc import Pending
from app.web import asgi
from app.web.console.call import COOKIE, ROOT, Call, Fault, Pages
from app.web.console.call import fault as told

PAGES = Pages()
_PENDING = "sluice_login"
"""Cookie of a login at the provider that is under way: it comes back from another site, so it must be Lax."""


def _secure(call: Call) -> bool:
    return call.office.link.startswith("https://")


def _entered(call: Call, response: Response, secret: str) -> Response:
    response.set_cookie(
        COOKIE, secret, max_age=WHOLE, path=ROOT, httponly=True, samesite="strict", secure=_secure(call)
    )
    return response


async def login_page(call: Call, fault: Fault | None = None) -> Response:
    there = await call.office.logins.accounts.operated()
    if not there and call.office.provider is None:
        return call.page("setup.html", fault=fault, token="")
    provider = call.office.provider is not None
    return call.page("login.html", fault=fault, next=call.onward("next"), provider=provider, there=there)


@PAGES.get("/login", open=True)
async def show_login(call: Call) -> Response:
    return call.to("/") if call.session is not None else await login_page(call)


@PAGES.post("/login", open=True, again=login_page)
async def login(call: Call) -> Response:
    secret = await call.office.logins.enter(
        call.one("id"), call.form.get("password", [""])[0], asgi.peer(call.request.scope)
    )
    return _entered(call, call.to(call.onward("next")), secret)


async def setup_page(call: Call, fault: Fault | None = None) -> Response:
    return call.page("setup.html", fault=fault, token=call.one("token") or call.query("token"))


@PAGES.get("/setup", open=True)
async def show_setup(call: Call) -> Response:
    if await call.office.logins.accounts.operated():
        return call.to("/login")
    return await setup_page(call)


@PAGES.post("/setup", open=True, again=setup_page)
async def setup(call: Call) -> Response:
    password = call.form.get("password", [""])[0]
    if password != call.form.get("again", [""])[0]:
        raise RequestError(
            "again: not the same password 两次输入的密码不一致", code="invalid_value", param="again", status=422
        )
    secret = await call.office.logins.begin(call.one("token"), call.one("id"), password, call.language)
    return _entered(call, call.to("/me", first="1"), secret)


@PAGES.post("/logout")
async def logout(call: Call) -> Response:
    await call.office.logins.close(call.request.cookies.get(COOKIE, ""), call.who)
    response = call.to("/login")
    response.delete_cookie(COOKIE, path=ROOT)
    return response


@PAGES.post("/login/provider", open=True, again=login_page)
async def to_provider(call: Call) -> Response:
    """To whoever vouches for people here."""
    provider = call.office.provider
    if provider is None:
        raise RequestError("no provider is configured 未配置统一登录", code="no_provider", status=404)
    address, pending = await provider.begin()
    # A page of ours sends them on: a redirect of a form would be held against form-action.
    response = HTMLResponse(call.page("onward.html", address=address).body)
    said = json.dumps(pending._asdict())
    response.set_cookie(
        _PENDING, said, max_age=600, path=f"{ROOT}/login", httponly=True, samesite="lax", secure=_secure(call)
    )
    return response


@PAGES.get("/login/return", open=True)
async def from_provider(call: Call) -> Response:
    """Back from there. The session's cookie is Strict, so that the next click must be one of a page of ours."""
    provider = call.office.provider
    if provider is None:
        raise RequestError("no provider is configured 未配置统一登录", code="no_provider", status=404)
    try:
        kept = strictjson.loads(call.request.cookies.get(_PENDING, "").encode())
    except RequestError:
        kept = None
    match kept:
        case {"state": str(state), "nonce": str(nonce), "verifier": str(verifier)}:
            pending = Pending(state, nonce, verifier)
        case _:
            raise RequestError("this login is over; begin again 登录已过期，请重新开始", code="login", status=403)
    names = await call.office.logins.heard(asgi.peer(call.request.scope))
    try:
        person = await provider.finish(pending, dict(call.request.query_params))
    except LoginError as e:
        # It serves once.
        response = await login_page(call, told(e))
        response.delete_cookie(_PENDING, path=f"{ROOT}/login")
        return response
    await call.office.logins.forgive(names)
    if not person.roles:
        raise RequestError(
            "you have no role here; ask an operator 您尚无角色，请联系运维人员", code="no_role", status=403
        )
    account = await call.office.logins.accounts.vouched(person.subject, person.name, person.roles)
    if account is None:
        raise RequestError("this account is disabled 账号已停用", code="disabled", status=403)
    secret = await call.office.logins.open(account, "provider")
    response = _entered(call, call.page("onward.html", address=f"{ROOT}/"), secret)
    response.delete_cookie(_PENDING, path=f"{ROOT}/login")
    return response
