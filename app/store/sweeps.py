"""When each class of records was last swept, for whoever asks whether anything is ever erased. Law: a time and a count, nothing of what was
erased; a run that erased nothing is a run too."""

from __future__ import annotations

import json

from app import clock, metrics
from app.store.client import Store
from app.store.tables import Row

_KEY = "retention"


async def ran(store: Store, name: str, erased: int) -> None:
    """Write down that a class (app.retention) was swept just now. Raises StoreError."""
    if erased:
        metrics.ERASED.labels(name).inc(erased)
    await store.run("HSET", store.key(_KEY), name, json.dumps({"at": clock.stamp(), "erased": erased}))


async def last(store: Store) -> dict[str, Row]:
    """The last run of each class that was ever swept: when, and how much went. Raises StoreError."""
    flat = await store.run("HGETALL", store.key(_KEY))
    rows = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {str(name): json.loads(raw) for name, raw in rows}
