"""now(): the one source of wall-clock time, and the one thing tests fake."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

_source: Callable[[], float] = time.time


def now() -> float:
    """Seconds since the epoch, UTC."""
    return _source()


def stamp(at: float | None = None) -> str:
    """RFC 3339 in UTC, whole milliseconds."""
    moment = datetime.fromtimestamp(now() if at is None else at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(stamp: str) -> float:
    """The inverse of `stamp`; any zone."""
    return datetime.fromisoformat(stamp).timestamp()


def use(source: Callable[[], float] = time.time) -> None:
    """Replace the clock (tests); without an argument the real one comes back."""
    global _source
    _source = source
