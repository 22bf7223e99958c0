"""Compiled lists on disk, by content: built in a process of its own, read back in milliseconds.

Law: a file is written whole or not at all, checked whole when it is read, and named after the hash of all that went into it.
Building holds an interpreter for about 30 µs a term, so nothing that serves does it (but for short lists), and one process of
the machine does it for all.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from app.automaton import Array
from app.errors import LexiconError
from app.terms import Terms

KEPT = 4
"""Compiled lists kept on disk, the newest."""
INLINE = 2_000
"""Terms that are built where they are needed: 60 ms at most."""


@cache
def _engine() -> bytes:
    """A hash of the code and tables that a compiled list depends on."""
    digest = hashlib.sha256()
    for name in (
        "terms.py",
        "align.py",
        "forms.py",
        "redrawn.py",
        "lookup.py",
        "automaton.py",
        "_scan.c",
        "views.py",
        "text.py",
        "words.py",
        "data/han.tsv",
        "data/looks.tsv",
        "data/latin.tsv",
        "data/traditional.txt",
        "data/variants.txt",
    ):
        digest.update((files("app") / name).read_bytes())
    return digest.digest()


def place(folder: Path, parts: Iterable[bytes]) -> Path:
    """Where the list made of `parts` lies in `folder`."""
    digest = hashlib.sha256(_engine())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return folder / f"{digest.hexdigest()[:32]}.list"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process of the machine compiles; the others wait, and find the file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_MAGIC = b"sluice1\n"
_TAIL = struct.Struct("<QI8s")
"""Where the index begins, the checksum of all before this, and the magic again."""


def fetch(path: Path) -> dict[str, Array] | None:
    """None if there is no such list, or a damaged one. The arrays lie in the page cache, once for all processes."""
    try:
        whole = np.memmap(path, np.uint8, "r")
        at, checksum, magic = _TAIL.unpack(whole[-_TAIL.size :].tobytes())
        if magic != _MAGIC or zlib.crc32(whole[: -_TAIL.size].data) != checksum:
            return None
        index = json.loads(whole[at : -_TAIL.size].tobytes())
        arrays = {
            name: np.asarray(whole[start : start + size]).view(kind) for name, (start, size, kind) in index.items()
        }
        os.utime(path)
    except (OSError, ValueError, TypeError, struct.error):
        return None
    return arrays


def keep(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a list, and forget all but the newest."""
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    index: dict[str, tuple[int, int, str]] = {}
    checksum = 0
    try:
        with open(partial, "wb") as f:

            def write(raw: bytes) -> None:
                nonlocal checksum
                checksum = zlib.crc32(raw, checksum)
                f.write(raw)

            write(_MAGIC)
            for name, array in arrays.items():
                write(bytes(-f.tell() % 64))
                index[name] = f.tell(), array.nbytes, array.dtype.str
                write(array.tobytes())
            at = f.tell()
            write(json.dumps(index).encode())
            f.write(_TAIL.pack(at, checksum, _MAGIC))
            f.flush()
            os.fsync(f.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    for old in sorted(path.parent.glob("*.list"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def elsewhere(module: str, path: Path, *arguments: str, source: bytes = b"") -> dict[str, Array]:
    """Have `python -m module path arguments` write `path`. Blocks. Raises LexiconError with what it said."""
    run = subprocess.run(
        [sys.executable, "-m", module, str(path), *arguments], input=source, capture_output=True, check=False
    )
    if run.returncode:
        said = run.stderr.decode("utf-8", "replace").strip() if run.returncode == 2 else f"exit status {run.returncode}"
        raise LexiconError(f"compiling a list failed: {said}")
    arrays = fetch(path)
    if arrays is None:
        raise LexiconError(f"{path}: the compiled list cannot be read back; is the disk full or damaged?")
    return arrays


def compiled(terms: Sequence[str], folder: Path | None = None) -> Terms:
    """`terms` as Terms takes them. Blocks: call it in a thread where something serves. Raises LexiconError."""
    if folder is None or len(terms) <= INLINE:
        return Terms(terms)
    source = json.dumps(list(terms)).encode()
    path = place(folder, [source])
    with alone(folder):
        arrays = fetch(path)
        return Terms.of(arrays if arrays is not None else elsewhere("app.compiling", path, source=source))


def main() -> None:
    """Build the terms on stdin (a JSON list) into the file named."""
    os.nice(19)
    keep(Path(sys.argv[1]), Terms(json.load(sys.stdin)).arrays())


if __name__ == "__main__":
    main()
