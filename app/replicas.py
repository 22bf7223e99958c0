"""Replicas: what every gateway on this store enforces right now, so that one that lags behind is seen.

Law: each parent writes its own row and no other; a row says when it was written, and whoever has said nothing for a while is shown as
silent, and after a day not at all. Versions alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from app import clock
from app.errors import StoreError
from app.store.client import Store
from app.store.tables import Row

PAUSE = 5.0
"""Seconds between two rows of a replica."""
SILENT = 4 * PAUSE
"""Seconds after which a replica counts as silent."""
FORGOTTEN = 86400
_KEY = "replicas"


class Replicas:
    """`own`: what the workers of this one enforce. `name`: of this one, the same after a restart."""

    def __init__(self, store: Store, own: Callable[[], dict[str, Any]], name: str) -> None:
        self._store, self._own, self._name = store, own, name

    async def run(self) -> None:
        while True:
            try:
                await self.tell()
            except StoreError:
                pass  # told by the store itself
            await asyncio.sleep(PAUSE)

    async def tell(self) -> None:
        """Write this replica's row. Raises StoreError."""
        row = {"at": clock.now(), "workers": self._own().get("workers", [])}
        await self._store.run("HSET", self._store.key(_KEY), self._name, json.dumps(row))


async def known(store: Store, version: int) -> list[Row]:
    """Every replica of the last day, by name: what each worker enforces, whether it speaks, and how far behind `version` of the entries the
    slowest is. Raises StoreError."""
    flat = await store.run("HGETALL", store.key(_KEY))
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    found, gone = [], []
    for name, raw in sorted(pairs):
        row = json.loads(raw)
        age = clock.now() - row["at"]
        if age > FORGOTTEN:
            gone.append(name)
            continue
        versions = [int(w.get("entries_version") or 0) for w in row["workers"]]
        behind = max(0, version - min(versions)) if versions else None
        found.append(
            {"name": str(name), "silent": age > SILENT, "at": row["at"], "workers": row["workers"], "behind": behind}
        )
    if gone:
        await store.run("HDEL", store.key(_KEY), *gone)
    return found
