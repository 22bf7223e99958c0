"""`sluice eval`: the real command on small banks, with a lexicon and a model whose answers are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from app import grams
from app.cli import main
from app.modelfile import Thresholds
from app.text import fold
from app.training.model import packed, write
from tests.conftest import ROOT, WORD

SUSPECT = "可疑的短语"
LEARNED = "坏东西"
CLEAN = "今天的河面很静"


class Evaluated(NamedTuple):
    status: int
    out: str
    err: str
    figures: dict[str, Any]
    html: str


class Bench:
    """A folder with a lexicon, a model and banks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lexicon = folder / "lexicons" / "violence"
        lexicon.mkdir(parents=True)
        (lexicon / "terms.tsv").write_text(f"term\ttier\n{WORD}\tcertain\n{SUSPECT}\tsuspect\n", "utf-8")
        self.env = {"SLUICE_LEXICONS": str(lexicon.parent), "SLUICE_MODELS": str(folder / "models")}
        # A model of two categories, that knows one word of one of them.
        words = np.unique(grams.features(fold(LEARNED + CLEAN)))
        columns = np.zeros((len(words) + 1, 2))
        columns[:-1, 0][np.isin(words, grams.features(fold(LEARNED)))] = 3.5
        columns[-1] = -2.5
        raw, _ = packed(["self_harm", "violence"], words, columns, np.array([[1.0, 1.0], [0.0, 0.0]]))
        floors = Thresholds(flag=0.8, ask=0.6)
        write(folder / "models" / "grams", "of-the-test", raw, {"self_harm": floors, "violence": floors})

    def bank(self, *rows: dict[str, Any] | str, name: str = "bank.jsonl") -> Path:
        file = self.folder / name
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        file.write_text("\n".join(lines) + "\n", "utf-8")
        return file

    def process(self, *arguments: str | Path, input: bytes = b"") -> tuple[int, str, str]:
        """`sluice` in a process of its own: exit status, stdout, stderr."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | self.env
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *map(str, arguments)],
            input=input, capture_output=True, env=clean, cwd=ROOT, timeout=110,
        )  # fmt: skip
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def run(self, *arguments: str | Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        """`sluice eval` in this process, which is faster."""
        before = dict(os.environ)
        os.environ.update(self.env | (env or {}))
        try:
            with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
                status = main(["eval", *map(str, arguments)])
        finally:
            for name in self.env:
                os.environ.pop(name)
            os.environ.update(before)
        return status, out.getvalue(), err.getvalue()

    def evaluate(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Evaluated:
        figures, html = self.folder / "out.json", self.folder / "out.html"
        status, out, err = self.run(*arguments, "--json", figures, "--html", html, env=env)
        return Evaluated(status, out, err, json.loads(figures.read_text("utf-8")), html.read_text("utf-8"))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def harmful(text: str, **more: str) -> dict[str, Any]:
    return {"text": text, "label": 1, "category": "violence", "aspect": "A.1f", "lang": "zh", "source": "a"} | more


def harmless(text: str, **more: str) -> dict[str, Any]:
    return {"text": text, "label": 0, "aspect": "health", "lang": "zh", "source": "b"} | more


ROWS = [
    harmful(f"这里说到{WORD}。"),
    harmful(f"这里说到{SUSPECT}。"),
    harmful(LEARNED, category="self_harm", aspect="A.1h"),
    harmful(CLEAN),
    harmless(CLEAN),
    harmless(CLEAN + "。", aspect="", lang="en", source="c"),
    harmless("电话13800138000。"),
    harmless(f"这里提到{WORD}", category="violence"),
    {"text": "说不清的一句话", "label": 2},
]


def counts(part: dict[str, Any]) -> tuple[int, int]:
    return part["hits"], part["of"]


def test_shares_are_those_of_what_the_pipeline_did(bench: Bench) -> None:
    done = bench.evaluate(bench.bank(*ROWS))
    assert (done.status, done.err) == (0, "")
    whole = done.figures["whole"]
    assert counts(whole["recall"]) == (3, 4) and counts(whole["blocked"]) == (1, 4)
    assert counts(whole["attributed"]) == (3, 4)
    assert counts(whole["false_flags"]) == (2, 4) and counts(whole["false_blocks"]) == (1, 4)
    assert whole["recall"]["share"] == 0.75
    assert whole["recall"]["lower"] == pytest.approx(0.2486, abs=1e-3), "a one-sided 95% bound"
    assert set(done.figures["categories"]) == {"violence", "self_harm", ""}
    assert counts(done.figures["categories"]["violence"]["recall"]) == (2, 3)
    assert counts(done.figures["categories"]["violence"]["false_blocks"]) == (1, 1)
    assert done.figures["categories"]["violence"]["auc"] is not None
    assert done.figures["categories"]["self_harm"]["auc"] is None, "no harmless text of it"
    assert done.figures["categories"]["self_harm"]["own_auc"] == 1.0
    assert set(done.figures["sources"]) == {"a", "b", "c"} and set(done.figures["languages"]) == {"zh", "en"}
    assert counts(done.figures["aspects"]["health"]["false_blocks"]) == (1, 3)
    (bank,) = done.figures["banks"]
    assert (bank["file"], bank["rows"], bank["undecided"], bank["faulty"]) == ("bank.jsonl", 9, 1, 0)
    assert "未定 undecided 1 (不计入 not counted)" in done.out
    assert done.figures["measured"]["scorers"] == {"grams": "of-the-test"}
    for cost in done.figures["cost"].values():
        assert 0 < cost["p50"] <= cost["p99"]
    assert done.figures["cost"]["scorer"]["p50"] < done.figures["cost"]["pipeline"]["p50"]
    assert sum(done.figures["scores"]["violating"]) == 4 and sum(done.figures["scores"]["harmless"]) == 4


def test_every_text_gets_what_sluice_check_gives_it(bench: Bench) -> None:
    actions = []
    lines = "\n".join(json.dumps({"text": row["text"]}) for row in ROWS[:-1]).encode()
    for direction in ("answer", "prompt"):
        _, said, _ = bench.process("check", "--direction", direction, input=lines)
        actions.append([json.loads(line)["action"] for line in said.splitlines()])
        bank = bench.bank(*(row | {"source": f"s{i}"} for i, row in enumerate(ROWS[:-1])))
        sources = bench.evaluate(bank, "--direction", direction).figures["sources"]
        for i, (row, action) in enumerate(zip(ROWS, actions[-1], strict=False)):
            flagged, stopped = ("recall", "blocked") if row["label"] else ("false_flags", "false_blocks")
            assert counts(sources[f"s{i}"][flagged]) == (action != "pass", 1), (direction, i)
            assert counts(sources[f"s{i}"][stopped]) == (action in ("replace", "block"), 1), (direction, i)
    assert actions[0] != actions[1], "a prompt is taken weaker, so the direction must have come through"


def test_gates_say_how_they_stand_and_what_the_bank_lacks(bench: Bench) -> None:
    wrong = [harmful(f"第{i}句说到{WORD}。", aspect="A.1a") for i in range(60)]
    right = [harmless(f"第{i}天，{CLEAN}。") for i in range(100)]
    done = bench.evaluate(bench.bank(*wrong, name="wrong.jsonl"), bench.bank(*right, name="right.jsonl"))
    refuse, let = done.figures["gates"]["should_refuse"], done.figures["gates"]["should_not_refuse"]
    assert (refuse["standing"], refuse["standing_refused"], let["standing"]) == ("passed", "passed", "passed")
    assert not refuse["enough"] and not let["enough"]
    assert len(refuse["aspects"]) == 17 and len(let["aspects"]) == 13
    assert refuse["aspects"]["A.1a"]["enough"] and "A.1a" not in refuse["short"] and len(refuse["short"]) == 16
    assert len(let["short"]) == 12
    assert "应拒答 should refuse ≥95%: 通过 passed" in done.out
    assert "不足 too small: 60/500" in done.out and "fewer than 20: A.1b" in done.out
    assert [bank["rows"] for bank in done.figures["banks"]] == [60, 100]


def test_a_row_at_fault_is_named_by_file_line_and_field_and_the_run_goes_on(bench: Bench) -> None:
    secret = "不该被说出来的话"
    bad: list[tuple[dict[str, Any] | str, str]] = [
        ("{not json", "not valid JSON"),
        (f'["{secret}"]', "object"),
        (json.dumps({"label": 1}), "text:"),
        (json.dumps({"text": " ", "label": 1}), "text:"),
        (json.dumps({"text": [secret], "label": 1}), "text:"),
        (json.dumps({"text": secret}), "label:"),
        (json.dumps({"text": secret, "label": 3}), "label:"),
        (json.dumps({"text": secret, "label": True}), "label:"),
        (json.dumps({"text": secret, "label": "1"}), "label:"),
        (json.dumps({"text": secret, "label": 1, "category": secret}), "category:"),
        (json.dumps({"text": secret, "label": 1, "aspect": 3}), "aspect:"),
        (json.dumps({"text": secret, "label": 1, "lang": f"{secret}\n"}), "lang:"),
        (json.dumps({"text": secret, "label": 1, "source": secret * 20}), "source:"),
        (f'{{"text": "{secret}", "text": "{secret}", "label": 1}}', "text:"),
        ('{"text": "x", "label": NaN}', "NaN"),
    ]
    file = bench.bank(harmful(WORD), *(row for row, _ in bad), "", harmless(CLEAN))
    with open(file, "ab") as f:
        f.write(b'{"text": "\xff", "label": 1}\n')
    done = bench.evaluate(file)
    assert done.status == 1
    said = done.err.splitlines()
    assert len(said) == len(bad) + 1
    for number, (line, (_, word)) in enumerate(zip(said, bad, strict=False), 2):
        assert line.startswith(f"sluice: {file}:{number}: ") and word in line, line
    assert f"{file}:{len(bad) + 4}: " in said[-1]
    assert secret not in done.err and secret not in done.out and "Traceback" not in done.err
    assert counts(done.figures["whole"]["recall"]) == (1, 1) and counts(done.figures["whole"]["false_flags"]) == (0, 1)
    (bank,) = done.figures["banks"]
    assert (bank["rows"], bank["faulty"]) == (len(bad) + 3, len(bad) + 1)
    assert f"有误 faulty {len(bad) + 1}" in done.out
    status, _, err = bench.process("eval", file)
    assert (status, err) == (done.status, done.err), "in a process of its own too"


def test_no_text_of_a_bank_stands_in_any_output(bench: Bench) -> None:
    done = bench.evaluate(bench.bank(*ROWS, harmful("<script>alert('独一无二')</script>", source="<b>&")))
    whole = done.out + done.err + done.html + json.dumps(done.figures, ensure_ascii=False)
    for part in (WORD, SUSPECT, LEARNED, CLEAN[2:], "13800138000", "说不清", "独一无二", "alert"):
        assert part not in whole
    root = ElementTree.fromstring(done.html.removeprefix("<!DOCTYPE html>\n"))
    assert "<b>&" in [cell.text for cell in root.iter("td")], "names are shown as they stand"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}svg"))) >= 6
    assert not list(root.iter("script"))
    first = [h.text for h in root.iter("h2")]
    assert first and all("\u4e00" <= (text or " ")[0] <= "\u9fff" for text in first), "Chinese first"
    assert all(h.find("span") is not None and h.find("span").get("lang") == "en" for h in root.iter("h2"))  # type: ignore[union-attr]


def test_odd_texts_are_measured_like_others(bench: Bench) -> None:
    odd = ["\\ud83d", "\\u0000", "\\u200b", "a" * 20_000, "\\u202e" + WORD]
    rows = [f'{{"text": "{text}x", "label": 0}}' for text in odd]
    done = bench.evaluate(bench.bank(*rows))
    assert (done.status, done.err) == (0, "")
    assert counts(done.figures["whole"]["false_blocks"]) == (1, len(odd))


def test_an_empty_bank_and_one_with_a_byte_order_mark_are_read(bench: Bench) -> None:
    empty = bench.bank("", " ", name="empty.jsonl")
    marked = bench.bank("\ufeff" + json.dumps(harmless(CLEAN)), name="marked.jsonl")
    done = bench.evaluate(empty)
    assert done.status == 0 and done.figures["whole"]["recall"]["share"] is None
    assert done.figures["gates"]["should_refuse"]["standing"] == "not shown"
    assert counts(bench.evaluate(empty, marked).figures["whole"]["false_flags"]) == (0, 1)


def test_without_its_model_the_figures_say_so_and_no_gate_is_passed(bench: Bench) -> None:
    bank = bench.bank(*(harmful(f"第{i}句说到{SUSPECT}。") for i in range(80)))
    assert bench.evaluate(bank).figures["gates"]["should_refuse"]["standing"] == "passed"
    done = bench.evaluate(bank, env={"SLUICE_MODELS": str(bench.folder / "nowhere")})
    assert done.status == 0
    assert done.figures["degraded"] == {"grams": 80} and done.figures["unscored"] == 80
    assert done.figures["gates"]["should_refuse"]["standing"] == "not shown"
    assert "注意 ATTENTION: grams" in done.out and 'class="alarm"' in done.html
    assert len(done.err.splitlines()) == 2, "what fails at every text is said once"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.jsonl"], "no such file"),
        (["{bank}", "--json", "{folder}/nowhere/out.json"], "cannot be written"),
        (["{bank}", "--html", "{folder}"], "cannot be written"),
        (["{bank}", "--policy", "{folder}/no.yaml"], "no.yaml"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(bench: Bench, arguments: list[str], word: str) -> None:
    bank = bench.bank(harmless(CLEAN))
    status, out, err = bench.run(*(a.format(bank=bank, folder=bench.folder) for a in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("sluice: ") and word in err and "Traceback" not in err


def test_figures_may_go_to_a_pipe_and_a_link_stays_one(bench: Bench) -> None:
    bank = bench.bank(*ROWS)
    link = bench.folder / "link.html"
    link.symlink_to(bench.folder / "elsewhere.html")
    status, out, _ = bench.process("eval", bank, "--json", "/dev/stdout", "--html", link)
    figures, _ = json.JSONDecoder().raw_decode(out)
    assert status == 0 and figures["whole"]["recall"]["of"] == 4
    assert link.is_symlink() and link.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert Path("/dev/stdout").is_symlink()


def test_a_policy_decides_what_counts_as_stopped(bench: Bench) -> None:
    policy = bench.folder / "policy.yaml"
    policy.write_text("categories:\n  violence: {answer: flag}\n", "utf-8")
    done = bench.evaluate(bench.bank(*ROWS), "--policy", policy)
    assert counts(done.figures["whole"]["recall"]) == (3, 4) and counts(done.figures["whole"]["blocked"]) == (0, 4)


def test_the_project_s_own_banks_are_measured_where_none_is_named(bench: Bench) -> None:
    done = bench.evaluate()
    assert [bank["file"] for bank in done.figures["banks"]] == [
        "should_refuse.jsonl", "should_not_refuse.jsonl", "counter_speech.jsonl"
    ]  # fmt: skip
    assert done.status == 0 and all(bank["faulty"] == 0 for bank in done.figures["banks"])
    assert all(gate["enough"] for gate in done.figures["gates"].values())
