"""`sluice backup FILE`: the store and the logs of DATA_DIR in one file, and the format of that file (docs/backup.md). What puts it back is
app/restore.py.

Law: a backup is one moment of the store, and what was acknowledged before it is in it whole; the store is not held meanwhile: it is read
in pages, and what is written while that goes on is told by the scripts that write (store/scripts/trace.lua) and read again, until nothing
is left. Nothing of a file is believed: what is no backup or was changed is refused by name. Values stay as they are, what was sealed
stays sealed: a file is as private as the store, and opens nothing without its keys. No value is ever printed.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from app import clock, settings
from app.errors import SluiceError, StoreError
from app.keys import Keys
from app.settings import Settings
from app.store.cases import Cases, Writes, broken
from app.store.client import SCHEMA, Store
from app.store.embedded import EmbeddedStore
from app.store.tables import Entries, Row, Table

FORMAT = 1
PAGE = 200
"""Values of a line, and of one read or write."""
AT_ONCE = 50
"""Keys of one read or write."""
_WRITES = 500
"""Writes that the store is held for, at most, when they are read again."""
_SILENT = 60_000
"""Milliseconds after which a backup that was killed is over."""
_PATIENCE = 120.0
_MANIFEST = 4 << 20
"""Bytes of manifest.json, at most: enough for 30,000 logs."""
CHUNK = 1 << 20
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
"""How our gzip files begin: without a name and a time (RFC 1952)."""
TYPES = ("string", "hash", "list", "set", "zset")
PAIRS = ("hash", "zset")
OURS = ("backup:", "restore:", "restored")
_MEMBER = re.compile(r"store\.jsonl|secret_key|(?:journal|unlabelled)/[0-9A-Za-z][0-9A-Za-z._-]{0,80}\.jsonl")
"""A name fits a tar header as it is (100 bytes), without a header of its own."""
_KID_NAME = re.compile(r"[0-9A-Za-z]{1,16}")
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What comes of reading JSON that somebody else may have made."""
TABLES = tuple(sorted(kind.name for kind in Table.__subclasses__()))
MARK = ("store_id", "audit:head", *(f"{name}:version" for name in TABLES))
"""What tells one moment of the store from another: every acknowledged write moves one of these."""


class BackupError(SluiceError):
    """The message names the file and what is wrong with it, or what in the store or the settings stands in the way."""


class Moment(NamedTuple):
    """What was read. `mark`: the values of MARK. `audit`: the chain, as it was written. `held`: seconds for which the store looked at
    nothing else, at most, as seen from here."""

    mark: list[str]
    audit: list[str]
    counts: dict[str, dict[str, int]]
    kids: set[str]
    held: float


# ---- the place


@asynccontextmanager
async def opened(conf: Settings, *, make: bool) -> AsyncIterator[Store]:
    """The store of these settings, started for the time where nobody runs it. `make`: a new one if there is none."""
    embedded: EmbeddedStore | None = None
    url = conf.redis_url
    if url is None:
        if not make and not (conf.data_dir / "store").is_dir():
            raise BackupError(f"{conf.data_dir}: holds no store 没有数据; set SLUICE_DATA_DIR, or SLUICE_REDIS_URL")
        conf.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        embedded = EmbeddedStore(conf.data_dir)
        url = await embedded.start()
    store = Store(url, conf.deployment, conf.redis_replicas, _PATIENCE)
    try:
        schema = str(await store.run("GET", store.key("schema")) or "")
        if schema not in ("", SCHEMA):
            raise BackupError(
                f"the store is of schema {schema}, this Sluice knows {SCHEMA}: use the Sluice that it belongs to "
                f"存储的版本为 {schema}，本程序为 {SCHEMA}"
            )
        yield store
    finally:
        await store.close()
        if embedded is not None:
            await embedded.stop()


def keys_of(conf: Settings, spec: str | None = None) -> Keys | None:
    """The keys that a gateway with these settings has; None where it would have to make one. `spec`: of a file, where there is none."""
    own = conf.data_dir / "secret_key"
    if conf.secret_key:
        return Keys(conf.secret_key)
    if conf.redis_url is None and own.is_file():
        return Keys(own.read_text().strip())
    return Keys(spec) if spec and conf.redis_url is None else None


def who() -> str:
    """Who does this, for the audit chain: a user of the operating system."""
    try:
        return f"os:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"os:{os.getuid()}"


# ---- reading one moment of the store


async def cut(store: Store, out: Path) -> Moment:
    """Write one moment of the store to `out`, a JSON line for each page of a key. Raises BackupError, StoreError."""
    token, log, held = secrets.token_hex(8), store.key("backup:log"), [0.0]

    async def call(script: str, keys: list[str], args: list[str | int]) -> Any:
        began = time.perf_counter()
        said = await store.call(script, keys, args)
        held[0] = max(held[0], time.perf_counter() - began)
        return said

    state, before = await call("backup_open", ["backup:log", *MARK], [token, _SILENT])
    if state == "busy":
        raise BackupError("another backup is running; or one was killed: wait a minute 另一个备份正在进行，请稍后再试")
    spool = out.with_suffix(".spool")
    try:
        audit = await _read(store, call, spool, log)
        changed: dict[str, dict[str, Any]] = {}
        far, told, known = 1, [0] * len(MARK), len(audit)
        while True:
            args: list[str | int] = [token, _SILENT, _WRITES, far, known]
            said = await call("backup_cut", ["backup:log", "audit", *MARK], args)
            if said[0] == "lost":
                raise BackupError("the store has lost its place, or was replaced meanwhile; begin again 请重新备份")
            far, told = int(said[2]), [n + int(more) for n, more in zip(told, said[3], strict=True)]
            for key, part, kind, ends, values in said[1]:
                _change(changed.setdefault(str(key).removeprefix(store.prefix), {}), part, kind, int(ends), values)
            if said[0] == "cut":
                break
    finally:
        with suppress(StoreError):
            await store.call("backup_close", ["backup:log"], [token])
    audit += [str(raw) for raw in said[4]]
    mark = [str(value) for value in said[5]]
    if not mark[0]:
        raise BackupError("the store holds nothing of this deployment 该部署没有数据; is SLUICE_DEPLOYMENT right?")
    if any(_number(now) - _number(was) != n for now, was, n in list(zip(mark, before, told, strict=True))[1:]):
        raise BackupError(
            "a gateway of an older version writes to this store, which does not tell what it writes; upgrade it, or stop it for the time "
            "有旧版本网关正在写入，请先升级或暂停"
        )
    counts, kids = await asyncio.to_thread(_merged, spool, changed, audit, mark[1], out)
    spool.unlink()
    return Moment(mark, audit, counts, kids, held[0])


def _number(head: str) -> int:
    return int(head.partition(" ")[0] or 0)


async def _read(store: Store, call: Callable[..., Any], spool: Path, log: str) -> list[str]:
    """Write every page of every key as it is when it is read; the audit chain apart."""
    audit: list[str] = []
    renewed, cursor, seen = time.monotonic(), "0", set[str]()
    with _private(spool) as out:
        while True:
            cursor, found = await store.run("SCAN", cursor, "MATCH", store.key("*"), "COUNT", 1000)
            fresh = [
                n
                for n in (str(k).removeprefix(store.prefix) for k in found)
                if not n.startswith(OURS) and n not in seen
            ]
            seen.update(fresh)
            waiting = [(name, "0") for name in dict.fromkeys(fresh)]
            while waiting:
                some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
                pages = await call("backup_page", [name for name, _ in some], [PAGE, *(at for _, at in some)])
                for (name, at), (kind, ends, after, values) in zip(some, pages, strict=True):
                    if kind not in (*TYPES, "none"):
                        raise BackupError(f"{name.partition(':')[0]}: a key of the type {kind}, which no backup holds")
                    if name == "audit":
                        audit += [str(raw) for raw in values]
                    elif name != "audit:head" and values:
                        out.write(
                            compact(line_of(name, kind, int(ends), values, int(at) if kind == "list" else 0)) + "\n"
                        )
                    if after != "0":
                        waiting.append((name, str(after)))
                if time.monotonic() - renewed > _SILENT / 6000:
                    renewed = time.monotonic()
                    await store.run("PEXPIRE", log, _SILENT)
            if not int(cursor):
                return audit


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def line_of(name: str, kind: str, ends: int, values: list[Any], begins: int = 0) -> Row:
    """As it stands in store.jsonl: `at`, when it expires, milliseconds since the epoch; `from`, where in its list it begins."""
    line: Row = {"name": name, "type": kind}
    if ends >= 0:
        line["at"] = ends
    if kind == "list":
        line["from"] = begins
    texts = [str(v) for v in values]
    pairs = kind in PAIRS
    line["value"] = (
        texts[0] if kind == "string" else dict(zip(texts[::2], texts[1::2], strict=True)) if pairs else texts
    )
    return line


def _change(of: dict[str, Any], part: str, kind: str, ends: int, values: list[Any]) -> None:
    """Note what has become of a key, or of a part of it (None: gone), since its pages were read."""
    of |= {"type": kind, "at": ends}
    if part and kind in PAIRS:
        of.setdefault("parts", {})[part] = values[0]
    else:
        of["whole"] = dict(zip(values[::2], values[1::2], strict=True)) if kind in PAIRS else values
        of["parts"] = {}


def _merged(
    spool: Path, changed: dict[str, dict[str, Any]], audit: list[str], head: str, out: Path
) -> tuple[dict[str, dict[str, int]], set[str]]:
    """Write the pages with what has changed since; how many keys and values of each kind, and the kids that they name."""
    keys, values, kids, counted = Counter[str](), Counter[str](), set[str](), set[str]()
    with _private(out) as to:

        def write(whole: Row) -> None:
            kind = whole["name"].partition(":")[0]
            if whole["name"] not in counted:
                counted.add(whole["name"])
                keys[kind] += 1
            for line in _paged(whole):
                values[kind] += 1 if line["type"] == "string" else len(line["value"])
                kids.update(kid for kid in _kids(line) if _KID_NAME.fullmatch(kid))
                to.write(compact(line) + "\n")

        with spool.open(encoding="utf-8") as lines:
            for raw in lines:
                line = json.loads(raw)
                new = changed.get(line["name"])
                if new is not None and ("whole" in new or new["type"] != line["type"]):
                    continue
                if new is not None:
                    line["value"] = {k: v for k, v in line["value"].items() if k not in new["parts"]}
                if line["value"] or line["type"] == "string":
                    write(line)
        for name, new in changed.items():
            kind, whole = new["type"], new.get("whole", [])
            if kind in PAIRS:
                held = (whole if isinstance(whole, dict) else {}) | new["parts"]
                whole = [text for pair in held.items() if pair[1] is not None for text in pair]
            if whole and name != "audit:head":
                write(line_of(name, kind, new["at"], whole))
        if audit:
            write(line_of("audit", "list", -1, audit))
        if head:
            write(line_of("audit:head", "string", -1, [head]))
    return {kind: {"keys": keys[kind], "values": values[kind]} for kind in sorted(keys)}, kids


def _paged(line: Row) -> Iterator[Row]:
    """A line for each page of it: of a hash, a set or a sorted set that is small in memory the store gives all, whatever COUNT says."""
    if line["type"] == "string":
        yield line
        return
    pairs = line["type"] in PAIRS
    values = list(line["value"].items()) if pairs else line["value"]
    for at in range(0, len(values), PAGE):
        page = values[at : at + PAGE]
        begins = {"from": line["from"] + at} if "from" in line else {}
        yield {**line, **begins, "value": dict(page) if pairs else page}


_PSEUDONYM = re.compile(r'"([0-9A-Za-z]{1,16})\.[0-9A-Za-z_-]{22}"')
_KID = re.compile(r'"kid": ?"([0-9A-Za-z]{1,16})"')
_NAMED = ("cases", "tickets", "matters", "standings:rows", "agreements:rows")
_SEALED = ("evidence", "comments", "held")


def _kids(line: Row) -> Iterator[str]:
    """Under which keys values were made that nobody can read, or tell again, without them. What is over within a day is left out."""
    name, value = line["name"], line["value"]
    if name.partition(":")[0] in _SEALED:
        yield from (text.partition(".")[0] for text in ([value] if isinstance(value, str) else value.values()))
    elif name in ("cases:same", "exceptions:rows"):
        yield from (field.partition(".")[0] for field, row in value.items() if '"deleted":true' not in row)
    elif name == "entries:history":
        for change in value.values():
            yield from _KID.findall(change)
    elif name == "entries:rows" or name in _NAMED:
        for row in value.values():
            yield from _KID.findall(row)
            if name in _NAMED:
                yield from _PSEUDONYM.findall(row)
            elif '"readers":' in row:
                readers = json.loads(row.partition(" ")[2]).get("scope", {}).get("readers", ())
                yield from (reader.partition(".")[0] for reader in readers)


# ---- the file


def _private(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")


def digest(path: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes: a log may grow meanwhile."""
    found, left = hashlib.sha256(), size
    with path.open("rb") as f:
        while left and (chunk := f.read(min(left, CHUNK))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest()


def key_check(keys: Keys, store_id: str, kid: str) -> str:
    """Tells whether the secret of a kid is the one that it was."""
    return keys.mac("evidence", "backup key", store_id, kid=kid).hex()


def sealed(keys: Keys, manifest: Row, kid: str) -> str:
    plain = json.dumps({k: v for k, v in manifest.items() if k != "seal"}, sort_keys=True)
    return f"{kid}.{keys.mac('evidence', 'backup', plain, kid=kid).hex()}"


def pack(file: Path, manifest: Row, members: dict[str, Path], keys: Keys | None) -> None:
    """Write FILE, a new one, 0600. Its manifest gets the size and the SHA-256 of each member, and the seal of `keys`. Raises OSError,
    BackupError."""
    listed = manifest["members"] = dict[str, Row]()
    for name, path in members.items():
        with suppress(FileNotFoundError):  # a log that has been pruned since it was found
            size = path.stat().st_size
            listed[name] = {"size": size, "sha256": digest(path, size)}
    if keys is not None:
        manifest["seal"] = sealed(keys, manifest, keys.kid)
    body = json.dumps(manifest, ensure_ascii=False, indent=1).encode()
    if len(body) > _MANIFEST:
        raise BackupError(f"{len(listed)} logs are more than a backup can list; do without --journal 日志文件过多")
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        # GNU's format, for it writes a size beyond 8 GiB without a header of its own.
        with (
            gzip.GzipFile("", "wb", 6, raw, 0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
        ):
            tar.addfile(_member("manifest.json", len(body)), io.BytesIO(body))
            for name in listed:
                with members[name].open("rb") as of:
                    tar.addfile(_member(name, listed[name]["size"]), of)
        raw.flush()
        os.fsync(raw.fileno())


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class _Header(tarfile.TarInfo):
    """tarfile reads what stands for long names and the like as a whole, however large: here it is a member of a strange type."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            found.type = b"?"
        return found


class _Bounded:
    """A stream that ends in BackupError where it goes on for too long. `left`: bytes that may come, the manifest's until that is known."""

    def __init__(self, raw: gzip.GzipFile, file: Path) -> None:
        self._raw, self._file, self.left = raw, file, _MANIFEST + CHUNK

    def read(self, size: int) -> bytes:
        chunk = self._raw.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise BackupError(f"{self._file}: unpacks to more than its manifest says 与清单不符")
        return chunk


def unpack(file: Path, folder: Path) -> tuple[Row, dict[str, Path]]:
    """The manifest of FILE, and its members in `folder`, checked. Raises BackupError that names what is wrong, before the rest is read."""
    try:
        with file.open("rb") as raw:
            if raw.read(len(_HEAD)) != _HEAD:
                raise BackupError(f"{file}: is no backup of Sluice, or its beginning is damaged 不是备份文件")
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                stream = _Bounded(unpacked, file)
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:  # type: ignore[call-overload]
                    found = _members(file, tar, stream, folder)
                while stream.read(CHUNK):  # to the end, where gzip has its checksum
                    pass
            return found
    except FileNotFoundError:
        raise BackupError(f"{file}: there is no such file 文件不存在") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise BackupError(f"{file}: cannot be unpacked 无法解包 ({e.strerror})") from None
        raise BackupError(f"{file}: damaged or cut short 文件损坏或不完整 ({type(e).__name__})") from None


def _members(file: Path, tar: tarfile.TarFile, stream: _Bounded, folder: Path) -> tuple[Row, dict[str, Path]]:
    first = tar.next()
    if first is None or first.name != "manifest.json" or not first.isreg() or first.size > _MANIFEST:
        raise BackupError(f"{file}: manifest.json is missing: no backup of Sluice 缺少 manifest.json")
    held = tar.extractfile(first)
    assert held is not None
    manifest = _manifest(file, held.read())
    listed, found = manifest["members"], dict[str, Path]()
    size = sum(m["size"] for m in listed.values())
    if size > shutil.disk_usage(folder).free:
        raise BackupError(f"{file}: {folder} has no room to unpack it 磁盘空间不足; set TMPDIR")
    stream.left += size + 2 * tarfile.BLOCKSIZE * len(listed)
    while (member := tar.next()) is not None:
        name = member.name
        if not _MEMBER.fullmatch(name) or not member.isreg():
            raise BackupError(f"{file}: {name!a}: no member that a backup has 含有不应存在的成员")
        if name in found or name not in listed or member.size != listed[name]["size"]:
            raise BackupError(f"{file}: {name}: is not as the manifest says 与清单不符")
        # Never under a name that the file chose.
        found[name] = folder / f"member{len(found)}"
        held = tar.extractfile(member)
        assert held is not None
        with os.fdopen(os.open(found[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to:
            shutil.copyfileobj(held, to, CHUNK)
        if digest(found[name], member.size) != listed[name]["sha256"]:
            raise BackupError(f"{file}: {name}: was changed: its SHA-256 is not that of the manifest 校验和不符")
    if missing := sorted({*listed, "store.jsonl"} - set(found)):
        raise BackupError(f"{file}: {missing[0]}: is missing 缺少成员")
    return manifest, found


def _manifest(file: Path, raw: bytes) -> Row:
    """Raises BackupError for one of another format, or that misses something."""
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise BackupError(
                f"{file}: is of format {int(manifest['format'])}, this Sluice knows {FORMAT}; use the Sluice that wrote it 备份格式不同"
            )
        sound = (
            all(isinstance(manifest[n], str) for n in ("schema", "deployment", "store_id", "at", "audit_head"))
            and all(_MEMBER.fullmatch(name) for name in manifest["members"])
            and all(len(m["sha256"]) == 64 and type(m["size"]) is int and m["size"] >= 0 for m in manifest["members"].values())
            and all(check.isascii() for check in (manifest.get("seal", ""), *manifest["keys"].values()))
            and all(_KID_NAME.fullmatch(kid) for kid in (*manifest["kids"], *manifest["keys"]))
            and all(kind.isprintable() and min(summed({kind: n}).values()) >= 0 for kind, n in manifest["counts"].items())
            and compact(manifest).encode()
        )  # fmt: skip
    except UNREADABLE:
        sound = False
    if not sound:
        raise BackupError(f"{file}: manifest.json cannot be read 清单无法读取")
    return dict(manifest)


# ---- backup


async def backup(
    conf: Settings, store: Store, file: Path, *, journal: bool = False, secret: bool = False
) -> tuple[Row, Moment]:
    """Write FILE. Its manifest, and what was read. Raises BackupError, StoreError."""
    keys, own = keys_of(conf), conf.data_dir / "secret_key"
    if secret and (conf.secret_key or not own.is_file()):
        raise BackupError("--secret-key: no key was generated here; SLUICE_SECRET_KEY is yours to keep 密钥须自行保管")
    try:
        with tempfile.TemporaryDirectory(prefix=".sluice-", dir=file.parent) as folder:
            members = {"store.jsonl": Path(folder) / "store.jsonl"}
            moment = await cut(store, members["store.jsonl"])
            for name in ("unlabelled", *(("journal",) if journal else ())):
                logs = {f"{name}/{p.name}": p for p in sorted((conf.data_dir / name).glob("*.jsonl"))}
                members |= {member: path for member, path in logs.items() if _MEMBER.fullmatch(member)}
            if secret:
                members["secret_key"] = own
            manifest: Row = {
                "format": FORMAT, "schema": SCHEMA, "deployment": conf.deployment, "store_id": moment.mark[0], "at": clock.stamp(),
                "audit_head": moment.mark[1], "counts": moment.counts, "kids": sorted(moment.kids),
                "keys": {} if keys is None else {kid: key_check(keys, moment.mark[0], kid) for kid in keys.kids},
            }  # fmt: skip
            whole = Path(folder) / "whole.tar.gz"
            await asyncio.to_thread(pack, whole, manifest, members, keys)
            whole.replace(file)
    except OSError as e:
        raise BackupError(f"{file}: cannot be written 无法写入 ({e.strerror})") from None
    return manifest, moment


async def _written_down(store: Store, event: Row) -> None:
    entries = Entries(store, Path(), lambda rows, version, whole: None)
    await Cases(store, entries).commit(Writes(), event)


def summed(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    return {of: sum(n[of] for n in counts.values()) for of in ("keys", "values")}


def backup_command(args: argparse.Namespace) -> int:
    """`sluice backup`. Exit status 1 where the audit chain is not whole: the file is written all the same."""
    conf = settings.read()
    if args.file.exists() and not args.force:
        raise BackupError(f"{args.file}: is there already; --force writes over it 文件已存在，--force 覆盖")

    async def run() -> tuple[Row, Moment]:
        async with opened(conf, make=False) as store:
            manifest, moment = await backup(conf, store, args.file, journal=args.journal, secret=args.secret_key)
            event = {"who": who(), "what": "backup", "seen": moment.mark[1], **summed(moment.counts)}
            try:
                await _written_down(store, event)
            except SluiceError as e:
                raise BackupError(
                    f"{args.file} is written, but it is not certain that the audit chain has a row of it "
                    f"备份已写入，但不能确定已记入审计链: {e}"
                ) from None
            return manifest, moment

    manifest, moment = asyncio.run(run())
    at = broken(moment.audit, moment.mark[1])
    shown(args.file, moment.counts)
    print(f"存储最长被占用 the store was held for {moment.held * 1000:.0f} ms at most")
    print(
        f"审计链 audit chain: {len(moment.audit)} 行 rows, {'完整 whole' if at is None else f'第 {at} 行起断裂 broken at row {at}'}"
    )
    if "secret_key" in manifest["members"]:
        print("含密钥 holds the secret key: 请妥善保管 whoever has this file can open what is in it")
    elif manifest["kids"]:
        named = ", ".join(manifest["kids"])
        where = "SLUICE_SECRET_KEY" if conf.secret_key or conf.redis_url else f"{conf.data_dir}/secret_key"
        print(
            f"不含密钥 without its keys: {named} ({where})，请另行保存，否则无法打开 keep them too, or nothing in it opens"
        )
    return 0 if at is None else 1


def shown(file: Path, counts: dict[str, dict[str, int]]) -> None:
    total = summed(counts)
    print(f"{file}: {total['keys']} 个键 keys, {total['values']} 个值 values")
    for kind, n in counts.items():
        print(f"  {kind}: {n['keys']} / {n['values']}")
