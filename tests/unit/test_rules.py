"""Rules: every line is read or refused by file, line and column; a match is the longest, from its anchor, however it is cut."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import clock
from app.detectors import shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon
from app.detectors.rules import COLUMNS, MOST, TOGETHER, Rules, load, rule_of
from app.errors import LexiconError
from app.policy import parse
from app.streaming import Channel
from app.text import fold, is_word
from app.types import Scope
from tests import scorers
from tests.conftest import ROOT

SCOPE = Scope("default", "answer")


def rules(*rows: dict[str, str]) -> Rules:
    return Rules(rule_of({"name": f"r{i}", **row}, "violence", "here") for i, row in enumerate(rows))


def found(detector: Rules, text: str) -> list[str]:
    """What the rules find in original text, as the folded text of each match."""
    folded = fold(text)
    return [folded[c.start : c.end] for c in detector.scan(folded, 0, True, SCOPE).candidates]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "violence").mkdir()
    return tmp_path / "violence" / "rules.tsv"


def write(file: Path, *rows: dict[str, str]) -> Path:
    """A file with these rows below all columns; its folder of folders."""
    lines = ["\t".join(COLUMNS), *("\t".join(row.get(c, "") for c in COLUMNS) for row in rows)]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file.parent.parent


# ---- reading

FINE = {"name": "fine", "anchor": "red falcon"}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"name": ""}, "column name: must be"),
        ({"name": "Red"}, "column name: must be"),
        ({"name": "红色"}, "column name: must be"),
        ({"name": "a" * 41}, "column name: must be"),
        ({"anchor": ""}, "column anchor: must have 2 to 100"),
        ({"anchor": "红\u200b"}, "column anchor: must have 2 to 100"),
        ({"anchor": "红" * 101}, "column anchor: must have 2 to 100"),
        ({"within": "wide"}, "column within: must be a number from 2 to 200"),
        ({"within": "1"}, "column within: must be a number from 2 to 200"),
        ({"within": "201"}, "column within: must be a number from 2 to 200"),
        ({"within": "9" * 5000}, "column within: must be a number from 2 to 200"),
        ({"within": "9"}, "column within: less than the 10 characters of the anchor"),
        ({"tier": "sure"}, "column tier: must be 'certain' or 'suspect'"),
        ({"tier": "entry"}, "column tier: must be 'certain' or 'suspect'"),
        ({"expires": "2027-02-30"}, "column expires: must be a date"),
        ({"rest": "a" * 501}, "column rest: longer than 500 characters"),
        ({"rest": "("}, "column rest: RE2 does not take it (missing ): ()"),
        ({"rest": "a)|(b"}, "column rest: RE2 does not take it (unexpected )"),
        ({"rest": r"(a)\1"}, r"column rest: RE2 does not take it (invalid escape sequence: \1)"),
        ({"rest": "(?=a)"}, "column rest: RE2 does not take it (invalid perl operator: (?=)"),
        ({"rest": "(?<!a)b"}, "column rest: RE2 does not take it (invalid perl operator: (?<!)"),
        ({"rest": "a{1001}"}, "column rest: RE2 does not take it (invalid repetition size: {1001})"),
        ({"rest": r"\p{Han}{900}"}, "column rest: takes more than 64 KiB compiled; repeat less"),
        ({"rest": r"a\C"}, r"column rest: \C matches bytes"),
        ({"rest": "(?i)rises"}, "column rest: the flag i has no use"),
        ({"rest": "(?s-i:rises)"}, "column rest: the flag i has no use"),
        ({"rest": " Rises"}, "column rest: 'R' never stands in folded text; write 'r'"),
        ({"rest": "[A-Z]"}, "column rest: 'A' never stands in folded text; write 'a'"),
        ({"rest": ".{0,9}，"}, "column rest: '，' never stands in folded text; write ','"),
        ({"rest": "信號"}, "column rest: '號' never stands in folded text; write '号'"),
        ({"rest": "a\u200bb"}, "column rest: '\\u200b' never stands in folded text; leave it out"),
        ({"rest": " rises", "hit": "A red falcon sleeps."}, "column hit: the rule does not find this sentence"),
        ({"rest": " rises", "clean": "A Red Falcon rises."}, "column clean: the rule finds this sentence"),
    ],
)
def test_a_wrong_cell_is_refused_by_file_line_and_column(file: Path, cells: dict[str, str], said: str) -> None:
    folder = write(file, FINE, {"name": "wrong", "anchor": "red falcon", **cells})
    with pytest.raises(LexiconError) as refused:
        load(folder)
    assert str(refused.value).startswith(f"{file}:3: {said}")


def test_an_unknown_column_or_folder_is_refused_by_name(file: Path) -> None:
    file.write_text("name\tanchor\tflags\nfine\tred falcon\ti\n", "utf-8")
    with pytest.raises(LexiconError, match=re.escape(f"{file}:1: column 'flags' is unknown")):
        load(file.parent.parent)
    write(file, FINE)
    file.parent.rename(file.parent.with_name("violent"))
    with pytest.raises(LexiconError, match="'violent' is not a category"):
        load(file.parent.parent)


def test_a_name_stands_once_in_a_category_but_may_stand_in_another(file: Path) -> None:
    folder = write(file, FINE)
    (folder / "self_harm").mkdir()
    write(folder / "self_harm" / "rules.tsv", FINE)
    assert {r.id for r in load(folder)} == {"rule.violence.fine", "rule.self_harm.fine"}
    write(file, FINE, FINE)
    with pytest.raises(LexiconError, match=r"rules\.tsv:3: column name: the same as of .*rules\.tsv:2"):
        load(folder)


def test_more_rules_that_begin_alike_than_a_place_may_cost_are_refused(file: Path) -> None:
    alike = [{"name": f"r{i}", "anchor": "红色信号灯塔"[: 2 + i]} for i in range(TOGETHER)]
    assert len(load(write(file, *alike))) == TOGETHER
    write(file, *alike, {"name": "more", "anchor": "红色信号灯塔亮"})
    with pytest.raises(LexiconError, match=rf":{TOGETHER + 2}: column anchor: more than {TOGETHER} rules begin like"):
        load(file.parent.parent)


def test_ten_thousand_rules_are_read_and_one_more_is_refused(file: Path) -> None:
    rows = [{"name": f"r{i}", "anchor": f"signal {i:05}"} for i in range(MOST + 1)]
    assert len(load(write(file, *rows[:MOST]))) == MOST
    with pytest.raises(LexiconError, match=rf":{MOST + 2}: more than 10,000 rules"):
        load(write(file, *rows))


def test_without_rules_nothing_is_found_or_held() -> None:
    assert load(ROOT / "lexicons") == []
    assert Rules([]).scan("加微信 abc12", 0, False, SCOPE) == ([], len("加微信 abc12"), 0)
    assert [d.name for d in shipped(Lexicon([]), Blocklist(), rules(FINE))][-1] == "rules"


@pytest.mark.parametrize(("today", "in_force"), [("2027-06-30", True), ("2027-07-01", False)])
def test_a_rule_is_in_force_to_the_end_of_its_last_day_and_then_holds_nothing(today: str, in_force: bool) -> None:
    detector = rules({"anchor": "红色信号", "rest": ".*", "expires": "2027-06-30"})
    clock.use(lambda: datetime.fromisoformat(today + "T12:00").timestamp())
    assert found(detector, "看红色信号灯") == (["红色信号灯"] if in_force else [])
    assert detector.scan("看红色信号灯", 0, False, SCOPE).hold == (1 if in_force else 6)


# ---- matching


@pytest.mark.parametrize(
    ("anchor", "rest", "text", "matches"),
    [
        ("红色", "", "一红色信号", ["红色"]),
        ("红色", "信?号?", "红色信号，红色信，红色", ["红色信号", "红色信", "红色"]),
        ("红色", "信|信号", "红色信号", ["红色信号"]),
        ("红色", "信.*?号", "红色信号号", ["红色信号号"]),
        ("红色", "(信)(号)", "紅色信\u200b號", ["红色信号"]),
        ("紅色", "[,。]", "红色，", ["红色,"]),
        ("😀甲", ".{2}乙", "😀甲👩𠀀乙。", ["😀甲👩𠀀乙"]),
        ("甲甲", "甲", "甲甲甲甲", ["甲甲甲", "甲甲甲"]),
        ("红色", "信号$", "红色信号，红色信号", ["红色信号"]),
        ("红色", "^信号", "红色信号", []),
        ("红色", ".*号", "红色\n信号", []),
        ("红色", "(?s:.*)号", "红色\n信号", ["红色\n信号"]),
        ("Red", r"\b", "red; reds, Tired red", ["red", "red"]),
        ("red", r" falc\w*\b", "Red Falconry.", ["red falconry"]),
        ("8 red", "", "98 red, 8 red", ["8 red"]),
        ("c++", r"\d", "c++1 xc++2", ["c++1"]),
    ],
)
def test_a_match_is_the_longest_from_its_anchor_in_folded_text(
    anchor: str, rest: str, text: str, matches: list[str]
) -> None:
    assert found(rules({"anchor": anchor, "rest": rest}), text) == matches


def test_a_match_spans_no_more_than_its_width() -> None:
    detector = rules({"anchor": "红色", "rest": ".*号", "within": "6"})
    assert found(detector, "红色一二三号号") == ["红色一二三号"]
    assert found(detector, "红色一二三四号") == []


def test_what_lies_beyond_the_width_is_neither_the_end_of_the_text_nor_of_a_word() -> None:
    assert found(rules({"anchor": "red", "rest": r" \w*$", "within": "6"}), "red falcon") == []
    assert found(rules({"anchor": "red", "rest": r" \w*\b", "within": "6"}), "red falcon") == ["red "]
    assert found(rules({"anchor": "red", "rest": r" \w*\b", "within": "6"}), "red fa") == ["red fa"]


def test_a_finding_names_the_rule_and_the_category_and_keeps_the_tier() -> None:
    text = "看红色信号"
    (candidate,) = rules({"anchor": "红色", "tier": "suspect"}).scan(text, 0, True, SCOPE).candidates
    assert (candidate.rule, candidate.category, candidate.tier) == ("rule.violence.r0", "violence", "suspect")
    assert (candidate.start, candidate.end, candidate.detector) == (1, 3, "rules")


# ---- streams


def test_a_stream_waits_from_the_anchor_on_and_no_further_than_the_width() -> None:
    detector = rules({"anchor": "红色信号", "rest": "灯.*塔", "within": "8"})
    held = {
        "看": 1, "看红": 1, "看红色信": 1, "看红花": 3, "看红色信号": 1, "看红色信号弹": 1,
        "看红色信号弹二三四": 1, "看红色信号弹二三四五": 10, "看红色信号弹二三四五红": 10,
    }  # fmt: skip
    assert {text: detector.scan(text, 0, False, SCOPE).hold for text in held} == held


def test_inside_a_latin_word_nothing_is_held() -> None:
    detector = rules({"anchor": "red", "rest": " falcon"})
    assert detector.scan("tired", 0, False, SCOPE).hold == 5
    assert detector.scan("tir", 0, False, SCOPE).hold == 3
    assert detector.scan("ti red", 0, False, SCOPE).hold == 3


PIECES = ["甲", "乙", "丙", "a", "b", " ", "😀", "𠀀", "甲乙", "ab", "\n", "1", "甲乙甲", "é", "㈱"]
RESTS = [
    "", ".*", ".*丙", "丙?", "[^丙]*丙", ".{0,3}(?:a|丙)", r"\b", r".*\b", ".*$", r"\s*$", "(?s:.*)1", r"(?m:$)", "𠀀|😀.",
    "(?:甲|甲乙甲)*",
]  # fmt: skip
ANCHORS = ["甲乙", "乙甲", "甲乙甲", "ab", "aba", "b 甲", "😀甲", "a甲", "甲a", "a b"]
ROW = st.fixed_dictionaries(
    {"anchor": st.sampled_from(ANCHORS), "rest": st.sampled_from(RESTS), "within": st.integers(3, 12).map(str)}
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30)


@given(st.lists(ROW, min_size=1, max_size=4), TEXTS)
@settings(max_examples=300, deadline=None)
def test_what_is_found_and_let_go_is_the_same_however_the_text_is_cut(
    rows: list[dict[str, str]], cut: list[str]
) -> None:
    detector = rules(*rows)
    policy = parse(b"categories: {violence: {answer: mask}}").common

    def fed(pieces: list[str]) -> tuple[Any, str]:
        channel = Channel([detector], policy, SCOPE)
        released = "".join([channel.push(piece) for piece in pieces]) + channel.finish()
        return sorted(channel.findings, key=repr), released

    whole = fed(["".join(cut)])
    assert fed(cut) == whole
    assert fed(list("".join(cut))) == whole


@given(st.lists(ROW, min_size=1, max_size=4), TEXTS)
@settings(max_examples=300, deadline=None)
def test_what_is_let_go_of_holds_no_match_that_is_told_later(rows: list[dict[str, str]], cut: list[str]) -> None:
    detector = rules(*rows)
    text = fold("".join(cut))
    expected = set(detector.scan(text, 0, True, SCOPE).candidates)
    for size in range(len(text) + 1):
        candidates, hold, wake = detector.scan(text[:size], 0, False, SCOPE)
        assert {c for c in expected if c.start < hold} <= set(candidates) <= expected
        if wake:
            assert wake > size and all(
                detector.scan(text[:n], 0, False, SCOPE).hold == hold for n in range(size, min(wake, len(text) + 1))
            )


@given(ROW, TEXTS)
@settings(max_examples=300, deadline=None)
def test_the_longest_match_is_what_another_engine_finds_by_trying_every_end(
    row: dict[str, str], cut: list[str]
) -> None:
    text, anchor, within = fold("".join(cut)), fold(row["anchor"]), int(row["within"])
    rest = row["rest"].replace(r"\b", r"(?a:\b)").replace("(?m:$)", r"(?=\n|\Z)").replace("$", r"\Z")
    expected = []
    for start in range(len(text)):
        inside_word = start and is_word(text[start]) and is_word(text[start - 1])
        if text.startswith(anchor, start) and not inside_word:
            first, last = start + len(anchor), min(len(text), start + within)
            ends = [end for end in range(first, last + 1) if spans(rest, text, first, end)]
            expected += [text[start : max(ends)]] if ends else []
    assert found(rules(row), "".join(cut)) == expected


def spans(rest: str, text: str, first: int, end: int) -> bool:
    """Python's engine matches exactly text[first:end], with what stands around it in sight."""
    return re.match(rf"(?s:.{{{first}}})(?:{rest})(?<=\A(?s:.{{{end}}}))", text) is not None


def test_time_is_linear_in_the_text_and_a_match_costs_the_same_in_a_long_one() -> None:
    detector = rules({"anchor": "甲甲", "rest": "(?:.{0,20}乙)?(?:.*丙)?丁", "within": "200"})

    def cost(text: str) -> float:
        """Seconds of this thread's own CPU time, the best of three."""
        best = 9.0
        for _ in range(3):
            began = time.thread_time()
            detector.scan(text, 0, True, SCOPE)
            best = min(best, time.thread_time() - began)
        return best

    # Wide bounds, for a busy machine: what is quadratic takes 256 times as long, and 40 times as long.
    assert cost("甲" * 40_000) < 80 * cost("甲" * 2_500), "16 times as much text"
    assert cost("天" * 400_000 + "甲甲" * 5_000) < 10 * cost("甲甲" * 5_000) + 0.05


# ---- from outside


def check(folder: Path, lines: list[Any], *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """`sluice check` with this folder of lexicons: exit status, answers, stderr."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    clean |= {"SLUICE_LEXICONS": str(folder), "SLUICE_MODELS": str(scorers.models())}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "check", *options],
        input="\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode(),
        capture_output=True, env=clean, cwd=ROOT, timeout=60,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def test_the_rules_of_the_page_find_their_sentences_in_a_check(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    (tmp_path / "abuse_spam").mkdir()
    example = page.split("```\n")[1]
    (tmp_path / "abuse_spam" / "rules.tsv").write_text(example, "utf-8")
    zh, en = load(tmp_path)
    text = "【推广】無抵押貸款，当天放款，加\u200b微信。"
    status, answers, _ = check(
        tmp_path, [{"text": text}, {"text": "Guaranteed returns! Just message me."}, {"text": "无抵押贷款的风险"}]
    )
    assert status == 0
    assert [a["categories"] for a in answers] == [["abuse_spam"], ["abuse_spam"], []]
    (finding,) = answers[0]["findings"]
    assert finding["evidence"] == {"rule": zh.id, "technique": "traditional+width+zero_width", "text": None}
    assert text[finding["start"] : finding["end"]] == "無抵押貸款，当天放款，加\u200b微信"
    assert [(f["evidence"]["rule"], f["action"]) for f in answers[1]["findings"]] == [(en.id, "flag")]


def test_of_a_stream_not_a_character_of_a_match_is_let_go(file: Path) -> None:
    folder = write(file, {"name": "near", "anchor": "红色信号", "rest": ".{0,6}灯塔", "within": "12"})
    chunks = list("看红色信号弹，再看红色信号在灯塔上")
    _, (answer,), _ = check(folder, [{"chunks": chunks}], "--stream")
    assert (answer["action"], answer["delivered"]) == ("block", "看红色信号弹，再看")


def test_a_broken_rule_stops_the_command_with_its_place_and_the_way_out(file: Path) -> None:
    folder = write(file, FINE, {"name": "again", "anchor": "red falcon", "rest": "(?=a)"})
    status, answers, said = check(folder, [{"text": "好"}])
    assert (status, answers) == (2, [])
    assert said.startswith(f"sluice: {file}:3: column rest: RE2 does not take it (invalid perl operator: (?=)")
    assert "docs/rules.md" in said
    assert "Traceback" not in said
