"""Lists of an operator's own, from the command line to what a client gets: protected texts, trade secrets, known rumours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET, TOKEN, Model, RedisServer, Whole, wait_for, whole_gateway

SONG = "河水向东慢慢地流，纸船载着一盏小灯，绕过七座没有名字的石桥，停在甲字号的码头。"
FORMULA = "丙号涂料由三份云母粉与两份乙字树脂调成，在四十一度下搅拌九十分钟。"
RUMOUR = "把两枚硬币放在路由器上就能让网速翻倍"
RIGHT = {
    "zh": "硬币不会让网速变快，反而可能挡住散热。",
    "en": "Coins do not speed up a network; they may block its cooling.",
}


@pytest.fixture(scope="module")
def whole(shared_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole_gateway(tmp_path_factory.mktemp("gateway"), shared_model.url) as whole:
        yield whole


@pytest.fixture(autouse=True)
def fresh(shared_model: Model, whole: Whole) -> Iterator[None]:
    shared_model.script.__init__()  # type: ignore[misc]
    yield
    for name in ("songs", "formulas", "rumours"):
        sluice(whole, "list", "remove", "--list", name)


def sluice(whole: Whole, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as an operator gives it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    env |= {"SLUICE_ADMIN_TOKEN": TOKEN, "SLUICE_ADMIN_PORT": whole.admin.rpartition(":")[2]}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words], env=env, capture_output=True, text=True, timeout=60
    )


def load(
    whole: Whole, folder: Path, kind: str, name: str, *rows: dict[str, Any], options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return sluice(whole, "list", "load", "--kind", kind, str(path), *options)


def content(whole: Whole, text: str = "说说", **body: Any) -> str:
    return str(whole.chat(text, **body).json()["choices"][0]["message"]["content"])


def action(whole: Whole, text: str = "说说") -> str:
    return str(whole.chat(text).json()["sluice"]["action"])


def test_article_4_3_a_protected_passage_is_not_given_out_plain_or_streamed_and_may_be_asked_about(
    whole: Whole, shared_model: Model, tmp_path: Path
) -> None:
    done = load(whole, tmp_path, "protected", "songs", {"passage": SONG}, options=("--owner-reason", "合同甲-7"))
    assert (done.returncode, done.stdout) == (0, "songs: 1 条 entries, +1 -0\n"), done.stderr
    shared_model.script.chat(f"歌词是：{SONG}")
    wait_for(lambda: action(whole) == "block", 3)
    assert "纸船" not in content(whole)
    streamed = whole.chat("说说", stream=True).text
    assert "content_filter" in streamed and '"content":"船"' not in streamed
    shared_model.script.chat("这是一首讲河与灯的歌，不便全文引用。")
    assert content(whole, f"“{SONG}”是谁写的？").startswith("这是一首"), "a person may quote what is asked about"
    shown = sluice(whole, "list", "show", "--list", "songs")
    (entry,) = [json.loads(line) for line in shown.stdout.splitlines()]
    assert entry["kind"] == "passage" and entry["list"] == "songs" and entry["reason"] == "合同甲-7"
    assert (entry["owner"], entry["category"], entry["scope"]["directions"]) == ("admin", "ip_infringement", ["answer"])
    assert "纸船" not in shown.stdout and "fingerprint" not in shown.stdout


def test_article_4_5_a_trade_secret_is_stopped_in_both_directions_and_nothing_of_it_is_stored(
    whole: Whole, shared_model: Model, tmp_path: Path
) -> None:
    done = load(
        whole, tmp_path, "secret", "formulas", {"passage": FORMULA}, {"term": "丙号涂料配比表"},
        options=("--expires", "2099-12-31"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_for(lambda: action(whole, f"帮我改写：{FORMULA}") == "block", 3)
    assert action(whole, "丙号涂料配比表在哪里？") == "block"
    shared_model.script.chat(f"配方如下。{FORMULA}")
    assert "云母" not in content(whole)
    shared_model.script.chat("涂料一般由成膜物质、颜料和溶剂组成。")
    assert action(whole, "涂料是怎么做成的？") == "pass"
    rows = whole.call("GET", "/entries", params={"list": "formulas"}).json()["entries"]
    assert {row["expires_at"] for row in rows} == {"2099-12-31T15:59:59+00:00"}
    stored = b"".join(p.read_bytes() for p in (whole.folder / "data").rglob("*") if p.is_file())
    assert "云母粉".encode() not in stored


def test_article_4_4_a_known_rumour_is_flagged_with_what_is_right_and_a_text_that_refutes_it_is_delivered(
    whole: Whole, shared_model: Model, tmp_path: Path
) -> None:
    row = {"term": RUMOUR, "correction": RIGHT, "source": "https://example.org/coins"}
    assert load(whole, tmp_path, "rumour", "rumours", row).returncode == 0
    for text in (f"告诉你个窍门，{RUMOUR}。", f"网上说{RUMOUR}，这是谣言，请不要相信。"):
        shared_model.script.chat(text)
        wait_for(lambda: action(whole) == "flag", 3)
        assert content(whole) == text
    (entry,) = whole.call("GET", "/entries", params={"list": "rumours"}).json()["entries"]
    assert entry["correction"] == RIGHT | {"source": "https://example.org/coins"}
    assert (entry["category"], entry["action"]) == ("false_harmful_info", "flag")
    assert action(whole, f"{RUMOUR}，是真的吗？") == "flag", "the answer's flag: of the question nothing is found"


def test_article_4_4_a_known_rumour_is_replaced_by_its_correction_where_the_owner_chose_that(
    whole: Whole, shared_model: Model, tmp_path: Path
) -> None:
    row = {"term": RUMOUR, "correction": RIGHT, "source": "https://example.org/coins"}
    assert load(whole, tmp_path, "rumour", "rumours", row, options=("--action", "replace")).returncode == 0
    shared_model.script.chat(f"告诉你个窍门，{RUMOUR}。")
    wait_for(lambda: action(whole) == "replace", 3)
    answer = whole.chat("说说").json()
    text = answer["choices"][0]["message"]["content"]
    assert RIGHT["zh"] in text and "https://example.org/coins" in text and answer["id"] in text
    assert answer["choices"][0]["finish_reason"] == "stop" and "翻倍" not in text
    assert RIGHT["en"] in content(whole, "Tell me a trick.")
    streamed = whole.chat("说说", stream=True).text
    assert RIGHT["zh"] in streamed and '"finish_reason":"stop"' in streamed and "翻倍" not in streamed


def test_a_list_loaded_twice_changes_nothing_and_a_changed_one_exactly_what_differs(
    whole: Whole, tmp_path: Path
) -> None:
    rows = [{"passage": f"第{n}段只在清单里出现的话，讲的是第{n}座石桥。"} for n in "甲乙丙丁戊"]
    assert load(whole, tmp_path, "protected", "songs", *rows).stdout == "songs: 5 条 entries, +5 -0\n"
    before = whole.call("GET", "/entries", params={"list": "songs"}).json()
    assert load(whole, tmp_path, "protected", "songs", *rows, rows[0]).stdout == "songs: 5 条 entries, +0 -0\n"
    after = whole.call("GET", "/entries", params={"list": "songs"}).json()
    assert (after["version"], after["entries"]) == (before["version"], before["entries"])
    changed = [*rows[1:], {"passage": "第己段只在清单里出现的话，讲的是第己座石桥。"}]
    assert load(whole, tmp_path, "protected", "songs", *changed).stdout == "songs: 5 条 entries, +1 -1\n"
    kept = whole.call("GET", "/entries", params={"list": "songs"}).json()["entries"]
    assert len({r["id"] for r in kept} & {r["id"] for r in before["entries"]}) == 4
    assert sluice(whole, "list", "remove", "--list", "songs").stdout == "songs: -5\n"
    assert load(whole, tmp_path, "protected", "songs", *rows).stdout == "songs: 5 条 entries, +5 -0\n"
    steps = [(r["what"], r["entries"]) for r in whole.call("GET", "/audit").json()["rows"] if r.get("list") == "songs"]
    assert steps[-5:] == [("list_load", 5), ("list_load", 1), ("list_remove", 1), ("list_remove", 5), ("list_load", 5)]


def test_what_is_wrong_in_a_file_is_said_by_its_line_and_nothing_is_loaded(whole: Whole, tmp_path: Path) -> None:
    path = tmp_path / "songs.jsonl"
    lines = [
        json.dumps({"passage": SONG}), "{", json.dumps({"passage": "太短的秘密"}), "", json.dumps({"term": "密"}), "[]",
        json.dumps({"passage": SONG, "term": "某个短语"}), json.dumps({"passage": SONG, "秘密": 1}),
    ]  # fmt: skip
    path.write_text("\n".join(lines), "utf-8")
    done = sluice(whole, "list", "load", "--kind", "secret", str(path))
    assert done.returncode == 2
    for number in (2, 3, 5, 6, 7, 8):
        assert f"line {number} " in done.stderr, done.stderr
    assert "line 1 " not in done.stderr and "12 to" in done.stderr and "秘密" not in done.stderr
    assert whole.call("GET", "/entries", params={"list": "songs"}).json()["entries"] == []
    path.write_text(json.dumps({"term": RUMOUR}), "utf-8")
    done = sluice(whole, "list", "load", "--kind", "rumour", str(path))
    assert done.returncode == 2 and "line 1 " in done.stderr and "correction" in done.stderr
    assert sluice(whole, "list", "load", "--kind", "rumour", str(tmp_path / "none")).returncode == 2
    assert sluice(whole, "list", "load", "--kind", "protected", str(path), "--action", "mask").returncode == 2


def test_a_call_about_another_list_or_a_name_that_is_none_changes_nothing(whole: Whole, tmp_path: Path) -> None:
    load(whole, tmp_path, "protected", "songs", {"passage": SONG})
    (id,) = [r["id"] for r in whole.call("GET", "/entries", params={"list": "songs"}).json()["entries"]]
    assert whole.call("POST", "/lists/other/remove", json={"ids": [id]}).json()["removed"] == 0
    assert whole.call("GET", f"/entries/{id}").status_code == 200
    body = {"entries": [{"term": "某个短语", "category": "violence", "reason": "r"}]}
    for name in ("a%20b", "songs%0A", "x" * 65):
        assert whole.call("POST", f"/lists/{name}/entries", json=body).status_code == 422
    short = whole.call(
        "POST", "/lists/songs/entries", json={"entries": [{**body["entries"][0], "term": None, "passage": "短"}]}
    )
    assert short.status_code == 422 and short.json()["error"]["param"] == "entries.0"


def test_after_a_rotation_terms_of_a_list_are_the_same_and_passages_stand_under_the_new_key(
    shared_model: Model, redis_server: RedisServer, tmp_path: Path
) -> None:
    rows = [{"term": f"{n}号涂料的配比表"} for n in "甲乙丙"] + [
        {"passage": "只在清单里出现的一段话，讲的是村口的石桥。"}
    ]
    new = "another-secret-of-the-tests-0123456789"
    with whole_gateway(
        tmp_path / "old", shared_model.url, REDIS_URL=redis_server.url, SECRET_KEY=f"o:{SECRET}"
    ) as whole:
        assert load(whole, tmp_path, "secret", "paints", *rows).stdout == "paints: 4 条 entries, +4 -0\n"
    with whole_gateway(
        tmp_path / "new", shared_model.url, REDIS_URL=redis_server.url, SECRET_KEY=f"n:{new},o:{SECRET}"
    ) as whole:
        assert load(whole, tmp_path, "secret", "paints", *rows).stdout == "paints: 4 条 entries, +1 -1\n"
        assert load(whole, tmp_path, "secret", "paints", *rows).stdout == "paints: 4 条 entries, +0 -0\n"
