"""Accounts of the console: who may work there, as what, and how each likes to work.

Law: a password is kept as an Argon2id hash (RFC 9106) alone, and guessing at it is slow and counted; every change is one commit with its
audit row. Outside the audit a person is an alias. What somebody skips, will not see or has had enough of stands nowhere but with them: no
figure is made of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from app import clock
from app.errors import Conflict, RequestError
from app.keys import Keys
from app.settings import ROLES, Scope
from app.store.cases import Cases, Writes
from app.store.tables import Row
from app.taxonomy import taxonomy

SCOPES: dict[str, frozenset[Scope]] = {
    "reviewer": frozenset({"review"}),
    "lead": frozenset({"review", "lists", "audit"}),
    "operator": frozenset({"operate", "lists"}),
    "auditor": frozenset({"audit"}),
}
"""What each role may do, in the words of the admin API's tokens."""
NOBODY = frozenset({
    "report", "reporter", "time", "rule", "gateway", "schedule", "request", "provider", "setup", "system",
})  # fmt: skip
"""Who stands in the audit where no person did it: no account is called so."""
LEAST = 12
"""Characters of a password."""
_NAME = re.compile(r"[a-z][a-z0-9._-]{1,31}\Z")
_AT_ONCE = 2
"""Passwords that are looked at: each takes 64 MiB."""


@dataclass(frozen=True, slots=True)
class Likes:
    """How one reviewer works. `language`: zh or en. `blur`, `held`: texts are blurred, or hidden until a key or button is held. `without`:
    categories that are not brought to them. `cap`: cases an hour after which a rest is offered, 0: never; `pause`: minutes of work after
    which one is. `keys`: what is done -> the key for it, where that is not the usual one."""

    language: str = "zh"
    blur: bool = False
    held: bool = False
    without: tuple[str, ...] = ()
    cap: int = 40
    pause: int = 50
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """`password`: its Argon2id hash, '' where a provider vouches. `since`: sessions from before are over. Times in seconds."""

    id: str
    roles: tuple[str, ...]
    name: str = ""
    password: str = ""
    disabled: bool = False
    since: float = 0.0
    made: float = 0.0
    by: str = ""
    likes: Likes = Likes()
    version: int = 0

    @property
    def scopes(self) -> frozenset[Scope]:
        """What it may do."""
        return frozenset[Scope]().union(*(SCOPES[role] for role in self.roles))

    def row(self) -> Row:
        return {k: v for k, v in asdict(self).items() if k != "version"}

    @classmethod
    def of(cls, raw: str) -> Account:
        version, _, body = raw.partition(" ")
        row = json.loads(body)
        likes = {k: tuple(v) if isinstance(v, list) else v for k, v in row["likes"].items()}
        told: Mapping[str, Any] = {k: v for k, v in likes.items() if k in Likes.__dataclass_fields__}
        known = {k: v for k, v in row.items() if k in cls.__dataclass_fields__}
        return cls(**known | {"roles": tuple(row["roles"]), "likes": Likes(**told), "version": int(version)})


def alias(keys: Keys, who: str) -> str:
    """By what a colleague is called everywhere but in the audit."""
    return "R-" + base64.b32encode(keys.mac("console", "alias", who)).decode()[:5]


class Accounts:
    """Those of the store that `cases` lie in."""

    def __init__(self, cases: Cases, keys: Keys) -> None:
        self._cases, self.keys = cases, keys
        self._hasher = PasswordHasher()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    @cached_property
    def _nobody(self) -> str:
        return self._hasher.hash("nobody has this password")

    # ---- reading

    async def get(self, id: str) -> Account | None:
        """Raises StoreError."""
        raw = await self._cases.field("accounts", id)
        return None if raw is None else Account.of(raw)

    async def all(self) -> list[Account]:
        """By id. Raises StoreError."""
        found = [Account.of(raw) async for _, raw in self._cases.scan("accounts")]
        return sorted(found, key=lambda a: a.id)

    async def operated(self) -> bool:
        """Somebody can manage accounts. Raises StoreError."""
        return bool((await self._operators())[0])

    async def _operators(self) -> tuple[set[str], int]:
        """Who can, and the version of that row: whoever changes it changes it from what he saw."""
        raw = await self._cases.field("accounts:operators", "all")
        version, _, body = (raw or "0 {}").partition(" ")
        return set(json.loads(body).get("ids", ())), int(version)

    async def proved(self, id: str, password: str) -> Account | None:
        """The account, where the password is its own. An unknown name takes as long. Raises StoreError."""
        account = await self.get(id)
        kept = account.password if account is not None and account.password else self._nobody
        async with self._turn:
            right = await asyncio.to_thread(self._right, kept, password)
        return account if account is not None and account.password and right and not account.disabled else None

    def _right(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False

    # ---- changing

    async def add(
        self, id: str, roles: Iterable[str], by: str, *, password: str = "", name: str = "", language: str = "zh",
        first: bool = False,
    ) -> Account:  # fmt: skip
        """A new one. `password`: '' for one that a provider vouches for. `first`: only where nobody is an operator. Raises RequestError,
        Conflict."""
        if not ((_NAME.match(id) and id not in NOBODY) or (id.startswith("oidc:") and not password)):
            raise RequestError(
                "name: 2 to 32 small letters, digits, '.', '_' or '-', beginning with a letter, and no word of the system "
                "登录名须为 2 至 32 位小写字母、数字、点、横线，且不能是系统用词",
                code="invalid_value", param="id", status=422,
            )  # fmt: skip
        if language not in ("zh", "en"):
            raise RequestError(
                "language: zh or en 语言须为 zh 或 en", code="invalid_value", param="language", status=422
            )
        hashed = await self._hashed(id, password) if password or not id.startswith("oidc:") else ""
        account = Account(
            id, _roles(roles), name=_said(name), password=hashed, since=clock.now(), made=clock.now(), by=by, likes=Likes(language)
        )  # fmt: skip
        try:
            return await self._put(
                account, {"who": by, "what": "account_add", "account": id, "roles": list(account.roles)}, first
            )
        except Conflict as e:
            if await self.get(id) is None:
                raise
            raise RequestError("name: it is taken 登录名已被使用", code="taken", param="id", status=409) from e

    async def change(
        self, account: Account, by: str, *, roles: Iterable[str] | None = None, disabled: bool | None = None
    ) -> Account:
        """What it may do. Takes effect at its next click. Raises RequestError where nobody could manage accounts any more, Conflict."""
        after = replace(
            account, roles=account.roles if roles is None else _roles(roles),
            disabled=account.disabled if disabled is None else disabled,
        )  # fmt: skip
        event = {
            "who": by, "what": "account_change", "account": account.id, "roles": list(after.roles), "disabled": after.disabled,
        }  # fmt: skip
        return await self._put(after, event)

    async def renew(self, account: Account, password: str, by: str) -> Account:
        """Another password; every session of the account ends. Raises RequestError, Conflict."""
        after = replace(account, password=await self._hashed(account.id, password), since=clock.now())
        return await self._put(after, {"who": by, "what": "password", "account": account.id})

    async def like(self, account: Account, likes: Likes) -> Account:
        """How its owner works: nobody else's business, so the audit does not say what. Raises RequestError, Conflict."""
        if unknown := set(likes.without) - set(taxonomy()):
            raise RequestError(
                f"without: {min(unknown)}: no such category", code="invalid_value", param="without", status=422
            )
        if not (0 <= likes.cap <= 1000 and 0 <= likes.pause <= 600):
            raise RequestError("cap: 0 to 1000; pause: 0 to 600", code="invalid_value", param="cap", status=422)
        taken = list(likes.keys.values())
        if len(set(taken)) < len(taken):
            raise RequestError(
                "keys: one key stands twice 有重复的按键", code="invalid_value", param="keys", status=422
            )
        return await self._put(
            replace(account, likes=likes), {"who": account.id, "what": "likes", "account": account.id}
        )

    async def remove(self, account: Account, by: str) -> None:
        """Raises RequestError for the last operator, Conflict."""
        writes = Writes()
        writes.seen("accounts", account.id, account.version)
        writes.drop("accounts", account.id)
        await self._operated(writes, replace(account, disabled=True))
        await self._cases.commit(writes, {"who": by, "what": "account_remove", "account": account.id})

    async def vouched(self, id: str, name: str, roles: Collection[str]) -> Account | None:
        """The account of somebody whom a provider vouches for, with the roles that it says; None: it is disabled here."""
        account = await self.get(id)
        if account is None:
            return await self.add(id, roles, "provider", name=name)
        if account.disabled:
            return None
        return account if set(account.roles) == set(roles) else await self.change(account, "provider", roles=roles)

    async def _hashed(self, id: str, password: str) -> str:
        if not LEAST <= len(password) <= 200 or password == id:
            raise RequestError(
                f"password: {LEAST} to 200 characters, and not the name 密码须为 {LEAST} 至 200 个字符，且不同于登录名",
                code="invalid_value", param="password", status=422,
            )  # fmt: skip
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _put(self, account: Account, event: Row, first: bool = False) -> Account:
        writes = Writes()
        writes.row("accounts", account.id, account.version, account.row())
        await self._operated(writes, account, first)
        try:
            await self._cases.commit(writes, event)
        except Conflict as e:
            raise Conflict(
                f"account: somebody changed it first; it is at version {e.current} 已被他人修改", e.current
            ) from None
        return replace(account, version=account.version + 1)

    async def _operated(self, writes: Writes, after: Account, first: bool = False) -> None:
        """Keep the row of operators. Of two changes at once that meet there, one is a conflict. Raises RequestError."""
        were, version = await self._operators()
        now = were | {after.id} if "operate" in after.scopes and not after.disabled else were - {after.id}
        if first and were:
            raise RequestError("there is an operator already 已有运维账号", code="setup", status=403)
        if were and not now:
            raise RequestError(
                "roles: this is the last operator; make somebody else one first 这是最后一名运维人员，请先授予他人",
                code="last_operator", param="roles", status=409,
            )  # fmt: skip
        if now != were:
            writes.row("accounts:operators", "all", version, {"ids": sorted(now)})


def _roles(given: Iterable[str]) -> tuple[str, ...]:
    asked = list(given)
    roles = tuple(role for role in ROLES if role in asked)
    if not roles or len(roles) != len(set(asked)):
        raise RequestError(
            f"roles: at least one of {', '.join(ROLES)} 至少选择一个角色",
            code="invalid_value",
            param="roles",
            status=422,
        )
    return roles


def _said(name: str) -> str:
    return "".join(c for c in name if c.isprintable())[:80]
