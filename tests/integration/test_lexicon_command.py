"""`sluice lexicon`: the real command on folders of an operator. It says what it found, and its exit status says if that is well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from tests.conftest import ROOT

SUITE = ROOT / "tests" / "evasion"
SAID = tuple[int, str, str]


def real(*options: str | Path, env: dict[str, str] | None = None) -> SAID:
    """Exit status, stdout, stderr of a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | (env or {})
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "lexicon", *map(str, options)],
        capture_output=True, env=clean, cwd=ROOT, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lexicon(*options: str | Path) -> SAID:
    """The same in this process, which is faster."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        status = main(["lexicon", *map(str, options)])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    (made / "violence").mkdir(parents=True)
    (made / "violence" / "terms.tsv").write_text(
        "term\ttier\towner\treason\tadded\thit\tclean\n"
        "示例短语\tsuspect\tops\tlist\t2026-11-01\t这里有示例短语。\t天气很好。\n",
        "utf-8",
    )
    return made


def test_lint_tells_a_line_for_each_problem_and_exits_one(folder: Path) -> None:
    assert lexicon("lint", "--lexicons", folder) == (0, "问题 problems: 0\n", "")
    file = folder / "violence" / "terms.tsv"
    file.write_text(file.read_text("utf-8") + "短\tsuspect\n卖货\tcertain\tops\tlist\n", "utf-8")
    status, out, _ = real("lint", env={"SLUICE_LEXICONS": str(folder)})
    assert status == 1
    first, second, total = out.splitlines()
    assert first.startswith(f"{file}:3: 读不了 unreadable: column term")
    assert second.startswith(f"{file}:4: 太短 short: 「卖货」")
    assert total == "问题 problems: 2"


def test_lint_takes_clean_text_of_the_operator(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "clean.txt"
    corpus.write_text("示例短语\n" * 3, "utf-8")
    status, out, _ = lexicon("lint", "--lexicons", folder, "--corpus", corpus)
    assert status == 1
    assert "太宽 broad: 「示例短语」 hits 3 times in 12 characters" in out


def test_diff_exits_zero_only_for_equal_folders(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "violence").mkdir(parents=True)
    text = (folder / "violence" / "terms.tsv").read_text("utf-8")
    (other / "violence" / "terms.tsv").write_text(text, "utf-8")
    assert lexicon("diff", folder, other) == (0, "相同 equal\n", "")
    (other / "violence" / "terms.tsv").write_text(
        text.replace("ops", "tns") + "新的短语\tsuspect\tops\tlist\n", "utf-8"
    )
    status, out, _ = real("diff", folder, other)
    assert (status, out.splitlines()) == (
        1,
        ["violence: 新增 added 1, 删除 removed 0, 修改 changed 1", "  + 新的短语", "  ~ 示例短语: owner: ops → tns"],
    )
    status, out, _ = lexicon("diff", folder, other, "--json")
    assert (status, json.loads(out)) == (
        1,
        {"violence": {"added": ["新的短语"], "removed": [], "changed": {"示例短语": [["owner", "ops", "tns"]]}}},
    )


def add(folder: Path, file: Path, *options: str, run: Callable[..., SAID] = lexicon) -> SAID:
    who = ("--owner", "ops", "--reason", "weekly list")
    return run("import", file, "--lexicons", folder, "--category", "violence", *who, *options)


def test_an_import_is_tried_first_then_done_and_then_in_force(folder: Path, tmp_path: Path) -> None:
    target = folder / "violence" / "terms.tsv"
    before = target.read_bytes()
    file = tmp_path / "list.csv"
    file.write_text("term,tier\n出售示例货物,certain\n示例短语,\n枪支弹药,certain\n", "utf-8")
    status, out, _ = add(folder, file)
    assert (status, target.read_bytes()) == (0, before)
    assert f"{file}:2: 新增 added: 出售示例货物 certain" in out
    assert f"{file}:4: 新增 added: 枪支弹药 suspect; suspect, not certain" in out
    assert "新增 added 2, 不变 unchanged 1, 更新 updated 0, 删除 removed 0, 拒绝 refused 0" in out
    assert "nothing is written; --apply writes it" in out
    status, out, _ = add(folder, file, "--apply", run=real)
    assert (status, out.splitlines()[-1]) == (0, f"已写入 written: {target}")
    assert target.read_bytes().startswith(before)
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "check"], input='{"text": "本店出售示例货物。"}'.encode(),
        capture_output=True, env=os.environ | {"SLUICE_LEXICONS": str(folder)}, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["categories"] == ["violence"]


def test_a_name_is_refused_until_it_has_a_legal_basis_and_then_only_suspect(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("王小明\n", "utf-8")
    status, out, _ = add(folder, file, "--tier", "certain")
    assert status == 1
    assert "拒绝 refused: 王小明; reads as a person, place or organisation: needs a reason and a legal basis" in out
    status, out, _ = add(folder, file, "--tier", "certain", "--basis", "clause 4", "--apply")
    assert status == 0
    assert "新增 added: 王小明 suspect" in out
    assert lexicon("lint", "--lexicons", folder)[0] == 0


def test_a_list_that_would_shrink_is_refused_without_the_flag(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("", "utf-8")
    before = (folder / "violence" / "terms.tsv").read_bytes()
    status, out, said = add(folder, file, "--replace", "--apply")
    assert (status, (folder / "violence" / "terms.tsv").read_bytes()) == (1, before)
    assert "删除 removed: 示例短语" in out
    assert "from 1 to 0 terms" in said and "--shrink" in said
    status, _, _ = add(folder, file, "--replace", "--shrink", "--apply")
    assert status == 0
    assert "示例短语" not in (folder / "violence" / "terms.tsv").read_text("utf-8")


def test_a_file_in_another_encoding_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("出售示例货物".encode("gb18030"))
    status, _, said = add(folder, file, run=real)
    assert (status, "Traceback" in said) == (2, False)
    assert "iconv -f GB18030 -t UTF-8 list.txt" in said


def test_an_audit_tells_counts_and_measures_and_judges_neither(folder: Path) -> None:
    status, out, _ = real("audit", "--lexicons", folder)
    assert status == 0
    assert "violence · 暴力信息" in out
    assert "词条 terms: certain 0, suspect 1" in out
    assert "召回 recall on its hit sentences: 1/1 (100.0%)" in out
    assert not [word for word in ("too few", "more terms", "太少", "不足") if word in out]
    status, out, _ = lexicon("audit", "--lexicons", folder, "--json")
    rows: dict[str, Any] = {row["category"]: row for row in json.loads(out)}
    assert (rows["violence"]["recall"], rows["violence"]["newest"]) == ([1, 1], "2026-11-01")
    assert rows["self_harm"]["suspect"] == 0


def test_test_puts_every_sentence_through_the_engine(folder: Path) -> None:
    assert real("test", "--lexicons", folder) == (0, "应中 hit 1, 干净 clean 1, 失败 failed 0\n", "")
    file = folder / "violence" / "terms.tsv"
    file.write_text(file.read_text("utf-8").replace("这里有", "这里无").replace("无示例短语", "无"), "utf-8")
    status, out, _ = lexicon("test", "--lexicons", folder)
    assert status == 1
    assert f"{file}:2: 应中未中 hit: 「示例短语」 is not found" in out


def test_a_suite_is_measured_by_technique_kind_and_language_as_check_does(tmp_path: Path) -> None:
    status, out, _ = real("test", "--suite", SUITE, "--json")
    suite = json.loads(out)
    cases = [json.loads(line) for line in (SUITE / "cases.jsonl").read_text("utf-8").splitlines()]
    clean = [json.loads(line) for line in (SUITE / "clean.jsonl").read_text("utf-8").splitlines()]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "check", "--terms", str(SUITE / "terms.jsonl")],
        input="\n".join(json.dumps({"id": r["id"], "text": r["text"]}) for r in cases + clean).encode(),
        capture_output=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    answers = {a["id"]: a for a in map(json.loads, done.stdout.splitlines())}
    missed = [r["id"] for r in cases if not any(f["action"] != "pass" for f in answers[r["id"]]["findings"])]
    false = [r["id"] for r in clean if answers[r["id"]]["findings"]]
    assert sorted(id for t in suite["recall"].values() for id in t["wrong"]) == sorted(missed)
    assert sorted(id for t in suite["false"].values() for id in t["wrong"]) == sorted(false)
    assert set(suite["recall"]) == {r["technique"] for r in cases}
    assert sum(n for t in suite["recall"].values() for _, n in t["by_language"].values()) == len(cases)
    assert (status, suite["stopped"]) == (0, [])
    assert suite["flagged"] <= suite["context"] == 64


def test_a_suite_is_printed_with_totals(tmp_path: Path) -> None:
    rows = {
        "terms": [{"term": "示例短语", "category": "violence"}],
        "cases": [
            {"id": "c1", "lang": "zh", "technique": "plain", "text": "有示例短语。"},
            {"id": "c2", "lang": "zh", "technique": "zero_width", "text": "有示\u200b例短语。"},
            {"id": "c3", "lang": "zh", "technique": "plain", "text": "什么也没有。"},
        ],
        "clean": [{"id": "d1", "lang": "zh", "kind": "idiom", "text": "天气很好。"}],
        "context": [{"id": "e1", "lang": "zh", "kind": "law", "text": "讲座谈到示例短语。"}],
    }
    for name, lines in rows.items():
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
    status, out, _ = lexicon("test", "--suite", tmp_path)
    assert (status, out.splitlines()) == (
        0,
        [
            "召回 recall",
            "  plain: 1/2 (50.0%) · zh 1/2 (50.0%)",
            "  zero_width: 1/1 (100.0%) · zh 1/1 (100.0%)",
            "  总计 total zh: 2/3 (66.7%)",
            "  总计 total: 2/3 (66.7%)",
            "误中 false hits",
            "  idiom: 0/1 (0.0%) · zh 0/1 (0.0%)",
            "  总计 total zh: 0/1 (0.0%)",
            "  总计 total: 0/1 (0.0%)",
            "语境 context: 1, 标记 flagged 1, 拦截 stopped 0",
        ],
    )
    (tmp_path / "clean.jsonl").write_text('{"id": 1}', "utf-8")
    status, _, said = lexicon("test", "--suite", tmp_path)
    assert (status, "clean.jsonl:1: must be an object" in said) == (2, True)


@pytest.mark.parametrize("command", [("lint",), ("audit",), ("test",)])
def test_a_folder_that_is_not_there_is_named(command: tuple[str, ...], tmp_path: Path) -> None:
    status, _, said = lexicon(*command, "--lexicons", tmp_path / "none")
    assert status == 2
    assert "no such folder" in said
