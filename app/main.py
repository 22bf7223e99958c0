"""create_app(settings): the only module that names all the pieces."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app import apps, dialects, keys, metrics, policy
from app.agreements import Agreements
from app.callers import Callers
from app.clean import Clean
from app.complaints import Complaints
from app.deliveries import Deliveries
from app.detectors import classifier, lexicon, readers, rules, shipped
from app.detectors.blocklist import Blocklist
from app.errors import LexiconError, ModelError, SettingsError
from app.exceptions import Exceptions
from app.findings import Findings
from app.guards.named import NamedGuard
from app.journal import Journal
from app.limits import Meter
from app.load import Load, allotted, fit, raised
from app.moderation import Moderator
from app.power import Power
from app.probes import Prober
from app.reports import Reports
from app.sessions import Sessions
from app.settings import Settings, unsafe
from app.statements import Archive
from app.store.cases import Cases
from app.store.client import Store, ended
from app.store.feed import Feed
from app.store.tables import Entries, ExceptionRows, Shadows, Statements
from app.subjects import Subjects
from app.types import Action
from app.upstream import Upstream
from app.web import asgi, images
from app.web.browsers import Browsers
from app.web.complaints import complaint_routes
from app.web.disclosure import disclosure_routes
from app.web.errors import answer_errors
from app.web.moderations import Moderations
from app.web.pages import page_routes
from app.web.passing import Passing
from app.web.proxy import Limits, Proxy
from app.web.reports import report_routes, senders
from app.web.words import Corrections, Words

log = logging.getLogger("sluice")

_MODELS = re.compile(r"/v1/models(/(?!\.{1,2}(/|\Z))[A-Za-z0-9_.:@-]{1,100}){0,4}\Z")


class Gateway:
    """Everything behind the client port of one process. An ASGI app: moderated routes are plain ASGI, the rest FastAPI."""

    def __init__(self, settings: Settings, redis_url: str | None = None) -> None:
        self.settings = settings
        self.apps = apps.load(settings.apps)
        if reasons := unsafe(settings, app_keys=self.apps.keyed):
            raise SettingsError("refusing to start:\n- " + "\n- ".join(reasons))
        self.keys = keys.Keys(settings.secret_key or keys.generated(settings.data_dir))
        self._compiled = settings.data_dir / "compiled"
        self.lexicon = lexicon.compiled(settings.lexicons, self._compiled)
        self.rules = rules.Rules(rules.load(settings.lexicons))
        self.blocklist = Blocklist(self.keys.all("fingerprint"), self._compiled)
        self.classifier = classifier.tried(settings.models)
        self.guard = None if settings.guard is None else NamedGuard(settings, self.keys.derive("fingerprint"))
        run = f"{os.getpid():x}{secrets.token_hex(4)}"
        self.moderator = Moderator(
            shipped(self.lexicon, self.blocklist, self.rules),
            policy.load(settings.policy),
            readers(self.lexicon, self.blocklist),
            [self.classifier],
            [] if self.guard is None else [self.guard],
        )
        self.upstream = Upstream(
            settings.upstream_url, settings.upstream_key, settings, credentials=not self.apps.keyed
        )
        self.surrogate = (
            Upstream(settings.surrogate_upstream, settings.surrogate_key, settings, credentials=False)
            if settings.surrogate_upstream
            else None
        )
        url = redis_url or settings.redis_url
        self.store = Store(url, settings.deployment, settings.redis_replicas) if url else None
        self.journal = Journal(settings.data_dir / "journal", run, self.store)
        self.refusals = Feed(self.store, "refusals", self.keys.refusal.learn) if self.store else None
        self.entries = Entries(self.store, settings.data_dir, self._entries_changed)
        self._policies, self._shadowed = self.moderator.policies, frozenset[str]()
        self.shadows = Shadows(self.store, settings.data_dir, self._shadows_changed)
        self.cases = Cases(self.store, self.entries)
        self.load = Load(
            settings.max_exchanges or fit(raised()),
            settings.memory_limit * (1 << 20) if settings.memory_limit else allotted(settings.workers),
        )
        self.meter, self.sessions = Meter(self.store, run), Sessions(self.store, run)
        self.subjects = Subjects(self.cases, self.keys, self.store, settings.data_dir)
        self.agreements = Agreements(self.cases, self.keys, self.store, settings.data_dir, run)
        self.callers = Callers(
            self.apps,
            self.keys,
            lambda: self.moderator.policies,
            self.subjects if self.store is not None else None,
            self.meter,
            self.load,
        )
        self.deliveries = Deliveries(self.store, self.keys)
        self.reports = Reports(
            self.cases, self.keys, self.moderator, Clean(settings.models, settings.clean), self.deliveries
        )
        self.reports.corrections = self.blocklist.corrections
        self.findings = Findings(self.store, self.keys, self.reports)
        self.moderator.exceptions = Exceptions(self.keys)
        self.exceptions = ExceptionRows(self.store, settings.data_dir, self.moderator.exceptions.change)
        self.complaints = Complaints(self.cases, self.keys, self.exceptions, self.shadows, self.moderator, self.reports)
        self.prober = Prober(self.cases, self.keys, self.moderator, self.upstream, lambda: self.apps.sections)
        self.archive = Archive()
        self.statements = Statements(self.store, settings.data_dir, self.archive.change)
        self.power = Power(self.store, self.complaints, self.entries)
        self._tasks: list[asyncio.Task[None]] = []
        limits = Limits(settings.answer_max_characters, settings.answer_max_seconds)
        stored = self.store is not None
        words = Words(
            self.keys,
            self.sessions,
            Corrections(self.blocklist.correction, self.blocklist.corrections),
            lambda: self.lexicon.cues,
            self.subjects if stored else None,
            self.agreements if stored else None,
        )
        stand_in = (self.surrogate, settings.surrogate_model) if self.surrogate is not None else None
        routed: dict[str, Any] = {
            d.route: Proxy(
                d,
                self.moderator,
                self.callers,
                self.keys,
                self.upstream,
                self.journal,
                limits,
                words,
                stand_in,
                self.deliveries,
                self.findings,
            )
            for d in dialects.shipped()
        }
        self._routes = routed | {
            "/v1/moderations": Moderations(self.moderator, self.callers),
            images.ROUTE: images.Images(self.moderator, self.callers, self.keys, self.upstream, self.journal, words),
        }
        self._passing = Passing(self.callers, self.upstream)
        self.api = _client_api(self)

    def _entries_changed(self, rows: dict[str, dict[str, Any] | None], version: int, whole: bool) -> None:
        self.blocklist.change(rows, whole)
        metrics.ENTRIES.set(len(self.blocklist))
        metrics.ENTRIES_VERSION.set(version)

    def _shadows_changed(self, rows: dict[str, dict[str, Any] | None], version: int, whole: bool) -> None:
        old = frozenset() if whole else self._shadowed
        self._shadowed = frozenset(
            [id for id in old if id not in rows] + [id for id, row in rows.items() if row is not None and row["shadow"]]
        )
        self._enforce()

    def _enforce(self) -> None:
        """The policy of the file, and in shadow besides what was reversed too often."""
        self.moderator.policies = self._policies.shadowing(self._shadowed)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            route = self._routes.get(path)
            if route is not None:
                await route(scope, receive, send)
                return
            if (
                _MODELS.match(path) and scope["method"] == "GET"
            ) or path in self.moderator.policies.common.unmoderated_routes:
                await self._passing(scope, receive, send)
                return
        await self.api(scope, receive, send)

    async def start(self) -> None:
        await self.upstream.outbound.start()
        if self.surrogate is not None:
            await self.surrogate.outbound.start()
        if self.guard is not None:
            await self.guard.start()
        await self.journal.start()
        await self.entries.start()
        await self.shadows.start()
        await self.exceptions.start()
        await self.subjects.table.start()
        await self.agreements.table.start()
        await self.apps.start()
        await self.meter.start()
        await self.sessions.start()
        await self.statements.start()
        await self.deliveries.start()
        await self.findings.start()
        if self.refusals is not None:
            self.keys.refusal.tell = self.refusals.tell
            await self.refusals.start()
        self._tasks = [
            asyncio.create_task(self.load.watch()),
            asyncio.create_task(self._watch("policy", [self.settings.policy], self._load_policy)),
            asyncio.create_task(self._watch("lexicon", [self.settings.lexicons], self._load_lexicon)),
            asyncio.create_task(self._watch("model", classifier.sources(self.settings.models), self._load_model)),
        ]
        if self.settings.apps is not None:
            self._tasks.append(
                asyncio.create_task(self._watch("apps", lambda: apps.sources(self.settings.apps), self._load_apps))
            )
        if self.store is not None:
            await self.subjects.start()
            self._tasks.append(asyncio.create_task(self.prober.run()))
        if self.guard is not None:
            self._tasks.append(asyncio.create_task(self._watch("guard", [self.guard.source], self._load_guard)))

    async def stop(self) -> None:
        await ended(*self._tasks)
        await self.findings.stop()
        await self.deliveries.stop()
        await self.subjects.stop()
        await self.sessions.stop()
        await self.meter.stop()
        await self.apps.stop()
        await self.agreements.table.stop()
        await self.subjects.table.stop()
        await self.statements.stop()
        await self.exceptions.stop()
        await self.shadows.stop()
        await self.entries.stop()
        if self.refusals is not None:
            await self.refusals.stop()
        await self.journal.stop()
        if self.guard is not None:
            await self.guard.close()
        await self.upstream.outbound.close()
        if self.surrogate is not None:
            await self.surrogate.outbound.close()
        if self.store is not None:
            await self.store.close()

    async def _watch(
        self, what: str, paths: list[Path] | Callable[[], list[Path]], load: Callable[[], Awaitable[str]]
    ) -> None:
        """Reload what changes on disk: whole or not at all. `paths`: where, or what says where. `load` gives the version now in force."""

        def look() -> list[tuple[str, int, int, int]]:
            return lexicon.stamps(paths() if callable(paths) else paths)

        seen = await asyncio.to_thread(look)
        while True:
            await asyncio.sleep(1)
            now = await asyncio.to_thread(look)
            if now == seen or not now:
                continue
            seen = now
            try:
                version = await load()
                metrics.RELOADS.labels(what, "ok").inc()
                log.info(f"{what} reloaded", extra={"version": version})
            except (SettingsError, LexiconError, ModelError, OSError) as e:
                metrics.RELOADS.labels(what, "failed").inc()
                log.error(f"{what} not reloaded, the old one stays", extra={"reason": str(e)})

    async def _load_policy(self) -> str:
        self._policies = await asyncio.to_thread(policy.load, self.settings.policy)
        self._enforce()
        return self.moderator.policies.common.version

    async def _load_apps(self) -> str:
        fresh = await asyncio.to_thread(apps.load, self.settings.apps)
        fresh.follow_on(self.apps)
        await fresh.start()
        kept = {app.identity.keyring for app in fresh.all if app.identity is not None}
        before = {app.identity.keyring for app in self.apps.all if app.identity is not None}
        self.apps.take(fresh)
        for ring in before - kept:
            await ring.stop()
        return f"{len(self.apps.all)} apps"

    async def _load_lexicon(self) -> str:
        def take() -> None:
            fresh = rules.Rules(rules.load(self.settings.lexicons))
            self.lexicon.take(lexicon.compiled(self.settings.lexicons, self._compiled))
            self.rules.take(fresh)

        await asyncio.to_thread(take)
        return self.lexicon.version

    async def _load_model(self) -> str:
        self.classifier.take(await asyncio.to_thread(classifier.load, self.settings.models))
        return self.classifier.version

    async def _load_guard(self) -> str:
        assert self.guard is not None
        await self.guard.reload()
        return self.guard.version

    def status(self) -> dict[str, Any]:
        """What this process enforces now."""
        return {
            "ready": not self.load.draining,
            "policy": self.moderator.policies.common.version,
            "profile": self.moderator.policies.common.profile,
            "lexicon": self.lexicon.version,
            "terms": len(self.lexicon),
            "rules": len(self.rules),
            "model": self.classifier.version,
            "guard": self.guard.version if self.guard is not None else None,
            "fail_modes": self.moderator.policies.fail_modes(),
            "entries": len(self.blocklist),
            "entries_version": self.entries.version,
            "entries_unreadable": self.blocklist.foreign,
            "standings_unreadable": self.subjects.unreadable,
            "exceptions_unreadable": self.moderator.exceptions.foreign if self.moderator.exceptions is not None else 0,
            "store": self.store.up if self.store is not None else False,
        }


def _client_api(gateway: Gateway) -> FastAPI:
    """The client port's other routes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.stop()

    api = FastAPI(
        title="Sluice", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    answer_errors(api, "no such route here; moderated routes are " + ", ".join(gateway._routes))

    @api.get("/sluice/v1/decisions/{decision}")
    async def decision(decision: str, request: Request) -> JSONResponse:
        """What was decided, for whoever holds the receipt: action, categories, clause. Unknown and wrong look the same."""
        receipt = request.headers.get("authorization", "").removeprefix("Bearer ")
        record = None
        # Who cannot show a receipt costs no search.
        if any(keys.verify(gateway.keys, receipt, decision, app) for app in gateway.apps.ids):
            record = await asyncio.to_thread(gateway.journal.find, decision)
        if record is None:
            return JSONResponse(
                {
                    "error": {
                        "message": "no such decision for this receipt",
                        "type": "not_found_error",
                        "code": "not_found",
                        "param": None,
                    }
                },
                404,
            )
        worst = max(("prompt", "answer"), key=lambda d: Action[record[d]["action"].upper()])
        findings = [
            f for d in ("prompt", "answer") for f in record[d]["findings"] if not f["shadow"] and f["action"] != "pass"
        ]
        return JSONResponse(
            {
                "decision": decision,
                "action": record[worst]["action"],
                "categories": sorted({f["category"] for f in findings}),
                "clause": record[worst]["clause"],
                "at": record["at"],
            }
        )

    api.add_middleware(Browsers, apps=gateway.apps)
    sender = senders(gateway.callers, gateway.keys)
    report_routes(api, gateway.reports, sender)
    complaint_routes(api, gateway.complaints, gateway.moderator, sender)
    disclosure_routes(api, gateway.moderator, gateway.apps, gateway.archive, gateway.power, gateway.status)
    page_routes(
        api, gateway.apps, gateway.callers, gateway.keys, gateway.reports, gateway.complaints, gateway.moderator
    )

    return api


def create_app(settings: Settings, redis_url: str | None = None) -> Gateway:
    """The gateway of one process. Raises SettingsError, PolicyError or LexiconError with the reason."""
    return Gateway(settings, redis_url)
