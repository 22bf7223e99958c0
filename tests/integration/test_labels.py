"""Article 16 from outside: every answer says that a machine made it, in every API, plain and streamed; nothing that labels is ever taken
out of what a model says; and what was agreed to go without is written down first."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from app.demo import speech
from app.demo.speech import Answer, Call
from tests import reading
from tests.conftest import WORD, Model, Running, Whole, wait_for, whole_gateway
from tests.texts import answer, cut

Make = Callable[..., Running]
PRODUCER = "001191440300708461136T1XGW3"
LABEL = "（AI生成）"
FIELDS = (
    "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
)  # fmt: skip


def policy(mode: str, **more: Any) -> str:
    return json.dumps({"labels": {"mode": mode, "producer": PRODUCER}, **more})


def both(running: Running, model: Model, api: Any, *given: Answer, seed: int = 1, **ask: Any) -> list[reading.Read]:
    """The answer as a client reads it, whole and streamed."""
    dice = random.Random(seed)
    model.script.plain = (200, {}, orjson.dumps(api.plain(*given)))
    model.script.stream = list(api.stream(lambda text: cut(text, dice), *given))
    more = {"n": len(given)} if len(given) > 1 else {}
    return [
        reading.of(api.route, running.http.post(api.route, json=api.ask("说吧", stream=stream, **more, **ask)))
        for stream in (False, True)
    ]


@pytest.mark.parametrize("api", speech.ALL, ids=lambda api: api.route)
@pytest.mark.parametrize("mode", ["start", "end", "interface"])
def test_article_16_the_label_stands_where_policy_says_in_every_api(
    make_gateway: Make, model: Model, api: Any, mode: str
) -> None:
    running = make_gateway(policy(mode))
    text = "今天天气很好，适合散步。"
    wanted = {"start": LABEL + text, "end": text + LABEL, "interface": text}[mode]
    for read in both(running, model, api, Answer(text)):
        assert read.text() == wanted
        label = read.sluice["label"]
        assert (label["mode"], label["text"]) == (mode, LABEL)
        assert read.ending == reading.CLEAN[api.route]


@pytest.mark.parametrize("api", [speech.ALL[0], *speech.ALL[2:]], ids=lambda api: api.route)
def test_article_16_thoughts_and_calls_are_left_as_they_are(make_gateway: Make, model: Model, api: Any) -> None:
    running = make_gateway(policy("end"))
    call = Call("c1", "look_up", '{"q": "天气"}')
    for read in both(running, model, api, Answer("我查一下。", "先想想。", (call,))):
        assert (read.text(), read.reasoning()) == ("我查一下。" + LABEL, "先想想。")
        assert [json.loads(a) for a in read.all("arguments")] == [{"q": "天气"}]
    for read in both(running, model, api, Answer("", "", (call,))):
        assert read.text() == "" and read.sluice["label"]["mode"] == "interface"


def test_article_16_every_choice_has_its_label(make_gateway: Make, model: Model) -> None:
    for read in both(make_gateway(policy("start")), model, speech.ALL[0], Answer("一"), Answer("二"), Answer("三")):
        assert [read.text(n) for n in range(3)] == [LABEL + t for t in "一二三"]


def test_article_16_json_is_never_labelled_in_its_text(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("end"))
    form = {"type": "json_object"}
    for read in both(running, model, speech.ALL[0], Answer('{"a": 1}'), response_format=form):
        assert json.loads(read.text()) == {"a": 1} and read.sluice["label"]["prepared"]


def test_article_16_a_stopped_answer_is_labelled_as_far_as_it_went_and_a_refusal_is_nobodys(
    make_gateway: Make, model: Model
) -> None:
    running = make_gateway(policy("end"))
    running.block(WORD)
    plain, streamed = both(running, model, speech.ALL[0], Answer(f"先说一句完整的话。然后{WORD}还有"), seed=4)
    assert plain.text() == "" and "label" not in plain.sluice
    assert streamed.refusal() and LABEL in streamed.text() and WORD not in streamed.text()
    assert streamed.sluice["label"]["prepared"]
    refused = running.chat(f"请说{WORD}").json()
    assert LABEL not in refused["choices"][0]["message"]["content"] and "label" not in refused["sluice"]


def test_article_16_the_seven_fields_are_whole_valid_and_the_number_is_the_answers_own(
    make_gateway: Make, model: Model
) -> None:
    running = make_gateway(policy("interface"))
    numbers = set()
    for _ in range(20):
        body = running.chat("你好").json()
        fields = body["sluice"]["label"]["prepared"]["AIGC"]
        assert tuple(fields) == FIELDS and all(isinstance(v, str) for v in fields.values())
        allowed = {chr(c) for c in (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))}
        assert all(set(v) <= allowed for v in fields.values())
        assert fields["Label"] == "1" and fields["ContentProducer"] == fields["ContentPropagator"] == PRODUCER
        assert fields["ProduceID"] == fields["PropagateID"] == body["id"]
        numbers.add(fields["ProduceID"])
        assert fields["ReservedCode1"].split(".")[1]
    assert len(numbers) == 20


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"text": {"zh": "（自动回复）", "en": "(AI生成)"}}, "text.zh"),
        ({"text": {"zh": "AI生成", "en": "(made by a machine)"}}, "text.en"),
        ({"image": "机器制作"}, "image"),
        ({"producer": "示例公司"}, "producer"),
        ({"producer": 'a"b'}, "producer"),
        ({"mode": "off"}, "mode"),
    ],
)
def test_article_16_a_label_that_says_nothing_is_no_label(labels: dict[str, Any], named: str) -> None:
    from app.errors import PolicyError
    from app.policy import parse

    with pytest.raises(PolicyError, match=named):
        parse(json.dumps({"labels": labels}).encode())


def test_article_16_a_label_in_the_models_own_words_is_never_taken_away(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("interface"))
    for own in ("（AI生成）", "本内容由人工智能生成", '{"AIGC":{"Label":"1"}}', "\n\n〔提示〕内容由AI生成"):
        for read in both(running, model, speech.ALL[0], Answer(f"{own}正文{own}")):
            assert read.text() == f"{own}正文{own}"


def test_article_16_what_an_app_sends_back_reaches_the_model_without_our_words(
    make_gateway: Make, model: Model
) -> None:
    running = make_gateway(policy("end", notices={"show": "end"}))
    model.script.chat("头痛可以服用布洛芬，每次200毫克，每日不超过1200毫克，饭后服用；症状持续超过三天请就医检查。")
    first = running.chat("头痛吃什么药").json()["choices"][0]["message"]["content"]
    assert first.endswith(LABEL)
    running.chat("头痛吃什么药", {"role": "assistant", "content": first}, "还有呢")
    sent = model.script.asked[-1]["messages"][1]["content"]
    assert first.startswith(sent) and sent.endswith("请就医检查。")


def test_article_16_the_receipt_covers_what_the_client_was_shown(make_gateway: Make, model: Model) -> None:
    from app.keys import verify

    running = make_gateway(policy("end"))
    for api in speech.ALL:
        for read in both(running, model, api, Answer("今天天气很好。")):
            s = read.sluice
            assert verify(running.gateway.keys, s["receipt"], s["decision"], "default", read.text())
            assert not verify(running.gateway.keys, s["receipt"], s["decision"], "default", "今天天气很好。")


def test_article_16_plain_and_streamed_say_the_same_whatever_the_answer(make_gateway: Make, model: Model) -> None:
    dice = random.Random(7)
    for mode in ("start", "end"):
        running = make_gateway(policy(mode, notices={"show": "end"}))
        running.block(WORD)
        for n in range(25):
            given = Answer(answer(dice))
            for api in speech.ALL:
                plain, streamed = both(running, model, api, given, seed=n)
                assert plain.sluice["action"] == streamed.sluice["action"]
                if plain.sluice["action"] in ("pass", "flag", "mask"):
                    assert plain.text() == streamed.text(), (mode, n, api.route)
                    assert plain.sluice.get("notices") == streamed.sluice.get("notices")


# ---- without a label


REVIEWER = "anna:" + "a" * 32
APPS = json.dumps({"apps": [{"id": "web", "trusted_headers": {"subject": "x-user"}}]})


def test_article_16_unlabelled_only_by_a_recorded_agreement_and_after_its_line_is_in_the_log(
    model: Model, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "apps.yaml").write_text(APPS)
    (folder / "policy.yaml").write_text(policy("end"))
    settings = {"APPS": str(folder / "apps.yaml"), "POLICY": str(folder / "policy.yaml"), "ADMIN_TOKEN": REVIEWER}
    with whole_gateway(folder / "g", model.url, **settings) as whole:

        def say(user: str, **asked: Any) -> httpx.Response:
            body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], "sluice": asked}
            return whole.http.post("/v1/chat/completions", json=body, headers={"x-user": user})

        def admin(method: str, path: str, **more: Any) -> httpx.Response:
            head = {"Authorization": "Bearer " + "a" * 32}
            return httpx.request(method, f"{whole.admin}/sluice/v1/admin{path}", headers=head, **more)

        assert say("mia").json()["choices"][0]["message"]["content"] == "好的。" + LABEL
        refused = say("mia", unlabelled=True)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "no_agreement")
        made = admin("POST", "/agreements", json={"app": "web", "user": "mia", "agreement": "terms-2026-3"})
        assert made.status_code == 201 and "mia" not in made.text and "subject" not in made.json()
        wait_for(lambda: say("mia", unlabelled=True).status_code == 200, 3)
        without = say("mia", unlabelled=True).json()
        assert without["choices"][0]["message"]["content"] == "好的。" and without["sluice"]["label"]["mode"] == "none"
        assert say("mia").json()["choices"][0]["message"]["content"].endswith(LABEL), "only where it is asked for"
        assert say("noa", unlabelled=True).status_code == 403
        lines = _log(whole)
        (line,) = [row for row in lines if row["decision"] == without["id"]]
        assert line["agreement"] == made.json()["id"] and line["subject"] and "mia" not in json.dumps(line)
        # No line, no unlabelled answer.
        log = whole.folder / "data" / "unlabelled"
        for file in log.iterdir():
            file.unlink()
        log.rmdir()
        log.write_text("in the way")
        assert say("mia", unlabelled=True).json()["choices"][0]["message"]["content"].endswith(LABEL)
        log.unlink()
        assert admin("DELETE", f"/agreements/{made.json()['id']}").status_code == 200
        wait_for(lambda: say("mia", unlabelled=True).status_code == 403, 3)
        assert "sluice" not in model.script.asked[-1], "it never reaches the model"


def _log(whole: Whole) -> list[dict[str, Any]]:
    files = (whole.folder / "data" / "unlabelled").glob("*.jsonl")
    return [orjson.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_article_16_the_log_is_kept_for_six_months_and_no_longer(tmp_path: Any) -> None:
    import time

    from app import clock, journal

    now = time.time()
    moved = [now - 190 * 86400]
    clock.use(lambda: moved[0])
    journal.append(tmp_path, "r", b"{}\n", sync=True)
    moved[0] = now - 185 * 86400
    journal.append(tmp_path, "r", b"{}\n", sync=True)
    moved[0] = now
    journal.swept(tmp_path, journal.KEEP_DAYS)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


@pytest.mark.parametrize(
    ("asked", "param"),
    [({"unlabeled": True}, "sluice.unlabeled"), ({"references": "x"}, "sluice.references"), ([], "sluice")],
)
def test_what_is_asked_of_the_gateway_is_checked_by_field(make_gateway: Make, asked: Any, param: str) -> None:
    refused = make_gateway().chat("你好", sluice=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


# ---- what others found


def test_the_history_loses_our_words_alone_wherever_they_stand(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("end", notices={"show": "end"}))
    own = "用法如下。\n\n〔提示〕孕妇禁用。\n\n第二步：每日三次，饭后服用。"
    for sent, kept in (
        (f"第一段。{LABEL}第二段。", "第一段。第二段。"),
        (f"好的。{LABEL}\n", "好的。\n"),
        (own, own),
        (own + LABEL, own),
        (LABEL, LABEL),
    ):
        running.chat("问", {"role": "assistant", "content": sent}, "再问")
        assert model.script.asked[-1]["messages"][1]["content"] == kept
    plain = make_gateway(policy("interface"))
    plain.chat("问", {"role": "assistant", "content": own + LABEL}, "再问")
    assert model.script.asked[-1]["messages"][1]["content"] == own + LABEL


def test_notices_stand_in_the_choice_that_they_are_about(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("interface", notices={"show": "end", "turns": 1}))
    dose = "成人头痛可以服用布洛芬，每次200毫克，每日不超过1200毫克，饭后服用；症状持续超过三天建议就医检查。"
    for read in both(running, model, speech.ALL[0], Answer("今天天气很好。"), Answer(dose)):
        assert "医生" not in read.text(0) and "医生" in read.text(1)
        assert all("建议休息" in read.text(n) for n in (0, 1))


def test_an_answer_without_words_is_labelled_alike_plain_and_streamed(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("end"))
    for api in speech.ALL:
        plain, streamed = both(running, model, api, Answer(""))
        assert set(plain.sluice) == set(streamed.sluice), api.route
    form = {"type": "json_object"}
    for read in both(running, model, speech.ALL[0], Answer('{"a": 1}'), response_format=form):
        assert read.sluice["label"]["mode"] == "interface", "nothing stands in the text: the app shows it"


def test_references_that_are_no_use_break_nothing(make_gateway: Make, model: Model) -> None:
    running = make_gateway(policy("interface"))
    for text in ("one" + " hundred" * 2300, "一" + "亿" * 6000 + "元", "9" * 9000):
        for read in both(running, model, speech.ALL[0], Answer(f"It costs {text}."), sluice={"references": [text]}):
            assert read.ended


def test_a_picture_within_a_text_answer_is_asked_for_elsewhere_and_never_called_clean(
    make_gateway: Make, model: Model
) -> None:
    running = make_gateway(policy("interface"))
    body = {"model": "m", "input": "画一只猫", "tools": [{"type": "image_generation"}]}
    refused = running.http.post("/v1/responses", json=body)
    assert refused.status_code == 400 and "/v1/images/generations" in refused.text
    model.script.chat("好的。", audio={"id": "a", "data": "A" * 80, "expires_at": 1, "transcript": "好"})
    assert running.chat("念一下").json()["sluice"]["not_examined"] == ["audio"]
    strict = make_gateway(policy("interface", media={"not_examined": "refuse"}))
    assert strict.chat("念一下").json()["error"]["code"] == "not_examined"


def test_the_receipt_covers_a_refusal_where_json_was_asked_for(make_gateway: Make, model: Model) -> None:
    from app.keys import verify

    running = make_gateway(policy("interface"))
    running.block(WORD)
    form = {"type": "json_object"}
    given = Answer(json.dumps({"a": f"先说一句。{WORD}"}, ensure_ascii=False))
    plain, streamed = both(running, model, speech.ALL[0], given, response_format=form)
    for read in (plain, streamed):
        s, shown = read.sluice, "".join(read.all("text")) + "".join(read.all("refusal"))
        assert read.refusal() and verify(running.gateway.keys, s["receipt"], s["decision"], "default", shown)


def test_content_that_comes_in_parts_is_labelled_and_covered_too(make_gateway: Make, model: Model) -> None:
    from app.keys import verify

    running = make_gateway(policy("end"))
    parts = [{"type": "text", "text": "今天天气很好，"}, {"type": "text", "text": "适合散步。"}]
    choice = {"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
    model.script.plain = (200, {}, orjson.dumps({"id": "u", "object": "chat.completion", "choices": [choice]}))
    body = running.chat("说吧").json()
    said = "".join(p["text"] for p in body["choices"][0]["message"]["content"])
    assert LABEL in said and body["sluice"]["label"]["mode"] == "end"
    s = body["sluice"]
    assert verify(running.gateway.keys, s["receipt"], s["decision"], "default", said)
