"""/v1/moderations through the real OpenAI client: its schema, our verdict beside it, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WORD, Model, Running

ONE_GATEWAY = True

Make = Callable[..., Running]
MOBILE = "13912345678"


def examine(gateway: Running, value: Any, **more: Any) -> list[Any]:
    client = openai.OpenAI(base_url=gateway.base_url, api_key="k", max_retries=0)
    return list(client.moderations.create(input=value, **more).results)


def refused(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return dict(error)


def test_a_string_is_judged_in_openai_s_schema_with_our_verdict_beside_it(gateway: Running, model: Model) -> None:
    (bad,) = examine(gateway, f"前{WORD}后")
    assert bad.flagged and bad.categories.violence and not bad.categories.hate
    assert bad.category_scores.violence == 1.0 and bad.category_scores.hate == 0.0
    assert bad.category_applied_input_types.violence == ["text"]
    assert bad.sluice["action"] == "block" and bad.sluice["categories"] == ["violence"] and bad.sluice["degraded"] == []
    (found,) = bad.sluice["findings"]
    assert (found["start"], found["end"], found["action"], found["shadow"]) == (1, 1 + len(WORD), "block", False)
    assert found["evidence"]["rule"] == "ent_0" and found["evidence"]["text"] is None
    (good,) = examine(gateway, "今天天气不错。")
    assert not good.flagged and not any(good.categories.model_dump().values())
    scores = {"category_scores": good.sluice["category_scores"]}
    assert good.sluice == {"action": "pass", "categories": [], "findings": [], "degraded": [], **scores}
    assert not model.script.asked


def test_every_category_of_openai_s_schema_is_answered(gateway: Running) -> None:
    (result,) = examine(gateway, "你好")
    for part in (result.categories, result.category_scores, result.category_applied_input_types):
        named = part.model_dump(by_alias=True)
        assert set(named) == {f.alias or name for name, f in type(part).model_fields.items()}
        assert None not in named.values()


def test_each_string_of_a_list_is_judged_by_itself_and_text_parts_are_one_text(gateway: Running) -> None:
    assert [r.flagged for r in examine(gateway, ["你好", WORD, "再见", f"{WORD}。"])] == [False, True, False, True]
    assert [r.flagged for r in examine(gateway, [WORD[:3], WORD[3:]])] == [False, False]
    assert [r.flagged for r in examine(gateway, [{"type": "text", "text": t} for t in (WORD[:3], WORD[3:])])] == [True]


def test_what_has_no_category_of_openai_s_is_flagged_all_the_same(gateway: Running) -> None:
    (result,) = examine(gateway, f"电话 {MOBILE}。")
    assert result.flagged and not any(result.categories.model_dump().values())
    assert result.sluice["action"] == "mask" and result.sluice["categories"] == ["personal_information"]


def test_what_is_in_shadow_is_told_and_not_flagged(make_gateway: Make) -> None:
    gateway = make_gateway("shadow: [violence]")
    gateway.block(WORD)
    (result,) = examine(gateway, WORD)
    assert not result.flagged and not result.categories.violence and result.sluice["action"] == "pass"
    assert result.sluice["categories"] == [] and result.sluice["findings"][0]["shadow"]


def test_the_app_s_own_policy_judges_and_a_stranger_is_refused(make_gateway: Make) -> None:
    digests = [hashlib.sha256(key).hexdigest() for key in (b"k", b"other")]
    apps = [f"{{id: {id}, keys: ['sha256:{digest}']}}" for id, digest in zip(("own", "other"), digests, strict=True)]
    gateway = make_gateway("apps: {own: {shadow: [violence]}}", f"apps: [{', '.join(apps)}]")
    gateway.block(WORD)
    assert not examine(gateway, WORD)[0].flagged
    other = gateway.http.post("/v1/moderations", json={"input": WORD}, headers={"x-api-key": "other"})
    assert other.json()["results"][0]["flagged"]
    assert refused(gateway.http.post("/v1/moderations", json={"input": "你好"}), 401)["code"] == "invalid_api_key"


def test_wrong_input_is_refused_by_name(gateway: Running, subtests: pytest.Subtests) -> None:
    part = {"type": "text", "text": "你好"}
    for value in (
        None, 5, True, {}, [], [5], [None], ["a", 5], ["a", part], [[1, 2]], [{}], [{"type": "text"}], [{"type": "text", "text": 5}],
        [part, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
    ):  # fmt: skip
        with subtests.test(input=value):
            assert refused(gateway.http.post("/v1/moderations", json={"input": value}))["param"] == "input"
    assert refused(gateway.http.post("/v1/moderations", json={"model": "m"}))["param"] == "input"
    for model in (5, ["m"], {"a": "b"}):
        with subtests.test(model=model):
            error = refused(gateway.http.post("/v1/moderations", json={"input": "你好", "model": model}))
            assert error["param"] == "model"
    with pytest.raises(openai.BadRequestError) as e:
        examine(gateway, [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])
    assert e.value.param == "input" and "text" in e.value.message


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_json"), (b"[1]", 400, "invalid_type"), (b'"text"', 400, "invalid_type"),
        (b'{"input": "a", "input": "b"}', 400, "duplicate_key"), (b'{"input": "\xff"}', 400, "invalid_json"),
        (b'{"input": ' + b"[" * 99 + b"]" * 99 + b"}", 400, "too_deep"), (b'{"input": "' + b"a" * (5 << 20) + b'"}', 413, "body_too_large"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_body_is_refused(gateway: Running, raw: bytes, status: int, code: str) -> None:
    assert refused(gateway.http.post("/v1/moderations", content=raw), status)["code"] == code


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("示例违禁短语a1，。\u200b\n"), max_size=12), min_size=1, max_size=4))
def test_a_list_is_judged_like_its_strings_one_by_one(gateway: Running, texts: list[str]) -> None:
    def judge(value: Any) -> list[Any]:
        return list(gateway.http.post("/v1/moderations", json={"input": value}).json()["results"])

    assert judge(texts) == [judge(t)[0] for t in texts]
