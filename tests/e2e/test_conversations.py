"""Conversations by the real OpenAI client, through Sluice, with the stand-in and with a real inference server.

The same tests on both; `transformers serve` on a model built here runs in `scripts/test --all`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from app.demo.story import free_port, running
from tests.conftest import Whole, wait_for, whole_gateway
from tests.tiny import build


@dataclass
class Backend:
    """A model's server: its base URL, the model's name, and three things to ask."""

    base_url: str
    name: str
    hello: str
    personal: str
    story: str


def _stand_in(folder: Path) -> Iterator[Backend]:
    port = free_port()
    with running([sys.executable, "-m", "app.demo.model", "--port", str(port)], f"http://127.0.0.1:{port}/v1/models"):
        yield Backend(f"http://127.0.0.1:{port}/v1", "stand-in", "你好", "登记表上写了什么？", "杀青是什么意思")


def _transformers(folder: Path) -> Iterator[Backend]:
    model, port = folder / "tiny", free_port()
    build(model)
    command = [
        str(Path(sys.executable).parent / "transformers"),
        "serve",
        str(model),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    with running(command, f"http://127.0.0.1:{port}/v1/models", env, folder / "serve.log", seconds=120):
        yield Backend(f"http://127.0.0.1:{port}/v1", str(model), "你好", "登记表上写了什么？", "讲一个故事")


_BACKENDS = {"stand-in": _stand_in, "transformers serve": _transformers}


@pytest.fixture(
    scope="module",
    params=["stand-in", pytest.param("transformers serve", marks=[pytest.mark.models, pytest.mark.long])],
)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    yield from _BACKENDS[request.param](tmp_path_factory.mktemp("backend"))


@pytest.fixture(scope="module")
def whole(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_gateway(tmp_path_factory.mktemp("gateway"), backend.base_url) as whole:
        yield whole


def _client(base_url: str) -> OpenAI:
    return OpenAI(base_url=base_url, api_key="test", max_retries=0, timeout=60)


def _turn(*said: str) -> list[Any]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]


def _plain(client: OpenAI, backend: Backend, *said: str) -> tuple[str, str]:
    choice = client.chat.completions.create(model=backend.name, messages=_turn(*said)).choices[0]
    return choice.message.content or "", choice.finish_reason


def _streamed(client: OpenAI, backend: Backend, *said: str) -> tuple[str, str]:
    text, finish = "", ""
    for chunk in client.chat.completions.create(model=backend.name, messages=_turn(*said), stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish


_WAYS = pytest.mark.parametrize("ask", [_plain, _streamed], ids=["plain", "streamed"])


@_WAYS
def test_a_clean_answer_is_the_models_own(whole: Whole, backend: Backend, ask: Any) -> None:
    for said in (backend.hello, backend.story):
        direct = ask(_client(backend.base_url), backend, said)
        assert len(direct[0]) > 20
        assert ask(_client(whole.base_url), backend, said) == direct


@_WAYS
def test_a_conversation_of_several_turns_gets_the_models_own_answers(whole: Whole, backend: Backend, ask: Any) -> None:
    said = [backend.hello]
    for follow in (backend.story, backend.hello):
        answer = ask(_client(whole.base_url), backend, *said)
        assert answer == ask(_client(backend.base_url), backend, *said)
        said += [answer[0], follow]


@_WAYS
def test_personal_information_is_masked_and_nothing_else(whole: Whole, backend: Backend, ask: Any) -> None:
    direct, finish = ask(_client(backend.base_url), backend, backend.personal)
    assert "13800138000" in direct
    expected = direct.replace("13800138000", "*" * 11).replace("demo.user@example.com", "*" * 21)
    assert ask(_client(whole.base_url), backend, backend.personal) == (expected, finish)


@_WAYS
def test_an_answer_is_cut_where_a_live_entry_begins(whole: Whole, backend: Backend, ask: Any) -> None:
    direct, _ = ask(_client(backend.base_url), backend, backend.story)
    term = direct[12:18]
    made = whole.add({"term": term, "scope": {"directions": ["answer"]}}).json()
    try:
        wait_for(lambda: ask(_client(whole.base_url), backend, backend.story)[1] == "content_filter", 5)
        text, _ = ask(_client(whole.base_url), backend, backend.story)
        assert term not in text
        assert text.startswith(direct[:12]) == (ask is _streamed)
        assert direct[18:24] not in text
    finally:
        whole.call("DELETE", f"/entries/{made['id']}")
        wait_for(lambda: ask(_client(whole.base_url), backend, backend.story)[1] == "stop", 5)


@_WAYS
def test_a_refused_prompt_and_the_next_harmless_turn(whole: Whole, backend: Backend, ask: Any) -> None:
    made = whole.add({"term": "不可以问的短语", "scope": {"directions": ["prompt"]}}).json()
    wait_for(lambda: ask(_client(whole.base_url), backend, "不可以问的短语")[1] == "content_filter", 5)
    refusal, _ = ask(_client(whole.base_url), backend, "请讲不可以问的短语")
    assert "slc_" in refusal
    text, finish = ask(_client(whole.base_url), backend, "请讲不可以问的短语", refusal, backend.hello)
    assert (finish, "不可以问" in text) == ("stop", False)
    whole.call("DELETE", f"/entries/{made['id']}")


def test_the_models_are_listed_and_usage_and_ids_come_through(whole: Whole, backend: Backend) -> None:
    client = _client(whole.base_url)
    assert backend.name in {m.id for m in client.models.list()}
    answer = client.chat.completions.create(model=backend.name, messages=_turn(backend.hello))
    own = _client(backend.base_url).chat.completions.create(model=backend.name, messages=_turn(backend.hello))
    assert answer.usage == own.usage
    assert answer.id.startswith("slc_")
    assert answer.model_extra is not None
    assert answer.model_extra["sluice"]["action"] == "pass"


def test_the_older_completions_route(whole: Whole, backend: Backend) -> None:
    for base_url in (backend.base_url, whole.base_url):
        client = _client(base_url)
        plain = client.completions.create(model=backend.name, prompt=backend.hello, max_tokens=16).choices[0].text
        parts = client.completions.create(model=backend.name, prompt=backend.hello, max_tokens=16, stream=True)
        streamed = "".join(c.text for chunk in parts for c in chunk.choices)
        assert plain == streamed


def test_many_streams_at_once_stay_apart(whole: Whole, backend: Backend) -> None:
    expected = {said: _plain(_client(backend.base_url), backend, said)[0] for said in (backend.hello, backend.story)}

    async def ask(client: AsyncOpenAI, said: str) -> tuple[str, str]:
        text = ""
        async for chunk in await client.chat.completions.create(model=backend.name, messages=_turn(said), stream=True):
            text += "".join(c.delta.content or "" for c in chunk.choices)
        return said, text

    async def all_of_them() -> list[tuple[str, str]]:
        async with AsyncOpenAI(base_url=whole.base_url, api_key="test", max_retries=0) as client:
            return await asyncio.gather(*[ask(client, said) for said in [backend.hello, backend.story] * 6])

    for said, text in asyncio.run(all_of_them()):
        assert text == expected[said]


def test_the_client_raises_what_is_wrong_with_a_request(whole: Whole, backend: Backend) -> None:
    with pytest.raises(BadRequestError, match="role"):
        _client(whole.base_url).chat.completions.create(
            model=backend.name,
            messages=[{"role": "wizard", "content": "你好"}],  # type: ignore[misc,list-item]
        )
