"""Keys: HKDF, kids, MACs, pseudonyms, receipts. Law: one secret, a derived key per purpose, and every stored value carries its kid.

Values made under an older kid stay verifiable while that kid is listed; new ones are made under the first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from app import clock
from app.errors import SettingsError
from app.text import fold
from app.types import Subject

Purpose = Literal[
    "subject", "fingerprint", "evidence", "receipt", "refusal", "reporter", "ticket", "delivery", "console"
]


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _hkdf(secret: bytes, info: bytes, size: int = 32) -> bytes:
    """HKDF-SHA256 with an empty salt (RFC 5869), one block."""
    prk = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(prk, info + b"\x01", "sha256")[:size]


class Keys:
    """`spec`: `kid:secret[,kid:secret…]`, newest first, or one bare secret of at least 32 bytes."""

    def __init__(self, spec: str) -> None:
        self._secrets: dict[str, bytes] = {}
        parts = spec.split(",")
        for part in parts:
            kid, colon, secret = part.strip().partition(":")
            if not colon:
                kid, secret = "0", kid
                if len(parts) > 1:
                    raise SettingsError(
                        "SLUICE_SECRET_KEY: with several keys each needs its kid: kid:secret,older:secret"
                    )
            if not (kid.isascii() and kid.isalnum()) or len(kid) > 16:
                raise SettingsError("SLUICE_SECRET_KEY: a kid is 1 to 16 letters or digits")
            if kid in self._secrets:
                raise SettingsError(f"SLUICE_SECRET_KEY: the kid {kid!r} stands twice")
            if len(secret.encode()) < 32:
                raise SettingsError("SLUICE_SECRET_KEY: a secret must have at least 32 bytes")
            self._secrets[kid] = secret.encode()
        self.kid = next(iter(self._secrets))
        self._derive = lru_cache(maxsize=256)(
            lambda purpose, kid: _hkdf(self._secrets[kid], f"sluice/{purpose}/1".encode())
        )

    def derive(self, purpose: Purpose, kid: str | None = None) -> bytes:
        """32 bytes. Raises KeyError for an unknown kid."""
        return self._derive(purpose, self.kid if kid is None else kid)

    def all(self, purpose: Purpose) -> dict[str, bytes]:
        """The purpose's key under every kid."""
        return {kid: self.derive(purpose, kid) for kid in self._secrets}

    def mac(self, purpose: Purpose, *parts: str, kid: str | None = None) -> bytes:
        """16 bytes over the parts, each with its length, so that no two splits collide."""
        data = b"".join(
            len(raw).to_bytes(4, "big") + raw for raw in (p.encode("utf-8", "surrogatepass") for p in parts)
        )
        return hmac.digest(self.derive(purpose, kid), data, "sha256")[:16]

    @property
    def kids(self) -> list[str]:
        """Every kid, the newest first."""
        return list(self._secrets)

    def pseudonym(self, app: str, user: str, kid: str | None = None) -> str:
        """A subject's pseudonym within one app: nothing links it across apps, nothing leads back without the key."""
        return f"{kid or self.kid}.{_b64(self.mac('subject', app, user, kid=kid))}"

    def pseudonyms(self, app: str, user: str) -> list[str]:
        """A subject's pseudonyms under every key, the newest first: what was written of it before a rotation stands under an older one."""
        return [self.pseudonym(app, user, kid) for kid in self._secrets]

    def reporter(self, subject: Subject, kid: str | None = None) -> str:
        """Who reported, within one app: a pseudonym of its own, so that cases and a person's other records cannot be joined."""
        return f"{kid or self.kid}.{_b64(self.mac('reporter', subject.app, subject.pseudonym, kid=kid))}"

    def reporters(self, app: str, user: str) -> list[str]:
        """Under which names a user reported, under every key, the newest first."""
        return [self.reporter(Subject(app, self.pseudonym(app, user, kid)), kid) for kid in self._secrets]

    def talks(self, app: str, conversation: str) -> list[str]:
        """The names of a conversation among those for whom a report acts, under every key, the newest first."""
        return [self.reporter(Subject(app, f"conversation {conversation}"), kid) for kid in self._secrets]

    def status_token(self, ticket: str, kid: str | None = None) -> str:
        """What opens a ticket's state: 128 bits that only we can make, and again, so that none is stored."""
        return _b64(self.mac("ticket", ticket, kid=kid))

    def opens(self, ticket: str, token: str) -> bool:
        """Is it the ticket's status token, under whatever key it was given out? In constant time over all of them."""
        given = token.encode("utf-8", "surrogatepass")
        found = [hmac.compare_digest(self.status_token(ticket, kid).encode(), given) for kid in self._secrets]
        return any(found)

    @cached_property
    def refusal(self) -> _Refusals:
        return _Refusals(self)


class _Refusals:
    """Knows a message that was refused before: by a MAC in the decision id that its refusal showed, and by memory.

    The decision id of a refused prompt ends in a MAC over app and folded message. A client that keeps the refusal in
    its history thereby brings the proof, whatever worker or replica it meets, with no store asked. For one that drops
    it the MACs are also told to all processes, which remember them for a while.
    """

    _ROOM = 16_384

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._seen: dict[bytes, None] = {}
        self.tell: Callable[[bytes], None] = self.learn
        """Where a new refusal is told; the store's feed puts itself here, so that every process learns of it."""

    def _tail(self, app: str, message: str, kid: str | None = None) -> bytes:
        return self._keys.mac("refusal", app, fold(message), kid=kid)[:10]

    def decision(self, app: str, message: str) -> str:
        """The decision id for refusing `message`, which is remembered."""
        return decision_id(self.remember(app, message))

    def remember(self, app: str, message: str) -> bytes:
        """Know `message` as refused from now on, here and soon in every process; its tail."""
        tail = self._tail(app, message)
        self.learn(tail)
        self.tell(tail)
        return tail

    def learn(self, tail: bytes) -> None:
        """Remember a refusal, one's own or another process's; the oldest are forgotten."""
        self._seen[tail] = None
        if len(self._seen) > self._ROOM:
            del self._seen[next(iter(self._seen))]

    def is_tail(self, tail: bytes, app: str, message: str) -> bool:
        """True if `tail` is that of refusing this message."""
        return any(hmac.compare_digest(tail, self._tail(app, message, kid)) for kid in self._keys._secrets)

    def known(self, app: str, message: str, shown: set[bytes]) -> bool:
        """True if `message` was refused. `shown`: the tails of the decision ids that stand in the history."""
        tails = [self._tail(app, message, kid) for kid in self._keys._secrets]
        return any(t in self._seen or t in shown for t in tails)


def decision_id(tail: bytes | None = None) -> str:
    """`slc_` and 26 characters: 48 bits of milliseconds, 80 random bits (or the tail of a refusal)."""
    moment = int(clock.now() * 1000).to_bytes(6, "big")
    # RFC 4648, 6: 128 bits and two of padding, two digits at a time.
    bits = int.from_bytes(moment + (tail or os.urandom(10)), "big") << 2
    return "slc_" + "".join([_TWO[bits >> at & 1023] for at in range(120, -1, -10)])


_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
_TWO = [a + b for a in _DIGITS for b in _DIGITS]


def decision_time(decision: str) -> float:
    """Seconds since the epoch. Raises ValueError for what is no decision id."""
    return int.from_bytes(_decision(decision)[:6], "big") / 1000


def decision_tail(decision: str) -> bytes:
    return _decision(decision)[6:]


def _decision(decision: str) -> bytes:
    if len(decision) != 30 or not decision.startswith("slc_"):
        raise ValueError("not a decision id")
    return base64.b32decode(decision[4:].upper() + "======")


class Receipt:
    """A receipt in the making: fed each delivered text as it goes out, keeps none of it.

    Form: `r1.<kid>.<seconds>.<MAC per choice, joined by ~>.<seal>`; each MAC is over (decision, app, time, folded
    delivered text), the seal over all that precedes it, so that holding a receipt can be proved without the text.
    """

    def __init__(self, keys: Keys, decision: str, app: str) -> None:
        self._keys, self._decision, self._app, self._at = keys, decision, app, str(int(clock.now()))
        self._choices: dict[int, hmac.HMAC] = {}

    def add(self, choice: int, text: str) -> None:
        if text:
            mac = self._choices.get(choice)
            if mac is None:
                mac = self._choices[choice] = _text_mac(self._keys, self._keys.kid, self._decision, self._app, self._at)
            mac.update(fold(text).encode("utf-8", "surrogatepass"))

    def text(self) -> str:
        macs = "~".join(_b64(self._choices[c].digest()[:16]) for c in sorted(self._choices)) or "-"
        return f"r1.{self._keys.kid}.{self._at}.{macs}.{_seal(self._keys, self._keys.kid, self._decision, self._app, self._at, macs)}"


def _text_mac(keys: Keys, kid: str, decision: str, app: str, at: str) -> hmac.HMAC:
    return hmac.new(keys.derive("receipt", kid), f"{decision}\n{app}\n{at}\n".encode(), hashlib.sha256)


def _seal(keys: Keys, kid: str, decision: str, app: str, at: str, macs: str) -> str:
    return _b64(keys.mac("receipt", "seal", decision, app, at, macs, kid=kid))


def verify(keys: Keys, receipt: str, decision: str, app: str, text: str | None = None) -> bool:
    """Is it our receipt for this decision (and, if given, for this delivered text)? Constant-time compares."""
    parts = receipt.split(".")
    if len(parts) != 5 or parts[0] != "r1" or not receipt.isascii():
        return False
    _, kid, at, macs, seal = parts
    try:
        expected = _seal(keys, kid, decision, app, at, macs)
    except KeyError:
        return False
    if not hmac.compare_digest(seal, expected):
        return False
    if text is None:
        return True
    mac = _text_mac(keys, kid, decision, app, at)
    mac.update(fold(text).encode("utf-8", "surrogatepass"))
    own = _b64(mac.digest()[:16])
    return any(hmac.compare_digest(own, m) for m in macs.split("~"))


def generated(data_dir: Path) -> str:
    """The secret of a gateway with the embedded store: made once, 0600, in DATA_DIR."""
    path = data_dir / "secret_key"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SettingsError(f"{path}: readable by others; chmod 600 it, or set SLUICE_SECRET_KEY") from None
        return path.read_text().strip()
    with os.fdopen(fd, "w") as f:
        f.write(secrets.token_urlsafe(48))
    return path.read_text()
