"""Attributes of the user on their way to the model: gone in every dialect, counted by name, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app import metrics
from tests.conftest import Model, Running

CANARY = "canary9c1b"
METADATA: dict[str, Any] = {
    "user_gender": CANARY,
    "性别": CANARY,
    "user_id": "u1",
    "usage_region": "north",
    "page": "7",
}


def counted(name: str) -> float:
    return metrics.ATTRIBUTES.labels(name)._value.get()


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "你好"}]}),
        ("/v1/responses", {"input": "你好"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "你好"}], "max_tokens": 9}),
    ],
)
def test_article_12_the_model_is_told_no_attribute_of_the_user(
    gateway: Running, model: Model, route: str, body: dict[str, Any]
) -> None:
    before = counted("gender")
    gateway.http.post(route, json={"model": "m", **body, "metadata": METADATA})
    asked = model.script.asked[-1]
    assert asked["metadata"] == {"user_id": "u1", "usage_region": "north", "page": "7"}
    assert CANARY not in str(asked) and counted("gender") == before + 2
    assert CANARY not in metrics.render().decode()


def test_article_12_a_policy_keeps_and_strips_what_it_names(make_gateway: Callable[..., Running], model: Model) -> None:
    gateway = make_gateway(policy="attributes: {strip: [tier], keep: [gender]}")
    gateway.chat("你好", metadata={"gender": "f", "Tier": "3", "age": "33"})
    assert model.script.asked[-1]["metadata"] == {"gender": "f"}
