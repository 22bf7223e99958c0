"""`sluice restore FILE`: a backup (app/backup.py) put into force (docs/backup.md).

Law: nothing of a file is believed: what is no backup, was changed, or needs keys that are not here is refused before anything is written.
A restore is taken into force in one step: killed before it, nothing has changed. What is there is not replaced unless it was asked for,
and then not before it lies in a backup of its own, to the last write. The chain goes on with a row that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from app import clock, settings
from app.backup import (
    AT_ONCE,
    CHUNK,
    MARK,
    OURS,
    PAGE,
    PAIRS,
    TABLES,
    TYPES,
    UNREADABLE,
    BackupError,
    backup,
    compact,
    digest,
    key_check,
    keys_of,
    line_of,
    opened,
    sealed,
    shown,
    summed,
    unpack,
    who,
)  # fmt: skip
from app.errors import StoreError
from app.keys import Keys
from app.settings import Settings
from app.store.cases import broken
from app.store.client import SCHEMA, Store
from app.store.tables import Row

MIGRATIONS: dict[str, tuple[str, Callable[[Row], Row | None]]] = {}
"""Schema -> the next one, and what becomes of a line of `store.jsonl` on the way there (None: it goes)."""
_STAGED = 86_400_000
"""Milliseconds for which what a killed restore has left stays in the store."""
_TRIES = 20
_AHEAD = 1000
"""Versions that a table may gain while a restore goes on."""
_REPLICAS = 60.0
"""Seconds that replicas get to have it too."""


class Found(NamedTuple):
    """A file that may be restored. `versions`: those of its tables. `unkeyed`: why some of it cannot be used. `lines`: what is in
    store.jsonl, of this Sluice's schema."""

    manifest: Row
    members: dict[str, Path]
    unkeyed: list[str]
    audit: list[str]
    versions: list[int]

    def lines(self) -> Iterator[Row]:
        steps = _steps(self.manifest["schema"]) or []
        with self.members["store.jsonl"].open(encoding="utf-8") as f:
            for raw in f:
                line: Row | None = json.loads(raw)
                for step in steps:
                    line = step(line) if line is not None else None
                if line is not None:
                    yield line


def _steps(schema: str) -> list[Callable[[Row], Row | None]] | None:
    """What leads from a schema to this one; None: nothing does."""
    steps = []
    while schema != SCHEMA:
        if schema not in MIGRATIONS:
            return None
        schema, step = MIGRATIONS[schema]
        steps.append(step)
    return steps


def looked(file: Path, folder: Path, conf: Settings, *, without_keys: bool) -> Found:
    """FILE, unpacked into `folder` and checked as a whole. Raises BackupError."""
    manifest, members = unpack(file, folder)
    if _steps(manifest["schema"]) is None:
        raise BackupError(
            f"{file}: is of schema {manifest['schema']!a}, this Sluice knows {SCHEMA} and no way from there; use the Sluice that wrote it "
            f"备份的数据版本不被支持"
        )
    if manifest["deployment"] != conf.deployment:
        raise BackupError(
            f"{file}: is of the deployment {manifest['deployment']!a}, SLUICE_DEPLOYMENT is {conf.deployment} 部署名不同"
        )
    secret = members["secret_key"].read_bytes().decode(errors="replace").strip() if "secret_key" in members else None
    unkeyed = _unkeyed(file, manifest, keys_of(conf, secret))
    if unkeyed and not without_keys:
        raise BackupError(
            "\n".join(
                [
                    *unkeyed,
                    "list the keys, or --without-keys restores what can be used without them 请补全密钥，或用 --without-keys",
                ]
            )
        )
    found = Found(manifest, members, unkeyed, [], [])
    head, number = "", 0
    try:
        for number, line in enumerate(found.lines(), 1):  # noqa: B007
            _sound(line)
            if line["name"] == "audit":
                found.audit.extend(line["value"])
            elif line["name"] == "audit:head":
                head = line["value"]
            elif line["name"] in MARK[2:]:
                found.versions.append(int(line["value"]))
        at = broken(found.audit, head)
    except UNREADABLE:
        raise BackupError(f"{file}: store.jsonl, after line {number}: cannot be read 无法读取") from None
    if head != manifest["audit_head"] or at is not None:
        where = "the end" if head != manifest["audit_head"] else f"row {at}"
        raise BackupError(f"{file}: the audit chain is not whole at {where} 审计链不完整")
    return found


def _sound(line: Row) -> None:
    """Raises one of UNREADABLE."""
    name, kind, value = line["name"], line["type"], line["value"]
    texts = [value] if kind == "string" else [*value, *value.values()] if kind in PAIRS else value
    numbers = (line.get("at", 0), line.get("from", 0))
    if kind not in TYPES or not texts or not all(isinstance(t, str) for t in (name, *texts)) or len(texts) > 8 * PAGE:
        raise ValueError
    if not isinstance(texts, list) or name.startswith(OURS) or not all(isinstance(n, int) for n in numbers):
        raise ValueError
    "".join((name, *texts)).encode()  # JSON can name half a character


def _unkeyed(file: Path, manifest: Row, keys: Keys | None) -> list[str]:
    """What cannot be opened, or told to be as it was written, with these keys. Raises BackupError for a seal that is wrong."""
    kids = [] if keys is None else keys.kids
    wrong = [
        f"{kid}: this key is not in SLUICE_SECRET_KEY, and values of the backup need it 缺少密钥 {kid}"
        for kid in manifest["kids"]
        if kid not in kids
    ]
    other = {
        kid
        for kid, check in manifest["keys"].items()
        if keys is not None
        and kid in kids
        and not hmac.compare_digest(key_check(keys, manifest["store_id"], kid), check)
    }
    wrong += [
        f"{kid}: the secret of this key is another one than when the backup was made 密钥 {kid} 与备份时不同"
        for kid in sorted(other)
    ]
    seal = str(manifest.get("seal", ""))
    kid = seal.partition(".")[0]
    if keys is None or kid not in kids or kid in other:
        needed = f"needs the key {kid!a}" if kid else "is missing"
        return [*wrong, f"{file}: nobody can tell that it is as it was written: its seal {needed} 无法验证封印"]
    if not hmac.compare_digest(sealed(keys, manifest, kid), seal):
        raise BackupError(f"{file}: was changed: the seal of manifest.json is not ours 封印不符，文件被改动")
    return wrong


async def marked(store: Store) -> list[str]:
    """What tells this moment of the store from another."""
    return [str(value or "") for value in await store.run("MGET", *map(store.key, MARK))]


def _flat(line: Row) -> list[str]:
    """The values of a line as the store takes them: a sorted set's score stands before its member."""
    value = line["value"]
    if line["type"] in PAIRS:
        return [text for k, v in value.items() for text in ((v, k) if line["type"] == "zset" else (k, v))]
    return [value] if line["type"] == "string" else value


async def _stage(store: Store, found: Found, room: str, event: Row, past: list[int]) -> tuple[int, int]:
    """Write all of a backup where nobody looks: how many keys, and how many had expired. `past`: versions that the tables begin after."""
    seconds, micros = await store.run("TIME")
    now = int(seconds) * 1000 + int(micros) // 1000
    # Whoever follows a table further than the backup goes back only for a newer version; none gains a thousand a second for long.
    version = max(now, *(n + _AHEAD for n in (*past, *found.versions)))
    own = _chained(found, event)
    own += [line_of(f"{name}:version", "string", -1, [str(version)]) for name in TABLES]
    own.append(line_of("schema", "string", -1, [SCHEMA]))
    names, expired, batch = dict[str, str](), set[str](), list[Row]()
    replaced = {line["name"] for line in own} - {"audit"}

    async def put() -> None:
        args: list[str | int] = [_STAGED]
        for line in batch:
            flat = _flat(line)
            args += [line["type"], line.get("at", -1), line.get("from", 0), len(flat), *flat]
        await store.call("restore_put", [f"{room}:data:{line['name']}" for line in batch], args)
        fresh = {line["name"]: "-" if "at" in line else "+" for line in batch if line["name"] not in names}
        if fresh:
            args = [_STAGED, "list", -1, len(names), len(fresh), *(sign + name for name, sign in fresh.items())]
            await store.call("restore_put", [f"{room}:names"], args)
        names.update(fresh)
        batch.clear()

    def lines() -> Iterator[Row]:
        yield from (line for line in found.lines() if line["name"] not in replaced)
        yield from own

    size = 0
    for line in lines():
        if line.get("at", now) < now:
            expired.add(line["name"])
            continue
        batch.append(line)
        size += 1 if line["type"] == "string" else len(line["value"])
        # Each key once in a call: a list's next page must find the one before.
        if len(batch) >= AT_ONCE or size >= 2 * PAGE or line["type"] == "list":
            await put()
            size = 0
    if batch:
        await put()
    return len(names), len(expired)


def _chained(found: Found, event: Row) -> list[Row]:
    """The row of the audit chain that says that this was restored, and the head after it."""
    head = found.manifest["audit_head"]
    seq, _, prev = head.partition(" ")
    row = json.dumps(
        {**event, "seq": int(seq or 0) + 1, "prev": prev, "at": clock.stamp()}, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )  # fmt: skip
    after = f"{int(seq or 0) + 1} {hashlib.sha256(row.encode()).hexdigest()}"
    return [line_of("audit", "list", -1, [row], len(found.audit)), line_of("audit:head", "string", -1, [after])]


class Done(NamedTuple):
    """What a restore did. `expired`: keys that were over. `before`: where what was there is now. `held`: seconds for which the store looked
    at nothing else, at most. `confirmed`: do as many replicas have it as the operator asked for?"""

    keys: int
    expired: int
    before: Path | None
    held: float
    confirmed: bool


async def restore(conf: Settings, store: Store, found: Found, file: Path, *, replace: bool) -> Done:
    """Put what was in the store into force. Raises BackupError, StoreError; then the store is as it was."""
    await store.check()
    if store.problem:
        raise BackupError(store.problem)
    mark, before = await marked(store), None
    # A gateway that looks at an empty store gives it its id, and nothing else.
    held = any(mark[1:])
    if held and not replace:
        raise BackupError(
            "the store holds data of this deployment; --replace puts the backup in its place, after writing what is there beside FILE "
            "存储中已有数据，--replace 先备份再替换"
        )
    if held:
        stamp = clock.stamp().replace(":", "").replace("-", "")[:15]
        before = file.with_name(f"{file.name.removesuffix('.tar.gz')}.before-{stamp}-{secrets.token_hex(2)}.tar.gz")
    event = {
        "who": who(), "what": "restore", "made": found.manifest["at"], "lost": mark[1], **summed(found.manifest["counts"]),
        "sha256": hashlib.sha256(compact(found.manifest).encode()).hexdigest(),
    }  # fmt: skip
    room = f"restore:{secrets.token_hex(8)}"
    try:
        staged, expired = await _stage(store, found, room, event, [int(v or 0) for v in mark[2:]])
        channels = [store.key(f"{name}:changed") for name in TABLES]
        for _ in range(_TRIES):
            if before is not None:
                mark = (await backup(conf, store, before))[1].mark
            began = time.perf_counter()
            args: list[str | int] = [f"{room}:", staged, compact(mark), room, *channels]
            (state,) = await store.call("restore_switch", ["", f"{room}:names", *MARK], args)
            if state == "done":
                took = time.perf_counter() - began
                return Done(staged, expired, before, took, await _confirmed(store, room))
            if state == "lost":
                raise BackupError(
                    "the store has lost some of what was to be restored (does it evict?); nothing was changed, begin again "
                    "未作改动，请重新恢复"
                )
            if before is None:
                raise BackupError("somebody has begun to write to the store meanwhile 有网关正在写入; --replace 替换")
        raise BackupError(
            "the store is written to all the time: stop the gateways for the restore 写入不断，请先停止网关"
        )
    finally:
        with suppress(StoreError):
            await _unstage(store, room)


async def _confirmed(store: Store, room: str) -> bool:
    """Have replicas got all that was written until now? A write that changes nothing asks them, for they take writes in their order."""
    until = time.monotonic() + _REPLICAS
    while True:
        try:
            await store.call("restore_put", ["restored"], [60_000, "string", -1, 0, 1, room], durable=True)
            return True
        except StoreError:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.2)


async def _unstage(store: Store, room: str) -> None:
    cursor = "0"
    while True:
        cursor, keys = await store.run("SCAN", cursor, "MATCH", store.key(f"{room}:*"), "COUNT", 1000)
        if keys:
            await store.run("UNLINK", *keys)
        if not int(cursor):
            return


def _put_files(conf: Settings, members: dict[str, Path]) -> int:
    """Put the logs back where they were, and a key where there is none: what is there and goes further stays. How many were put."""
    put = 0
    for name, source in members.items():
        target = conf.data_dir / name
        if name == "store.jsonl" or (name == "secret_key" and (conf.secret_key or conf.redis_url or target.exists())):
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (place := _place(source, target)) is not None:
            _copied(source, place)
            put += 1
    return put


def _place(source: Path, target: Path) -> Path | None:
    """Where a log goes: where nothing is, or what it goes on from. None: all of it is there."""
    size = source.stat().st_size
    for n in count():
        place = target.with_name(f"{target.stem}-restored{n}.jsonl") if n else target
        if not place.exists():
            break
        here = place.stat().st_size
        shared = min(size, here)
        if digest(place, shared) == digest(source, shared):
            return None if here >= size else place
    return place


def _copied(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as to, source.open("rb") as of:
        shutil.copyfileobj(of, to, CHUNK)
        to.flush()
        os.fsync(to.fileno())
    partial.replace(target)


def restore_command(args: argparse.Namespace) -> int:
    """`sluice restore`. Exit status 1 where it is in force and something is left to do."""
    conf = settings.read()

    async def run(found: Found) -> Done:
        async with opened(conf, make=True) as store:
            return await restore(conf, store, found, args.file, replace=args.replace)

    with tempfile.TemporaryDirectory(prefix="sluice-restore-") as folder:
        found = looked(args.file, Path(folder), conf, without_keys=args.without_keys)
        done = asyncio.run(run(found))
        # After the store: of a restore that was refused there is nothing.
        try:
            files, why = _put_files(conf, found.members), ""
        except OSError as e:
            files, why = 0, e.strerror or type(e).__name__
    shown(args.file, found.manifest["counts"])
    print(f"已恢复 restored: {done.keys} 个键 keys, {files} 个文件 files; 已过期 expired: {done.expired}")
    print(f"存储被占用 the store was held for {done.held * 1000:.0f} ms")
    if done.before is not None:
        print(f"原有数据 what was there: {done.before}")
    if why:
        print(f"日志未能全部写回 not all logs are back in {conf.data_dir} ({why}): tar takes them out of {args.file}")
    if not done.confirmed:
        print(
            f"未得到 {conf.redis_replicas} 个副本的确认，主库若此时失效，恢复会丢失 not confirmed by {conf.redis_replicas} replicas "
            "(SLUICE_REDIS_REPLICAS): a failover now may lose it; look at the replicas before gateways serve"
        )
    for line in found.unkeyed:
        print(line, file=sys.stderr)
    return 0 if done.confirmed and not why else 1
