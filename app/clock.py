"""now(): the one source of wall-clock time, and the one thing tests fake."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

_source: Callable[[], float] = time.time


def now() -> float:
    """Seconds since the epoch, UTC."""
    return _source()


def stamp(at: float | None = None) -> str:
    """RFC 3339 in UTC, whole milliseconds."""
    fraction, second = math.modf(now() if at is None else at)
    micros = round(fraction * 1e6)
    if not 0 <= micros < 1_000_000:
        second, micros = second + micros // 1_000_000, micros % 1_000_000
    return f"{_second(int(second))}.{micros // 1000:03d}Z"


@lru_cache(16)
def _second(at: int) -> str:
    # Many stamps are of the same second.
    return datetime.fromtimestamp(at, UTC).isoformat().removesuffix("+00:00")


def seconds(stamp: str) -> float:
    """The inverse of `stamp`; any zone."""
    return datetime.fromisoformat(stamp).timestamp()


def use(source: Callable[[], float] = time.time) -> None:
    """Replace the clock (tests); without an argument the real one comes back."""
    global _source
    _source = source
