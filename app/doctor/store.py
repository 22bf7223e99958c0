"""The store: does it answer us, is it the one that we know, does it keep what it acknowledged, and can this gateway read what stands in it.

Law: it is read and never written. What is looked through is the replicated tables, once and whole as a worker does at its start, and one
page of sealed evidence; nothing of a text is kept or shown. Without a Redis to ask, the snapshots in DATA_DIR stand for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from app import clock, vault
from app.doctor import keyring
from app.doctor.places import place, reach, speaks_tls
from app.doctor.symptoms import Symptom, fact, fault, warning
from app.duties import APART
from app.errors import SettingsError, StoreError, Unreadable
from app.keys import Keys
from app.settings import Settings
from app.store.client import Store
from app.store.embedded import find_server
from app.store.tables import AgreementRows, Entries, ExceptionRows, Row, Shadows, Standings, Statements, Table

_TABLES: tuple[type[Table], ...] = (Entries, ExceptionRows, Standings, AgreementRows, Shadows, Statements)
_NAME = "SLUICE_REDIS_URL"
_KEY = "SLUICE_SECRET_KEY"
_PLACES = f"{_NAME}, SLUICE_DEPLOYMENT or SLUICE_DATA_DIR"
_LOSSES = {
    "1s": "a kill and a slow disk lose what was acknowledged in the last second or longer: set appendfsync always",
    "none": "a kill loses what was acknowledged: set appendonly yes and appendfsync always",
}
"""What `durability` (Store.check) means, where it is not strict."""


def store(conf: Settings) -> Iterator[Symptom]:
    """All of it."""
    # What the store's own logger would say is said here.
    logging.getLogger("sluice").setLevel(logging.CRITICAL)
    yield from asyncio.run(_examined(conf))


async def _examined(conf: Settings) -> list[Symptom]:
    if conf.redis_url is None:
        return [
            fact(f"embedded, {find_server()}"),
            *[s async for s in _unreadable(conf, await _snapshots(conf.data_dir))],
        ]
    try:
        redis = Store(conf.redis_url, conf.deployment, conf.redis_replicas)
    except ValueError:
        return [fault(f"{_NAME} must be redis://, rediss:// or unix://, for example redis://127.0.0.1:6379/0")]
    found = []
    try:
        async for symptom in _answering(conf, redis):
            found.append(symptom)
    except StoreError as e:
        # With none it is Sluice itself that asks no further, as of a newer schema.
        of = e.__context__
        why = f"{_NAME}: {e}" if of is None else await asyncio.to_thread(_silent, conf.redis_url, type(of).__name__)
        found.append(fault(why))
    finally:
        await redis.close()
    return found


async def _answering(conf: Settings, redis: Store) -> AsyncIterator[Symptom]:
    """What it says. Raises StoreError, whose context is the error that says why, where it does not."""
    snapshots = await _snapshots(conf.data_dir)
    seconds, micros = await redis.run("TIME")
    yield fact("Redis answers")
    apart = int(seconds) + int(micros) / 1e6 - clock.now()
    if abs(apart) > APART:
        yield fault(
            f"Redis's clock is {apart:+.0f} s from this machine's: nothing lapses, falls due or is erased until they agree; set both by NTP"
        )
    async for symptom in _promises(redis):
        yield symptom
    known = await redis.run("GET", redis.key("store_id"))
    if not known:
        if any(table.store_id for table in snapshots):
            yield fault(
                f"{_NAME}: this Redis is empty, and SLUICE_DATA_DIR comes from another: writes would be refused; correct {_PLACES}, or "
                "restore the data (docs/operations.md)"
            )
        return
    tables = [kind(redis, Path("/nonexistent"), _nothing) for kind in _TABLES]
    for table, before in zip(tables, snapshots, strict=True):
        await table.refresh()
        if before.store_id and before.store_id != known:
            yield fault(
                f"{_NAME}: SLUICE_DATA_DIR/{before.name}.snapshot.json comes from another store (foreign): writes would be refused; "
                f"correct {_PLACES}, or see docs/operations.md, `another one`"
            )
            return
        if before.version > table.version:
            yield fault(
                f"{_NAME}: its table {table.name} is older ({table.version}) than this gateway's snapshot ({before.version}): writes would "
                "be refused; restore its last data (docs/operations.md)"
            )
            return
    async for symptom in _unreadable(conf, tables, redis):
        yield symptom


async def _promises(redis: Store) -> AsyncIterator[Symptom]:
    """Does it keep what it acknowledged?"""
    await redis.check()
    if redis.problem:
        yield fault(f"{_NAME}: {redis.problem} (until then no report, decision or entry is taken)")
    if (losses := _LOSSES.get(redis.durability)) is not None:
        yield warning(f"{_NAME}: {losses}")
    else:
        cannot = "; cannot tell whether it evicts or syncs, for it tells nobody (a managed one?)"
        yield fact("keeps what it acknowledged" if redis.durability == "strict" else f"durability unknown{cannot}")


def _silent(url: str, kind: str) -> str:
    """Why it does not answer us. `kind`: the error's name."""
    if "Authentication" in kind:
        if urlsplit(url).password:
            return (
                f"{_NAME}: Redis does not take this user and password; correct them (redis://user:password@host:port/0)"
            )
        return f"{_NAME}: Redis wants a password: redis://:password@host:port/0, or user:password for an ACL user"
    if kind == "NoPermissionError":
        return f"{_NAME}: Redis refuses this ACL user a command or these keys: allow it the keys {{sluice:…}}:* and every command used"
    if kind == "BusyLoadingError":
        return f"{_NAME}: Redis is still loading its data; wait for it and ask again"
    scheme = urlsplit(url).scheme
    if scheme == "unix":
        return f"{_NAME}: nothing answers on its socket ({kind}); start Redis there, or correct the path and its rights"
    at = place(url, _NAME)
    try:
        reach(at, _NAME)
    except SettingsError as e:
        return str(e)
    tls = speaks_tls(at)
    if tls and scheme == "redis":
        return f"{_NAME}: {at} wants TLS: write rediss:// for redis://"
    if not tls and scheme == "rediss":
        return f"{_NAME}: {at} speaks no TLS: write redis:// for rediss://, or name its TLS port"
    if tls:
        return f"{_NAME}: TLS with {at} fails: its certificate is not trusted (add ?ssl_ca_certs=/path/ca.pem), or it wants one of ours"
    return (
        f"{_NAME}: what listens at {at} does not answer as Redis does ({kind}): correct the address, or see Redis's log"
    )


async def _snapshots(folder: Path) -> list[Table]:
    """The tables as DATA_DIR has them; empty ones where it has none."""
    tables = [kind(None, folder, _nothing) for kind in _TABLES]
    for table in tables:
        await table.start()
    return tables


def _nothing(rows: dict[str, Row | None], version: int, whole: bool) -> None:
    """Put nothing into force."""


def _kid(row: Row) -> str | None:
    """Under which key a row was written, if under one."""
    if "fingerprint" in row:
        return str(row["fingerprint"]["kid"])
    named = row.get("subject") or (row["id"] if "matter" in row and "category" in row else "")
    return named.partition(".")[0] or None


async def _unreadable(conf: Settings, tables: list[Table], redis: Store | None = None) -> AsyncIterator[Symptom]:
    """What stands under keys that this gateway does not have."""
    try:
        keys = keyring.held(conf)
    except SettingsError:
        return  # told where the key is looked at
    mine = keys.kids if keys is not None else []
    lost = Counter(
        (table.name, kid) for table in tables for row in table.rows() if (kid := _kid(row)) and kid not in mine
    )
    for (name, kid), count in sorted(lost.items()):
        yield fault(
            f"{_KEY} has no key {kid!r}, and {count} {name} stand under it and do not act: list it again, behind the newest"
        )
    if redis is None or keys is None:
        return
    wrong = await _sealed(redis, keys)
    if wrong is not None and wrong not in {kid for _, kid in lost}:
        yield fault(
            f"{_KEY}: evidence under the key {wrong!r} cannot be opened: "
            + ("its secret is another one now; put the old one back" if wrong in mine else "list that key again")
            + " (docs/operations.md, Rotating keys)"
        )


async def _sealed(redis: Store, keys: Keys) -> str | None:
    """A kid of evidence that cannot be opened, if the first page holds any. One kid can stand for two secrets: only opening tells."""
    _, found = await redis.run("HSCAN", redis.key("evidence"), 0, "COUNT", 10)
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    for field, sealed in pairs:
        try:
            vault.unseal(keys, str(field) if "/" in field else f"{field}/evidence", str(sealed))
        except Unreadable:
            return str(sealed).partition(".")[0]
    return None
