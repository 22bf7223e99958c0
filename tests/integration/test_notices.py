"""Articles 4(4) and 10 from outside: what an answer tells its reader besides, when it is time for a break, what minors get, and what no
one has looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import clock, notices, pipeline
from app.sessions import Use
from app.settings import read
from app.types import Action, Scope
from tests.conftest import Model, RedisServer, Running, whole_gateway
from tests.tokens import AUDIENCE, ISSUER, Provider

Make = Callable[..., Running]
DOSE = "成人头痛可以服用布洛芬，每次200毫克，每日不超过1200毫克，饭后服用；症状持续超过三天建议就医检查。"
APPS = json.dumps({"apps": [{"id": "web", "trusted_headers": {"subject": "x-user"}}]})
USES = "notices: {hours: 2, turns: 0, idle: 30}\n"


def told(answer: httpx.Response, kind: str) -> list[dict[str, Any]]:
    return [n for n in answer.json()["sluice"].get("notices", ()) if n["kind"] == kind]


def say(where: Any, user: str, text: str = "你好") -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return where.http.post("/v1/chat/completions", json=body, headers={"x-user": user})


def test_article_4_4_advice_says_what_it_is_no_substitute_for(make_gateway: Make, model: Model) -> None:
    running = make_gateway()
    model.script.chat(DOSE)
    answer = running.chat("头痛怎么办")
    (notice,) = told(answer, "reliance")
    assert notice["topics"] == ["medical"] and "医生" in notice["text"]
    assert answer.json()["choices"][0]["message"]["content"] == DOSE, "beside the answer, not in it"
    model.script.chat("从前有一位医生，他走过雪山，去看望老友。")
    assert not told(running.chat("讲个故事"), "reliance")


def test_article_10_the_notice_stands_at_the_end_where_policy_says_so(make_gateway: Make, model: Model) -> None:
    running = make_gateway("notices: {show: end}\nlabels: {mode: end}")
    model.script.chat(DOSE)
    for stream in (False, True):
        answer = running.chat("头痛怎么办", stream=stream)
        assert "〔提示〕" in answer.text and "医生" in answer.text
    content = running.chat("头痛怎么办").json()["choices"][0]["message"]["content"]
    assert content.startswith(DOSE + "\n\n〔提示〕") and content.endswith("（AI生成）")


def test_article_10_topics_are_the_operators_choice(make_gateway: Make, model: Model) -> None:
    model.script.chat(DOSE)
    assert not told(make_gateway("notices: {reliance: [legal]}").chat("头痛怎么办"), "reliance")


def test_article_10_two_hours_without_a_break_bring_a_reminder_and_each_two_more_another(make_gateway: Make) -> None:
    running = make_gateway(USES, apps=APPS)
    began = time.time()
    moved = [began]
    clock.use(lambda: moved[0])
    reminded = []
    for minute in range(0, 260, 10):
        moved[0] = began + 60 * minute
        if use := told(say(running, "mia"), "usage"):
            reminded.append((minute, use[0]["hours"]))
    assert reminded == [(120, 2.0), (240, 4.0)]
    # A break of half an hour, and it begins anew.
    moved[0] += 31 * 60
    assert not told(say(running, "mia"), "usage")
    moved[0] += 20 * 60
    assert not told(say(running, "mia"), "usage") and not told(say(running, "noa"), "usage")


def test_article_10_so_many_messages_bring_a_reminder_whoever_it_is(make_gateway: Make) -> None:
    running = make_gateway("notices: {hours: 0, turns: 3}", apps=APPS)
    assert [bool(told(say(running, "mia"), "usage")) for _ in range(7)] == [
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    # Of whom nothing is known the messages of the conversation are counted.
    talk: list[Any] = []
    got = []
    for n in range(4):
        talk += [f"第{n}句", {"role": "assistant", "content": "好"}]
        got.append(bool(told(running.chat(*talk[:-1]), "usage")))
    assert got == [False, False, True, False]


def test_article_10_replicas_count_one_session_and_keep_none_of_it(
    redis_server: RedisServer, model: Model, tmp_path: Path
) -> None:
    import redis

    (tmp_path / "apps.yaml").write_text(APPS)
    (tmp_path / "policy.yaml").write_text("notices: {hours: 0, turns: 6}")
    settings = {
        "REDIS_URL": redis_server.url, "APPS": str(tmp_path / "apps.yaml"), "POLICY": str(tmp_path / "policy.yaml")
    }  # fmt: skip
    with (
        whole_gateway(tmp_path / "a", model.url, **settings) as a,
        whole_gateway(tmp_path / "b", model.url, **settings) as b,
    ):
        got = []
        for n in range(8):
            got.append(bool(told(say((a, b)[n % 2], "mia"), "usage")))
            time.sleep(1.4)  # what one has seen the other hears within a second
        assert got.index(True) == 5 and got.count(True) == 1
        client = redis.Redis(port=redis_server.port, decode_responses=True)
        assert not [key for key in client.scan_iter("*") if "session" in key]


def test_article_10_a_minor_gets_the_stricter_rules_by_assertion_alone(
    make_gateway: Make, model: Model, tmp_path: Path
) -> None:
    provider = Provider()
    rule = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(provider.write(tmp_path / "k.json"))}
    policy = "minors: {categories: {personal_information: {prompt: block}}, notices: {turns: 2}}\n"
    running = make_gateway(policy, apps=json.dumps({"apps": [{"id": "web", "identity": rule}]}))

    def ask(**claims: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "我的电话是13800138000"}]}
        return running.http.post(
            "/v1/chat/completions", json=body, headers={"x-sluice-identity": provider.token(**claims)}
        )

    assert ask().headers["x-sluice-action"] == "mask"
    assert ask(minor=True, sub="kid").headers["x-sluice-action"] == "block"
    assert ask(minor="true", sub="other").headers["x-sluice-action"] == "mask", "true is true and nothing else"
    assert told(ask(minor=True, sub="kid"), "usage")
    assert any(r["policy"].endswith("+minor") for r in running.journal())


def test_article_10_the_shipped_minors_section_is_stricter(tmp_path: Path) -> None:
    from app import policy
    from app.taxonomy import taxonomy

    shipped = policy.load(read({}).policy)
    adult, minor = shipped.of("default").rules, shipped.of("default", frozenset({"minor"}))
    assert minor.rules.notices.hours < adult.notices.hours
    for category in taxonomy():
        for direction in ("answer", "prompt"):
            assert minor._actions[category, direction] >= shipped.common._actions[category, direction]  # type: ignore[index]


def test_article_4_4_an_answer_is_held_against_the_references_that_came_with_the_request(
    make_gateway: Make, model: Model
) -> None:
    running = make_gateway()
    said = "本店营业时间为早上9点至晚上8点。本店提供全国包邮，满50元减20元。"
    model.script.chat(said)
    asked = {"references": ["本店营业时间：早上9点至晚上8点，节假日照常营业。"]}
    for stream in (False, True):
        answer = running.chat("几点开门？", sluice=asked, stream=stream)
        last = json.loads([line for line in answer.text.splitlines() if '"sluice"' in line][-1].removeprefix("data: "))
        found = last["sluice"]["grounding"]
        assert found["sentences"] == 2 and found["score"] == 0.5
        ((start, end),) = found["unsupported"]
        assert said[start:end].strip("。") == "本店提供全国包邮，满50元减20元"
    assert "grounding" not in running.chat("几点开门？").json()["sluice"]
    assert "sluice" not in model.script.asked[0] and "早上9点" not in json.dumps(
        model.script.asked[0], ensure_ascii=False
    )


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def test_article_2_a_picture_in_a_prompt_is_not_examined_and_never_called_clean(make_gateway: Make) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "这是什么？"}, PICTURE]}
    assert make_gateway().chat(message).json()["sluice"]["not_examined"] == ["image"]
    assert "not_examined" not in make_gateway().chat("你好").json()["sluice"]
    refused = make_gateway("media: {not_examined: refuse}").chat(message)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_examined")


def test_article_2_other_routes_pass_only_by_name_and_say_that_nobody_looked(make_gateway: Make, model: Model) -> None:
    assert make_gateway().http.post("/v1/audio/speech", json={"model": "m", "input": "你好"}).status_code == 404
    running = make_gateway("unmoderated_routes: [/v1/audio/speech]")
    passed = running.http.post("/v1/audio/speech", json={"model": "m", "input": "你好"})
    assert passed.headers["x-sluice-not-examined"] == "route"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_notices_pass_our_own_detectors(language: str) -> None:
    from app.subjects import LEVELS, Standing

    moderator = pipeline.moderator(read({}))
    texts = [
        notices.usage(Use(2.5, 130), language).text,
        notices.usage(Use(0, 100), language).text,
        notices.reliance(["emergency", "financial", "legal", "medical"], language).text,
        *(Standing("std_0", level, "abuse_malware", 1.0).words(language, "draft_2023_04") for level in LEVELS),
        *(Standing("std_0", level, "illegal_acts", None).words(language, "interim_2023_08") for level in LEVELS),
    ]
    for text in texts:
        verdict, _, _ = pipeline.screened(moderator, [text], Scope("default", "answer"))
        assert verdict.action is Action.PASS, (text, verdict.categories)
