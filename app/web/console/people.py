"""People: one's own settings, and for operators the accounts. Law: what somebody will not see, and how many cases are enough for them, is
theirs to say and asked of nobody."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from app.accounts import Account, Likes
from app.errors import RequestError
from app.settings import ROLES
from app.web import asgi
from app.web.console.call import Call, Fault, Pages
from app.web.console.doors import _entered
from app.web.console.words import KEYS
from app.web.console.words import ROLES as NAMED

PAGES = Pages()


async def me_page(call: Call, fault: Fault | None = None) -> Response:
    return call.page(
        "me.html", fault=fault, account=call.account, keys=KEYS, first=call.query("first") == "1", roles=NAMED
    )


@PAGES.get("/me")
async def me(call: Call) -> Response:
    return await me_page(call)


def _number(call: Call, name: str, usual: int) -> int:
    said = call.one(name)
    if not said:
        return usual
    if not (said.isascii() and said.isdecimal() and len(said) < 6):
        raise RequestError(f"{name}: must be a number 须为数字", code="invalid_value", param=name, status=422)
    return int(said)


@PAGES.post("/me", again=me_page)
async def like(call: Call) -> Response:
    keys = {name: call.one(f"key-{name}") for name in KEYS if call.one(f"key-{name}")}
    if long := [name for name, key in keys.items() if len(key) != 1]:
        raise RequestError(
            f"keys: {long[0]}: one character 按键须为一个字符", code="invalid_value", param="keys", status=422
        )
    likes = Likes(
        language=call.account.likes.language,
        blur=call.one("blur") == "1",
        held=call.one("held") == "1",
        without=tuple(call.many("without")),
        cap=_number(call, "cap", 40),
        pause=_number(call, "pause", 50),
        keys=keys,
    )
    await call.office.logins.accounts.like(call.account, likes)
    return call.to("/me")


@PAGES.post("/me/language")
async def language(call: Call) -> Response:
    said = call.one("language")
    if said in ("zh", "en") and said != call.account.likes.language:
        await call.office.logins.accounts.like(call.account, replace(call.account.likes, language=said))
    return call.to(call.onward("back"))


@PAGES.post("/me/password", again=me_page)
async def password(call: Call) -> Response:
    old, fresh, again = (call.form.get(name, [""])[0] for name in ("old", "password", "again"))
    logins, account = call.office.logins, call.account
    if not account.password:
        raise RequestError(
            "password: your provider keeps it 密码由统一登录管理", code="no_password", param="password", status=409
        )
    if fresh != again:
        raise RequestError(
            "again: not the same password 两次输入的密码不一致", code="invalid_value", param="again", status=422
        )
    # By the same door as a login: guessing here is counted as guessing there.
    await logins.proved(account.id, old, asgi.peer(call.request.scope))
    after = await logins.accounts.renew(account, fresh, call.who)
    return _entered(call, call.to("/me"), await logins.open(after, "password"))


# ---- accounts


async def accounts_page(call: Call, fault: Fault | None = None) -> Response:
    return call.page("accounts.html", fault=fault, rows=await call.office.logins.accounts.all(), roles=NAMED)


@PAGES.get("/accounts", "operate")
async def accounts(call: Call) -> Response:
    return await accounts_page(call)


@PAGES.post("/accounts", "operate", again=accounts_page)
async def add(call: Call) -> Response:
    password = call.form.get("password", [""])[0]
    await call.office.logins.accounts.add(
        call.one("id"),
        call.many("roles"),
        call.who,
        password=password,
        name=call.one("name"),
        language=call.one("language", "zh"),
    )
    return call.to("/accounts")


async def _of(call: Call) -> Account:
    account = await call.office.logins.accounts.get(call.one("id"))
    if account is None:
        raise RequestError("id: no such account 没有此账号", code="not_found", param="id", status=404)
    if call.version() is not None and call.version() != account.version:
        raise RequestError(
            "somebody changed it first 已被他人修改，请查看后重试", code="conflict", param="id", status=409
        )
    return account


@PAGES.post("/accounts/change", "operate", again=accounts_page)
async def change(call: Call) -> Response:
    account, logins = await _of(call), call.office.logins
    match call.one("what"):
        case "roles":
            await logins.accounts.change(account, call.who, roles=[r for r in call.many("roles") if r in ROLES])
        case "disable":
            await logins.accounts.change(account, call.who, disabled=True)
        case "enable":
            await logins.accounts.change(account, call.who, disabled=False)
        case "password":
            await logins.accounts.renew(account, call.form.get("password", [""])[0], call.who)
        case "remove":
            await logins.accounts.remove(account, call.who)
        case _:
            raise RequestError("what: unknown 未知操作", code="invalid_value", param="what", status=422)
    return call.to("/accounts")
