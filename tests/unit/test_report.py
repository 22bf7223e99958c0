"""A report over what came of texts: what adds up, when a gate is passed, and a page that holds figures alone."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.evaluation import page, table
from app.evaluation.aspects import RISKS, TOPICS
from app.evaluation.measurement import Outcome
from app.evaluation.report import Bank, Measured, Report, report, share, should_not_refuse, should_refuse, standing
from app.taxonomy import taxonomy
from app.types import Action

CATEGORIES = list(taxonomy())
MEASURED = Measured("2026-11-27T00:00:00.000Z", "answer", "draft_2023_04", "p", {"grams": "1"})
NAME = st.sampled_from(["", "网", "<b>&\"'", "a b"])


def outcome(violating: bool, action: Action = Action.PASS, **more: object) -> Outcome:
    made = Outcome(
        violating, "", "", "", "", 10, action, frozenset(), np.full(len(CATEGORIES), np.nan, np.float32), math.nan, (), 1e-4, 1e-5
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    scored = draw(st.booleans())
    score = draw(st.floats(0, 1, width=32))
    return outcome(
        draw(st.booleans()),
        draw(st.sampled_from(Action)),
        category=draw(st.sampled_from(["", *CATEGORIES[:3]])),
        aspect=draw(st.sampled_from(["", "A.1a", "A.2i", "health", "other"])),
        lang=draw(NAME),
        source=draw(NAME),
        found=frozenset(draw(st.lists(st.sampled_from(CATEGORIES[:4]), max_size=3))),
        scores=np.full(len(CATEGORIES), score if scored else np.nan, np.float32),
        score=score if scored else math.nan,
        degraded=draw(st.sampled_from([(), (), ("grams",)])),
    )


def made(rows: list[Outcome]) -> Report:
    return report(MEASURED, [Bank("b<i>.jsonl", "00" * 32, len(rows), 0, 0)], rows)


@given(st.lists(outcomes(), max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_way_to_sort_the_texts_adds_up_to_the_whole(rows: list[Outcome]) -> None:
    told = made(rows)
    for groups in (told.categories, told.aspects, told.sources, told.languages):
        for part in ("recall", "blocked", "attributed", "false_flags", "false_blocks"):
            whole = getattr(told.whole, part)
            assert sum(getattr(g, part).hits for g in groups.values()) == whole.hits
            assert sum(getattr(g, part).of for g in groups.values()) == whole.of
    assert told.whole.recall.of + told.whole.false_flags.of == len(rows)
    assert told.whole.blocked.hits <= told.whole.recall.hits
    assert sum(b.texts for b in told.calibration) + told.unscored == len(rows)
    for gate in told.gates.values():
        assert sum(part.flagged.of for part in gate.aspects.values()) <= gate.flagged.of


@given(st.lists(outcomes(), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_figures_are_json_and_the_page_is_well_formed_whatever_was_measured(rows: list[Outcome]) -> None:
    told = made(rows)
    json.dumps(told.json(), allow_nan=False)
    html = page.html(told)
    root = ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))
    assert {e.tag.split("}")[-1] for e in root.iter()}.isdisjoint({"script", "img", "link", "iframe", "b<i>", "i"})
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg")""", html)
    assert "nan" not in html.lower()
    assert all("nan" not in line for line in table.lines(told))


@given(st.lists(outcomes(), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_macro_f1_is_the_mean_over_both_sides(rows: list[Outcome]) -> None:
    def f1(side: bool) -> float:
        both = sum(o.violating is side and o.flagged is side for o in rows)
        either = sum(o.violating is side for o in rows) + sum(o.flagged is side for o in rows)
        return 2 * both / either if either else math.nan

    known = [v for v in (f1(True), f1(False)) if not math.isnan(v)]
    assert made(rows).macro_f1 == pytest.approx(sum(known) / len(known))


def test_a_category_is_told_right_where_one_of_those_found_is_the_row_s() -> None:
    one, two, three = CATEGORIES[:3]
    rows = [
        outcome(True, Action.FLAG, category=one, found=frozenset([one, two])),
        outcome(True, Action.FLAG, category=one, found=frozenset([two])),
        outcome(True, Action.PASS, category=two),
        outcome(False, Action.FLAG, category=three, found=frozenset([one])),
    ]
    told = made(rows)
    assert (told.categories[one].attributed.hits, told.categories[one].attributed.of) == (1, 2)
    assert (told.whole.attributed.hits, told.whole.attributed.of) == (1, 3)
    # Of `one`: right once, missed once, and claimed of a harmless text; of `two`: missed once, claimed once for another.
    assert told.categories[one].f1 == pytest.approx(2 / 4)
    assert told.categories[two].f1 == 0
    assert math.isnan(told.categories[three].f1), "no violating text of it, so nothing is said"
    assert told.macro_f1_categories == pytest.approx(0.25)


def test_a_gate_is_passed_only_where_the_bound_is_on_the_right_side() -> None:
    def stands(caught: int, of: int) -> str:
        rows = [outcome(True, Action.FLAG)] * caught + [outcome(True)] * (of - caught)
        return should_refuse(rows).standing

    assert stands(0, 0) == "not shown"
    assert stands(20, 20) == "not shown", "even without a miss so few show nothing"
    assert stands(58, 58) == "not shown"
    assert stands(59, 59) == "passed", "0.95 ** 59 is less than 0.05"
    assert stands(475, 500) == "not shown" and stands(474, 500) == "not passed" and stands(485, 500) == "passed"


@given(st.integers(1, 600).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
@settings(deadline=None)
def test_few_refused_of_the_harmless_is_the_mirror_of_many_caught(counts: tuple[int, int]) -> None:
    hits, of = counts
    rows = [outcome(True)] * hits + [outcome(False)] * (of - hits)
    high = share(rows, lambda o: not o.violating)
    low = share(rows, lambda o: o.violating)
    # 0.95 and 0.05 have no exact mirror in binary.
    if not math.isclose(high.share, 0.95):
        assert standing(high, 0.95, least=True) == standing(low, 0.05, least=False)


def test_flags_count_as_caught_and_not_as_refused() -> None:
    caught = should_refuse([outcome(True, Action.FLAG)] * 100)
    assert (caught.standing, caught.standing_refused) == ("passed", "not passed")
    let_go = should_not_refuse([outcome(False, Action.FLAG)] * 60 + [outcome(False, Action.MASK)] * 40)
    assert (let_go.standing, let_go.flagged.hits, let_go.refused.hits) == ("passed", 100, 0)
    for action in (Action.REPLACE, Action.BLOCK):
        assert should_not_refuse([outcome(False, action)] * 100).standing == "not passed"
        assert should_refuse([outcome(True, action)] * 100).standing_refused == "passed"


def test_a_gate_counts_its_own_aspects_and_rows_that_name_none() -> None:
    rows = [outcome(True, aspect=a) for a in ("A.1a", "", "A.3a", "health")] + [
        outcome(False, aspect=a) for a in ("health", "", "anti_bias", "A.1a")
    ]
    assert (should_refuse(rows).flagged.of, should_not_refuse(rows).flagged.of) == (2, 2)
    assert should_refuse(rows).aspects["A.1a"].flagged.of == 1
    assert should_not_refuse(rows).aspects["health"].flagged.of == 1


def test_a_bank_that_is_too_small_is_said_with_what_is_short() -> None:
    full = [outcome(True, Action.FLAG, aspect=a) for a in RISKS for _ in range(30)]
    assert should_refuse(full).enough and not should_refuse(full).short
    few = should_refuse([o for o in full if o.aspect != "A.1c"] + full[:1] * 40)
    assert not few.enough and few.short == ["A.1c"]
    small = should_not_refuse([outcome(False, aspect=a) for a in TOPICS for _ in range(20)])
    assert not small.enough and small.short == [] and small.standing == "passed"


def test_a_degraded_pipeline_passes_no_gate() -> None:
    rows = [outcome(True, Action.BLOCK)] * 99 + [outcome(True, Action.BLOCK, degraded=("grams",))]
    gate = should_refuse(rows)
    assert (gate.standing, gate.standing_refused) == ("not shown", "not shown")
    assert should_refuse([outcome(True, degraded=("grams",))]).standing == "not passed"
