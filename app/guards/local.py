"""A guard model from a path on this machine (SLUICE_GUARD_PATH), in a process of its own: app.guards.worker, at the other end of a pipe.

Law: one question at a time goes through the pipe, and whoever stops waiting for its answer changes nothing in that. A worker that
is silent too long is killed; one that ends is started anew, after pauses that grow; a model that cannot be loaded is tried again
when its folder changes, and now and then. Until a model is loaded every question is answered by GuardError("missing"). No text of a
user reaches a log: of a failure the worker tells a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.errors import GuardError, ModelError
from app.guards.formats import Request
from app.guards.frames import frame, read
from app.modelfile import GuardFile

log = logging.getLogger("sluice.guards")

WORKER = (sys.executable, "-m", "app.guards.worker")
_LONG_ENOUGH = 10.0
"""A worker that answered for so many seconds did not die of its start."""
_GRACE = 5.0
"""Seconds that a killed worker gets to be gone."""
_REASONS = frozenset({"late", "garbage", "refused", "crashed"})
"""What a worker may give for a reason."""
_TOLD = 400
"""Characters of what a worker says is wrong with a model."""


class Times(NamedTuple):
    """Seconds."""

    question: float = 60.0
    """After which a worker that owes an answer is killed; no policy lets a guard take longer."""
    loading: float = 600.0
    poll: float = 0.5
    """Between two looks at a folder whose model could not be loaded."""
    retry: float = 30.0
    """After which such a model is tried again though nothing changed."""
    pauses: tuple[float, float] = (0.1, 60.0)
    """Before a worker is started anew: the first, and the longest."""


TIMES = Times()


class _Question:
    """Somebody waits for `answer`. `number`: under which it went through the pipe."""

    __slots__ = ("answer", "number", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.number = 0

    def fail(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(GuardError(reason))
            self.answer.exception()  # seen: who asked may have gone


class Local:
    """Answers (app.guards.guard) of the model in `path`. `name`: of the guard, in logs. `command`: what is started as its worker."""

    def __init__(
        self,
        path: Path,
        file: GuardFile,
        name: str,
        threads: int = 1,
        times: Times = TIMES,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._path, self._file, self._name, self._threads = path.absolute(), file, name, threads
        self._times, self._command = times, command
        self._kind: str | None = None  # what the model that is loaded answers, while it does
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: deque[_Question] = deque()
        self._under_way: _Question | None = None
        self._more = asyncio.Event()  # a question waits, or the worker has ended
        self._number = 0
        self._told = ""
        self._keeping: asyncio.Task[None] | None = None

    @property
    def kind(self) -> str | None:
        """Of the requests that it answers; None while no model is loaded."""
        return self._kind

    async def start(self) -> None:
        """Begin to load; does not wait until it is done."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def ask(self, request: Request) -> bytes:
        """See app.guards.guard.Answers. May be cancelled at any time."""
        if request.kind != self._kind:
            if self._kind is not None:
                self._tell(
                    f"the format {self._file.format!r} asks for {request.kind}, and the model gives {self._kind}"
                )
            raise GuardError("missing")
        question = _Question(request)
        self._waiting.append(question)
        self._more.set()
        try:
            return await question.answer
        except asyncio.CancelledError:
            self._give_up(question)
            raise

    def _give_up(self, question: _Question) -> None:
        """Nobody waits for it any more: it need not be asked, or not be answered."""
        if question is not self._under_way:
            with contextlib.suppress(ValueError):
                self._waiting.remove(question)
        elif self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frame({"stop": question.number}))

    def _tell(self, reason: str) -> None:
        """Log why there is no model; once, though it is tried again."""
        if reason != self._told:
            self._told = reason
            log.error("guard model cannot be used, its questions go unanswered", extra=self._extra(reason=reason))

    def _extra(self, **more: Any) -> dict[str, Any]:
        return {"guard": self._name, **more}

    # ---- the worker

    async def _keep(self) -> None:
        """Have a worker, for as long as we live."""
        clock = asyncio.get_running_loop().time
        pause = 0.0
        while True:
            seen = await asyncio.to_thread(_stamps, self._path)
            began = clock()
            try:
                if not any(name == "config.json" for name, *_ in seen):
                    raise ModelError(f"{self._path}: no model here: it has no config.json")
                await self._run()
            except ModelError as e:
                self._tell(str(e))
                await self._change(seen)
                continue
            except TimeoutError:
                log.error("guard worker was silent too long and is killed", extra=self._extra())
            except ValueError:
                log.error("guard worker answered what was not asked and is killed", extra=self._extra())
            except (EOFError, OSError) as e:
                code = None if self._process is None else self._process.returncode
                log.error("guard worker died", extra=self._extra(code=code, error=type(e).__name__))
            finally:
                self._process = None
            first, most = self._times.pauses
            pause = first if clock() - began > _LONG_ENOUGH or not pause else min(pause * 2, most)
            await asyncio.sleep(pause)

    async def _change(self, seen: list[tuple[str, int, int]]) -> None:
        """Wait until the folder is no longer as it was `seen` and nobody writes to it, or for a while."""
        loop = asyncio.get_running_loop()
        end, last = loop.time() + self._times.retry, seen
        while loop.time() < end:
            await asyncio.sleep(self._times.poll)
            now = await asyncio.to_thread(_stamps, self._path)
            if now != seen and now == last:
                return
            last = now

    async def _run(self) -> None:
        """Have one worker answer until it ends. Raises ModelError with what it says is wrong with the model, TimeoutError where it is
        silent, EOFError or OSError where it died, ValueError where it sends what it should not."""
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=_environment(), start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        ended = asyncio.create_task(process.wait())
        ended.add_done_callback(lambda _: self._more.set())
        try:
            await self._load(process.stdin, process.stdout)
            await self._serve(process.stdin, process.stdout, ended)
        finally:
            self._kind = None
            for question in (*([self._under_way] if self._under_way is not None else []), *self._waiting):
                question.fail("crashed")
            self._waiting.clear()
            self._under_way = None
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            process.stdin.close()
            with contextlib.suppress(OSError):  # TimeoutError is one
                async with asyncio.timeout(_GRACE):
                    # Where something is left to read, some versions of asyncio never tell the end.
                    while await process.stdout.read(1 << 16):
                        pass
                    await ended
                    await process.stdin.wait_closed()

    async def _load(self, there: asyncio.StreamWriter, back: asyncio.StreamReader) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(self._times.loading):
            there.write(frame({"path": str(self._path), "threads": self._threads, "files": self._file.files}))
            told = await read(back)
        if not isinstance(loaded := told.get("loaded"), str):
            raise ModelError(" ".join(str(told.get("failed")).split())[:_TOLD])
        self._kind, self._told = loaded, ""
        seconds = round(asyncio.get_running_loop().time() - began, 1)
        log.info("guard model loaded", extra=self._extra(answers=self._kind, seconds=seconds))

    async def _serve(self, there: asyncio.StreamWriter, back: asyncio.StreamReader, ended: asyncio.Task[int]) -> None:
        """Put one question after the other."""
        while True:
            while self._waiting:
                question = self._under_way = self._waiting.popleft()
                self._number += 1
                question.number = self._number
                try:
                    said = await self._put(question, there, back)
                except TimeoutError:
                    question.fail("late")
                    raise
                self._under_way = None
                if isinstance(said, GuardError):
                    question.fail(said.reason)
                elif not question.answer.done():
                    question.answer.set_result(said)
            self._more.clear()
            if ended.done():
                raise EOFError
            await self._more.wait()

    async def _put(
        self, question: _Question, there: asyncio.StreamWriter, back: asyncio.StreamReader
    ) -> bytes | GuardError:
        request = question.request
        asked = {
            "id": question.number, "text": request.text, "messages": request.messages, "max_tokens": request.max_tokens,
            "template": dict(request.template or {}), "cut": request.cut,
        }  # fmt: skip
        async with asyncio.timeout(self._times.question):
            there.write(frame(asked))
            await there.drain()
            told = await read(back)
        if told.get("id") != question.number:
            raise ValueError("another's answer")
        if isinstance(said := told.get("said"), str):
            return said.encode("utf-8", "replace")
        if error := told.get("error"):
            log.error("guard model failed", extra=self._extra(error=str(error)))
        reason = told.get("failed")
        return GuardError(reason if reason in _REASONS else "crashed")


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """What tells a changed folder: names, times and sizes of what is in it."""
    stamps = []
    with contextlib.suppress(OSError):
        for file in path.iterdir():
            with contextlib.suppress(OSError):
                state = file.stat()
                stamps.append((file.name, state.st_mtime_ns, state.st_size))
    return sorted(stamps)


def _environment() -> dict[str, str]:
    """Ours without our settings, for there are secrets among them, and without the folder where our processes count."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_") and k != "PROMETHEUS_MULTIPROC_DIR"}
