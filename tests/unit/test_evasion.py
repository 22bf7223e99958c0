"""The evasion suite of tests/evasion: recall per technique and false hits per kind, as `sluice lexicon test --suite` counts them.

The figures below are what the suite's authors aimed at (docs/benchmarks.md has what was measured). Where a technique falls
short of its aim, its floor is what was reached, so that it cannot get worse unseen.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from app.detectors.lexicon import Lexicon, Term, cues, phrases
from app.policy import Policy
from app.policyfile import CategoryRule, Rules
from app.streaming import Channel
from app.taxonomy import taxonomy
from app.types import Action, Scope, Tier

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "evasion"
EXACT = ("plain", "case", "width", "zero_width", "circled", "math", "combining", "bidi", "variation", "compat")
DECODED = ("entity", "percent", "escape", "base64", "hex", "rot13")
RECALL = (
    dict.fromkeys([*EXACT, *DECODED], 0.99)
    | dict.fromkeys(["traditional", "homoglyph", "repeat", "digit"], 0.95)
    | dict.fromkeys(
        [
            "noise",
            "markdown",
            "alnum",
            "leet",
            "homophone",
            "pinyin",
            "mixed_pinyin",
            "split",
            "reversed",
            "tag",
            "combination",
        ],
        0.85,
    )
    | {"lookalike": 0.7}  # aimed at 0.85
)


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SUITE / name).read_text("utf-8").splitlines()]


@cache
def lexicon(tier: Tier) -> Lexicon:
    terms = [Term(row["term"], row["category"], tier) for row in read("terms.jsonl")]
    return Lexicon(terms, phrases(ROOT / "lexicons"), cues(ROOT / "lexicons"))


@cache
def blocks() -> Policy:
    every = CategoryRule(answer="block", prompt="block")
    return Policy(Rules(categories=dict.fromkeys(taxonomy(), every)), "draft_2023_04", "test")


def actions(text: str, tier: Tier = "certain") -> list[Action]:
    channel = Channel([lexicon(tier)], blocks(), Scope("default", "answer"), readers=[lexicon(tier)])
    channel.push(text)
    channel.finish()
    return [f.action for f in channel.findings]


@cache
def recalls() -> dict[str, float]:
    seen, found = Counter[str](), Counter[str]()
    for case in read("cases.jsonl"):
        seen[case["technique"]] += 1
        found[case["technique"]] += any(a > Action.PASS for a in actions(case["text"]))
    return {name: found[name] / seen[name] for name in seen}


def test_the_suite_is_as_large_as_it_says() -> None:
    assert len(read("cases.jsonl")) >= 1000
    assert len(read("clean.jsonl")) >= 500
    assert {case["technique"] for case in read("cases.jsonl")} == set(RECALL)


@pytest.mark.parametrize("technique", sorted(RECALL))
def test_a_technique_is_seen_through(technique: str) -> None:
    assert recalls()[technique] >= RECALL[technique]


def test_clean_twins_are_left_alone() -> None:
    hits = Counter(case["kind"] for case in read("clean.jsonl") if actions(case["text"]))
    assert sum(hits.values()) <= 0.05 * len(read("clean.jsonl")), hits


def test_a_topic_word_in_a_lecture_a_law_or_the_news_is_flagged_at_most() -> None:
    assert {a for case in read("context.jsonl") for a in actions(case["text"], "suspect")} <= {Action.PASS, Action.FLAG}
