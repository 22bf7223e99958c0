"""The snippets of docs/recipes, run as they stand: a real `sluice serve` before the stand-in model, the real clients. A page's blocks
are one program, in the order in which a reader meets them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from app.demo import model as demo
from tests.conftest import ROOT, Running, Whole, served, whole_gateway

SHOWN = "http://127.0.0.1:8100"
"""Where the pages have Sluice."""
STOPPED = "货到付款"
"""Of the advertisement that is stopped half-way, what never goes out."""


pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's

Program = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with (
        served(demo.Model()) as port,
        whole_gateway(tmp_path_factory.mktemp("recipes"), f"http://127.0.0.1:{port}/v1") as whole,
    ):
        yield whole


@pytest.fixture
def run(whole: Whole) -> Program:
    """run(page) -> what its Python blocks leave behind."""

    def run(page: str) -> dict[str, Any]:
        text = (ROOT / "docs" / "recipes" / page).read_text("utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
        assert SHOWN in "".join(blocks)
        left: dict[str, Any] = {"__name__": page}
        for block in blocks:
            exec(compile(block.replace(SHOWN, whole.url), page, "exec"), left)
        return left

    return run


def test_the_openai_page_asks_streams_reads_the_header_and_reports(
    run: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    left = run("openai-sdk.md")
    out = capsys.readouterr().out
    assert demo.GREETING in out and "/sluice/v1/appeals https://www.12377.cn" in out and "（AI生成）" in out
    assert STOPPED not in out
    assert left["raw"].headers["x-sluice-decision"] == left["answer"].id
    assert (left["ticket"]["state"], left["state"]) == ("verified", "verified")
    text, end, sluice = left["ask"]("写一段广告")
    assert (end, sluice["action"]) == ("content_filter", "block")
    assert sluice["decision"] in text


def test_the_anthropic_page_asks_streams_and_reports(run: Program, capsys: pytest.CaptureFixture[str]) -> None:
    left = run("anthropic-sdk.md")
    out = capsys.readouterr().out
    assert "refusal block" in out and "202 verified" in out and STOPPED not in out
    assert left["final"].stop_reason == "refusal"
    assert left["final"].id == left["stream"].response.headers["x-sluice-decision"]
    assert left["message"].model_extra["sluice"]["decision"] == left["message"].id


def test_the_langchain_page_asks_streams_and_keeps_the_receipt(
    run: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    left = run("langchain.md")
    assert STOPPED not in capsys.readouterr().out
    assert left["answer"].response_metadata["finish_reason"] == "content_filter"
    kept = left["message"].response_metadata
    assert kept["sluice"]["decision"] == kept["id"]
    pieces = list(left["keeping"].stream("写一段广告"))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.response_metadata["sluice"]["action"] == "block"


def test_blocked_as_error_is_what_the_pages_say_of_it(make_gateway: Callable[..., Running]) -> None:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "写一段广告"}]}
    with served(demo.Model()) as port:
        gateway = make_gateway("blocked_as: error", upstream_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(openai.BadRequestError) as told:
            openai.OpenAI(base_url=gateway.base_url, api_key="k").chat.completions.create(**asked)
        with pytest.raises(anthropic.BadRequestError):
            anthropic.Anthropic(base_url=gateway.url, api_key="k").messages.create(**asked, max_tokens=99)
    assert told.value.code == "content_filter"
    assert told.value.response.headers["x-sluice-decision"] in told.value.body["message"]  # type: ignore[index]


def test_a_helper_that_parses_raises_what_the_page_says(whole: Whole) -> None:
    client = openai.OpenAI(base_url=whole.base_url, api_key="k")
    with pytest.raises(openai.ContentFilterFinishReasonError) as raised:
        client.chat.completions.parse(model="m", messages=[{"role": "user", "content": "写一段广告"}])
    assert raised.value.completion.id.startswith("slc_")
