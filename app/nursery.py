"""The nursery: a process that has everything imported and does nothing but fork the workers, so that one that dies is back at once.

Law: it is forked before its parent has a loop or a thread of its own, and keeps to one thread, so that a fork of it is a whole process
and not half of one. It ends with its parent, and its workers end with it. (A prefork server in the way of W. R. Stevens, UNIX Network
Programming, 30.6; what gunicorn calls preloading.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from app.errors import SluiceError

log = logging.getLogger("sluice.nursery")

_PDEATHSIG, _NAME = 1, 15
"""Of prctl(2)."""
_MOST = 1 << 16
_NONE = -1
"""Instead of a process: the machine gave none."""


def _called(name: str, dies: signal.Signals) -> None:
    """Show this process under `name`, and have the kernel end it with its parent."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PDEATHSIG, dies)
        libc.prctl(_NAME, name.encode())


class Worker:
    """A forked process, as its parent sees it. `code`: how it ended, once it has; minus a signal's number, or an exit status."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self._over = asyncio.Event()

    async def wait(self) -> int:
        await self._over.wait()
        assert self.code is not None
        return self.code

    def ended(self, code: int) -> None:
        self.code = code
        self._over.set()

    def signal(self, number: signal.Signals) -> None:
        """Does nothing where it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Nursery:
    """The parent's end. `work`: what a worker does, given its orders and the file descriptors that come with them; its result is the exit
    status."""

    def __init__(self, work: Callable[[dict[str, Any], list[int]], int]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        # What is there now is shared by all that are forked, for as long as nobody writes to it.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _tend(theirs, work, parent)
            finally:
                os._exit(1)  # whatever happens, it never goes on as its parent
        gc.unfreeze()
        theirs.close()
        ours.setblocking(False)
        self._socket, self._pid = ours, pid
        self._workers: dict[int, Worker] = {}
        self._early: dict[int, int] = {}
        """Ended before anybody knew that they had begun."""
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Listen to it until it ends, which is a failure."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def told() -> None:
            try:
                said = self._socket.recv(_MOST)
            except BlockingIOError:
                return
            if not said:
                loop.remove_reader(self._socket.fileno())
                over.set()
                return
            for event in json.loads(said):
                self._tell(event)

        loop.add_reader(self._socket.fileno(), told)
        await over.wait()
        raise RuntimeError("the nursery has ended")

    def _tell(self, event: dict[str, int]) -> None:
        if "born" in event:
            self._born.put_nowait(event["born"])
        elif (worker := self._workers.pop(event["died"], None)) is not None:
            worker.ended(event["code"])
        else:
            self._early[event["died"]] = event["code"]

    async def fork(self, orders: dict[str, Any], files: list[int]) -> Worker:
        """A new worker, with copies of these file descriptors. `run` must be running."""
        async with self._one:
            socket.send_fds(self._socket, [json.dumps(orders).encode()], files)
            pid = await self._born.get()
            worker = Worker(pid)
            if pid == _NONE:
                worker.ended(1)
            elif (code := self._early.pop(pid, None)) is not None:
                worker.ended(code)
            else:
                self._workers[pid] = worker
            return worker

    def close(self) -> None:
        """End it; workers that are left end with it."""
        with contextlib.suppress(OSError):
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _tend(control: socket.socket, work: Callable[[dict[str, Any], list[int]], int], parent: int) -> NoReturn:
    """The nursery's own life. A signal of the terminal is for the parent alone."""
    os.setsid()
    _called("sluice-nursery", signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A signal to all of them at once is for the parent, who lets workers end their answers, and ends us by closing its socket.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    raw, files, _, _ = socket.recv_fds(control, _MOST, 8)
                    if not raw:
                        os._exit(0)
                    mother = os.getpid()
                    try:
                        pid = os.fork()
                    except OSError:
                        pid = _NONE
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                            signal.signal(number, signal.SIG_DFL)
                        selector.close()
                        for fd in (control.fileno(), wake, woken):
                            os.close(fd)
                        _live(work, json.loads(raw), files, mother)
                    for fd in files:
                        os.close(fd)
                    control.send(json.dumps([{"born": pid}]).encode())
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, _MOST)
                    if died := _reaped():
                        control.send(json.dumps(died).encode())


def _reaped() -> list[dict[str, int]]:
    died = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            died.append({"died": pid, "code": os.waitstatus_to_exitcode(status)})
    return died


def _live(
    work: Callable[[dict[str, Any], list[int]], int], orders: dict[str, Any], files: list[int], mother: int
) -> NoReturn:
    """A worker's life: it never returns into the nursery's."""
    status = 1
    try:
        os.setsid()
        # SIGHUP, not SIGTERM: its ports are wanted by the next one at once.
        _called("sluice-worker", signal.SIGHUP)
        if os.getppid() == mother:
            status = work(orders, files)
    except SluiceError as e:
        log.critical("a worker cannot start", extra={"reason": str(e)})
    except BaseException:
        log.critical("a worker failed", exc_info=True)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
