"""Article 16, pictures, from outside: what `/v1/images/generations` gives is marked for the eye and for machines, read back by ExifTool; a
picture that could not be is refused."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from openai import OpenAI
from PIL import Image

from app.labels import FIELDS
from tests.conftest import WORD, Model, Running, wait_for

Make = Callable[..., Running]
PRODUCER = "001191440300708461136T1XGW3"
POLICY = json.dumps({"labels": {"producer": PRODUCER}})


def picture(kind: str = "PNG", size: tuple[int, int] = (256, 192), colour: Any = (200, 30, 90), **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind, **more)
    return out.getvalue()


def gives(model: Model, *pictures: bytes, **more: Any) -> None:
    rows = [{"b64_json": base64.b64encode(p).decode()} for p in pictures]
    model.script.plain = (200, {}, orjson.dumps({"created": 1_790_000_000, "data": rows, **more}))


def ask(running: Running, prompt: str = "画一只猫", **more: Any) -> httpx.Response:
    return running.http.post("/v1/images/generations", json={"model": "painter", "prompt": prompt, **more})


def exiftool(raw: bytes, suffix: str, folder: Path) -> dict[str, str]:
    """The AIGC fields as an independent reader sees them: exactly one label."""
    file = folder / f"picture.{suffix}"
    file.write_bytes(raw)
    said = subprocess.run(["exiftool", "-j", "-a", "-G1", str(file)], check=True, capture_output=True, text=True).stdout
    (found,) = [v for k, v in json.loads(said)[0].items() if k.lower().endswith(":aigc")]
    fields = found if isinstance(found, dict) else json.loads(found)
    return dict(fields.get("AIGC", fields))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_article_16_a_picture_is_marked_for_the_eye_and_for_machines(
    make_gateway: Make, model: Model, kind: str, tmp_path: Path
) -> None:
    running = make_gateway(POLICY)
    before = picture(kind)
    gives(model, before, before)
    answer = ask(running, n=2)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    numbers = []
    for row in body["data"]:
        raw = base64.b64decode(row["b64_json"])
        fields = exiftool(raw, kind.lower(), tmp_path)
        assert tuple(fields) == FIELDS
        assert fields["Label"] == "1" and fields["ContentProducer"] == fields["ContentPropagator"] == PRODUCER
        allowed = {chr(c) for c in (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F))}
        assert all(isinstance(v, str) and set(v) <= allowed for v in fields.values())
        numbers.append(fields["ProduceID"])
        seen = Image.open(io.BytesIO(raw))
        assert (seen.format, seen.size) == (kind, (256, 192))
        corner = seen.convert("RGB").crop((128, 96, 256, 192))
        assert len(set(corner.getdata())) > 10, "the mark is there"
    assert len(set(numbers)) == 2 and all(n.startswith(answer.headers["x-sluice-decision"]) for n in numbers)
    assert body["sluice"]["not_examined"] == ["image"], "nobody looked at what it shows"
    assert body["sluice"]["label"] == {"mode": "image", "text": "AI生成", "prepared": None}


def test_article_16_the_openai_client_gets_its_picture(make_gateway: Make, model: Model) -> None:
    running = make_gateway(POLICY)
    gives(model, picture())
    client = OpenAI(base_url=running.base_url, api_key="k")
    made = client.images.generate(model="gpt-image-1", prompt="画一只猫", n=1)
    assert made.data and made.data[0].b64_json and "response_format" not in model.script.asked[-1]
    client.images.generate(model="dall-e-3", prompt="画一只猫", response_format="b64_json")
    assert model.script.asked[-1]["response_format"] == "b64_json"


def test_article_16_a_label_that_a_picture_came_with_keeps_its_maker(
    make_gateway: Make, model: Model, tmp_path: Path
) -> None:
    from app import images, labels

    running = make_gateway(POLICY)
    made = images.marked(picture(), labels.prepared("PAINTER-001", "their-7", "their-seal"), "AI生成")
    gives(model, made)
    fields = exiftool(base64.b64decode(ask(running).json()["data"][0]["b64_json"]), "png", tmp_path)
    assert [fields[n] for n in FIELDS[:4]] == ["1", "PAINTER-001", "their-7", "their-seal"]
    assert fields["ContentPropagator"] == PRODUCER and fields["PropagateID"].startswith("slc_")


@pytest.mark.parametrize(
    "data",
    [
        {"data": [{"url": "https://pictures.example/1.png"}]},
        {"data": [{"b64_json": "!!"}]},
        {"data": [{"b64_json": base64.b64encode(b"no picture").decode()}]},
        {"data": [{"b64_json": base64.b64encode(picture()[:200]).decode()}]},
        {"data": []},
        {"data": "x"},
        {},
        [],
    ],
)
def test_article_16_what_cannot_be_labelled_does_not_go_out(make_gateway: Make, model: Model, data: Any) -> None:
    model.script.plain = (200, {}, orjson.dumps(data))
    refused = ask(make_gateway(POLICY))
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_protocol_error")
    assert "b64_json" not in refused.text and "pictures.example" not in refused.text


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"response_format": "url"}, "response_format"),
        ({"stream": True}, "stream"),
        ({"partial_images": 2}, "stream"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"output_format": "gif"}, "output_format"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 7}, "prompt"),
    ],
)
def test_a_request_that_cannot_be_served_names_the_field(make_gateway: Make, given: dict[str, Any], param: str) -> None:
    refused = ask(make_gateway(POLICY), **({"prompt": "画一只猫"} | given))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_without_a_producer_no_picture_is_served_and_the_way_out_is_said(make_gateway: Make, model: Model) -> None:
    gives(model, picture())
    refused = ask(make_gateway())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "labels_not_configured")
    assert "labels.producer" in refused.text and not model.script.asked


def test_article_16_a_prompt_is_screened_before_a_picture_is_made(make_gateway: Make, model: Model) -> None:
    running = make_gateway(POLICY)
    running.block(WORD)
    gives(model, picture())
    refused = ask(running, f"画一张海报，写上{WORD}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert not model.script.asked and refused.headers["x-sluice-decision"]
    ask(running, "海报上写联系电话13800138000")
    assert "13800138000" not in json.dumps(model.script.asked)
    wait_for(lambda: len(running.journal()) == 2)
    records = running.journal()
    assert [r["prompt"]["action"] for r in records] == ["block", "mask"] and {r["dialect"] for r in records} == {
        "openai_images"
    }


def test_a_rewritten_prompt_is_shown_only_where_it_may_be(make_gateway: Make, model: Model) -> None:
    running = make_gateway(POLICY)
    running.block(WORD)
    rows = [
        {"b64_json": base64.b64encode(picture()).decode(), "revised_prompt": said}
        for said in ("一只橘猫", f"写着{WORD}的猫")
    ]
    model.script.plain = (
        200,
        {},
        orjson.dumps({"created": 1, "data": rows, "usage": {"total_tokens": 7, "x": "words"}}),
    )
    body = ask(running, n=2).json()
    assert body["data"][0]["revised_prompt"] == "一只橘猫" and "revised_prompt" not in body["data"][1]
    assert body["usage"] == {"total_tokens": 7} and body["sluice"]["action"] == "block"


def test_the_models_own_refusal_keeps_its_status_and_says_nothing_of_its_own(make_gateway: Make, model: Model) -> None:
    model.script.plain = (400, {}, orjson.dumps({"error": {"message": "canary", "code": "x"}}))
    refused = ask(make_gateway(POLICY))
    assert refused.status_code == 400 and "canary" not in refused.text


def test_a_picture_of_two_sizes_and_more_than_was_asked_for_do_not_go_out(make_gateway: Make, model: Model) -> None:
    import struct
    import zlib

    running = make_gateway(POLICY)
    raw = picture()
    data = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    second = struct.pack(">I", len(data)) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    gives(model, raw[:33] + second + raw[33:])
    assert ask(running).status_code == 502
    gives(model, raw, raw, raw)
    assert ask(running, n=2).status_code == 502 and ask(running, n=3).status_code == 200


def test_what_is_masked_in_a_fields_name_is_refused_and_no_value_is_lost(make_gateway: Make, model: Model) -> None:
    gives(model, picture())
    refused = ask(make_gateway(POLICY), meta={"13800138000": "sunny day"})
    assert refused.status_code == 400 and not model.script.asked


def test_a_refusal_carries_guidance_and_a_warning_is_told_with_pictures_too(make_gateway: Make, model: Model) -> None:
    running = make_gateway(POLICY)
    running.block(WORD)
    refused = ask(running, f"写上{WORD}").json()
    assert refused["error"]["code"] == "content_filter" and refused["sluice"]["guidance"]["report"]
    for asked in ({"unlabelled": True}, {"references": ["x"]}):
        assert ask(running, sluice=asked).json()["error"]["param"].startswith("sluice.")
