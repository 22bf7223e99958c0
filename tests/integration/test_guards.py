"""A guard model behind a socket: what it is sent, what comes of its answers, and that it failing, dawdling or being asked too much is
seen, bounded, and over when its cause is."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import random
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import orjson
import pytest

from app import clock, modelfile
from app.demo.story import free_port
from app.detectors.lexicon import Lexicon, Term
from app.errors import GuardError
from app.guards import formats
from app.guards.guard import AT_ONCE, WAITING, ModelGuard
from app.guards.remote import ANSWER_MAX, Remote
from app.modelfile import GuardFile
from app.moderation import Moderator
from app.policy import Policies, Policy
from app.policyfile import Rules
from app.types import Action, Candidate, Direction, Scope, Slot
from app.web import asgi
from tests.conftest import ROOT, served

TEXT = "这句话是说给别人听的。"


def shipped(name: str) -> GuardFile:
    file = modelfile.read(ROOT / "models" / name)
    assert isinstance(file, GuardFile)
    return file


LLAMA, OPENAI, HOOK = shipped("llama-guard-3"), shipped("openai-moderation"), shipped("hook")
SHIELD, QWEN = shipped("shieldgemma"), shipped("qwen3guard-gen")
SAFE, UNSAFE = "\n\nsafe", "\n\nunsafe\nS1"
WORDS = ("drop", "stall", "wails", "huge", "gzip")


class Place:
    """Where a guard model runs: an HTTP server that does with each request what `does` says. Set it before a request.

    `does`: (path, body) -> what a chat model says (str), a JSON body (dict), bytes as they are, a status (int), or
    one of WORDS: drop (breaks off amid the body), stall (falls silent there), wails (an error without an end), huge, gzip. It
    takes `seconds` for an answer, and longer while `gate` is closed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.does: Callable[[str, dict[str, Any]], Any] = lambda path, body: SAFE
        self.seconds = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.now = self.most = 0

    def says(self, what: Any) -> None:
        self.does = lambda path, body: what

    def shown(self) -> list[str]:
        """The texts that it was asked about."""
        return [body["messages"][-1]["content"] for _, body in self.asked]

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        body = orjson.loads(await asgi.read_body(receive, asgi.headers(scope), 1 << 20))
        query = scope["query_string"].decode()
        path = scope["path"] + (f"?{query}" if query else "")
        self.asked.append((path, body))
        self.headers.append(asgi.headers(scope))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with asgi.watching(scope, receive):
                await asyncio.sleep(self.seconds)
                while not self.gate.is_set():
                    await asyncio.sleep(0.005)
                await self._answer(self.does(path, body), send)
        except asgi.Disconnected:
            pass
        finally:
            self.now -= 1

    async def _answer(self, what: Any, send: asgi.Send) -> None:
        if isinstance(what, str) and what not in WORDS:
            what = completion(what)
        if isinstance(what, dict):
            await asgi.respond_json(send, 200, what)
        elif isinstance(what, int):
            extra = [(b"location", self.url.encode())] if what in (302, 307) else []
            raw = b"" if what == 204 else b'{"error": {"message": "no"}}'
            await asgi.respond(send, what, raw, extra)
        elif isinstance(what, bytes):
            await asgi.respond(send, 200, what, [])
        elif what == "gzip":
            raw = gzip.compress(orjson.dumps(completion(SAFE)))
            await asgi.respond(send, 200, raw, [(b"content-encoding", b"gzip")])
        else:
            status = 500 if what == "wails" else 200
            await send({"type": "http.response.start", "status": status, "headers": []})
            part = b'{"choices": [{"finish_reason": "stop", "message": {"content": "safe"}}'
            if what == "huge":
                part = orjson.dumps(completion("safe", padding="x" * ANSWER_MAX))
                await send({"type": "http.response.body", "body": part})
                return
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if what != "drop":
                await asyncio.sleep(60)


def completion(text: str | None, ending: str | None = "stop", **more: Any) -> dict[str, Any]:
    """A chat completion, as vLLM sends it."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ending, "stop_reason": None}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
            "usage": {"prompt_tokens": 200, "completion_tokens": 3, "total_tokens": 203}, **more}  # fmt: skip


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[dict[str, Place], int]]:
    """Places by the first step of a path, on one port."""
    there: dict[str, Place] = {}

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        first, _, rest = scope["path"].lstrip("/").partition("/")
        await there[first]({**scope, "path": f"/{rest}"}, receive, send)

    with served(app) as port:
        yield there, port


@pytest.fixture
def place(places: tuple[dict[str, Place], int]) -> Iterator[Place]:
    """A fresh one: what is on its way to another when a test ends arrives there."""
    there, port = places
    name = f"p{len(there)}"
    there[name] = place = Place(f"http://127.0.0.1:{port}/{name}/v1")
    yield place
    place.gate.set()


@asynccontextmanager
async def guarding(
    url: str, file: GuardFile = LLAMA, seconds: float = 10.0, key: str | None = None
) -> AsyncIterator[ModelGuard]:
    guard = ModelGuard("guard", file, formats.of(file.format), Remote(url, key, file, seconds), b"k" * 32)
    await guard.start()
    try:
        yield guard
    finally:
        await guard.close()


async def judged(guard: ModelGuard, text: str = TEXT, direction: Direction = "prompt", since: int = 0) -> Any:
    """The candidates, or why there was no answer."""
    try:
        return await guard.judge(text, since, Scope("default", direction))
    except GuardError as e:
        return e.reason


def once(url: str, file: GuardFile = LLAMA, **more: Any) -> Any:
    """What comes of one question."""

    async def ask() -> Any:
        async with guarding(url, file, **more) as guard:
            return await judged(guard)

    return asyncio.run(ask())


def categories(found: list[Candidate]) -> dict[str, float]:
    return {c.category: c.score for c in found}


# ---- what is sent, and what comes back


def test_a_chat_model_is_asked_once_by_name_without_chance_and_with_the_key(place: Place) -> None:
    place.says(UNSAFE)
    found = once(place.url, key="secret")
    assert categories(found) == dict.fromkeys(LLAMA.labels["S1"], 1.0)
    ((path, body),) = place.asked
    assert path == "/v1/chat/completions" and place.headers[0]["authorization"] == "Bearer secret"
    assert body == {
        "model": "meta-llama/Llama-Guard-3-8B", "messages": [{"role": "user", "content": TEXT}], "temperature": 0, "max_tokens": 64
    }  # fmt: skip


def test_without_a_key_or_a_name_none_is_sent(place: Place) -> None:
    assert once(place.url + "/", LLAMA.model_copy(update={"model": ""})) == []
    ((path, body),) = place.asked
    assert path == "/v1/chat/completions" and "model" not in body and "authorization" not in place.headers[0]


def test_a_candidate_lies_over_what_is_new_and_names_the_guard(place: Place) -> None:
    place.says("Safety: Controversial\nCategories: Suicide & Self-Harm\nRefusal: No")

    async def ask() -> list[Candidate]:
        async with guarding(place.url, QWEN) as guard:
            assert guard.covers >= {"self_harm", "violence"}
            return await guard.judge(TEXT, 4, Scope("default", "answer"))

    (found,) = asyncio.run(ask())
    assert found == Candidate(4, len(TEXT), "self_harm", "guard", "guard/self_harm", "suspect", 0.5)


def test_the_moderations_api_is_asked_on_its_route(place: Place) -> None:
    scores = dict.fromkeys(OPENAI.labels, 0.01) | {"violence": 0.9}
    flags = {label: score > 0.5 for label, score in scores.items()}
    place.says({"id": "modr-1", "results": [{"flagged": True, "categories": flags, "category_scores": scores}]})
    assert categories(once(place.url, OPENAI)) == {"violence": 0.9}
    assert place.asked == [("/v1/moderations", {"model": "omni-moderation-latest", "input": TEXT})]


def test_a_hook_is_asked_at_its_very_url(place: Place) -> None:
    place.says({"flagged": True, "labels": ["self_harm", "violence"]})
    url = place.url.removesuffix("/v1") + "/judge/?v=2"
    assert categories(once(url, HOOK)) == {"self_harm": 1.0, "violence": 1.0}
    assert place.asked == [("/judge/?v=2", {"text": TEXT, "direction": "prompt"})]


def test_shieldgemma_is_asked_each_of_its_guidelines_and_any_yes_counts(place: Place) -> None:
    def does(path: str, body: dict[str, Any]) -> Any:
        hate = "Hate Speech" in body["chat_template_kwargs"]["guideline"]
        return completion("Yes" if hate else "No", "length")

    place.does = does
    found = once(place.url, SHIELD)
    assert set(categories(found)) == set(SHIELD.labels["hate_speech"])
    assert len(place.asked) == 4 and all(body["max_tokens"] == 1 for _, body in place.asked)


def test_one_guideline_without_an_answer_is_no_answer(place: Place) -> None:
    def does(path: str, body: dict[str, Any]) -> Any:
        return 500 if "Hate Speech" in body["chat_template_kwargs"]["guideline"] else completion("No", "length")

    place.does = does
    assert once(place.url, SHIELD) == "status"


def test_half_an_emoji_is_sent_as_json_all_the_same(place: Place) -> None:
    async def ask() -> Any:
        async with guarding(place.url) as guard:
            return await judged(guard, "前\ud83d后")

    assert asyncio.run(ask()) == [] and place.shown() == ["前\ufffd后"]


# ---- what is no answer


FAILURES: dict[str, tuple[Any, str]] = {
    "an error of the server": (500, "status"), "an unavailable one": (503, "status"),
    "no such model": (404, "status"), "a wrong key": (401, "status"), "sent elsewhere": (302, "status"),
    "sent elsewhere with the body": (307, "status"), "nothing": (204, "status"),
    "a text that is too long for it": (400, "refused"), "a body that is": (413, "refused"),
    "a text that it cannot take": (422, "refused"), "one too many": (429, "busy"),
    "no JSON": (b"<html>hello</html>", "garbage"), "an empty body": (b"", "garbage"),
    "half a body": (b'{"choices": [', "garbage"), "a list": (b"[]", "garbage"),
    "no UTF-8": (b'{"choices": "\xff"}', "garbage"), "no choice": ({"choices": []}, "garbage"),
    "an error with status 200": ({"error": "oom"}, "garbage"),
    "two choices": (completion(SAFE) | {"choices": completion(SAFE)["choices"] * 2}, "garbage"),
    "no text": (completion(None), "garbage"), "a text cut off": (completion("unsafe\nS1", "length"), "garbage"),
    "a harmless one cut off": (completion(SAFE, "length"), "garbage"),
    "a filtered one": (completion(SAFE, "content_filter"), "garbage"),
    "one without an end": (completion(SAFE, None), "garbage"),
    "a refusal": ("I'm sorry, I can't help with that.", "garbage"), "silence": ("", "garbage"),
    "half a surrogate": ("safe\ud83d", "garbage"), "a transfer that breaks off": ("drop", "unreachable"),
    "more than it may say": ("huge", "garbage"), "a compressed body": ("gzip", "garbage"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_has_its_name_and_is_not_tried_again(place: Place, what: str) -> None:
    does, reason = FAILURES[what]
    if what == "half a surrogate":
        does = orjson.dumps(completion("safe?")).replace(b"?", rb"\ud83d")
    place.says(does)
    assert once(place.url) == reason
    assert len(place.asked) == 1


@pytest.mark.parametrize("what", ["slow", "stall"])
def test_what_does_not_come_in_time_is_late(place: Place, what: str) -> None:
    if what == "slow":
        place.seconds = 30.0
    else:
        place.says("stall")
    began = time.perf_counter()
    assert once(place.url, seconds=0.3) == "late"
    assert time.perf_counter() - began < 5


def test_bytes_that_trickle_in_are_late_too_though_none_keeps_another_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not done.wait(0.02):
                    connection.sendall(b" ")

        threading.Thread(target=serve, daemon=True).start()
        assert once(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", seconds=0.5) == "late"
        done.set()


def test_a_place_that_is_not_there_or_speaks_no_http_is_unreachable() -> None:
    assert once(f"http://127.0.0.1:{free_port()}/v1") == "unreachable"
    assert once("http://169.254.169.254/v1") == "unreachable"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-none\r\n")

        threading.Thread(target=serve, daemon=True).start()
        assert once(f"http://127.0.0.1:{listener.getsockname()[1]}/v1") == "unreachable"


def test_a_classifier_of_this_machine_is_nowhere_else(place: Place) -> None:
    file = GuardFile(kind="guard", format="sequence", labels={"toxic": ["harassment_abuse"]})
    assert once(place.url, file) == "missing" and not place.asked


def test_an_error_that_never_ends_is_not_listened_to(place: Place) -> None:
    place.says("wails")

    async def ask() -> None:
        async with guarding(place.url) as guard:
            assert await judged(guard) == "status"
            await until(lambda: place.now == 0)

    asyncio.run(ask())


def test_no_error_and_no_log_quotes_the_text_or_the_answer(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        async with guarding(place.url) as guard:
            for says in ("我不能谈论这些", 500, 400, b"\xff", "drop"):
                place.says(says)
                with pytest.raises(GuardError) as e:
                    await guard.judge(TEXT, 0, Scope("default", "prompt"))
                told = "".join(traceback.format_exception(e.value))
                assert TEXT not in told and "我不能" not in told and place.url not in told
                assert e.value.__cause__ is None

    with caplog.at_level(logging.DEBUG):
        asyncio.run(ask())
    assert TEXT not in caplog.text and "我不能" not in caplog.text


def test_whoever_stops_waiting_ends_the_question_there_too(place: Place) -> None:
    place.gate.clear()

    async def ask() -> None:
        async with guarding(place.url) as guard:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await guard.judge(TEXT, 0, Scope("default", "prompt"))
            await until(lambda: place.now == 0)

    asyncio.run(ask())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# ---- labels that nobody listed


def moderation(**scores: float) -> dict[str, Any]:
    given = dict.fromkeys(OPENAI.labels, 0.01) | scores
    flags = {label: score > 0.5 for label, score in given.items()}
    return {"results": [{"flagged": any(flags.values()), "categories": flags, "category_scores": given}]}


def test_a_harm_that_model_toml_does_not_know_is_no_answer_and_never_a_pass(place: Place) -> None:
    place.says(moderation(gambling=0.9))
    assert once(place.url, OPENAI) == "unmapped"
    place.says(moderation(gambling=0.9, violence=0.8))
    assert categories(once(place.url, OPENAI)) == {"violence": 0.8}


def test_model_toml_says_what_other_labels_mean_and_that_one_means_nothing(place: Place) -> None:
    labels = OPENAI.labels
    place.says(moderation(gambling=0.9))
    assert categories(once(place.url, OPENAI.model_copy(update={"labels": labels | {"other": ["illegal_acts"]}}))) == {
        "illegal_acts": 0.9
    }
    assert once(place.url, OPENAI.model_copy(update={"labels": labels | {"other": []}})) == []
    place.says(moderation(hate=0.9))
    assert once(place.url, OPENAI.model_copy(update={"labels": labels | {"hate": []}})) == []


def test_what_a_guard_only_has_for_other_labels_its_silence_does_not_clear() -> None:
    file = LLAMA.model_copy(update={"labels": {"S1": ["violence"], "other": ["illegal_acts", "violence"]}})
    guard = ModelGuard("guard", file, formats.of(file.format), Remote("http://127.0.0.1/v1", None, file), b"k")
    assert guard.covers == {"violence"}


# ---- what is remembered


def running(run: Coroutine[Any, Any, None]) -> None:
    asyncio.run(run)


def test_a_text_is_asked_about_once_for_each_direction(place: Place) -> None:
    place.says(UNSAFE)

    async def ask() -> None:
        async with guarding(place.url) as guard:
            found = [await judged(guard) for _ in range(5)]
            assert all(f == found[0] and f for f in found)
            await judged(guard, TEXT, "answer")
            await judged(guard, TEXT + "！")
            await judged(guard)

    running(ask())
    assert place.shown() == [TEXT, TEXT, TEXT + "！"]


def test_what_is_remembered_is_asked_anew_after_ten_minutes(place: Place) -> None:
    now = [1_000_000.0]
    clock.use(lambda: now[0])

    async def ask() -> None:
        async with guarding(place.url) as guard:
            for later, asked in ((0, 1), (599, 1), (2, 2), (598, 2)):
                now[0] += later
                assert await judged(guard) == [] and len(place.asked) == asked

    running(ask())


def test_a_failure_is_not_remembered(place: Place) -> None:
    async def ask() -> None:
        async with guarding(place.url) as guard:
            for does, came in ((500, "status"), (b"{", "garbage"), (SAFE, []), (500, [])):
                place.says(does)
                assert await judged(guard) == came

    running(ask())
    assert len(place.asked) == 3


# ---- how much at once


def test_so_many_questions_are_under_way_at_once_and_all_are_answered(place: Place) -> None:
    place.gate.clear()

    async def ask() -> None:
        async with guarding(place.url) as guard:
            tasks = [asyncio.create_task(judged(guard, f"{TEXT}{n}")) for n in range(3 * AT_ONCE)]
            await until(lambda: place.now == AT_ONCE)
            await asyncio.sleep(0.1)
            assert place.now == AT_ONCE == len(place.asked)
            place.gate.set()
            assert await asyncio.gather(*tasks) == [[]] * (3 * AT_ONCE)

    running(ask())
    assert place.most == AT_ONCE and len(place.asked) == 3 * AT_ONCE


def test_one_more_than_may_wait_is_refused_at_once_and_opens_nothing(place: Place) -> None:
    place.gate.clear()

    async def ask() -> None:
        async with guarding(place.url) as guard:
            waiting = [asyncio.create_task(judged(guard, f"{TEXT}{n}")) for n in range(AT_ONCE + WAITING)]
            await until(lambda: place.now == AT_ONCE)
            assert [await judged(guard, f"{TEXT}more{n}") for n in range(10)] == ["busy"] * 10
            assert len(place.asked) == AT_ONCE
            place.gate.set()
            assert await asyncio.gather(*waiting) == [[]] * (AT_ONCE + WAITING)
            assert await judged(guard, TEXT) == []

    running(ask())


def test_those_who_left_make_room(place: Place) -> None:
    place.gate.clear()

    async def ask() -> None:
        async with guarding(place.url) as guard:
            waiting = [asyncio.create_task(judged(guard, f"{TEXT}{n}")) for n in range(AT_ONCE + WAITING)]
            await until(lambda: place.now == AT_ONCE)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            place.gate.set()
            assert await judged(guard) == []

    running(ask())


# ---- the breaker


def test_after_failures_in_a_row_nothing_is_asked_until_one_question_went_well(place: Place) -> None:
    now = [1_000_000.0]
    clock.use(lambda: now[0])

    async def ask() -> None:
        async with guarding(place.url) as guard:
            place.says(500)
            assert [await judged(guard, f"{TEXT}{n}") for n in range(8)] == ["status"] * 5 + ["open"] * 3
            assert len(place.asked) == 5
            now[0] += 9.9
            assert await judged(guard) == "open"
            now[0] += 0.2
            # One tries; it fails, and it is quiet again.
            assert [await judged(guard), await judged(guard)] == ["status", "open"] and len(place.asked) == 6
            now[0] += 10.1
            place.says(UNSAFE)
            place.gate.clear()
            trial = asyncio.create_task(judged(guard))
            await until(lambda: len(place.asked) == 7)
            assert await judged(guard, TEXT + "！") == "open" and len(place.asked) == 7
            place.gate.set()
            assert await trial
            assert await judged(guard, TEXT + "！") and len(place.asked) == 8

    running(ask())


def test_a_success_in_between_starts_the_count_anew(place: Place) -> None:
    async def ask() -> None:
        async with guarding(place.url) as guard:
            for n in range(20):
                place.says(SAFE if n % 5 == 4 else 500)
                assert await judged(guard, f"{TEXT}{n}") == ([] if n % 5 == 4 else "status")

    running(ask())


@pytest.mark.parametrize("does", [b"{", "no idea", 400, 422, 429])
def test_what_only_one_text_brought_about_opens_nothing(place: Place, does: Any) -> None:
    place.says(does)

    async def ask() -> None:
        async with guarding(place.url) as guard:
            assert "open" not in [await judged(guard, f"{TEXT}{n}") for n in range(12)]
            place.says(SAFE)
            assert await judged(guard) == []

    running(ask())


def test_whoever_leaves_at_once_opens_nothing_and_whoever_waited_in_vain_does(place: Place) -> None:
    place.gate.clear()

    async def ask() -> None:
        async with guarding(place.url) as guard:

            async def leaves(n: int, seconds: float) -> None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await guard.judge(f"{TEXT}{n}", 0, Scope("default", "prompt"))

            await asyncio.gather(*(leaves(n, 0.1) for n in range(8)))
            place.gate.set()
            assert await judged(guard) == []
            place.gate.clear()
            await asyncio.gather(*(leaves(n, 1.1) for n in range(5)))
            assert await judged(guard, TEXT + "！") == "open"

    running(ask())


def test_a_trial_that_says_nothing_of_the_place_leaves_the_next_question_its_turn(place: Place) -> None:
    now = [1_000_000.0]
    clock.use(lambda: now[0])

    async def ask() -> None:
        async with guarding(place.url) as guard:
            place.says(500)
            for n in range(5):
                await judged(guard, f"{TEXT}{n}")
            now[0] += 10.1
            place.says(429)
            assert await judged(guard) == "busy"
            place.gate.clear()
            trial = asyncio.create_task(judged(guard))
            await until(lambda: len(place.asked) == 7)
            trial.cancel()
            await asyncio.gather(trial, return_exceptions=True)
            place.gate.set()
            place.says(SAFE)
            assert await judged(guard) == []

    running(ask())


def test_a_model_with_several_questions_for_a_text_fails_and_recovers_as_one(place: Place) -> None:
    now = [1_000_000.0]
    clock.use(lambda: now[0])

    async def ask() -> None:
        async with guarding(place.url, SHIELD) as guard:
            place.says(500)
            assert [await judged(guard, f"{TEXT}{n}") for n in range(6)] == ["status"] * 5 + ["open"]
            now[0] += 10.1
            place.says(completion("No", "length"))
            assert await judged(guard) == [] == await judged(guard, TEXT + "！")

    running(ask())


# ---- long texts


def test_a_long_text_is_shown_in_windows_that_leave_nothing_new_out(place: Place) -> None:
    dice = random.Random(5)

    async def ask() -> None:
        for _ in range(40):
            size = dice.choice((100, 101, 150, 200, 201, 399, 400, 401, 1000, 4000))
            length = dice.choice((1, size - 1, size, size + 1, dice.randint(1, 9 * size)))
            since = dice.choice((0, 0, length - 1, max(0, length - size), dice.randrange(length)))
            # Each character once, so that a window tells where it lies.
            text = "".join(map(chr, range(0x4E00, 0x4E00 + min(length, 20000))))[:length]
            length = len(text)
            since = min(since, length - 1)
            place.asked.clear()
            async with guarding(place.url, LLAMA.model_copy(update={"window": size})) as guard:
                assert await judged(guard, text, since=since) == []
            windows = sorted((text.index(shown), len(shown)) for shown in place.shown())
            case = (size, length, since, windows)
            assert all(n <= size for _, n in windows) and len(windows) == len(set(windows)), case
            assert windows[-1][0] + windows[-1][1] == length and windows[0][0] <= since, case
            for (a, n), (b, _) in pairwise(windows):
                assert a < b < a + n, case  # they overlap
            # What stands before what is new is shown with it, as far as there is any and it fits.
            assert windows[0][0] <= max(0, since - min(200, size // 2)) or len(windows) == 1, case
            assert len(windows) <= 2 + 2 * (length - since) / size + 2, case

    running(ask())


@pytest.mark.parametrize("at", [0, 0.3, 0.5, 0.97])
def test_what_stands_anywhere_in_a_long_text_is_found(place: Place, at: float) -> None:
    place.does = lambda path, body: UNSAFE if "坏" in body["messages"][-1]["content"] else SAFE
    text = "好" * 20_000
    where = int(at * len(text))
    text = text[:where] + "坏" + text[where:]

    async def ask() -> None:
        async with guarding(place.url) as guard:
            found = await judged(guard, text)
            assert {c.category for c in found} == set(LLAMA.labels["S1"])
            assert all((c.start, c.end) == (0, len(text)) for c in found)
            place.says(500)
            assert await judged(guard, "前" + text) == "status"

    running(ask())


# ---- what comes of it


@pytest.mark.parametrize(
    ("says", "action", "degraded"),
    [(UNSAFE, Action.BLOCK, []), (SAFE, Action.PASS, []), ("unsafe\nS12", Action.FLAG, []), (500, Action.FLAG, ["guard"]),
     ("maybe", Action.FLAG, ["guard"]), ("unsafe\nS99", Action.FLAG, ["guard"])],
)  # fmt: skip
def test_a_guard_confirms_a_suspicion_or_drops_it_and_without_an_answer_it_stays(
    place: Place, says: Any, action: Action, degraded: list[str]
) -> None:
    place.says(says)
    policy = Policy(Rules(), "draft_2023_04", "test")
    lexicon = Lexicon([Term("警示短语", "violence", tier="suspect")])

    async def ask() -> Any:
        async with guarding(place.url) as guard:
            moderator = Moderator([lexicon], Policies(policy, {}), guards=[guard])
            return await moderator.judge(
                [Slot(("a",), "这里有警示短语。", "assistant")], Scope("default", "answer"), policy
            )

    verdict = asyncio.run(ask()).verdict
    assert (verdict.action, verdict.degraded) == (action, degraded) and len(place.asked) == 1
