"""The audit chain as it is read while others write it: whole at every moment, and broken where it is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.store.cases import Cases, Writes, broken
from app.store.client import Store
from app.store.tables import Entries
from tests.conftest import RedisServer


def test_a_chain_that_is_read_while_it_grows_is_whole_at_every_look(redis_server: RedisServer, tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(redis_server.url, "chain")
        writer, reader = (Cases(store, Entries(store, tmp_path, lambda *_: None)) for _ in range(2))
        await writer.entries.refresh()
        done = False

        async def write() -> None:
            nonlocal done
            for n in range(300):
                await writer.commit(Writes(), {"who": "somebody", "what": "look", "case": f"case_{n}"})
            done = True

        task, looks = asyncio.create_task(write()), 0
        while not done:
            rows, head = await reader.chain()
            assert broken(rows, head) is None
            looks += 1
        await task
        assert looks > 3
        # A row that nobody chained, behind a head that stands still, is seen.
        await store.run("RPUSH", store.key("audit"), '{"seq":301,"prev":"x"}')
        rows, head = await reader.chain()
        assert broken(rows, head) == 301
        await store.close()

    asyncio.run(run())
