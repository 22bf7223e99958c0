"""The lexicon changes while the gateway runs: the new list is compiled beside the traffic and taken whole, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from app.compiling import INLINE
from app.detectors.blocklist import _FRESH, Blocklist
from app.detectors.lexicon import Lexicon, compiled
from app.errors import LexiconError
from app.types import Scope
from tests.conftest import Running, wait_for
from tests.integration.test_policy_reload import count

Make = Callable[..., Running]
SECONDS = 5.0
SCOPE = Scope("default", "answer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    (path / "violence").mkdir(parents=True)
    write(path, "第一个蓝色词条")
    return path


def write(folder: Path, *terms: str, extra: str = "") -> None:
    (folder / "violence" / "terms.tsv").write_text("term\n" + "\n".join(terms) + "\n" + extra, "utf-8")


def action(gateway: Running, text: str) -> str:
    return str(gateway.chat(text).json()["sluice"]["action"])


def test_a_changed_lexicon_takes_effect_and_its_version_shows(make_gateway: Make, folder: Path) -> None:
    gateway = make_gateway("categories: {violence: {prompt: block}}", lexicons=folder)
    assert action(gateway, "第一个蓝色词条") == "block"
    assert action(gateway, "第二个红色词条") == "pass"
    before = gateway.gateway.status()
    write(folder, "第二个红色词条", "第三个词条")
    wait_for(lambda: action(gateway, "第二个红色词条") == "block", SECONDS)
    after = gateway.gateway.status()
    assert action(gateway, "第一个蓝色词条") == "pass"
    assert (after["terms"], before["terms"]) == (2, 1) and after["lexicon"] != before["lexicon"]
    # A rule file is part of it.
    rule = "name\tanchor\trest\nnumber\t加号码\t[0-9]{4}\n"
    (folder / "violence" / "rules.tsv").write_text(rule, "utf-8")
    wait_for(lambda: action(gateway, "加号码1234") == "block", SECONDS)


def test_a_bad_lexicon_keeps_the_old_one_and_is_counted_and_told(
    make_gateway: Make, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = make_gateway("categories: {violence: {prompt: block}}", lexicons=folder)
    before = count("sluice_reloads_total", file="lexicon", outcome="failed")
    with caplog.at_level(logging.ERROR):
        write(folder, "第二个红色词条", extra="x\ty\tz\n")
        wait_for(lambda: count("sluice_reloads_total", file="lexicon", outcome="failed") > before, SECONDS)
    assert action(gateway, "第一个蓝色词条") == "block"
    told = next(r for r in caplog.records if "lexicon not reloaded" in r.getMessage())
    assert "terms.tsv:3" in told.__dict__["reason"]


@pytest.mark.long
def test_a_long_list_is_compiled_once_for_all_and_found_again_by_its_content(folder: Path, tmp_path: Path) -> None:
    terms = [
        f"{a}{b}{c}的长词条"
        for a in "甲乙丙丁戊己庚辛壬癸子丑"
        for b in "天地玄黄宇宙洪荒"
        for c in "金木水火土日月山川风雷电"
    ]
    write(folder, *(f"{term}{'很长' * 20}" for term in terms))
    assert len(terms) == 1152
    more = "\n".join(f"{t}\t\t" for t in (f"{term}{'更长' * 30}" for term in terms))
    write(folder, *(f"{term}{'很长' * 20}" for term in terms), extra=more.replace("\t", ""))
    kept = tmp_path / "kept"
    made = compiled(folder, kept)
    [file] = kept.glob("*.list")
    stamp = file.stat().st_ino
    again = compiled(folder, kept)
    assert file.stat().st_ino == stamp and again.version == made.version and len(again) == 2304
    text = f"说{terms[7]}{'很长' * 20}了"
    for lexicon in (made, again, Lexicon.of(made.arrays())):
        assert [(c.start, c.end) for c in lexicon.scan(text, 0, True, SCOPE).candidates] == [(1, len(text) - 1)]
    # A damaged file is built again.
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert compiled(folder, kept).version == made.version
    # Another list is another file; an unreadable one says where.
    write(folder, *(f"{term}{'很长' * 20}" for term in terms), extra=more.replace("\t", "") + "\nx\ty\n")
    with pytest.raises(LexiconError, match=r"terms\.tsv:2306"):
        compiled(folder, kept)
    assert list(kept.glob("*.tmp")) == []


def row(i: int, term: str) -> dict[str, object]:
    scope = {"app": "*", "directions": ["answer"]}
    return {"id": f"e{i}", "term": term, "category": "violence", "action": "block", "tier": "certain", "scope": scope}


def found(blocklist: Blocklist, text: str) -> list[str]:
    return sorted(c.rule for c in blocklist.scan(text, 0, True, SCOPE).candidates)


@pytest.mark.parametrize("size", [3, INLINE + 1], ids=["short", "long"])
def test_entries_change_beside_the_bulk_without_compiling_it_again(size: int, tmp_path: Path) -> None:
    blocklist = Blocklist(folder=tmp_path)
    blocklist.change({f"e{i}": row(i, f"词条{i}号码") for i in range(size)}, True)
    bulk = blocklist.now.base
    assert len(blocklist) == size and found(blocklist, "看词条1号码吧") == ["e1"]
    blocklist.change({"e1": None, "new": row(0, "新的一条") | {"id": "new"}, "e2": row(2, "改过一条")}, False)
    assert blocklist.now.base is bulk
    assert len(blocklist) == size
    assert found(blocklist, "词条1号码，词条2号码，新的一条，改过一条，词条0号码") == ["e0", "e2", "new"]
    blocklist.change({"new": None}, False)
    blocklist.change({"e1": row(1, "词条1号码")}, False)
    assert found(blocklist, "词条1号码，新的一条") == ["e1"] and len(blocklist) == size
    many = {f"m{i}": row(i, f"多的词{i}") | {"id": f"m{i}"} for i in range(_FRESH + 1)}
    blocklist.change(many, False)
    assert blocklist.now.base is not bulk and len(blocklist) == size + len(many)
    assert found(blocklist, "多的词7，词条1号码，词条2号码，改过一条") == ["e1", "e2", "m7"]
