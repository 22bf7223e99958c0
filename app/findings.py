"""What the gateway itself finds: answers that it stopped become cases, or are kept encrypted for an appeal, where the policy asks for
that by name (`reports.runtime`, `appeals.hold`). Draft Measures, Article 15: content found in operation.

Law: off unless asked for; no answer waits for it; what cannot be kept is counted. A held answer is erased after HELD seconds, unless
somebody appeals against the decision meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from app import metrics, retention, vault
from app.apps import App
from app.errors import SluiceError
from app.keys import Keys
from app.policy import Policy
from app.reports import OURS, Report, Reports, Sender
from app.store.client import Store, ended
from app.taxonomy import taxonomy

log = logging.getLogger("sluice.findings")

HELD = retention.seconds("held")
_ROOM = 256
_LONGEST = 60_000
"""Characters of an answer that are kept."""


class Stopped(NamedTuple):
    """An answer that was stopped, as far as the model had said it."""

    app: App
    policy: Policy
    decision: str
    category: str
    text: str


def wanted(policy: Policy) -> bool:
    """Anything of a stopped answer is asked for."""
    return bool(policy.rules.reports.runtime) or policy.rules.appeals.hold


class Findings:
    """`store`: None keeps nothing."""

    def __init__(self, store: Store | None, keys: Keys, reports: Reports) -> None:
        self._store, self._keys, self._reports = store, keys, reports
        self._waiting: asyncio.Queue[Stopped] = asyncio.Queue(_ROOM)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._store is not None:
            self._task = asyncio.create_task(self._work(self._store))

    async def stop(self) -> None:
        if self._task is not None:
            await ended(self._task)

    def stopped(self, found: Stopped) -> None:
        """Take up an answer. Never waits."""
        if self._store is None or taxonomy()[found.category].no_retain or not found.text.strip():
            return
        try:
            self._waiting.put_nowait(found._replace(text=found.text[:_LONGEST]))
        except asyncio.QueueFull:
            metrics.FINDINGS_DROPPED.inc()

    async def _work(self, store: Store) -> None:
        while True:
            found = await self._waiting.get()
            try:
                await self._keep(store, found)
            except SluiceError as e:
                metrics.FINDINGS_DROPPED.inc()
                log.error("a stopped answer is not kept", extra={"decision": found.decision, "error": type(e).__name__})

    async def _keep(self, store: Store, found: Stopped) -> None:
        if found.policy.rules.appeals.hold:
            sealed = vault.seal(self._keys, f"{found.decision}/held", found.text)
            await store.run("SET", store.key(f"held:{found.decision}"), sealed, "EX", HELD)
        if found.category in found.policy.rules.reports.runtime:
            # By the decision's id, so that it is one report however often it is told.
            report = Report(found.text, category=found.category)
            await self._reports.receive(report, Sender(found.app, "", (), OURS), f"found {found.decision}")
