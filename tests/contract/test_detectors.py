"""Every shipped detector: what it finds and when it lets go depend on the text alone, never on how the text was cut."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.copies import runs
from app.detectors import shipped
from app.detectors.blocklist import Blocklist, pack
from app.detectors.lexicon import Lexicon, Term, check
from app.detectors.rules import Rules, rule_of
from app.errors import LexiconError
from app.passages import fingerprint
from app.policy import Policy, parse
from app.streaming import MOST, Channel
from app.text import fold
from app.types import Action, Candidate, Detector, Direction, Finding, Scope

KEY = b"k" * 32
PASSAGE = "春天的第一场雨落在石桥上，也落在桥下的小船里；and the boat drifts on home."
LONG_ALLOW = "丁" * 31 + "蓝色信号" + "戊" * 40
TERMS = [
    Term("甲乙丙丁", "violence"),
    Term("甲乙丙", "false_harmful_info", "suspect"),
    Term("乙丙丁戊己", "self_harm"),
    Term("丙丁", "violence", "suspect"),
    Term("丁戊己庚辛", "personal_information"),
    Term("甲甲甲乙", "ethnic_hatred"),
    Term("甲甲", "false_harmful_info", "suspect"),
    Term("蓝色信号", "violence", allow=("蓝色信号灯", "没有蓝色信号", LONG_ALLOW)),
    Term("蓝色信号灯塔", "self_harm"),
    Term("红色信号", "privacy_violation", allow=("红色信号红色信号",)),
    Term("下雨", "false_harmful_info", "suspect"),
    Term("雨伞", "violence"),
    Term("水坝", "abuse_malware", allow=("水坝工程",)),
    Term("red falcon", "violence"),
    Term("red falcon rises", "self_harm"),
    Term("falcon", "false_harmful_info", "suspect"),
    Term("fa", "abuse_spam"),
    Term("c++", "violence", allow=("c++ primer",)),
    Term("-->", "privacy_violation"),
    Term("a1 b2", "violence"),
    Term("1391234", "privacy_violation"),
    Term("红falcon红", "self_harm"),
    Term("falcon甲", "violence"),
    Term("甲falcon", "privacy_violation"),
    Term("example.com", "abuse_spam"),
    Term("。。", "false_harmful_info"),
    Term("😀😀", "violence"),
    Term("ff", "privacy_violation"),
    Term("(株)式", "violence"),
    Term("长" * 40, "violence"),
]
RULES = [
    {"name": "near", "anchor": "甲乙", "rest": ".{0,6}(?:丁|庚)", "within": "12"},
    {"name": "far", "anchor": "甲乙丙", "rest": r"(?s:.)*[\d!]", "tier": "suspect"},
    {"name": "word", "anchor": "red", "rest": r"\W+f\w*\b", "within": "20"},
    {"name": "end", "anchor": "the", "rest": "[^.]{0,30}$", "within": "40"},
    {"name": "run", "anchor": "天天", "rest": "天*", "within": "200", "tier": "suspect"},
    {"name": "bare", "anchor": "😀甲", "rest": "", "within": "2"},
    {"name": "wide", "anchor": "信号", "rest": r"\p{Han}{2,8}?|。", "within": "9"},
]
BLOCKED = {
    "丙丁戊": "block",
    "falcon rises": "mask",
    "139 1234": "replace",
    "雨落": "flag",
    "蓝色": "flag",
    "i": "mask",
}

FRAGMENTS = [
    *(t.term for t in TERMS), *(t.term[: len(t.term) // 2] for t in TERMS), *(a for t in TERMS for a in t.allow),
    *BLOCKED, PASSAGE, PASSAGE[:9], PASSAGE[:30], PASSAGE[9:], PASSAGE[3:27], PASSAGE[5:28] + "，", PASSAGE.upper(), " ".join(PASSAGE),
    "甲\u200b乙丙\u200d丁", "甲乙\ufe0f丙丁\u0301", "ＲＥＤ　ＦＡＬＣＯＮ", "Red FALCON", "ﬀ", "㈱式", "㈱",
    "丙.丁", "丙 丁", "甲、乙、丙", "丙**丁", "丙a丁1戊", "r.e.d f@lc0n", "f a l c o n", "fаlcоn", "rrreed fffalcon",
    "水<b>坝</b>", "水坝(", "&#33;", "&#27700;坝", "%E6%B0%B4%E5%9D%9D", "%E6%B0", "\\u6c34坝", "\\u", "[", "<", "</",
    "](http://a.example/)", "!", "+", "|", "&", "%", "水巴", "水爸", "shui坝", "shui ba", "shuiba", "氺坝", "金十旦号",
    "红se信号", "号信色蓝", "6JOd6Imy5L+h5Y+3", "e8939de889b2e4bfa1e58fb7", "snypba", "蓝瑟信号", "雨 伞", "a" * 200,
    "天天" * 80, "the red sea ",
    "藍色信號", "\u200b\u200b\u200b", "\u0301", "\uf8ff",
    "13912345678", "+86 139-1234-5678", "1391234", "5678", "１３９１２３４５６７８", "139 1234 5678", "0086", "+86",
    "ann.lee@example.com", "ann.lee@", "@example.com", "git@example.com", "a" * 64 + "@", "b" * 63 + ".", "com",
    ".cn",
    "4111 1111 1111 1111", "4111111111111111", "4111 1111", " 123", "6222 ", "11010519491231002X", "110105",
    "19491231", "002X", "x",
    "护照 E12345678", "passport", " e1234567", "8.8.8.8", "8.8.", "版本 8.8.8.8", "v", "2400:da00::8", "2400:", "::1",
    ":", "-", ".", " ", "  ", "\n",
    "甲", "乙", "丙", "丁", "我们一起去公园看花", "，", "。", "The quick brown fox ", "x" * 40, "天" * 40, "7" * 30,
    "9" * 330, "😀", "👩‍👩‍👧", "é", "e\u0301", "0", "1", "2",
]  # fmt: skip

POLICIES = {
    "shipped": b"",
    "masks": b"categories: {violence: {answer: mask, prompt: mask}, self_harm: {answer: mask, prompt: flag}}",
    "watches": b"shadow: [lexicon, ent_0]\ncategories: {personal_information: {answer: block, prompt: replace}}",
    "passes": b"categories: {violence: {answer: flag}, self_harm: {answer: off}, personal_information: {answer: flag}}",
}


@cache
def policy(name: str) -> Policy:
    return parse(POLICIES[name]).common


@cache
def detectors() -> tuple[Detector, ...]:
    blocklist = Blocklist({"1": KEY})
    scope = {"app": "*", "directions": ["prompt", "answer"]}
    rows = [
        {"id": f"ent_{i}", "term": t, "category": "violence", "action": a, "tier": "certain", "scope": scope}
        for i, (t, a) in enumerate(BLOCKED.items())
    ]
    print_ = pack(fingerprint(PASSAGE, "1", KEY), runs(PASSAGE, "1", KEY))
    blocklist.load(
        [*rows, {"id": "ent_p", "fingerprint": print_, "category": "violence", "action": "block", "scope": scope}]
    )
    rules = Rules(rule_of(row, "violence", "here") for row in RULES)
    return tuple(shipped(Lexicon(check(t, "here") for t in TERMS), blocklist, rules))


NAMES = [d.name for d in detectors()]


@st.composite
def cuttings(draw: st.DrawFn) -> list[str]:
    """A text as the pieces it arrives in; empty pieces too."""
    text = "".join(draw(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12)))
    if draw(st.booleans()):
        return list(text)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def fed(
    pieces: list[str], policy_name: str, direction: Direction, used: tuple[Detector, ...]
) -> tuple[list[Finding], str, Action | None, int, list[str]]:
    """Everything that a client or the journal may notice of a text that arrived in these pieces."""
    readers = [d for d in used if isinstance(d, Blocklist | Lexicon)]
    channel = Channel(used, policy(policy_name), Scope("default", direction), readers=readers)
    released = "".join([channel.push(piece) for piece in pieces[:-1]]) + channel.finish("".join(pieces[-1:]))
    findings = sorted(channel.findings, key=lambda f: (f.start, f.end, f.category, f.rule))
    return findings, released, channel.stopped, channel.released, channel.degraded + channel.unread


@given(cuttings(), st.sampled_from(sorted(POLICIES)), st.sampled_from(["answer", "prompt"]))
@settings(max_examples=150, deadline=None)
def test_a_text_gives_the_same_findings_and_release_however_it_is_cut(
    pieces: list[str], policy_name: str, direction: Direction
) -> None:
    whole = fed(["".join(pieces)], policy_name, direction, detectors())
    assert fed(pieces, policy_name, direction, detectors()) == whole


@pytest.mark.parametrize("name", NAMES)
@given(pieces=cuttings())
@settings(max_examples=60, deadline=None)
def test_each_detector_alone_gives_the_same_however_the_text_is_cut(name: str, pieces: list[str]) -> None:
    used = tuple(d for d in detectors() if d.name == name)
    assert fed(pieces, "shipped", "answer", used) == fed(["".join(pieces)], "shipped", "answer", used)


@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDE00)], ids=["high", "low"])
@pytest.mark.parametrize("text", ["甲乙丙丁", "丙丁戊", PASSAGE, "13912345678", "公园"])
@pytest.mark.parametrize("direction", ["answer", "prompt"])
def test_half_of_a_surrogate_pair_fails_no_detector_and_hides_nothing(
    text: str, half: str, direction: Direction
) -> None:
    """JSON can carry one: a client that cuts an emoji in two must not switch screening off."""
    plain = fed([text], "shipped", direction, detectors())
    for pieces in ([half, text], [text + half], [half + text]):
        findings, _, stopped, _, degraded = fed(pieces, "shipped", direction, detectors())
        assert degraded == []
        assert ({f.rule for f in findings}, stopped) == ({f.rule for f in plain[0]}, plain[2])


@pytest.mark.parametrize(
    ("term", "allow"),
    [
        ("red falcon", "xred falcon " + "and so on " * 4 + "red falcon"),
        ("red falcon", "a red falcon " + "and so on " * 4 + "red falcon"),
        ("甲乙", "甲乙" + "丙" * 40 + "甲乙"),
        ("甲乙", "丙" * 32 + "甲乙" + "丙" * 60),
        ("甲乙", "甲乙甲乙甲乙"),
    ],
)
def test_an_allowed_phrase_that_is_accepted_works_however_the_text_is_cut(term: str, allow: str) -> None:
    try:
        lexicon = Lexicon([check(Term(term, "violence", allow=(allow,)), "here")])
    except LexiconError:
        return  # refused by name: that is an answer too
    text = "天" * 90 + allow + "，"
    assert fed(list(text), "shipped", "answer", (lexicon,)) == fed([text], "shipped", "answer", (lexicon,))


@pytest.mark.parametrize("name", NAMES)
@given(pieces=cuttings())
@settings(max_examples=100, deadline=None)
def test_what_a_detector_declared_settled_stays_settled(name: str, pieces: list[str]) -> None:
    """A candidate told is never taken back, and none that starts in settled text is told any more."""
    detector = next(d for d in detectors() if d.name == name)
    scope = Scope("default", "answer")
    text = fold("".join(pieces))
    whole = detector.scan(text, 0, True, scope)
    expected = set(whole.candidates)
    assert whole.hold == len(text)
    assert all(0 <= c.start < c.end <= len(text) for c in expected)
    told: set[Candidate] = set()
    settled = 0
    seen = ""
    for piece in [*map(fold, pieces), None]:
        seen += piece or ""
        candidates, hold, _ = detector.scan(seen, settled, piece is None, scope)
        assert settled <= hold <= len(seen)
        assert all(c.start >= settled for c in candidates)
        told |= set(candidates)
        assert {c for c in expected if c.start < hold} <= told <= expected
        settled = hold
    assert settled == len(text)


@pytest.mark.parametrize("name", NAMES)
@given(pieces=cuttings())
@settings(max_examples=40, deadline=None)
def test_a_scan_tells_a_candidate_once(name: str, pieces: list[str]) -> None:
    detector = next(d for d in detectors() if d.name == name)
    candidates = detector.scan(fold("".join(pieces)), 0, True, Scope("default", "answer")).candidates
    assert len(candidates) == len(set(candidates))


@pytest.mark.parametrize("cut", [1, 700, 100_000])
def test_a_text_of_nothing_but_terms_is_masked_whole_and_told_in_part(cut: int) -> None:
    text = "甲乙丙丁，" * (MOST + 300)
    lexicon = Lexicon([Term("甲乙丙丁", "violence")])
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    findings, released, stopped, _, degraded = fed(pieces, "masks", "answer", (lexicon,))
    assert (released, stopped, degraded) == ("****，" * (MOST + 300), None, [])
    assert [f.start for f in findings] == list(range(0, 5 * MOST, 5))
