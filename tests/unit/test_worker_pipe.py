"""A guard's worker from outside: whatever it or whoever asks does, an answer is that of its question, and a worker comes back.

The worker is a real process (tests/standin.py): the real pipe around a stand-in for the model, so that nothing here needs torch.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from app.errors import GuardError
from app.guards.formats import Request
from app.guards.local import WORKER, Local, Times
from app.modelfile import GuardFile
from tests.conftest import ROOT, wait_for

STANDIN = (sys.executable, "-m", "tests.standin")
QUICK = Times(question=60.0, loading=60.0, poll=0.05, retry=60.0, pauses=(0.05, 1.0))
CANARY = "金丝雀句子"

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """Run to the end, in the loop that serves unless a test says both."""

    def to_the_end(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=getattr(request, "param", uvloop.new_event_loop)) as runner:
            runner.run(work)

    return to_the_end


in_both = pytest.mark.parametrize(
    "run", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"], indirect=True
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose model can be loaded."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("fine")
    return folder


def starts(folder: Path) -> list[float]:
    """When a worker began to load, so far."""
    record = folder.parent / "starts"
    return [float(line) for line in record.read_text().split()] if record.exists() else []


def question(text: str, kind: Any = "scores") -> Request:
    return Request(kind, text)


async def said(local: Local, text: str) -> str:
    return (await local.ask(question(text))).decode()


async def reason(local: Local, text: str, kind: Any = "scores") -> str:
    """Why there is no answer."""
    with pytest.raises(GuardError) as failed:
        await local.ask(question(text, kind))
    assert CANARY not in str(failed.value)
    return failed.value.reason


async def tried(local: Local, text: str) -> str:
    """The answer, or why there is none."""
    try:
        return await said(local, text)
    except GuardError as e:
        return e.reason


async def ready(local: Local, seconds: float = 60.0) -> None:
    """Wait until questions are answered."""
    end = time.monotonic() + seconds
    while (told := await tried(local, "好")) != "好":
        assert told in ("missing", "crashed") and time.monotonic() < end, told
        await asyncio.sleep(0.02)


def local_of(
    folder: Path, times: Times = QUICK, command: Sequence[str] = STANDIN, files: dict[str, str] | None = None
) -> Local:
    file = GuardFile(kind="guard", format="sequence", labels={"harmful": ["violence"]}, files=files or {})
    return Local(folder, file, "guard", 1, times, command)


@asynccontextmanager
async def started(folder: Path, times: Times = QUICK, command: Sequence[str] = STANDIN) -> AsyncIterator[Local]:
    """One that answers."""
    local = local_of(folder, times, command)
    await local.start()
    try:
        await ready(local)
        yield local
    finally:
        await local.close()


# ---- answers


@in_both
def test_each_of_many_questions_at_once_gets_its_own_answer(folder: Path, run: Run) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            texts = [f"{n} {'字' * (n % 7)}" for n in range(300)] + ["字" * 100_000, "", "\n\x00👍"]
            assert await asyncio.gather(*(said(local, text) for text in texts)) == texts
            assert await said(local, "半个\ud83d字") == "半个\ufffd字", "a lone surrogate has no form outside"

    run(ask())
    assert len(starts(folder)) == 1


@in_both
def test_who_stops_waiting_leaves_no_answer_for_the_next(folder: Path, run: Run) -> None:
    dice = random.Random(1)
    outcomes: list[bool] = []

    async def impatient(local: Local, n: int) -> None:
        text = f"{dice.choice(('wait', 'at once'))}:{n}"
        try:
            async with asyncio.timeout(dice.choice((0.0, 0.001, 0.005, 0.02, 5.0))):
                assert await said(local, text) == text
            outcomes.append(True)
        except TimeoutError:
            outcomes.append(False)

    async def ask() -> None:
        async with started(folder) as local:
            for _ in range(25):
                await asyncio.gather(*(impatient(local, n) for n in range(12)))
            for n in range(20):
                assert await said(local, f"after {n}") == f"after {n}"

    run(ask())
    assert 30 < sum(outcomes) < 270, "some of both"
    assert len(starts(folder)) == 1


def test_what_nobody_waits_for_any_more_holds_nobody_up(folder: Path, run: Run) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await said(local, "slow")
            began = time.monotonic()
            assert await said(local, "next") == "next"
            assert time.monotonic() - began < 15, "seconds, where each of the three would take 20"

    run(ask())
    assert len(starts(folder)) == 1


def test_what_a_model_prints_gets_into_no_answer_and_to_no_screen(
    folder: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            for _ in range(3):
                assert await said(local, "print:" + CANARY) == "print:" + CANARY

    run(ask())
    assert CANARY not in "".join(capfd.readouterr())


def test_a_model_that_fails_on_a_text_tells_a_word_and_goes_on(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            assert await reason(local, "raise:" + CANARY) == "crashed"
            assert await reason(local, "garbage:" + CANARY) == "garbage"
            assert await said(local, "next") == "next"

    run(ask())
    assert len(starts(folder)) == 1
    assert [r.__dict__["error"] for r in caplog.records if r.levelno == logging.ERROR] == ["ValueError"]
    assert CANARY not in str([r.__dict__ for r in caplog.records]) + "".join(capfd.readouterr())


def test_a_worker_sees_none_of_our_settings(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_SECRET_KEY", "canary")

    async def ask() -> None:
        async with started(folder) as local:
            assert await said(local, "secrets") == ""

    run(ask())


def test_a_format_that_asks_for_what_the_model_does_not_give_has_no_answer(folder: Path, run: Run) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            for kind in ("chat", "hook", "moderations"):
                assert await reason(local, "好", kind) == "missing"
            assert await said(local, "好") == "好"

    run(ask())


# ---- workers that end, hang, or speak nonsense


@pytest.mark.parametrize("how", ["by itself", "by another"])
def test_a_worker_that_dies_fails_the_questions_under_way_and_comes_back(folder: Path, run: Run, how: str) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            pid = int(await said(local, "pid"))
            under_way = [
                asyncio.create_task(reason(local, text)) for text in ("die" if how == "by itself" else "slow", "b", "c")
            ]
            await asyncio.sleep(0.1)
            if how == "by another":
                os.kill(pid, signal.SIGKILL)
            assert await asyncio.gather(*under_way) == ["crashed"] * 3
            assert await reason(local, "meanwhile") == "missing"
            await ready(local)
            assert int(await said(local, "pid")) != pid

    run(ask())
    assert len(starts(folder)) == 2


def test_a_worker_that_dies_while_nothing_is_asked_comes_back(folder: Path, run: Run) -> None:
    async def ask() -> None:
        async with started(folder) as local:
            os.kill(int(await said(local, "pid")), signal.SIGKILL)
            await asyncio.sleep(0.2)
            await ready(local)

    run(ask())


@in_both
def test_a_worker_that_hangs_is_killed_at_the_deadline_and_the_next_question_is_answered(
    folder: Path, run: Run
) -> None:
    async def ask() -> None:
        async with started(folder, QUICK._replace(question=2.0)) as local:
            pid = int(await said(local, "pid"))
            began = time.monotonic()
            assert await asyncio.gather(reason(local, "hang"), reason(local, "behind it")) == ["late", "crashed"]
            assert 1.9 < time.monotonic() - began < 60
            await ready(local)
            assert not psutil.pid_exists(pid)

    run(ask())


def test_a_worker_that_hangs_is_killed_though_nobody_waits_any_more(folder: Path, run: Run) -> None:
    async def ask() -> None:
        async with started(folder, QUICK._replace(question=2.0)) as local:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await said(local, "hang")
            # More than the pipe takes: nobody reads it at the other end.
            assert await reason(local, "字" * 100_000) == "crashed"
            await ready(local)

    run(ask())


@pytest.mark.parametrize("how", ["noise", "half", "no JSON", "no object", "another's", "twice", "neither"])
def test_what_is_no_answer_is_taken_for_none_and_never_for_the_next(folder: Path, how: str, run: Run) -> None:
    async def ask() -> None:
        async with started(folder, QUICK._replace(question=5.0), (*STANDIN, how)) as local:
            assert await tried(local, "bad") == ("bad" if how == "twice" else "crashed")
            for text in ("one", "two"):
                assert await tried(local, text) in (text, "crashed", "missing")
            await ready(local)

    run(ask())


def test_a_worker_that_dies_again_and_again_is_started_less_and_less_often(folder: Path, run: Run) -> None:
    (folder / "config.json").write_text("dies")

    async def ask() -> None:
        local = local_of(folder, QUICK._replace(pauses=(0.2, 60.0)))
        await local.start()
        await asyncio.to_thread(wait_for, lambda: len(starts(folder)) == 4, 60)
        assert await reason(local, "好") == "missing"
        await local.close()

    run(ask())
    first, _, last = (b - a for a, b in pairwise(starts(folder)))
    assert first >= 0.2 and last >= 0.8


@pytest.mark.long
def test_a_model_that_never_ends_loading_is_given_up(folder: Path, run: Run) -> None:
    (folder / "config.json").write_text("hangs")

    async def ask() -> None:
        local = local_of(folder, QUICK._replace(loading=15.0))
        await local.start()
        await asyncio.to_thread(wait_for, lambda: len(starts(folder)) >= 1, 60)
        assert await reason(local, "好") == "missing"
        (folder / "config.json").write_text("fine")
        await ready(local)
        await local.close()

    run(ask())


# ---- models that cannot be loaded


def test_a_model_that_is_not_there_is_missing_and_found_when_it_comes(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"

    async def ask() -> None:
        local = local_of(folder)
        await local.start()
        for _ in range(5):
            assert await reason(local, "好") == "missing"
            await asyncio.sleep(0.05)
        folder.mkdir()
        (folder / "weights").write_text("first")
        await asyncio.sleep(0.3)
        assert await reason(local, "好") == "missing"
        (folder / "config.json").write_text("fine")
        await ready(local)
        await local.close()

    run(ask())
    assert len(starts(folder)) == 1, "nothing is started before there is something to load"
    told = [r.__dict__["reason"] for r in caplog.records if r.levelno == logging.ERROR]
    assert told == [f"{folder}: no model here: it has no config.json"], "once"


def test_a_model_that_cannot_be_loaded_is_tried_again_when_its_folder_changes(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "config.json").write_text("fails")

    async def ask() -> None:
        local = local_of(folder)
        await local.start()
        await asyncio.to_thread(wait_for, lambda: len(starts(folder)) == 1, 60)
        await asyncio.sleep(0.5)
        assert await reason(local, "好") == "missing"
        (folder / "config.json").write_text("fine")
        await ready(local)
        await local.close()

    run(ask())
    assert len(starts(folder)) == 2
    assert [r.__dict__["reason"] for r in caplog.records if r.levelno == logging.ERROR] == ["no such model"]


def test_a_model_that_cannot_be_loaded_is_tried_again_now_and_then_though_nothing_changes(
    folder: Path, run: Run
) -> None:
    (folder / "config.json").write_text("fails")

    async def ask() -> None:
        local = local_of(folder, QUICK._replace(retry=0.3))
        await local.start()
        await asyncio.to_thread(wait_for, lambda: len(starts(folder)) >= 3, 60)
        await local.close()

    run(ask())


def test_a_file_that_is_not_the_one_of_model_toml_is_not_used(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    right = b"weights " * 1000
    (folder / "weights").write_bytes(b"others")

    async def ask() -> None:
        local = local_of(folder, files={"weights": hashlib.sha256(right).hexdigest()})
        await local.start()
        await asyncio.to_thread(wait_for, lambda: bool(caplog.records), 60)
        assert await reason(local, "好") == "missing"
        (folder / "weights").write_bytes(right)
        await ready(local)
        await local.close()

    run(ask())
    (told,) = [r.__dict__["reason"] for r in caplog.records if r.levelno == logging.ERROR]
    assert told == f"{folder / 'weights'}: its SHA-256 is not the one in model.toml"


# ---- the end


@in_both
def test_nothing_is_left_after_the_end_and_who_still_waits_is_told(folder: Path, run: Run) -> None:
    async def ask() -> None:
        local = local_of(folder)
        await local.start()
        await ready(local)
        pid = int(await said(local, "pid"))
        waiting = asyncio.create_task(reason(local, "slow"))
        await asyncio.sleep(0.1)
        await local.close()
        assert await waiting == "crashed"
        assert not psutil.pid_exists(pid)
        assert await reason(local, "好") == "missing"
        await local.close()

    run(ask())


_PARENT = """
import asyncio, sys
from pathlib import Path
from app.guards.formats import Request
from app.guards.local import Local
from app.modelfile import GuardFile

async def main():
    local = Local(Path(sys.argv[1]), GuardFile(kind="guard", format="f", labels={"l": []}), "guard", command=sys.argv[3:])
    await local.start()
    while local.kind is None:
        await asyncio.sleep(0.02)
    print((await local.ask(Request("scores", "pid"))).decode(), flush=True)
    if sys.argv[2]:
        await local.ask(Request("scores", sys.argv[2]))
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("doing", ["", "slow", "hang"])
def test_a_worker_ends_with_its_parent_whatever_it_is_doing(folder: Path, doing: str) -> None:
    command = [sys.executable, "-c", _PARENT, str(folder), doing, *STANDIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.2)
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=5)
    for process in alive:
        process.kill()
    assert gone and not alive


def test_the_real_worker_says_what_is_not_installed_or_wrong(
    folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "config.json").write_text("{}")

    async def ask() -> None:
        local = local_of(folder, command=WORKER)
        await local.start()
        await asyncio.to_thread(wait_for, lambda: bool(caplog.records), 60)
        assert await reason(local, "好") == "missing"
        await local.close()

    run(ask())
    (told,) = [r.__dict__["reason"] for r in caplog.records]
    assert str(folder) in told or "sluice-gateway[models]" in told
