"""Curation: every fault of a folder is told at once, by file and line; an import changes what it says and nothing else."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app import clock
from app.curation import trial
from app.curation.audit import audit
from app.curation.diff import diff
from app.curation.files import Problem, shipped
from app.curation.imports import Plan, apply, plan
from app.curation.lint import lint
from app.curation.wording import reads_as_name, short
from app.detectors.lexicon import COLUMNS, OPTIONAL, Lexicon, load
from app.errors import LexiconError
from app.taxonomy import taxonomy
from tests.conftest import ROOT

TODAY = "2027-06-15"
HEADER = ("term", "tier", "off", "allow", "owner", "reason", "basis", "added", "expires", "hit", "clean")


@pytest.fixture(autouse=True)
def today() -> None:
    clock.use(lambda: datetime.fromisoformat(TODAY + "T12:00").timestamp())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    made.mkdir()
    return made


def put(folder: Path, category: str, *rows: dict[str, str]) -> Path:
    """A terms.tsv with an owner and a reason on every line that names none."""
    file = folder / category / "terms.tsv"
    file.parent.mkdir(exist_ok=True)
    lines = ["\t".join(HEADER)]
    for row in rows:
        full = {"tier": "suspect", "owner": "ops", "reason": "list", "added": "2027-06-01"} | row
        lines.append("\t".join(full.get(name, "") for name in HEADER))
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def kinds(problems: list[Problem]) -> list[tuple[str, int, str]]:
    return [(Path(p.path).parent.name, p.line, p.kind) for p in problems]


# ---- lint


def test_a_folder_without_faults_has_no_problems(folder: Path) -> None:
    put(
        folder,
        "illegal_acts",
        {"term": "出售示例货物", "tier": "certain", "hit": "本店出售示例货物。", "clean": "示例。"},
    )
    put(folder, "violence", {"term": "示例短语"})
    assert lint(folder) == []


@pytest.mark.parametrize(
    ("row", "kind", "said"),
    [
        ({"term": "示例短语", "expires": "2027-06-14"}, "expired", "since 2027-06-14"),
        ({"term": "示例短语", "owner": " "}, "missing", "no owner"),
        ({"term": "示例短语", "owner": "", "reason": ""}, "missing", "no owner and no reason"),
        ({"term": "卖示例", "tier": "certain"}, "short", "make it suspect"),
        ({"term": "卖 xy 示例", "tier": "certain"}, "short", "make it suspect"),
        ({"term": "buy", "tier": "certain"}, "short", "make it suspect"),
        ({"term": "don't", "tier": "certain"}, "short", "make it suspect"),
        ({"term": "示例短语", "hit": "这里没有。"}, "hit", "not found"),
        ({"term": "示例短语", "clean": "这里有示例短语。"}, "clean", "is found"),
        ({"term": "示例短语", "clean": "这里有示\u200b例短语。"}, "clean", "is found"),
        ({"term": "大麻", "allow": "大麻烦"}, "allow", "「大麻烦」 covers nothing"),
        ({"term": "王小明"}, "name", "needs a basis"),
        ({"term": "王小明", "reason": "", "basis": "clause"}, "name", "needs a reason"),
        ({"term": "王小明王小明", "tier": "certain", "basis": "clause"}, "name", "make it suspect"),
        ({"term": "示例短语", "added": "01.06.2027"}, "unreadable", "column added"),
    ],
)
def test_a_fault_of_a_line_is_told_with_its_line(folder: Path, row: dict[str, str], kind: str, said: str) -> None:
    put(folder, "violence", {"term": "另一条短语"}, row)
    (found,) = [p for p in lint(folder) if p.kind == kind]
    assert (found.line, Path(found.path).parent.name) == (3, "violence")
    assert said in found.said


@pytest.mark.parametrize(
    "row",
    [
        {"term": "示例短语", "expires": TODAY},
        {"term": "出售示例", "tier": "certain"},
        {"term": "buy here", "tier": "certain"},
        {"term": "王小明", "basis": "clause 4"},
        {"term": "银行卡"},
        {"term": "出售王小明的示例货物"},
        {"term": "红色信号", "allow": "红色信号灯"},
    ],
)
def test_what_is_in_order_is_not_told(folder: Path, row: dict[str, str]) -> None:
    put(folder, "violence", row)
    assert lint(folder) == []


def test_every_fault_of_every_file_is_told_in_one_go(folder: Path) -> None:
    file = put(folder, "violence", {"term": "示例短语"})
    with file.open("ab") as out:
        out.write("短\tsure\n\n# 注释\n短语\tsure\n".encode() + b"bad \xff\tsuspect\n" + b"x\t" * 20 + b"\n")
    put(folder, "illegal_acts", {"term": "示例短语乙", "off": "magic"}, {"term": "示例短语"})
    (folder / "no_such").mkdir()
    (folder / "no_such" / "terms.tsv").write_text("term\n", "utf-8")
    (folder / "self_harm").mkdir()
    (folder / "self_harm" / "terms.tsv").write_text("term\tteir\n", "utf-8")
    (folder / "self_harm" / "category.toml").write_text('stances = ["sport"]', "utf-8")
    (folder / "allow.tsv").write_text("phrase\treason\n短\tone\n短语一\ttwo\n长\tthree\n", "utf-8")
    (folder / "cues.tsv").write_text("stance\tcue\nlaw\t刑法\nsport\t比赛\n", "utf-8")
    (folder / "violence" / "rules.tsv").write_text("name\tanchor\nA\t短语\n", "utf-8")
    found = {(str(Path(p.path).relative_to(folder)), p.line, p.kind) for p in lint(folder)}
    assert found == {
        ("violence/terms.tsv", 2, "duplicate"),
        ("violence/terms.tsv", 3, "unreadable"),
        ("violence/terms.tsv", 6, "unreadable"),
        ("violence/terms.tsv", 7, "unreadable"),
        ("violence/terms.tsv", 8, "unreadable"),
        ("illegal_acts/terms.tsv", 2, "unreadable"),
        ("no_such/terms.tsv", 0, "unreadable"),
        ("self_harm/terms.tsv", 1, "unreadable"),
        ("self_harm/category.toml", 0, "unreadable"),
        ("allow.tsv", 2, "unreadable"),
        ("allow.tsv", 4, "unreadable"),
        ("cues.tsv", 3, "unreadable"),
        ("violence/rules.tsv", 2, "unreadable"),
    }


def test_the_same_term_in_another_form_or_category_is_a_duplicate(folder: Path) -> None:
    put(folder, "illegal_acts", {"term": "RED falcon"}, {"term": "ｒｅｄ falcon"})
    put(folder, "violence", {"term": "red Falcon"})
    assert kinds(lint(folder)) == [("illegal_acts", 3, "duplicate"), ("violence", 2, "duplicate")]


@pytest.mark.parametrize(
    ("inner", "outer", "shadowed"),
    [
        ({}, {}, True),
        ({"tier": "certain"}, {}, True),
        ({"tier": "certain"}, {"tier": "certain"}, True),
        ({}, {"tier": "certain"}, False),
        ({"off": "noise"}, {}, False),
        ({"off": "noise"}, {"off": "noise"}, True),
        ({"allow": "@law"}, {}, False),
        ({"expires": "2027-12-31"}, {}, False),
        ({}, {"expires": "2027-12-31"}, True),
        ({"allow": "示例短语之后"}, {}, True),
        ({"allow": "出售示例短语"}, {}, False),
    ],
)
def test_a_term_is_shadowed_by_a_shorter_one_that_does_as_much(
    folder: Path, inner: dict[str, str], outer: dict[str, str], shadowed: bool
) -> None:
    put(folder, "violence", {"term": "示例短语"} | inner, {"term": "出售示例短语"} | outer)
    put(folder, "illegal_acts", {"term": "购买示例短语"})
    assert [k for k in kinds(lint(folder)) if k[2] == "shadowed"] == [("violence", 3, "shadowed")] * shadowed


def test_what_the_engine_does_not_find_inside_a_term_shadows_nothing(folder: Path) -> None:
    put(folder, "violence", {"term": "大麻"}, {"term": "惹大麻烦"}, {"term": "port"}, {"term": "airport hall"})
    assert lint(folder) == []


@pytest.mark.parametrize(
    ("tier", "term", "hits", "size", "broad"),
    [
        ("certain", "出售示例", 1, 10_000, False),
        ("certain", "出售示例", 2, 150_000, True),
        ("certain", "出售示例", 2, 250_000, False),
        ("suspect", "示例短语", 19, 100_000, False),
        ("suspect", "示例短语", 21, 100_000, True),
        ("suspect", "示例短语", 1, 100, False),
    ],
)
def test_a_term_is_broad_by_its_hits_in_clean_text(
    folder: Path, tmp_path: Path, tier: str, term: str, hits: int, size: int, broad: bool
) -> None:
    put(folder, "violence", {"term": term, "tier": tier})
    line = "天气很好，" * 20
    rest = [line] * ((size - hits * len(term)) // len(line))
    corpus = tmp_path / "clean.txt"
    corpus.write_text("\n".join([*[term] * hits, *rest]), "utf-8")
    found = lint(folder, [corpus])
    assert [p.kind for p in found] == ["broad"] * broad
    assert all(f"hits {hits} times in " in p.said for p in found)


def test_clean_text_is_that_of_the_folder_and_of_the_shipped_one_where_none_is_named(folder: Path) -> None:
    put(
        folder,
        "violence",
        {"term": "示例短语"},
        *({"term": f"第{i}条短语", "clean": f"示例短语{i}。"} for i in range(3)),
    )
    (found,) = lint(folder)
    assert (found.kind, found.line) == ("broad", 2)
    assert "3 times" in found.said


def test_a_corpus_that_is_not_utf8_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    put(folder, "violence", {"term": "示例短语"})
    corpus = tmp_path / "clean.txt"
    corpus.write_bytes("天气很好".encode("gb18030"))
    with pytest.raises(LexiconError, match="iconv -f GB18030"):
        lint(folder, [corpus])


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="no such folder"):
        lint(tmp_path / "none")


# ---- diff


def test_folders_are_equal_whatever_the_order_and_comments(folder: Path, tmp_path: Path) -> None:
    put(folder, "violence", {"term": "示例短语"}, {"term": "另一条短语", "tier": "certain"})
    other = tmp_path / "other"
    (other / "violence").mkdir(parents=True)
    (other / "violence" / "terms.tsv").write_text(
        "owner\treason\tadded\tterm\ttier\n# 注释\nops\tlist\t2027-06-01\t另一条短语\t\n"
        "ops\tlist\t2027-06-01\t示例短语\tsuspect\n",
        "utf-8",
    )
    assert diff(folder, other) == {}


def test_what_was_added_removed_and_changed_is_told_by_category(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    put(folder, "violence", {"term": "示例短语", "owner": "a"}, {"term": "旧的短语"})
    put(other, "violence", {"term": "示例短语", "owner": "b"}, {"term": "新的短语"})
    put(folder, "self_harm", {"term": "搬走的短语"})
    put(other, "illegal_acts", {"term": "搬走的短语"})
    (other / "allow.tsv").write_text("phrase\treason\n示例短语集\t书名\n", "utf-8")
    found = diff(folder, other)
    assert sorted(found) == ["allow.tsv", "illegal_acts", "self_harm", "violence"]
    assert (found["violence"].added, found["violence"].removed) == (["新的短语"], ["旧的短语"])
    assert found["violence"].changed == {"示例短语": [("owner", "a", "b")]}
    assert (found["illegal_acts"].added, found["self_harm"].removed) == (["搬走的短语"], ["搬走的短语"])
    assert found["allow.tsv"].added == ["phrase\treason", "示例短语集\t书名"]


# ---- import


def imported(folder: Path, file: Path, **options: Any) -> Plan:
    return plan(folder, file, "violence", **({"owner": "ops", "reason": "list"} | options))


def told(made: Plan) -> dict[str, tuple[str, str]]:
    return {c.term: (c.what, c.tier) for c in made.changes}


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.txt", "出售示例\n\n# 注释\nbuy example goods\n"),
        ("a.txt", "\ufeffterm\r\n出售示例\r\nbuy example goods"),
        ("a.csv", '出售示例\r\n"buy example goods"\r\n'),
        ("a.csv", "term\n出售示例\nbuy example goods\n"),
        ("a.csv", '\ufefftier,"term",reason\n,出售示例,"one, two"\n,buy   example goods,\n'),
        ("a.tsv", 'reason\tterm\n"one ""two"""\t出售示例\n\tbuy example goods\n'),
        ("a.list", "term\ttier\n出售示例\t\nbuy example goods\tsuspect\n"),
        ("a", "tier,term\n,出售示例\n,buy example goods\n"),
        ("a.txt", "term,tier\n出售示例,\nbuy example goods,\n"),
    ],
)
def test_csv_tsv_and_txt_are_read_by_header_or_name(folder: Path, tmp_path: Path, name: str, raw: str) -> None:
    file = tmp_path / name
    file.write_bytes(raw.encode())
    made = imported(folder, file)
    assert told(made) == {"出售示例": ("added", "suspect"), "buy example goods": ("added", "suspect")}
    apply(made)
    assert {t.term for t in load(folder)} == {"出售示例", "buy example goods"}
    assert not [p for p in lint(folder) if p.kind != "allow"]


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("a.txt", "示例短语".encode("gb18030"), "iconv -f GB18030 -t UTF-8"),
        ("a.csv", "term\n示例短语\n".encode("utf-16"), "iconv -f UTF-16"),
        ("a.csv", b'term,tier\n"open', "a.csv:2: not CSV"),
        ("a.csv", "示例短语,suspect\n".encode(), "a.csv:1: the first line must name the columns"),
        ("a.csv", b"term,teir\n", "a.csv:1: column 'teir' is unknown"),
        ("a.csv", b"term,term\n", "a.csv:1: column 'term' stands twice"),
        ("a.tsv", "term\n示例短语\tmore\n".encode(), "a.tsv:2: 2 cells"),
        ("none.txt", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole(
    folder: Path, tmp_path: Path, name: str, raw: bytes | None, said: str
) -> None:
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(LexiconError) as refused:
        imported(folder, tmp_path / name)
    assert said in str(refused.value)


def test_a_line_is_refused_with_its_reason_and_the_rest_is_taken(folder: Path, tmp_path: Path) -> None:
    put(folder, "self_harm", {"term": "别处的短语"})
    file = tmp_path / "a.csv"
    rows = [
        ("term", "tier", "expires", "off"), ("示例短语", "", "", ""), ("短", "", "", ""), ("短语一", "sure", "", ""),
        ("短语二", "", "soon", ""), ("短语三", "", "", "magic"), ("别处的短语", "", "", ""), ("示\u200b例短语", "", "", ""),
        ("第一行\n第二行", "", "", ""), ("#短语", "", "", ""), ("王小明", "", "", ""),
    ]  # fmt: skip
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(rows)
    made = imported(folder, file)
    refused = {c.where.rpartition(":")[2]: c.notes[0] for c in made.changes if c.what == "refused"}
    assert made.counts == {"added": 1, "unchanged": 0, "updated": 0, "removed": 0, "refused": 9}
    for line, said in {
        "3": "shorter than 2", "4": "column tier", "5": "column expires", "6": "column off", "7": "stands in self_harm too",
        "8": "stands twice in the file", "9": "line break", "11": "begins with #", "12": "--basis",
    }.items():  # fmt: skip
        assert said in refused[line], line


@pytest.mark.parametrize(
    ("term", "asked", "got", "note"),
    [
        ("出售示例货物", "certain", "certain", None),
        ("buy example goods", "certain", "certain", None),
        ("出售示例货物", None, "suspect", None),
        ("卖货", "certain", "suspect", "less than 4 Han characters"),
        ("枪支弹药", "certain", "suspect", "bare noun"),
        ("王小明王小明", "certain", "suspect", "reads as a person"),
    ],
)
def test_what_cannot_be_certain_becomes_suspect_and_it_says_so(
    folder: Path, tmp_path: Path, term: str, asked: str | None, got: str, note: str | None
) -> None:
    file = tmp_path / "a.txt"
    file.write_text(term, "utf-8")
    (change,) = imported(folder, file, tier=asked or "", basis="clause 4").changes
    assert (change.what, change.tier) == ("added", got)
    assert [note in said for said in change.notes if note] == [True] * bool(note)


def test_existing_lines_and_comments_stay_as_they_are_and_new_ones_follow_sorted(folder: Path, tmp_path: Path) -> None:
    target = folder / "violence" / "terms.tsv"
    target.parent.mkdir()
    before = (
        "\ufeffterm\towner\ttier\r\n# 注释\r\n示例短语\tsomebody\tsuspect\r\n\r\nzeta phrase\tx\t\r\n另一条\tx\tsuspect"
    )
    target.write_bytes(before.encode())
    target.chmod(0o640)
    file = tmp_path / "a.csv"
    file.write_text("term,tier\nzz goods here,\n另一条,certain\nalpha goods,\n示例短语,\n", "utf-8")
    made = imported(folder, file)
    assert target.read_bytes() == before.encode(), "a plan writes nothing"
    assert told(made) == {
        "zz goods here": ("added", "suspect"),
        "另一条": ("updated", "suspect"),
        "alpha goods": ("added", "suspect"),
        "示例短语": ("updated", "suspect"),
    }
    apply(made)
    lines = target.read_bytes().decode().split("\r\n")
    assert lines[0] == "\ufeffterm\towner\ttier\treason\tadded"
    assert lines[1:5] == ["# 注释", "示例短语\tsomebody\tsuspect\tlist\t" + TODAY, "", "zeta phrase\tx\t"]
    assert [line.split("\t")[0] for line in lines[5:]] == ["另一条", "alpha goods", "zz goods here", ""]
    assert target.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in target.parent.iterdir()] == ["terms.tsv"]


def test_the_same_import_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("出售示例\nbuy example goods\n", "utf-8")
    apply(imported(folder, file))
    before = (folder / "violence" / "terms.tsv").read_bytes()
    again = imported(folder, file, owner="another", reason="other")
    assert again.counts["unchanged"] == 2
    apply(again)
    assert (folder / "violence" / "terms.tsv").read_bytes() == before
    assert before.decode().split("\n")[0].split("\t") == [*COLUMNS, *OPTIONAL]


@pytest.mark.parametrize(("kept", "shrink", "taken"), [(8, False, True), (7, False, False), (7, True, True)])
def test_a_list_that_shrinks_by_more_than_a_fifth_is_refused(
    folder: Path, tmp_path: Path, kept: int, shrink: bool, taken: bool
) -> None:
    put(folder, "violence", *({"term": f"第{i}条短语"} for i in range(10)))
    file = tmp_path / "a.txt"
    file.write_text("\n".join(f"第{i}条短语" for i in range(kept)), "utf-8")
    made = imported(folder, file, replace_all=True, shrink=shrink)
    assert made.counts["removed"] == 10 - kept
    assert bool(made.against) is not taken
    if taken:
        apply(made)
        assert len(load(folder)) == kept
    else:
        with pytest.raises(LexiconError, match="from 10 to 7"):
            apply(made)
        assert len(load(folder)) == 10


def test_a_line_that_is_refused_keeps_the_term_that_stands_there(folder: Path, tmp_path: Path) -> None:
    put(folder, "violence", {"term": "示例短语"})
    file = tmp_path / "a.csv"
    file.write_text("term,expires\n示例短语,soon\n", "utf-8")
    made = imported(folder, file, replace_all=True)
    assert (made.counts["refused"], made.counts["removed"]) == (1, 0)


def test_a_file_that_somebody_changed_meanwhile_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    target = put(folder, "violence", {"term": "示例短语"})
    file = tmp_path / "a.txt"
    file.write_text("出售示例", "utf-8")
    made = imported(folder, file)
    put(folder, "violence", {"term": "别的短语"})
    with pytest.raises(LexiconError, match="somebody else changed it"):
        apply(made)
    assert "别的短语" in target.read_text("utf-8")
    assert [p.name for p in target.parent.iterdir()] == ["terms.tsv"]


def test_allow_phrases_that_hold_a_new_term_are_suggested(folder: Path, tmp_path: Path) -> None:
    (folder / "allow.tsv").write_text("phrase\treason\n示例短语集锦\t书名\n示例短语\t同样\n", "utf-8")
    file = tmp_path / "a.txt"
    file.write_text("示例短语\n杀人\n", "utf-8")
    changes = {c.term: c.allow for c in imported(folder, file).changes}
    assert changes["示例短语"] == ("示例短语集锦",)
    assert 0 < len(changes["杀人"]) <= 5
    assert all("杀人" in phrase and phrase != "杀人" for phrase in changes["杀人"])


@pytest.mark.parametrize(("option", "said"), [("owner", " "), ("reason", ""), ("basis", "a\tb"), ("reason", "a\nb")])
def test_an_import_without_owner_or_reason_is_refused(folder: Path, tmp_path: Path, option: str, said: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text("示例短语", "utf-8")
    with pytest.raises(LexiconError, match=f"--{option}"):
        imported(folder, file, **{option: said})
    with pytest.raises(LexiconError, match="no such category"):
        plan(folder, file, "violent", owner="ops", reason="list")


# ---- audit


def test_an_audit_names_every_risk_type_with_what_was_measured(folder: Path) -> None:
    put(
        folder, "violence",
        {"term": "示例短语", "hit": "有示例短语。", "clean": "另一条短语在这里。", "added": "2027-05-01"},
        {"term": "另一条短语", "hit": "没有它。", "clean": "天气很好。", "expires": "2027-07-15"},
        {"term": "第三条短语", "tier": "certain", "expires": "2027-07-16", "added": ""},
        {"term": "过期的短语", "expires": "2027-06-14", "added": "2027-06-14", "hit": "过期的短语。"},
    )  # fmt: skip
    put(folder, "self_harm", {"term": "别的短语", "clean": "示例短语。"})
    accounts = {a.category: a for a in audit(folder)}
    assert list(accounts) == list(taxonomy())
    a = accounts["violence"]
    assert (a.certain, a.suspect, a.recall) == (1, 2, (1, 2))
    assert (a.false_own, a.false_other) == ((1, 2), (1, 1))
    assert (str(a.newest), a.age_days) == ("2027-06-01", 14)
    assert [(term, str(day)) for term, day in a.expiring] == [("另一条短语", "2027-07-15")]
    empty = accounts["privacy"] if "privacy" in accounts else next(a for a in accounts.values() if not a.suspect)
    assert (empty.newest, empty.age_days, empty.recall) == (None, None, (0, 0))


def test_a_broken_folder_is_not_measured(folder: Path) -> None:
    put(folder, "violence", {"term": "示例短语", "tier": "sure"})
    with pytest.raises(LexiconError, match=r"terms.tsv:2: column tier"):
        audit(folder)
    with pytest.raises(LexiconError, match=r"terms.tsv:2: column tier"):
        trial.test(folder)


# ---- test


def test_sentences_that_fail_are_told_and_those_of_terms_that_are_over_are_left_out(folder: Path) -> None:
    put(
        folder, "violence",
        {"term": "示例短语", "hit": "有示例短语。", "clean": "天气。"},
        {"term": "另一条短语", "hit": "没有它。", "clean": "有另一条短语。"},
        {"term": "过期的短语", "expires": "2027-06-14", "hit": "没有它。"},
    )  # fmt: skip
    made = trial.test(folder)
    assert (made.hits, made.clean) == (2, 2)
    assert kinds(made.failed) == [("violence", 3, "hit"), ("violence", 3, "clean")]


# ---- what a term reads like


def test_what_ships_reads_as_no_name_and_is_not_too_short() -> None:
    for term in load(ROOT / "lexicons"):
        assert not reads_as_name(term.term), term.rule
        assert term.tier == "suspect" or not short(term.term), term.rule


def test_what_ships_has_no_fault_that_a_line_shows_by_itself() -> None:
    assert [p for p in lint(shipped()) if p.kind not in ("hit", "clean")] == []


def test_a_lint_finds_with_the_engine_that_serves(folder: Path) -> None:
    put(folder, "violence", {"term": "示例短语", "allow": "@law", "hit": "刑法规定了示例短语。"})
    (folder / "cues.tsv").write_text("stance\tcue\nlaw\t刑法\n", "utf-8")
    assert [p.kind for p in lint(folder)] == ["hit"]
    assert len(Lexicon(load(folder))) == 1
