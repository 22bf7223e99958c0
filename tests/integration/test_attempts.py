"""What is shown instead of a stopped answer: fixed words, the same model asked once more, a model that stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import orjson
import pytest

from app.demo import speech
from app.demo.speech import Answer
from tests import reading
from tests.conftest import WORD, Model, Running, _model, wait_for

ONE_GATEWAY = True

Make = Callable[..., Running]
TERM = "出售仿真枪支弹药"
"""A shipped term, of illegal_acts."""
BAD, GOOD = Answer(f"{TERM}，然后是别的。"), Answer("这一次说的是河边的天气。电话13800138000。")
LATE = Answer(f"先说两句无关的话。{TERM}，然后是别的。")
MASKED = GOOD.text.replace("13800138000", "*" * 11)
WAYS = list(product(speech.ALL, (False, True)))


@pytest.fixture
def other() -> Iterator[Model]:
    """The model that stands in."""
    with _model() as model:
        yield model


def says(model: Model, api: Any, *answers: Answer) -> None:
    """The model gives one answer after the other, and the last for ever."""
    rows = [(orjson.dumps(api.plain(a)), list(api.stream(list, a))) for a in answers]

    def turn(_: Any) -> None:
        raw, stream = rows.pop(0) if len(rows) > 1 else rows[0]
        model.script.plain, model.script.stream = (200, {}, raw), stream

    model.script.before = turn


def ask(gateway: Running, api: Any, stream: bool, **more: Any) -> reading.Read:
    return reading.of(api.route, gateway.http.post(api.route, json=api.ask("说吧", stream=stream, **more)))


def record(gateway: Running, decision: str) -> dict[str, Any]:
    wait_for(lambda: any(r["decision"] == decision for r in gateway.journal()))
    return next(r for r in gateway.journal() if r["decision"] == decision)


def test_an_answer_stopped_before_its_first_character_is_asked_for_once_more(
    make_gateway: Make, model: Model, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway("categories: {illegal_acts: {answer: regenerate}}")
    for api, stream in WAYS:
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            says(model, api, BAD, GOOD)
            got = ask(gateway, api, stream, seed=7)
            assert (got.text(), got.refusal(), got.ending) == (MASKED, "", reading.CLEAN[api.route])
            assert got.sluice["action"] == "replace"
            first, second = model.script.asked
            assert "seed" not in second and {k: v for k, v in first.items() if k != "seed"} == second
            kept = record(gateway, got.sluice["decision"])
            assert (kept["answer"]["action"], kept["instead"]["action"]) == ("replace", "mask")
            assert kept["answer"]["category"] == "illegal_acts" and kept["released"] <= kept["screened"]


def test_a_second_answer_that_is_stopped_too_is_the_last(
    make_gateway: Make, model: Model, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway("categories: {illegal_acts: {answer: regenerate}}")
    for api, stream in WAYS:
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            says(model, api, BAD)
            got = ask(gateway, api, stream)
            assert got.text() == "" and got.refusal() and got.ending == reading.CLEAN[api.route]
            assert got.sluice["action"] == "replace" and len(model.script.asked) == 2
            assert got.shows(TERM[2:]) == ""


def test_an_answer_that_the_client_has_some_of_is_not_asked_for_again(
    make_gateway: Make, model: Model, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway("categories: {illegal_acts: {answer: regenerate}}")
    for api in speech.ALL:
        with subtests.test(route=api.route):
            model.script.asked.clear()
            says(model, api, LATE, GOOD)
            got = ask(gateway, api, True)
            assert got.text() == "先说两句无关的话。" and got.refusal() and len(model.script.asked) == 1
            # Whole, nothing of it was delivered, so it is.
            model.script.asked.clear()
            says(model, api, LATE, GOOD)
            assert ask(gateway, api, False).text() == MASKED and len(model.script.asked) == 2


def test_a_model_that_stands_in_answers_where_the_models_answer_was_blocked(
    make_gateway: Make, model: Model, other: Model, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway(surrogate_upstream=other.url, surrogate_key="key-of-the-safe", surrogate_model="safe")
    for api, stream in WAYS:
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            other.script.asked.clear()
            other.script.headers.clear()
            says(model, api, BAD)
            says(other, api, GOOD)
            got = ask(gateway, api, stream)
            assert (got.text(), got.refusal(), got.ending) == (MASKED, "", reading.FILTERED[api.route])
            assert got.sluice["action"] == "block"
            assert other.script.asked[0]["model"] == "safe" and model.script.asked[0]["model"] == "m"
            assert other.script.headers[0]["authorization"] == "Bearer key-of-the-safe"
            assert record(gateway, got.sluice["decision"])["answer"]["category"] == "illegal_acts"


@pytest.mark.parametrize("fault", ["stopped", "down", "error", "reset", "late reset"])
def test_a_model_that_stands_in_and_fails_leaves_the_fixed_words(
    make_gateway: Make, model: Model, other: Model, fault: str, subtests: pytest.Subtests
) -> None:
    url = "http://127.0.0.1:9/v1" if fault == "down" else other.url
    gateway = make_gateway(surrogate_upstream=url)
    for api, stream in WAYS:
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            other.script.asked.clear()
            other.script.headers.clear()
            says(model, api, BAD)
            if fault == "stopped":
                says(other, api, BAD)
            else:
                other.script.plain = (500 if fault == "error" else 200, {}, b"{}")
                begun: list[bytes | float | str] = list(api.stream(list, GOOD))[:1] if fault == "late reset" else []
                other.script.stream = [*begun, 0.05, "reset"] if "reset" in fault else None
            got = ask(gateway, api, stream)
            assert got.text() == "" and got.stopped() and got.sluice["action"] == "block"
            assert got.shows(TERM[2:]) == ""


def test_a_category_with_words_of_its_own_shows_them_and_no_models(
    make_gateway: Make, model: Model, other: Model
) -> None:
    gateway = make_gateway(surrogate_upstream=other.url)
    gateway.block(WORD, category="self_harm")
    model.script.chat(WORD)
    shown = gateway.chat("说吧").json()["choices"][0]["message"]["content"]
    assert "12356" in shown and not other.script.asked


def test_the_words_follow_the_persons_own_language(gateway: Running, model: Model, subtests: pytest.Subtests) -> None:
    for api, stream in WAYS:
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            says(model, api, Answer(WORD))
            for said, mark in (("说吧", "这部分内容"), ("go on", "This content is not shown"), ("…？", "这部分内容")):
                response = gateway.http.post(api.route, json=api.ask(said, stream=stream))
                got = reading.of(api.route, response)
                assert "".join(got.all("text")).startswith(mark)
            # The newest of a person's messages decides, and no system prompt or answer.
            if api.route != reading.COMPLETIONS:
                response = gateway.http.post(
                    api.route, json=api.ask("说吧", "好的", "in English please", stream=stream)
                )
                assert "".join(reading.of(api.route, response).all("text")).startswith("This content")


def test_several_choices_are_neither_asked_again_nor_stood_in_for(
    make_gateway: Make, model: Model, other: Model, subtests: pytest.Subtests
) -> None:
    gateway = make_gateway("categories: {illegal_acts: {answer: regenerate}}", surrogate_upstream=other.url)
    for api, stream in product(speech.ALL[:2], (False, True)):
        with subtests.test(route=api.route, stream=stream):
            model.script.asked.clear()
            other.script.asked.clear()
            other.script.headers.clear()
            model.script.plain = (200, {}, orjson.dumps(api.plain(BAD, GOOD)))
            model.script.stream = list(api.stream(list, BAD, GOOD))
            got = ask(gateway, api, stream, n=2)
            assert got.refusal(0) and got.text(1) == MASKED
            assert len(model.script.asked) == 1 and not other.script.asked
