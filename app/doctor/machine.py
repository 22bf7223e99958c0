"""The machine that Sluice is to run on: its ports, processes, disk, and what it writes of memory when something dies."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from app import load, native
from app.doctor.places import Place, get, listeners
from app.doctor.symptoms import Symptom, fact, fault, warning
from app.errors import SettingsError
from app.settings import Settings

_FEW = 1024
"""Exchanges of one worker at once, below which it is worth a word."""
_SCARCE_BYTES, _SCARCE_SHARE = 10**9, 0.05
_VOLATILE = ("tmpfs", "ramfs")


def engine(conf: Settings) -> Iterator[Symptom]:
    """Is the matching engine compiled?"""
    if native.scan is None or native.grams is None or native.views is None:
        yield warning(
            "the slower one, for the compiled one is missing: install a C compiler and Python's headers "
            "(apt-get install gcc python3-dev), then Sluice again"
        )
    else:
        yield fact("compiled")


def ports(conf: Settings) -> Iterator[Symptom]:
    """Are they three, and free?"""
    at, clash = listeners(conf), False
    for (name, one), (other, two) in combinations(at.items(), 2):
        if one.port == two.port != 0 and (one.host == two.host or one.everywhere or two.everywhere):
            clash = True
            yield fault(f"{name} and {other} are both {one.port}: give each a port of its own")
    if clash:
        return
    closed = [found for name, place in at.items() if (found := _closed(name, place)) is not None]
    if not closed:
        yield fact("free")
    elif all(taken for taken, _ in closed) and _running(at["SLUICE_OPS_PORT"]):
        yield fact("Sluice is running on them")
    else:
        yield from (fault(text) for _, text in closed)


def _closed(name: str, at: Place) -> tuple[bool, str] | None:
    """Why nobody could listen there, as `sluice serve` would (server._bind), and whether because somebody does."""
    with socket.socket(socket.AF_INET6 if ":" in at.host else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(at)
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                return True, f"{name}: something that is not Sluice listens on {at}: end it, or choose another port"
            host = name.replace("PORT", "HOST")
            return False, f"{name}: cannot listen on {at} ({e.strerror}): choose another port, or another {host}"
    return None


def _running(ops: Place) -> bool:
    """Is it Sluice that answers on the ops port?"""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(ops.host, f"[{ops.host}]" if ":" in ops.host else ops.host)
    with suppress(OSError, ValueError, http.client.HTTPException):
        return "workers" in json.loads(get(f"http://{host}:{ops.port}/readyz")[1])
    return False


def processes(conf: Settings) -> Iterator[Symptom]:
    """Do so many workers, and so many exchanges, fit?"""
    cores, files = _cores(), load.raised()
    most = load.fit(files)
    yield fact(f"{conf.workers} on {cores} cores, {most} exchanges at once in each")
    if conf.workers > cores:
        yield warning(
            f"SLUICE_WORKERS is {conf.workers} and there are {cores} cores: more workers than cores only share them"
        )
    wanted = conf.max_exchanges
    if wanted is not None and wanted > most:
        yield fault(
            f"SLUICE_MAX_EXCHANGES is {wanted}, and {files} file descriptors carry {most} (two for each stream): raise the hard limit "
            "(ulimit -Hn, LimitNOFILE=, --ulimit nofile=) or lower it"
        )
    elif wanted is None and most < _FEW:
        yield warning(
            f"{files} file descriptors carry {most} streams in a worker (two for each): raise the hard limit (ulimit -Hn, LimitNOFILE=, "
            "--ulimit nofile=), or set SLUICE_MAX_EXCHANGES to what you mean"
        )


def _cores() -> int:
    """Those that this process may use: by its affinity, and by the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def data_dir(conf: Settings) -> Iterator[Symptom]:
    """Is it ours alone, lasting, and large enough?"""
    folder = conf.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"SLUICE_DATA_DIR: {folder} is not writable")
    if folder.stat().st_mode & 0o077:
        raise SettingsError(f"SLUICE_DATA_DIR: {folder} is open to others: chmod 700 it")
    yield fact(f"{folder}, private")
    if (kind := _filesystem(folder.resolve())) in _VOLATILE:
        yield warning(
            f"SLUICE_DATA_DIR: {folder} is in memory ({kind}): journal, snapshots and the private store are lost when the machine "
            "restarts; name a folder on a disk"
        )
    space = shutil.disk_usage(folder)
    if space.free < max(_SCARCE_BYTES, _SCARCE_SHARE * space.total):
        yield warning(
            f"SLUICE_DATA_DIR: {space.free / 1e9:.1f} GB are free at {folder} ({space.free / max(space.total, 1):.0%}): on a full disk "
            "the journal drops lines and the private store ends; make room, or name another folder"
        )


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds it; '' where that is not told."""
    best, kind = -1, ""
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text("utf-8", "surrogateescape").splitlines():
            _, at, type_, *_ = line.split(" ")
            mount = Path(at.replace("\\040", " "))
            # The later of two on one place lies over the other.
            if folder.is_relative_to(mount) and len(mount.parts) >= best:
                best, kind = len(mount.parts), type_
    return kind


def cores_dumped(conf: Settings) -> Iterator[Symptom]:
    """A core holds the memory of a process, and that holds what users wrote. `serve` allows none, but a program that is to be given
    them gets them all the same (core(5))."""
    yield fact("none of `sluice serve`")
    with suppress(OSError):
        if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
            yield warning(
                "this machine hands the memory of a process that dies, with text of users, to a program (kernel.core_pattern): have that "
                "keep none of Sluice's"
            )
