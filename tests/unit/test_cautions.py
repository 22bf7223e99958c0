"""Cautions: an answer that advises on health, law, money or an emergency is named so, whatever pieces it comes in; what only speaks of
them is not."""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations, pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cautions import TOPICS, Cautions, notice, shipped
from app.moderation import Moderator
from app.pipeline import moderator, screened
from app.settings import read
from app.text import fold
from app.types import Action, Direction, Scope
from tests.conftest import ROOT

BANK = [json.loads(line) for line in (ROOT / "tests" / "unit" / "cautions.jsonl").read_text("utf-8").splitlines()]
"""Texts written for the project. Nothing was tuned on every second one."""


def named(*pieces: str) -> tuple[str, ...]:
    watch = shipped().start()
    for piece in pieces:
        watch.push(piece)
    return watch.finish()


# ---- what is named


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_advice_is_named_and_its_clean_twins_are_not(half: int, lang: str) -> None:
    rows = [row for row in BANK[half::2] if row["lang"] == lang]
    advice = [row for row in rows if row["topics"]]
    clean = [row for row in rows if not row["topics"]]
    assert len(advice) >= 16 and len(clean) >= 20
    hit = sum(set(row["topics"]) <= set(named(row["text"])) for row in advice)
    assert hit / len(advice) >= 0.75
    assert sum(bool(named(row["text"])) for row in clean) <= len(clean) // 50
    assert sum(bool(set(named(row["text"])) - set(row["topics"])) for row in advice) <= len(advice) // 8


def test_the_bank_is_large_enough_and_has_every_topic_in_both_languages() -> None:
    assert sum(bool(row["topics"]) for row in BANK) >= 60 and sum(not row["topics"] for row in BANK) >= 120
    for lang in ("zh", "en"):
        assert {t for row in BANK if row["lang"] == lang for t in row["topics"]} == set(TOPICS)
    assert len({fold(row["text"]) for row in BANK}) == len(BANK)


def test_one_cue_is_not_enough_and_neither_are_words_of_the_topic_alone() -> None:
    assert named("建议您每天看一首诗。她服用的是月光。") == ()
    assert named("医院门口，患者、医生和护士都在等雨停；症状、疼痛、发烧，是这首诗的三个词。您可以读读看。") == ()
    assert named("You should see a doctor.") == ()


def test_a_long_text_of_something_else_is_not_named_for_a_line_of_advice() -> None:
    advice = "如果您发热，建议服用退烧药。"
    assert named(advice) == ("medical",)
    assert named("远山如黛，江水向东，渡口的老船工又讲起那年的雪。" * 100 + advice) == ()


def test_topics_are_sorted_and_both_named() -> None:
    medical, legal = (next(r["text"] for r in BANK if r["topics"] == [topic]) for topic in ("medical", "legal"))
    assert named(medical, legal) == ("legal", "medical")


def test_folded_forms_and_whole_words_count_alone() -> None:
    assert named("建議您每日兩次服用，劑量減半，症狀不退請就醫。") == ("medical",)
    assert named("If you are a dosedealer, the mgm and overdosedly ibuprofenic words are none.") == ()


# ---- however it is cut


def cut(text: str, places: list[int]) -> list[str]:
    at = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


@given(st.lists(st.sampled_from(BANK), min_size=1, max_size=6), st.lists(st.integers(0, 10_000), max_size=40))
@settings(max_examples=150, deadline=None)
def test_the_topics_are_the_same_however_the_answer_is_cut(rows: list[dict[str, str]], places: list[int]) -> None:
    text = "\n".join(row["text"] for row in rows)
    assert named(*cut(text, places)) == named(text)


@given(st.text("ab 每日三次", max_size=700), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_a_cue_across_pieces_is_found_as_a_whole_and_never_twice(text: str, size: int) -> None:
    own = Cautions(
        [
            ("medical", "strong", "a b"),
            ("medical", "weak", "三次"),
            ("medical", "weak", "每日三次"),
            ("advice", "-", "ab"),
        ]
    )

    def read(*pieces: str) -> tuple[str, ...]:
        watch = own.start()
        for piece in pieces:
            watch.push(piece)
        return watch.finish()

    assert read(*(text[i : i + size] for i in range(0, len(text), size))) == read(text)


def test_nothing_is_kept_of_an_answer_but_what_a_cue_may_still_need() -> None:
    watch = shipped().start()
    for _ in range(20_000):
        watch.push("山水之间")
    assert len(watch._tail) <= shipped().longest + 1 and sum(map(len, watch._pending)) < 200


def test_reading_a_stream_costs_a_small_part_of_a_microsecond_per_character() -> None:
    text = "".join(row["text"] for row in BANK) * 5
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]

    def spent() -> float:
        begun = process_time()
        named(*pieces)
        return process_time() - begun

    assert min(spent() for _ in range(3)) < 1e-6 * len(text)


# ---- the notice


@cache
def _moderator() -> Moderator:
    return moderator(read({}))


@pytest.mark.parametrize("direction", ["answer", "prompt"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_notice_names_what_made_the_text_and_passes_our_own_detectors(
    language: str, direction: Direction
) -> None:
    for count in range(1, len(TOPICS) + 1):
        for topics in combinations(TOPICS, count):
            text = notice(topics, language)
            assert (
                ("人工智能" in text and "生成" in text) if language == "zh" else ("AI" in text and "generated" in text)
            )
            assert text.count("。") + text.count(". ") == (language == "zh") and "  " not in text
            seen = screened(_moderator(), [text], Scope("default", direction))
            assert seen.verdict.action == Action.PASS and not seen.verdict.findings, topics
            assert "".join(seen.released) == text


def test_there_is_no_notice_for_no_topic_and_one_sentence_for_several() -> None:
    assert notice((), "zh") == notice([], "en") == ""
    assert notice(("medical", "legal"), "zh") == "本内容由人工智能生成，不能替代医生的诊断和律师的意见。"
    assert notice(("emergency",), "en") == (
        "This content was generated by AI; in an emergency, call your local emergency number first."
    )
