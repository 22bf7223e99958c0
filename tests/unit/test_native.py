"""The engine in C answers as the one in Python does, and as plain Python would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import ends, forms, native, views
from app.align import first_run
from app.automaton import Live, Native, Pure
from app.lookup import Lookup
from app.text import CharTable, fold

EVASION = Path(__file__).parents[1] / "evasion" / "cases.jsonl"
SMALL = st.text("ab赌博ｂ1一 .!é\u200b😀\U00034000", max_size=40)
ANY = st.text(st.characters(), max_size=60)


def test_the_suite_runs_on_the_compiled_engine() -> None:
    assert native.scan is not None, "app/_scan.c was not compiled: scripts/install says why"


def _plain(one: CharTable, text: str) -> tuple[str, list[int]]:
    """By the dictionary alone."""
    found = [(c, i) for i, ch in enumerate(text) for c in _made(one, ch)]
    if one is views.SKELETON:
        found = [pair for k, pair in enumerate(found) if not k or found[k - 1][0] != pair[0]]
    return "".join(c for c, _ in found), [i for _, i in found]


def _made(one: CharTable, ch: str) -> str:
    value = one[ord(ch)]
    return "" if value is None else value if isinstance(value, str) else chr(value)


@settings(max_examples=300, deadline=None)
@given(st.one_of(SMALL, ANY))
def test_a_table_maps_as_its_dictionary_says(text: str) -> None:
    for table in (views.SKELETON, views.SOUND, views.SHAPE):
        assert (table.apply(text), table.places(text)) == _plain(table, text)


def test_a_table_maps_all_of_unicode_as_its_dictionary_says() -> None:
    text = "".join(
        map(
            chr,
            [
                *range(0x3400),
                *range(0x3400, 0xD800, 7),
                *range(0xE000, 0x20000, 3),
                *range(0x20000, 0x34010, 61),
                *range(0x10FFF0, 0x110000),
            ],
        )
    )
    assert fold(text) == "".join(map(fold, text))
    for table in (views.SKELETON, views.SOUND, views.SHAPE):
        assert table.apply(text) == _plain(table, text)[0]
    assert not any(chr(c).isalnum() for c in range(0x34000, 0x110000)), "the maps end before these"


@settings(max_examples=300, deadline=None)
@given(st.sets(st.text("ab赌博b1", min_size=1, max_size=5), min_size=1, max_size=40), SMALL, st.integers(0, 5))
def test_both_engines_find_the_same(patterns: set[str], text: str, since: int) -> None:
    listed = sorted(patterns)
    since = min(since, len(text))
    for table in (None, views.SKELETON, views.SHAPE):
        compiled, pure = Native(listed, table, live=True), Pure(listed, table, live=True)
        ours, live = compiled.watch(text, since)
        theirs, alive = pure.watch(text, since)
        assert sorted(ours) == sorted(theirs)
        assert live == alive
        assert list(ours) == list(compiled.find(text, since))
        assert list(ours) == list(Native.of(compiled.arrays(), table).find(text, since))


LISTED = st.sets(st.text("abil1赌博二 -é", min_size=2, max_size=7).map(fold), min_size=1, max_size=12)
PIECES = st.one_of(
    st.text("abil1赌博二２@ -.\t\n！😀\u0131\u0660²", max_size=6),
    st.sampled_from(
        ["a" * 12, "赌" * 11, " " * 10, " . . .赌赌", "a a a a a a a a a a", "ab ", "赌\u3000", "一. ", "\U00034000"]
    ),
    st.text(st.characters(), max_size=3),
)


@settings(max_examples=1000, deadline=None)
@given(LISTED, st.lists(st.one_of(PIECES, st.integers(0, 11)), max_size=8), st.integers(0, 8))
def test_both_engines_hold_the_same_of_the_end(listed: set[str], pieces: list[str | int], since: int) -> None:
    terms = sorted(listed)
    # Terms of the list, whole or without their last character, between all sorts of things.
    shown = [
        terms[piece % len(terms)][: -1 if piece % 2 else None] if isinstance(piece, int) else piece for piece in pieces
    ]
    text = fold("".join(shown))
    strong = Lookup(forms.strong(terms), views.SKELETON, live=True)
    breaks = Lookup(((made, 0) for made in forms.breaks(terms)), views.SKELETON)
    run = max(map(first_run, terms))
    compiled, pure = ends.Native(strong, breaks, run), ends.Pure(strong, breaks, run)
    for end in range(len(text) + 1):
        (ours, hold), (theirs, held) = (each.look(text[:end], min(since, end)) for each in (compiled, pure))
        assert (list(ours), hold) == (list(theirs), held)


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text("&%\\\\<!+|](#a0g@$uxz/ 赌", max_size=12), ANY), st.integers(0, 5))
def test_both_engines_see_the_same_marks(text: str, since: int) -> None:
    assert views.marks(text, since) == views.searched(text, since)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.text("ab赌", min_size=1, max_size=4), min_size=1, max_size=30), st.text("ab赌", max_size=30))
def test_both_engines_find_what_is_there(patterns: set[str], text: str) -> None:
    listed = sorted(patterns)
    there = sorted(
        (n, tuple(range(at, at + len(p))))
        for n, p in enumerate(listed)
        for at in range(len(text))
        if text.startswith(p, at)
    )
    starts = [at for at in range(len(text)) if any(p.startswith(text[at:]) and p != text[at:] for p in listed)]
    live = Live(tuple(range(starts[0], len(text))), tuple(s - starts[0] for s in starts)) if starts else None
    for engine in (Native(listed, live=True), Pure(listed, live=True)):
        hits, alive = engine.watch(text)
        assert (sorted(hits), alive) == (there, live)


def test_many_patterns_are_found_each_in_its_place() -> None:
    listed = sorted({f"{chr(0x4E00 + n * 7919 % 20000)}{chr(0x4E00 + n % 5000)}{n % 97}" for n in range(50_000)})
    found = Native(listed, live=False).find(" ".join(listed))
    assert {number for number, _ in found} == set(range(len(listed)))


def test_a_pattern_may_be_long_but_not_without_end() -> None:
    assert Native(["a" * 60_000], live=False).find("b" + "a" * 60_001)[1][1][0] == 2
    with pytest.raises(ValueError, match="empty or too long"):
        Native(["a" * 70_000], live=False)
    with pytest.raises(ValueError, match="empty or too long"):
        Native(["", "a"])


def test_patterns_with_several_owners_keep_them() -> None:
    lookup = Lookup([("ab", 3), ("ab", 5), ("b", 1), ("ab", 3)])
    assert [lookup.owners(n) for n, _ in sorted(Lookup.of(lookup.arrays()).find("ab"))] == [[3, 5], [1]]


_CHECK = "import sys; {}from app.cli import main; sys.exit(main())"
_WITHOUT = "sys.modules['app._scan'] = sys.modules['app._views'] = None; "


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.long), True])
def test_without_the_compiled_engine_the_verdicts_are_the_same(stream: bool, tmp_path: Path) -> None:
    cases = [json.loads(line) for line in EVASION.read_text("utf-8").splitlines()][::6]
    terms = tmp_path / "terms.jsonl"
    names = {(c["term"], "illegal_acts") for c in cases}
    terms.write_text("\n".join(json.dumps({"term": t, "category": c}) for t, c in sorted(names)), "utf-8")
    given = [
        {"chunks": [c["text"][i : i + 3] for i in range(0, len(c["text"]), 3)]} if stream else {"text": c["text"]}
        for c in cases
    ]
    lines = "\n".join(json.dumps({"id": i, **one}) for i, one in enumerate(given))
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, "check", *(["--stream"] if stream else []), "--terms", str(terms)],
            input=lines, capture_output=True, text=True, check=True, timeout=100,
        ).stdout
        for code in (_CHECK.format(""), _CHECK.format(_WITHOUT))
    ]  # fmt: skip
    assert answers[0] == answers[1]
    assert answers[0].count('"block"') > len(cases) / 2
