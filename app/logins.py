"""Logins of the console: sessions, and how often somebody may guess.

Law: the store knows a session by the hash of its secret; it ends after an hour without a click, after twelve in any case, and at once where
the account is disabled or gets another password. Failures are counted by account and by address, each as a pseudonym, and once there are
too many nobody is heard for a while, right or wrong.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass

from app import clock
from app.accounts import Account, Accounts
from app.errors import Limited, RequestError
from app.keys import Keys
from app.store.cases import Cases, Writes

IDLE, WHOLE = 3600, 12 * 3600
"""Seconds that a session lives without a click, and in all."""
WINDOW = 900
FROM_HERE, OF_ACCOUNT, FROM_ADDRESS = 5, 50, 30
"""Failures in WINDOW seconds: of an account from one address, of an account, and from one address."""


@dataclass(frozen=True, slots=True)
class Session:
    """`form`: what a form of this session carries, so that no other page can send one. `began`: seconds since the epoch."""

    account: Account
    form: str
    began: float


class Logins:
    """`accounts`: whose. A setup secret, while there is no account, lives in this process alone."""

    def __init__(self, cases: Cases, accounts: Accounts, keys: Keys) -> None:
        self._cases, self.accounts, self._keys = cases, accounts, keys
        self.setup = secrets.token_urlsafe(24)
        """What the one-time link holds by which the first account is made."""

    @staticmethod
    def _hash(secret: str) -> str:
        return f"session:{hashlib.sha256(secret.encode()).hexdigest()}"

    # ---- sessions

    async def open(self, account: Account, how: str) -> str:
        """The secret of a new session; that somebody logged in is written down. Raises StoreError."""
        secret = secrets.token_urlsafe(32)
        store = self._cases.store
        said = json.dumps({"account": account.id, "form": secrets.token_urlsafe(24), "began": clock.now()})
        await self._cases.commit(Writes(), {"who": account.id, "what": "login", "how": how})
        await store.run("SET", store.key(self._hash(secret)), said, "EX", IDLE)
        return secret

    async def of(self, secret: str) -> Session | None:
        """Whose session it is, if it is one still. Raises StoreError."""
        if not secret:
            return None
        store, name = self._cases.store, self._hash(secret)
        raw = await store.run("GET", store.key(name))
        if raw is None:
            return None
        row = json.loads(raw)
        account = await self.accounts.get(row["account"])
        left = row["began"] + WHOLE - clock.now()
        if account is None or account.disabled or row["began"] < account.since or left <= 0:
            await store.run("DEL", store.key(name))
            return None
        await store.run("EXPIRE", store.key(name), max(1, min(IDLE, int(left))))
        return Session(account, row["form"], row["began"])

    async def close(self, secret: str, who: str) -> None:
        """Raises StoreError."""
        store = self._cases.store
        await store.run("DEL", store.key(self._hash(secret)))
        await self._cases.commit(Writes(), {"who": who, "what": "logout"})

    # ---- guessing

    async def enter(self, id: str, password: str, source: str) -> str:
        """The secret of a session for whoever knows the password. `source`: an address. Raises RequestError 401, Limited, StoreError."""
        return await self.open(await self.proved(id, password, source), "password")

    async def proved(self, id: str, password: str, source: str) -> Account:
        """Whose the password is. Raises RequestError 401, Limited, StoreError."""
        names = await self._counted([(id, source, FROM_HERE), (id, "", OF_ACCOUNT), ("", source, FROM_ADDRESS)])
        account = await self.accounts.proved(id, password)
        if account is None:
            raise RequestError(
                "name or password is wrong 登录名或密码错误", code="unauthorized", param="password", status=401
            )
        await self.forgive(names)
        return account

    async def forgive(self, names: list[str]) -> None:
        """What was counted was no failure. Raises StoreError."""
        for name in names:
            await self._cases.store.run("DECR", self._cases.store.key(name))

    async def heard(self, source: str) -> list[str]:
        """Count a login that somebody else is asked about; under which names, to be forgiven. Raises Limited, StoreError."""
        return await self._counted([("provider", source, FROM_ADDRESS)])

    async def _counted(self, of: list[tuple[str, str, int]]) -> list[str]:
        """Count an attempt before it is looked at, so that those that come at once count as well; under which names."""
        store = self._cases.store
        names = []
        for id, source, most in of:
            name = f"login:{self._keys.mac('console', 'login', id, source).hex()}"
            names.append(name)
            count = int(await store.run("INCR", store.key(name)))
            if count == 1 or int(await store.run("TTL", store.key(name))) < 0:
                await store.run("EXPIRE", store.key(name), WINDOW)
            if count > most:
                raise Limited(max(1, int(await store.run("TTL", store.key(name)))))
        return names

    async def begin(self, given: str, id: str, password: str, language: str) -> str:
        """The first account, by the one-time link; the secret of a session. Raises RequestError."""
        if not secrets.compare_digest(given.encode(), self.setup.encode()) or await self.accounts.operated():
            raise RequestError(
                "this link was used already, or is of an earlier start; the terminal of the last start has the one that works "
                "链接已失效，请查看最近一次启动的终端输出",
                code="setup", status=403,
            )  # fmt: skip
        roles = ("reviewer", "lead", "operator")
        account = await self.accounts.add(id, roles, "setup", password=password, language=language, first=True)
        self.setup = secrets.token_urlsafe(24)
        return await self.open(account, "setup")
