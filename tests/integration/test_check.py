"""`sluice check`: JSON lines in, a verdict a line out, as the contract says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

TERM = "示例违禁短语"
Check = tuple[int, list[dict[str, Any]], str]


def check(lines: list[Any], *options: str, env: dict[str, str] | None = None) -> Check:
    """Exit status, answers, stderr. A string goes in as it stands."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | (env or {})
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "check", *options],
        input=text.encode(), capture_output=True, env=clean, cwd=ROOT, timeout=60,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


@pytest.fixture
def terms(tmp_path: Path) -> Path:
    path = tmp_path / "terms.jsonl"
    rows = [{"term": TERM, "category": "violence"}, {"term": "可疑短语", "category": "violence", "tier": "suspect"}]
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), "utf-8")
    return path


def test_every_line_gets_its_answer_in_order_with_its_id(terms: Path) -> None:
    lines = [{"id": f"n{i}", "text": TERM if i % 3 == 0 else "天气很好"} for i in range(50)] + [{"text": "没有编号"}]
    status, answers, _ = check(lines, "--terms", str(terms))
    assert status == 0
    assert [a["id"] for a in answers] == [*(f"n{i}" for i in range(50)), None]
    assert [a["action"] for a in answers] == [*("block" if i % 3 == 0 else "pass" for i in range(50)), "pass"]


def test_an_answer_has_the_fields_of_the_contract(terms: Path) -> None:
    _, (answer,), _ = check([{"id": 7, "text": f"一二{TERM[:3]}\u200b{TERM[3:]}，可疑短语"}], "--terms", str(terms))
    assert answer == {
        "id": 7, "action": "block", "categories": ["violence"], "delivered": "", "degraded": [],
        "findings": [
            {"category": "violence", "detector": "lexicon", "start": 2, "end": 9, "score": 1.0, "action": "block", "shadow": False,
             "evidence": {"rule": answer["findings"][0]["evidence"]["rule"], "technique": "zero_width", "text": None}},
        ],
    }  # fmt: skip


def test_a_suspect_term_flags_and_all_of_it_is_delivered(terms: Path) -> None:
    _, (answer,), _ = check([{"text": "说可疑短语。"}], "--terms", str(terms))
    assert (answer["action"], answer["delivered"]) == ("flag", "说可疑短语。")


def test_a_stream_releases_everything_before_the_finding_and_nothing_after(terms: Path) -> None:
    chunks = ["前言", TERM[:2], TERM[2:], "后文"]
    _, (answer,), _ = check([{"chunks": chunks}], "--stream", "--terms", str(terms))
    assert answer["released"] == ["前言", "", "", "", ""]
    assert answer["delivered"] == "前言"
    assert answer["action"] == "block"


def test_a_clean_stream_is_released_whole_with_one_item_more_than_chunks(terms: Path) -> None:
    chunks = ["天气", TERM[:4], "很好", TERM[:1]]
    _, (answer,), _ = check([{"chunks": chunks}], "--stream", "--terms", str(terms))
    assert len(answer["released"]) == len(chunks) + 1
    assert "".join(answer["released"]) == answer["delivered"] == "".join(chunks)


def test_masks_stand_in_what_is_delivered() -> None:
    _, (answer,), _ = check([{"text": "电话13800138000。"}])
    assert (answer["action"], answer["delivered"]) == ("mask", "电话***********。")
    assert [(f["start"], f["end"]) for f in answer["findings"]] == [(2, 13)]


def test_a_prompt_is_taken_one_step_weaker_than_an_answer() -> None:
    text = "本店低价出售仿真枪支弹药"
    _, (answer,), _ = check([{"text": text}])
    _, (prompt,), _ = check([{"text": text}], "--direction", "prompt", "--policy", str(ROOT / "app" / "policy.yaml"))
    assert answer["action"] == "block"
    assert prompt["action"] in ("block", "flag")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{not json", "not valid JSON"),
        ('{"text": 3}', "'text'"),
        ("[1]", "object"),
        ('{"id": 1}', "'text'"),
        ('{"text": "a", "text": "b"}', "text"),
        ('{"text": NaN}', ""),
    ],
)
def test_a_wrong_line_is_named_and_the_run_goes_on(terms: Path, line: str, word: str) -> None:
    status, answers, _ = check([{"id": 1, "text": "好"}, line, {"id": 3, "text": TERM}], "--terms", str(terms))
    assert status == 1
    assert answers[0]["action"] == "pass"
    assert answers[1]["line"] == 2
    assert word in answers[1]["error"]
    assert answers[2]["action"] == "block"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ('{"term": "短语甲"}', "terms.jsonl:1"),
        ('{"term": "短语甲", "category": "nothing"}', "category"),
        ('{"term": "短", "category": "violence"}', "shorter than 2"),
        ('{"term": "短语甲", "category": "violence", "weight": 1}', "'weight'"),
        ('{"term": "短语甲", "category": "violence", "tier": "sure"}', "tier"),
        ("{", "terms.jsonl:1"),
    ],
)
def test_a_broken_terms_file_is_refused_with_its_line(tmp_path: Path, row: str, word: str) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text(row, "utf-8")
    status, answers, said = check([{"text": "好"}], "--terms", str(path))
    assert (status, answers) == (2, [])
    assert word in said
    assert "Traceback" not in said


def test_a_broken_lexicon_line_is_named_with_file_line_and_column(tmp_path: Path) -> None:
    folder = tmp_path / "violence"
    folder.mkdir()
    (folder / "terms.tsv").write_text("term\ttier\n示例违禁短语\tcertain\n又一个短语\tsure\n", "utf-8")
    status, _, said = check([{"text": "好"}], env={"SLUICE_LEXICONS": str(tmp_path)})
    assert status == 2
    assert "terms.tsv:3: column tier" in said


def test_an_unknown_policy_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("profile: draft_2023_04\ncategorys: {}\n", "utf-8")
    status, _, said = check([{"text": "好"}], "--policy", str(path))
    assert status == 2
    assert "categorys" in said
    assert "no such key" in said


def test_ten_thousand_lines_run_in_one_process_in_order() -> None:
    lines = [{"id": i, "text": f"第{i}行：今天天气很好，适合读书。"} for i in range(10_000)]
    status, answers, _ = check(lines)
    assert status == 0
    assert [a["id"] for a in answers] == list(range(10_000))
