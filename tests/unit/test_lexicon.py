"""The lexicon: every line is read or refused by file, line and column; what ships finds its sentences and no others."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest

from app import clock, surrogate
from app.detectors import shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import COLUMNS, Lexicon, Term, load, read
from app.errors import LexiconError
from app.keys import decision_id
from app.policy import Policies, parse
from app.streaming import Channel
from app.taxonomy import taxonomy
from app.text import fold, is_han
from app.types import Action, Direction, Scope, Verdict
from tests.conftest import ROOT

SCOPE = Scope("default", "answer")


def found(lexicon: Lexicon, text: str) -> set[tuple[str, str]]:
    """(category, rule) of what the lexicon finds in original text."""
    return {(c.category, c.rule) for c in lexicon.scan(fold(text), 0, True, SCOPE).candidates}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "violence").mkdir()
    return tmp_path / "violence" / "terms.tsv"


# ---- reading


@pytest.mark.parametrize(
    ("raw", "line", "named"),
    [
        (b"", 1, "column"),
        (b"tier\tallow\ncertain\t", 1, "the first line must name the columns"),
        (b"some term\tcertain", 1, "column 'some term' is unknown"),
        (b"term\tteir\nsome term\tcertain", 1, "column 'teir' is unknown"),
        (b"term\tterm\nsome term\tother", 1, "column 'term'"),
        (b"term\tTerm\n", 1, "column 'Term' is unknown"),
        (b"term\ttier\nsome term\tcertain\textra", 2, "3 cells, but the first line names 2 columns"),
        (b"term\ttier\nsome term\tsure", 2, "column tier"),
        (b"term\ttier\nsome term\tCertain", 2, "column tier"),
        (b"term\ttier\nsome term\tentry", 2, "column tier"),
        (b"term\ttier\n\tcertain", 2, "column term: shorter than 2"),
        (b"term\n# a remark\n\nx\n", 4, "column term: shorter than 2"),
        ("term\na\u200b\u0301".encode(), 2, "column term: shorter than 2"),
        (b"term\nfine term\r\n" + b"x" * 101, 3, "column term: longer than 100"),
        (("term\n" + "㈱" * 40).encode(), 2, "column term: longer than 100"),
        (b"term\texpires\nsome term\tsoon", 2, "column expires"),
        (b"term\texpires\nsome term\t2027-02-30", 2, "column expires"),
        (b"term\texpires\nsome term\t30.06.2027", 2, "column expires"),
        (b"term\tallow\nsome term\tsome other", 2, "column allow"),
        (b"term\tallow\nsome term\tthis some term|some terms|other", 2, "column allow"),
        (b"term\tallow\nsome term\t" + b"x" * 33 + b"some term", 2, "column allow"),
        (b"term\nfine term\nbad \xff term", 3, "not UTF-8"),
        (b"\xff\xfet\x00e\x00r\x00m\x00", 1, "not UTF-8"),
    ],
)
def test_a_broken_line_is_refused_by_file_line_and_column(file: Path, raw: bytes, line: int, named: str) -> None:
    file.write_bytes(raw)
    with pytest.raises(LexiconError) as refused:
        load(file.parent.parent)
    assert str(refused.value).startswith(f"{file}:{line}: ")
    assert named in str(refused.value)


def test_every_column_is_read_in_any_order_and_missing_cells_are_empty(file: Path) -> None:
    file.write_bytes(
        "\ufeffhit\tterm\tallow\ttier\texpires\r\n句\t Some  Term \tSome  Term A|b some  term\r\n\n#\n".encode()
    )
    (term,) = read(file, "violence")
    assert (term.term, term.category, term.tier, term.hit, term.expires) == (
        "Some  Term",
        "violence",
        "certain",
        "句",
        None,
    )
    assert term.allow == ("Some  Term A", "b some  term")


def test_a_term_is_found_in_any_case_and_width_and_a_tier_is_kept(file: Path) -> None:
    file.write_text("term\ttier\nred falcon\tsuspect\n示例短语\t\n", "utf-8")
    lexicon = Lexicon(load(file.parent.parent))
    text = fold("ＲＥＤ Falcon，示\u200b例短語")
    candidates = lexicon.scan(text, 0, True, SCOPE).candidates
    assert [(text[c.start : c.end], c.tier, c.category) for c in candidates] == [
        ("red falcon", "suspect", "violence"),
        ("示例短语", "certain", "violence"),
    ]


def test_a_folder_that_is_no_category_or_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="no such folder; set SLUICE_LEXICONS"):
        load(tmp_path / "none")
    (tmp_path / "violent").mkdir()
    (tmp_path / "violent" / "terms.tsv").write_text("term\n", "utf-8")
    with pytest.raises(LexiconError, match="'violent' is not a category"):
        load(tmp_path)


def test_a_rule_is_the_same_whatever_the_other_lines_say_and_holds_no_text() -> None:
    rule = Term("some term", "violence").rule
    assert rule == Term("some term", "violence", "suspect", ("some term a",)).rule
    assert re.fullmatch(r"lex\.violence\.[0-9a-f]{12}", rule)


def test_an_allowed_phrase_makes_its_own_term_harmless_and_no_other() -> None:
    lexicon = Lexicon([Term("红色信号", "violence", allow=("红色信号灯",)), Term("色信号灯", "self_harm")])
    assert {c for c, _ in found(lexicon, "看红色信号灯")} == {"self_harm"}
    assert {c for c, _ in found(lexicon, "看红色信号")} == {"violence"}


@pytest.mark.parametrize(
    ("today", "expires", "in_force"),
    [
        ("2027-06-29", "2027-06-30", True),
        ("2027-06-30", "2027-06-30", True),
        ("2027-07-01", "2027-06-30", False),
        ("2099-01-01", "", True),
    ],
)
def test_a_term_is_in_force_to_the_end_of_its_last_day(file: Path, today: str, expires: str, in_force: bool) -> None:
    file.write_text(f"term\texpires\nsome term\t{expires}\n", "utf-8")
    clock.use(lambda: datetime.fromisoformat(today + "T12:00").timestamp())
    lexicon = Lexicon(load(file.parent.parent))
    assert bool(found(lexicon, "here is some term.")) is in_force


# ---- what ships


@cache
def terms() -> list[Term]:
    return load(ROOT / "lexicons")


@cache
def lexicon() -> Lexicon:
    return Lexicon(terms())


@cache
def policies() -> Policies:
    return parse((ROOT / "app" / "policy.yaml").read_bytes())


def name(term: Term) -> str:
    return term.rule


def test_every_shipped_term_is_found_in_its_sentence_and_not_in_its_clean_one() -> None:
    for term in terms():
        assert term.hit and term.clean, name(term)
        assert (term.category, term.rule) in found(lexicon(), term.hit), name(term)
        assert term.rule not in {rule for _, rule in found(lexicon(), term.clean)}, name(term)


def test_every_shipped_certain_term_is_more_than_a_bare_noun() -> None:
    for term in terms():
        if term.tier == "certain":
            assert sum(map(is_han, term.term)) >= 4 or len(re.findall(r"[a-z0-9']+", term.term)) >= 2, name(term)


def test_shipped_terms_are_folded_unique_and_in_force() -> None:
    texts = [term.term for term in terms()]
    assert len(texts) == len(set(texts)) == len(lexicon())
    assert all(text == fold(text) == " ".join(text.split()) for text in texts)


def test_every_shipped_file_is_in_the_folder_of_its_category_and_names_all_columns() -> None:
    files = sorted((ROOT / "lexicons").glob("*/*.tsv"))
    assert {f.parent.name for f in files} <= set(taxonomy()) and {f.name for f in files} == {"terms.tsv"}
    assert all(tuple(f.read_text("utf-8").splitlines()[0].split("\t")) == COLUMNS for f in files)
    assert not [t for t in terms() if t.category == "sexual_minors"]


# ---- what a person is shown passes our own detectors


def above_pass(text: str, direction: Direction) -> list[str]:
    channel = Channel(shipped(lexicon(), Blocklist()), policies().common, Scope("default", direction))
    released = channel.push(text) + channel.finish()
    acting = [f.rule for f in channel.findings if f.action > Action.PASS]
    assert acting or released == text
    return acting


@pytest.mark.parametrize("direction", ["answer", "prompt"])
@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("category", [*taxonomy(), None])
def test_no_surrogate_is_stopped_or_recorded_by_our_own_detectors(
    category: str | None, language: str, direction: Direction
) -> None:
    verdict = Verdict(Action.BLOCK, category=category, clause=taxonomy()[category].clause if category else None)
    text = surrogate.text(policies().common, verdict, decision_id(), language)
    assert "slc_" in text
    assert above_pass(text, direction) == []


@pytest.mark.parametrize("direction", ["answer", "prompt"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_guidance_that_goes_with_a_refusal_passes_our_own_detectors(language: str, direction: Direction) -> None:
    given = surrogate.guidance(policies().common, language)
    assert given["text"] and above_pass("\n".join(given.values()), direction) == []


@pytest.mark.parametrize("direction", ["answer", "prompt"])
def test_the_note_for_a_refused_message_passes_our_own_detectors(direction: Direction) -> None:
    assert above_pass(surrogate.NOTE, direction) == []
