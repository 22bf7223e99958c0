"""Streams through the gateway's socket: no character of a match, everything before it, the same verdict as plain."""

from __future__ import annotations

import random
import zlib
from typing import Any

import orjson
import pytest

from tests.conftest import WORD, Model, Running, chunk, events, said, wait_for
from tests.texts import MAIL, PHONE, answer, cut

ONE_GATEWAY = True


def _first_text(raw: bytes) -> str:
    """What the client has of the model's own text: the refusal follows in events of its own, after a blank line."""
    return said(raw).split("\n\n这部分内容", 1)[0].removeprefix("这部分内容")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("前言，示例\u200b违\ufe0f禁短语后文", "前言，"),
        ("本店低价出售仿真枪支弹药，速来", "本店低价"),
        (f"电话{PHONE}转，{MAIL}。", f"电话{'*' * len(PHONE)}转，{'*' * len(MAIL)}。"),
    ],
    ids=["live entry with hidden characters", "certain term", "masked patterns"],
)
def test_whichever_byte_the_network_cuts_at_no_character_of_a_match_goes_out(
    gateway: Running, model: Model, text: str, kept: str
) -> None:
    model.script.chunks([text[:4], text[4:]])
    assert model.script.stream is not None
    whole = b"".join(p for p in model.script.stream if isinstance(p, bytes))
    for at in range(zlib.crc32(text.encode()) % 4 + 1, len(whole), 4):
        model.script.stream = [whole[:at], 0.001, whole[at:]]
        assert _first_text(gateway.chat("说吧", stream=True).content) == kept, at


def test_whatever_deltas_the_model_sends_the_client_gets_the_same_text(gateway: Running, model: Model) -> None:
    text = f"一二{WORD}三四"
    for i in range(len(text)):
        for j in range(i, len(text)):
            model.script.chunks([p for p in (text[:i], text[i:j], text[j:]) if p])
            assert _first_text(gateway.chat("说吧", stream=True).content) == "一二", (i, j)


def test_clean_streams_come_out_equal_in_every_channel(gateway: Running, model: Model) -> None:
    dice = random.Random(7)
    for _ in range(60):
        words = ["今天天气很好。", "The cat sat. ", "👍🏽", "e\u0301", "\u2028", "\n", "12", "一行", " "]
        texts = {
            "content": "".join(dice.choices(words, k=20)),
            "reasoning_content": "".join(dice.choices(words, k=10)),
            "refusal": "".join(dice.choices(words, k=3)),
        }
        dice.shuffle(deltas := [(name, piece) for name, text in texts.items() for piece in cut(text, dice)])
        sent = {name: "".join(piece for other, piece in deltas if other == name) for name in texts}
        model.script.stream = [
            *(chunk(0, {name: piece}) for name, piece in deltas),
            chunk(0, {}, "stop"),
            b"data: [DONE]\n\n",
        ]
        raw = gateway.chat("说吧", stream=True).content
        assert {name: said(raw, 0, name) for name in texts} == sent


def test_arguments_of_tool_calls_come_out_equal_and_are_screened(gateway: Running, model: Model) -> None:
    def call(index: int, arguments: str, **more: Any) -> bytes:
        return chunk(0, {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]})

    clean = ['{"city', '":"', "城市", '"}']
    model.script.stream = [
        chunk(0, {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}]}),
        *[call(0, a) for a in clean], chunk(0, {}, "tool_calls"), b"data: [DONE]\n\n",
    ]  # fmt: skip
    seen = [e for e in events(gateway.chat("说吧", stream=True).content) if e != "[DONE]"]
    calls = [c for e in seen for ch in e["choices"] for c in ch["delta"].get("tool_calls") or []]
    assert "".join(c["function"].get("arguments") or "" for c in calls) == "".join(clean)
    assert calls[0]["function"]["name"] == "weather"

    model.script.stream = [call(0, '{"q":"'), *[call(0, ch) for ch in WORD], call(0, '"}'), chunk(0, {}, "tool_calls")]
    model.script.stream.append(b"data: [DONE]\n\n")
    raw = gateway.chat("说吧", stream=True).content
    assert not any(ch in raw.decode() for ch in WORD[2:])
    assert '"finish_reason":"content_filter"' in raw.decode()


@pytest.mark.parametrize("count", [80, pytest.param(500, marks=pytest.mark.long)])
def test_random_answers_get_the_same_verdict_streamed_and_plain(gateway: Running, model: Model, count: int) -> None:
    dice = random.Random(20261124)
    stopped = 0
    pairs: list[tuple[str, str]] = []
    for n in range(count):
        text = answer(dice)
        model.script.chat(text)
        model.script.chunks(cut(text, dice))
        plain = gateway.chat("说吧").json()
        raw = gateway.chat("说吧", stream=True).content
        streamed = next(e["sluice"] for e in reversed(events(raw)) if e != "[DONE]" and "sluice" in e)
        pairs.append((plain["sluice"]["decision"], streamed["decision"]))
        message = plain["choices"][0]["message"]["content"]
        assert streamed["action"] == plain["sluice"]["action"], n
        if plain["sluice"]["action"] in ("pass", "flag", "mask"):
            assert said(raw) == message, n
            assert len(message) == len(text), n
        else:
            stopped += 1
    decisions = {d for pair in pairs for d in pair}
    wait_for(lambda: decisions <= {r["decision"] for r in gateway.journal()}, 5)
    records = {r["decision"]: r["answer"] for r in gateway.journal()}
    for one, other in pairs:
        assert records[one] == records[other]
    assert count * 0.2 < stopped < count * 0.8


def test_one_choice_is_stopped_and_the_others_go_on(gateway: Running, model: Model) -> None:
    model.script.chunks(list("甲" + WORD + "乙"), list("这一个没有问题，会说到最后。"))
    raw = gateway.chat("说吧", stream=True, n=2).content
    assert said(raw, 0).startswith("甲\n\n这部分内容")
    assert said(raw, 1) == "这一个没有问题，会说到最后。"
    endings = {
        c["index"]: c["finish_reason"]
        for e in events(raw)
        if e != "[DONE]"
        for c in e["choices"]
        if c.get("finish_reason")
    }
    assert endings == {0: "content_filter", 1: "stop"}


def test_a_stop_ends_the_models_work(gateway: Running, model: Model) -> None:
    model.script.stream = [
        chunk(0, {"content": WORD}),
        *[piece for _ in range(400) for piece in (chunk(0, {"content": "长"}), 0.01)],
    ]
    raw = gateway.chat("说吧", stream=True).content
    assert "content_filter" in raw.decode()
    assert model.script.disconnected.wait(3)
    assert model.script.sent < 200


def test_an_answer_of_one_long_line_is_released_as_it_comes(gateway: Running, model: Model) -> None:
    model.script.chunks(["长"] * 3000)
    raw = gateway.chat("说吧", stream=True).content
    assert said(raw) == "长" * 3000
    first = orjson.loads(raw.split(b"\n\n")[1].removeprefix(b"data: "))["choices"][0]["delta"]["content"]
    assert 1 <= len(first) <= 2  # one may have waited for the next
    assert raw.count(b"\n\n") > 2_900
