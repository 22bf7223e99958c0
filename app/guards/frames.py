"""Frames on the pipe between the gateway and a guard's worker: four bytes of length, then a JSON object. Law: what is no frame ends
the pipe, and is never read as the next one.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, BinaryIO

from app import strictjson

_SIZE = struct.Struct(">I")
_MOST = 8 << 20
"""Bytes of one frame: a text of 100,000 characters, twice over, and a template."""


def frame(value: dict[str, Any]) -> bytes:
    """`value` as it goes through the pipe. A lone surrogate becomes U+FFFD."""
    raw = strictjson.dumps(value)
    return _SIZE.pack(len(raw)) + raw


async def read(pipe: asyncio.StreamReader) -> dict[str, Any]:
    """The next frame. Raises EOFError at the pipe's end and ValueError for what is no frame."""
    return _value(await pipe.readexactly(_size(await pipe.readexactly(_SIZE.size))))


def take(pipe: BinaryIO) -> dict[str, Any]:
    """The next frame of a file. Blocks. Raises as `read` does."""
    return _value(_exactly(pipe, _size(_exactly(pipe, _SIZE.size))))


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    raw = pipe.read(size)
    if len(raw) < size:
        raise EOFError
    return raw


def _size(raw: bytes) -> int:
    size: int = _SIZE.unpack(raw)[0]
    if size > _MOST:
        raise ValueError("no frame")
    return size


def _value(raw: bytes) -> dict[str, Any]:
    value = strictjson.loads_upstream(raw)
    if not isinstance(value, dict):
        raise ValueError("no frame")
    return value
