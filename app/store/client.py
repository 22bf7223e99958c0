"""The door to Redis. Law: the only importer of redis; short time-outs, every error a StoreError. What is sent is idempotent, so a
connection that a restart has left behind is replaced and the call sent once more; nothing else is retried.

All keys begin `{sluice:<deployment>}:`, one hash tag, so that a managed Cluster works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app import metrics
from app.errors import StoreError

log = logging.getLogger("sluice.store")

SCHEMA = "1"
_PUTS = ("table_put", "commit")
"""The scripts that put rows of tables."""
_REPLICA_MS = 200
"""Milliseconds that replicas get to confirm a durable write."""


def _answers(e: Exception) -> bool:
    """A server that refuses a command (CONFIG on a managed one, say) is up all the same."""
    return not isinstance(e, (redis.ConnectionError, redis.TimeoutError, OSError))


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks that talk to the store until they have ended: asyncio.wait_for, which the client library uses,
    can swallow a cancellation before Python 3.12 (python/cpython#86296)."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.2)


def _script(name: str) -> str:
    return (files("app") / "store" / "scripts" / f"{name}.lua").read_text()


@asynccontextmanager
async def within(seconds: float) -> AsyncGenerator[None]:
    """Raises StoreError where the block takes longer: what it was to write may be written by then, or not."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise StoreError("the store takes too long; send it again with the same Idempotency-Key") from None


class Store:
    """One Redis, seen from one process. `replicas`: how many must have a durable write before it counts. `patience`: seconds that it may
    take to answer."""

    def __init__(self, url: str, deployment: str, replicas: int = 0, patience: float = 1.0) -> None:
        self._replicas = replicas
        self.prefix = f"{{sluice:{deployment}}}:"
        options: dict[str, Any] = {
            "socket_timeout": patience,
            "socket_connect_timeout": 0.3,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        # Port of a unix URL: redis-py takes the timeouts there too.
        self._redis = redis.Redis(
            connection_pool=redis.BlockingConnectionPool.from_url(url, max_connections=16, timeout=0.2, **options)
        )
        self._listen = redis.Redis.from_url(url, **(options | {"socket_timeout": 5.0}))
        self._scripts: dict[tuple[str, bool], Any] = {}
        self.up = False
        self.problem: str | None = None
        """Why writes are refused although the server answers."""
        self.schema = ""
        """Of what is there, as it was last read; '': not known."""
        self.durability = "unknown"
        """What a kill of the server may lose of what it acknowledged: strict, nothing; 1s, a second or more; none, everything."""

    def fit(self) -> str | None:
        """Why nothing of what is there is touched: another Sluice's store is left as it is. None: it is ours."""
        if self.schema in ("", SCHEMA):
            return None
        return f"the store is of schema {self.schema}, this Sluice knows {SCHEMA}: run the Sluice that it belongs to"

    async def _fits(self) -> None:
        if not self.schema:
            with suppress(RedisError, OSError, TimeoutError):  # told by the call itself
                self.schema = str(await self._redis.get(self.key("schema")) or "")
        if reason := self.fit():
            raise StoreError(reason)

    def key(self, name: str) -> str:
        return self.prefix + name

    async def close(self) -> None:
        await self._redis.aclose()
        await self._listen.aclose()

    def _seen(self, up: bool) -> None:
        if up != self.up:
            log.log(logging.INFO if up else logging.ERROR, "store up" if up else "store down")
        self.up = up
        metrics.STORE_UP.set(1 if up else 0)

    async def _twice(self, send: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await send()
        except redis.ConnectionError:
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            return await send()

    async def call(self, script: str, keys: list[str], args: list[str | int], *, durable: bool = False) -> Any:
        """Run scripts/<script>.lua atomically. Raises StoreError; after it the outcome is unknown, and the same
        idempotency key gives the first result. `durable`: an answer means that as many replicas as the operator asked for
        (SLUICE_REDIS_REPLICAS) have it too."""
        # A look at the tables tells when that is over.
        if script != "table_read":
            await self._fits()
        if (script, durable) not in self._scripts:
            # What is acknowledged is told to a backup that reads meanwhile.
            text = (
                (_script("trace") if durable else "")
                + (_script("history") if script in _PUTS else "")
                + _script(script)
            )
            self._scripts[script, durable] = self._redis.register_script(text)
        named = [self.key(k) for k in keys]
        try:
            if durable and self._replicas:
                result = await self._twice(lambda: self._confirmed(self._scripts[script, durable], named, args))
            else:
                result = await self._twice(lambda: self._scripts[script, durable](keys=named, args=args))
        except (RedisError, OSError, TimeoutError) as e:
            self._seen(_answers(e))
            raise StoreError(
                f"the store did not take the write ({type(e).__name__}); send it again with the same Idempotency-Key"
            ) from None
        self._seen(True)
        return result

    async def _confirmed(self, script: Any, keys: list[str], args: list[str | int]) -> Any:
        """A script and WAIT on one connection: WAIT speaks of what its own connection wrote."""
        async with self._redis.pipeline(transaction=False) as pipe:
            await script(keys=keys, args=args, client=pipe)
            pipe.execute_command("WAIT", self._replicas, _REPLICA_MS)
            result, held = await pipe.execute()
        if int(held) < self._replicas:
            raise StoreError(
                f"only {held} of {self._replicas} replicas confirmed the write; send it again with the same Idempotency-Key"
            )
        return result

    async def run(self, *command: str | int) -> Any:
        """One command that changes nothing twice. Raises StoreError."""
        if command[0] != "CONFIG":
            await self._fits()
        try:
            result = await self._twice(lambda: self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as e:
            self._seen(_answers(e))
            raise StoreError(f"the store does not answer ({type(e).__name__})") from None
        self._seen(True)
        return result

    async def check(self) -> None:
        """Look at what the server promises; sets `problem` where it may lose what it acknowledged, and `durability`."""
        try:
            policy = (await self._configured("maxmemory-policy")).get("maxmemory-policy", "noeviction")
            file = await self._configured("append*")  # a pattern: 6.2 takes one name at a time
        except StoreError:
            return
        evicts = f"Redis maxmemory-policy is {policy}: it may evict entries; set noeviction"
        self.problem = None if policy == "noeviction" else evicts
        synced = {"always": "strict", "everysec": "1s"}.get(file.get("appendfsync", ""), "none")
        self.durability = synced if file.get("appendonly") == "yes" else "none"

    async def _configured(self, pattern: str) -> dict[str, str]:
        said = await self.run("CONFIG", "GET", pattern)
        return dict(said) if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))

    async def pushes(self, channel: str, silence: float) -> AsyncGenerator[str]:
        """Messages as they are published, '' after each `silence` seconds without one. Raises StoreError when the
        connection breaks."""
        pubsub = self._listen.pubsub()
        try:
            await pubsub.subscribe(self.key(channel))
            yield ""
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=silence)
                yield str(message["data"]) if message else ""
        except (RedisError, OSError, TimeoutError) as e:
            raise StoreError(type(e).__name__) from None
        finally:
            closing = asyncio.ensure_future(pubsub.aclose())  # type: ignore[no-untyped-call]
            await asyncio.wait([closing], timeout=1)
