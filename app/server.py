"""The processes. The parent owns the embedded store, the ops and admin listeners, the metrics of all, and the table's
snapshot on disk; N children own the client port.

Law: a child that dies, or says nothing any more, comes back; a parent that dies takes its children and its store with it. Told to stop,
it is ready no more at once, and answers that are under way get a while to end in. A second parent on the same DATA_DIR joins the running
store and takes it over when its owner goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn

from app import apps, keys, logs, metrics, policy, views
from app import settings as configuration
from app.accounts import Accounts
from app.agreements import Agreements
from app.changes import Changes
from app.claims import Claims
from app.clean import Clean
from app.complaints import Complaints
from app.desk import Desk, Kept
from app.detectors import classifier, lexicon, rules
from app.duties import Duties
from app.errors import SettingsError, StoreError
from app.history import History
from app.load import fit, raised
from app.logins import Logins
from app.main import Gateway, create_app
from app.nursery import Nursery, Worker
from app.oidc import Provider
from app.playground import Playground
from app.power import Power
from app.register import Register
from app.replicas import Replicas
from app.review import Review
from app.settings import Settings
from app.statements import Archive
from app.store.cases import Cases
from app.store.client import Store
from app.store.embedded import EmbeddedStore
from app.store.tables import Entries, ExceptionRows, Shadows, Statements
from app.subjects import Subjects
from app.uptime import Minutes
from app.web.admin import admin_api
from app.web.console import Office, console
from app.web.health import Ops
from app.web.protocol import Bounds, Protocol

log = logging.getLogger("sluice.server")

STATUS = 0.5
"""Seconds between a child's reports to its parent."""
_STALE = 5.0
_HUNG = 30.0
"""Seconds of silence after which a child is killed, for it is started anew then."""
_YOUNG = 3.0
"""Seconds within which a death is taken for the beginning of a row of them, and the next start waits longer."""
_STARTING = 120.0
"""The same, of a child that has not spoken yet: a large lexicon may have to be compiled."""
_YOUNG_OBJECTS = 20_000
"""Objects that are made before the collector looks at the young ones."""
_LAST = 1
"""Seconds that connections get for their last bytes."""
_FREED = 2.0
"""Seconds that the ports of a parent that was killed may take to be free."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handling: the parent decides when a process ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn(app: Any, *, lifespan: str = "off", bounds: Bounds | None = None) -> Server:
    protocol = type("Protocol", (Protocol,), {"bounds": bounds or Bounds()})
    return Server(
        uvicorn.Config(
            app, loop="none", http=protocol, ws="none", lifespan=lifespan, access_log=False, log_config=None,  # type: ignore[arg-type]
            server_header=False, date_header=True, proxy_headers=False, timeout_graceful_shutdown=_LAST, backlog=2048,
        )
    )  # fmt: skip


def _bind(host: str, port: int, name: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end = time.monotonic() + _FREED
    while True:
        try:
            sock.bind((host, port))
            break
        except OSError as e:
            if e.errno == errno.EADDRINUSE and time.monotonic() < end:
                time.sleep(0.05)
                continue
            sock.close()
            raise SettingsError(
                f"SLUICE_{name}: cannot listen on {host}:{port} ({e.strerror}); choose another port (端口被占用时请换一个)"
            ) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class _Child:
    """One worker process and its last report."""

    def __init__(self, process: Worker, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self.process, self.reader, self.transport = process, reader, transport
        self.status: dict[str, Any] | None = None
        self.at = asyncio.get_running_loop().time()


class Parent:
    """The supervising process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        raised()  # files, for the workers too
        loaded = apps.load(settings.apps)
        if reasons := configuration.unsafe(settings, app_keys=loaded.keyed):
            raise SettingsError("refusing to start (拒绝启动):\n- " + "\n- ".join(reasons))
        # Read here so that a fault is told once, before any child.
        policy.load(settings.policy)
        lexicon.compiled(settings.lexicons, settings.data_dir / "compiled")
        rules.load(settings.lexicons)
        classifier.tried(settings.models)
        views.meet()  # once, for the workers too
        self.keys = keys.Keys(settings.secret_key or keys.generated(settings.data_dir))
        self.children: dict[int, _Child] = {}
        self.restarts = 0
        self.failed = False
        self._complete = False
        """Every child has been ready at once."""
        self.stopping = asyncio.Event()
        self.embedded: EmbeddedStore | None = None
        self.nursery: Nursery

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        s = self.settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        client, ops, admin = (
            _bind(s.host, s.port, "PORT"),
            _bind(s.ops_host, s.ops_port, "OPS_PORT"),
            _bind(s.admin_host, s.admin_port, "ADMIN_PORT"),
        )
        tasks: list[asyncio.Task[Any]] = [self._supervise(self.nursery.run())]
        url = s.redis_url
        if url is None:
            self.embedded = EmbeddedStore(s.data_dir)
            url = await self.embedded.start()
            tasks.append(self._supervise(self.embedded.watch()))
        self.store = Store(url, s.deployment, s.redis_replicas)
        self.entries = Entries(self.store, s.data_dir, self._count, keep_snapshot=True)
        self.shadows = Shadows(self.store, s.data_dir, lambda rows, version, whole: None, keep_snapshot=True)
        self.exceptions = ExceptionRows(self.store, s.data_dir, lambda rows, version, whole: None, keep_snapshot=True)
        self.archive = Archive()
        self.statements = Statements(self.store, s.data_dir, self.archive.change, keep_snapshot=True)
        await self.entries.start()
        await self.exceptions.start()
        await self.statements.start()
        await self.shadows.start()
        try:
            cases = Cases(self.store, self.entries)
            claims = Claims(cases)
            review = Review(cases, self.keys, Clean(s.models, s.clean), self.shadows, claims)
            self.subjects = Subjects(cases, self.keys, self.store, s.data_dir, keep=True)
            self.agreements = Agreements(cases, self.keys, self.store, s.data_dir, keep=True)
            await self.subjects.table.start()
            await self.agreements.table.start()
            complaints = Complaints(cases, self.keys, self.exceptions, self.shadows, subjects=self.subjects)
            desk = Desk(
                s,
                self.keys,
                self.entries,
                self.shadows,
                review,
                claims,
                Register(self.entries, cases, self.keys, review),
                History(cases, review.ordinary),
                cases,
                complaints,
                self.subjects,
                self.agreements,
                self.statements,
                self.archive,
                Playground(s, self.keys, self.entries, self.shadows),
                self._replica,
                Kept(s.policy, lambda: policy.load(s.policy)),
                Kept(s.apps, lambda: apps.load(s.apps).ids),
            )
            logins = Logins(cases, Accounts(cases, self.keys), self.keys)
            provider = Provider(s) if s.oidc_issuer else None
            if provider is not None:
                await provider.start()
            power = Power(self.store, complaints, self.entries)
            admin_app = admin_api(s.admin_token or "", desk, console(Office(desk, logins, power, provider)))
            tasks.append(self._supervise(self._invite(logins, admin)))
            bounds = Bounds(connections=fit(raised()))
            servers = [(_uvicorn(Ops(self.readiness), bounds=bounds), ops), (_uvicorn(admin_app, bounds=bounds), admin)]
            tasks += [self._supervise(server.serve(sockets=[sock])) for server, sock in servers]
            tasks.append(self._supervise(Duties(cases, s.alert_url, s.alert_key, self.subjects, self.agreements).run()))
            replica = f"{socket.gethostname()}-{client.getsockname()[1]}"
            changes = Changes(cases, lambda: self.readiness()[1]["workers"], s.guard, replica)
            tasks.append(self._supervise(changes.run()))
            tasks.append(self._supervise(Minutes(self.store, self.readiness, replica).run()))
            tasks.append(self._supervise(Replicas(self.store, self._replica, replica).run()))
            tasks.append(self._supervise(self._watch()))
            tasks += [self._supervise(self._keep(i, client)) for i in range(s.workers)]
            await self._announce(client, ops, admin)
            await self.stopping.wait()
            log.info("stopping")
            for child in self.children.values():
                child.process.signal(signal.SIGTERM)
            await asyncio.wait(
                [asyncio.create_task(c.process.wait()) for c in self.children.values()]
                or [asyncio.create_task(asyncio.sleep(0))],
                timeout=s.drain_timeout + 4 * _LAST,
            )
            for child in self.children.values():
                child.process.signal(signal.SIGKILL)
            for server, _ in servers:
                server.should_exit = True
        finally:
            for task in tasks[-s.workers :] if s.workers else []:
                task.cancel()
            await self.agreements.table.stop()
            await self.subjects.table.stop()
            await self.statements.stop()
            await self.exceptions.stop()
            await self.shadows.stop()
            await self.entries.stop()
            await self.store.close()
            if self.embedded is not None:
                await self.embedded.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.nursery.close()

    def _supervise(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`; if it fails, so do we: a parent that supervises nothing must not look alive."""
        task = asyncio.create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (e := task.exception()) is not None:
                log.critical("supervision failed, stopping", exc_info=e)
                self.failed = True
                self.stopping.set()

        task.add_done_callback(ended)
        return task

    def _count(self, rows: dict[str, dict[str, Any] | None], version: int, whole: bool) -> None:
        # The parent enforces nothing, but its sample must not be the lowest.
        metrics.ENTRIES.set(len(self.entries))
        metrics.ENTRIES_VERSION.set(version)

    async def _announce(self, *listeners: socket.socket) -> None:
        ports = [sock.getsockname()[1] for sock in listeners]
        while not self.readiness()[0]:
            if self.stopping.is_set():
                return
            await asyncio.sleep(0.02)
        log.info(
            "ready",
            extra={"port": ports[0], "ops_port": ports[1], "admin_port": ports[2], "workers": self.settings.workers},
        )

    async def _invite(self, logins: Logins, admin: socket.socket) -> None:
        """Print the one-time link by which the first account is made, where there is none."""
        while True:
            try:
                if await logins.accounts.operated():
                    return
                break
            except StoreError:
                await asyncio.sleep(1)
        host, port = admin.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        base = (self.settings.console_url or f"http://{shown}:{port}/console").rstrip("/")
        # A line beside the log, on standard error: whoever holds it becomes the first operator.
        print(
            f"控制台首次设置（一次有效） console, once: {base}/setup?token={logins.setup}", file=sys.stderr, flush=True
        )

    async def _keep(self, number: int, client: socket.socket) -> None:
        """Keep one child alive; back off while it dies young."""
        delay = 0.1
        while not self.stopping.is_set():
            born = asyncio.get_running_loop().time()
            try:
                child = await self._spawn(client)
            except OSError as e:
                log.error("no worker can be started", extra={"worker": number, "reason": e.strerror})
                delay = min(delay * 2, 5)
                await asyncio.sleep(delay)
                continue
            self.children[number] = child
            with contextlib.suppress(ValueError, OSError):
                while line := await child.reader.readline():
                    child.status, child.at = json.loads(line), asyncio.get_running_loop().time()
            code = await child.process.wait()
            child.transport.close()
            child.status = None
            metrics.forget(child.process.pid)
            if self.stopping.is_set():
                return
            self.restarts += 1
            log.error("worker died", extra={"worker": number, "code": code})
            delay = 0.1 if asyncio.get_running_loop().time() - born > _YOUNG else min(delay * 2, 5)
            await asyncio.sleep(delay)

    async def _watch(self) -> None:
        """Kill a child that lives and says nothing."""
        while True:
            await asyncio.sleep(1)
            now = asyncio.get_running_loop().time()
            for number, child in self.children.items():
                silent = now - child.at
                if child.process.code is None and silent > (_STARTING if child.status is None else _HUNG):
                    log.error("worker says nothing, killing it", extra={"worker": number, "silent": round(silent)})
                    child.process.signal(signal.SIGKILL)

    async def _spawn(self, client: socket.socket) -> _Child:
        read, write = os.pipe()
        orders = {"store": self.embedded.url if self.embedded is not None else None}
        try:
            process = await self.nursery.fork(orders, [client.fileno(), write])
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
        return _Child(process, reader, transport)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready when every worker has said so, and as long as one of them is: one that is started anew takes no other with it."""
        now = asyncio.get_running_loop().time()
        workers = []
        for number in range(self.settings.workers):
            child = self.children.get(number)
            if child is None or child.status is None:
                workers.append({"ready": False, "reason": "starting"})
            elif now - child.at > _STALE:
                workers.append({"ready": False, "reason": "silent"})
            else:
                workers.append(child.status)
        store = {
            "up": self.store.up,
            "problem": self.store.problem or self.store.fit(),
            "durability": self.store.durability,
            "foreign": self.entries.foreign,
            "entries_version": self.entries.version,
        }
        self._complete = self._complete or all(w["ready"] for w in workers)
        stopping = self.stopping.is_set()
        ready = self._complete and not stopping and any(w["ready"] for w in workers)
        told = {"workers": workers, "store": store, "worker_restarts": self.restarts}
        return ready, told | ({"reason": "stopping"} if stopping else {})

    def _replica(self) -> dict[str, Any]:
        versions = [c.status["entries_version"] if c.status else None for c in self.children.values()]
        enforced = ("policy", "profile", "lexicon", "terms", "model", "guard", "entries_version")
        workers = [{k: c.status.get(k) for k in enforced} for c in self.children.values() if c.status]
        return {"host": socket.gethostname(), "workers_entries_version": versions, "workers": workers}


async def _report(gateway: Gateway, fd: int) -> None:
    while True:
        try:
            os.write(fd, json.dumps(gateway.status()).encode() + b"\n")
        except BlockingIOError:
            pass
        await asyncio.sleep(STATUS)


async def _child(settings: Settings, fd: int, status: int, store: str | None) -> None:
    os.set_blocking(status, False)
    gateway = create_app(settings, store)
    s, load = gateway.settings, gateway.load
    bounds = Bounds(s.client_header_timeout, s.client_body_timeout, s.client_stall_timeout, fit(raised()))
    server = _uvicorn(gateway, lifespan="on", bounds=bounds)
    draining: list[asyncio.Task[None]] = []

    async def drain(seconds: float) -> None:
        await load.drain(seconds)
        server.should_exit = True

    def stop() -> None:
        if not draining:
            draining.append(asyncio.create_task(drain(s.drain_timeout)))

    def orphaned() -> None:
        server.should_exit = True
        draining.append(asyncio.create_task(drain(0)))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, orphaned)
    serving = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=fd)]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    # What is loaded by now stays: the collector need not walk it while a request waits.
    gc.collect()
    gc.freeze()
    # An exchange makes some hundreds of objects and no cycles: looking for those after every one takes a tenth of its time.
    gc.set_threshold(_YOUNG_OBJECTS)
    report = asyncio.create_task(_report(gateway, status))
    try:
        await serving
    finally:
        report.cancel()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def serve(settings: Settings) -> int:
    """Run the parent until it is told to stop."""
    logs.setup()
    # A core would hold what users wrote.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    parent = Parent(settings)

    def work(orders: dict[str, Any], files: list[int]) -> int:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_child(settings, files[0], files[1], orders["store"]))
        return 0

    parent.nursery = Nursery(work)

    async def main() -> int:
        await parent.run()
        return 1 if parent.failed else 0

    with asyncio.Runner(loop_factory=_loop) as runner:
        status = runner.run(main())
    shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)
    return status
