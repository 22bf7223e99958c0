"""Matching: every technique by its name, with its exact span and its harmless twin; what acts alone, what only flags."""

from __future__ import annotations

import base64
import codecs
from functools import cache
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import views
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon, Term
from app.policy import Policy, parse
from app.streaming import Channel
from app.terms import Terms
from app.text import fold, is_mark
from app.types import TECHNIQUES, Action, Finding, Scope

SCOPE = Scope("default", "answer")
WORDS = ["蓝色信号", "红色手册", "旧船票", "第一夜灯", "灯塔", "抢船", "falcon", "lighthouse keeper", "tins"]
WEAK = TECHNIQUES[TECHNIQUES.index("pinyin") : -1]


@cache
def policy(extra: str = "") -> Policy:
    return parse(f"categories: {{violence: {{answer: mask, prompt: mask{extra}}}}}".encode()).common


@cache
def lexicon() -> Lexicon:
    return Lexicon([Term(word, "violence") for word in WORDS], ["灯塔水母", "tin tins"])


def screened(text: str, used: Lexicon | None = None, rules: Policy | None = None) -> tuple[list[Finding], str]:
    used = used or lexicon()
    channel = Channel([used], rules or policy(), SCOPE, readers=[used])
    released = channel.push(text) + channel.finish()
    assert not channel.degraded and not channel.unread
    return channel.findings, released


DISGUISED = [
    # technique, disguised, harmless twin
    ("case", "FALCON", "FALCONRY"),
    ("width", "ｆａｌｃｏｎ", "ｆａｌｃｏｎｓ"),
    ("compat", "红⾊手册", "红⾊手机"),
    ("circled", "ⓕⓐⓛⓒⓞⓝ", "ⓕⓐⓛⓛ"),
    ("math", "𝐟𝐚𝐥𝐜𝐨𝐧", "𝐟𝐚𝐥𝐥"),
    ("combining", "f\u0301alc\u0308on", "f\u0301all"),
    ("zero_width", "蓝色\u200b信号", "蓝色\u200b信封"),
    ("bidi", "蓝\u202e色\u202c信号", "蓝\u202e色\u202c信封"),
    ("tag", "蓝色信\U000e0061号", "蓝色信\U000e0061封"),
    ("variation", "蓝色信\ufe0f号", "蓝色信\ufe0f封"),
    ("traditional", "藍色信號", "藍色信封"),
    ("homoglyph", "fаlсоn", "раlсоw"),
    ("digit", "第壹夜灯", "第壹夜间"),
    ("leet", "f@lc0n", "f411 c0n"),
    ("leet", "l!ghthouse keeper", "l!ght housekeeper"),
    ("leet", "f*lcon", "a*lcon"),
    ("repeat", "faaalcoooon", "fallcon"),
    ("noise", "蓝 色 信 号", "蓝色，信号"),
    ("noise", "f.a.l.c.o.n", "tin, stin"),
    ("markup", "蓝色<b>信号</b>", "蓝色<b>信封</b>"),
    ("entity", "蓝色&#20449;号", "蓝色&#20449;封"),
    ("percent", f"蓝色{quote('信')}号", f"蓝色{quote('信')}封"),
    ("escape", "蓝色\\u4fe1号", "蓝色\\u4fe1封"),
    ("pinyin", "lanse xinhao", "lanse xinfeng"),
    ("pinyin", "deng塔", "deng 塔楼"),
    ("homophone", "篮色新号", "篮色新车"),
    ("homophone", "灯踏", "灯他"),
    ("lookalike", "枪船", "枪支"),
    ("split", "火丁塔", "火丁字裤"),
    ("interleave", "蓝a色b信c号", "蓝abc色abc信abc号"),
    ("reversed", "号信色蓝", "号信封蓝"),
    ("rot13", codecs.encode("falcon", "rot13"), codecs.encode("falling", "rot13")),
    ("base64", base64.b64encode("蓝色信号".encode()).decode(), base64.b64encode("蓝色信封".encode()).decode()),
    ("hex", "蓝色信号".encode().hex(), "蓝色信封".encode().hex()),
]


def test_every_technique_has_a_case_and_a_twin() -> None:
    assert {name for name, _, _ in DISGUISED} == set(TECHNIQUES) - {"join", "copy"}


@pytest.mark.parametrize(("technique", "disguised", "twin"), DISGUISED)
def test_a_disguise_is_found_by_name_at_its_exact_span(technique: str, disguised: str, twin: str) -> None:
    for before, after in [("", ""), ("请看，", "。"), ("look: ", " and so on"), ("😀\u200b", "\n")]:
        findings, released = screened(before + disguised + after)
        named = [f for f in findings if technique in f.technique.split("+")]
        assert named, (before, findings)
        spans = [(before + disguised + after)[f.start : f.end] for f in named]
        # A tag after the last character is no part of it.
        assert disguised.removesuffix("</b>") in spans
        if technique in WEAK:
            assert {f.action for f in named} == {Action.FLAG}
            assert released == before + disguised + after
        else:
            assert (
                released
                == before
                + "*" * len(disguised.removesuffix("</b>"))
                + released[len(before) + len(disguised.removesuffix("</b>")) :]
            )
            assert released.endswith(after)


@pytest.mark.parametrize(("technique", "disguised", "twin"), DISGUISED)
def test_the_harmless_twin_of_a_disguise_is_left_alone(technique: str, disguised: str, twin: str) -> None:
    assert screened(f"请看，{twin}。") == ([], f"请看，{twin}。")
    assert screened(f"so {twin} it is") == ([], f"so {twin} it is")


@pytest.mark.parametrize(("technique", "disguised", "twin"), DISGUISED)
def test_a_technique_can_be_switched_off_for_a_category_and_for_a_term(
    technique: str, disguised: str, twin: str
) -> None:
    rules = policy(f", techniques_off: [{technique}]")
    found, released = screened(f"请看，{disguised}。", rules=rules)
    assert released == f"请看，{disguised}。"
    assert all(f.action is Action.PASS for f in found if technique in f.technique.split("+"))
    own = Lexicon([Term(word, "violence", off=frozenset({technique})) for word in WORDS])
    found, released = screened(f"请看，{disguised}。", own)
    assert released == f"请看，{disguised}。"
    assert all(f.action is Action.PASS for f in found if technique in f.technique.split("+"))


NOISE = st.text(st.sampled_from(" .-_*~·。、\u3000😀|/#"), max_size=5)
SHOWN = {
    "蓝": ["蓝", "藍"], "色": ["色", "⾊"], "信": ["信", "信\u200b", "信\ufe0f"], "号": ["号", "號"], "红": ["红", "紅"],
    "手": ["手", "⼿"], "册": ["册"],
    **{c: [c, c.upper(), chr(ord(c) + 0xFEE0), chr(ord(c) - ord("a") + 0x1D41A), c + "\u0301"] for c in "falcon"},
    "a": ["a", "а", "@", "4"], "o": ["o", "о", "0"],
}  # fmt: skip


@st.composite
def disguises(draw: st.DrawFn) -> str:
    """A term of four or more characters with every character written in some way, and noise in every gap."""
    word = draw(st.sampled_from(["蓝色信号", "红色手册", "falcon"]))
    shown = [draw(st.sampled_from(SHOWN.get(c, [c]))) for c in word]
    if draw(st.booleans()):
        gap = draw(NOISE)
        return gap.join(shown) if gap.strip("。、 \u3000") else "".join(shown)
    return "".join(shown)


AROUND = st.text(max_size=8).filter(lambda t: not any(c.isalnum() or c in "@$€£¥&%\\<+|!*-_" for c in fold(t)))


@settings(max_examples=300, deadline=None)
@given(disguises(), AROUND, AROUND)
def test_a_mask_covers_the_disguised_term_and_nothing_else(disguised: str, before: str, after: str) -> None:
    findings, released = screened(before + disguised + after)
    spans = {(f.start, f.end) for f in findings if f.action is Action.MASK}
    # What is drawn on its last character is part of it; what is not drawn at all is not.
    last = len(before) + len(disguised.rstrip("\u0301\u200b\ufe0f"))
    while last < len(before + disguised + after) and is_mark((before + disguised + after)[last]):
        last += 1
    assert (len(before), last) in spans
    assert released[: len(before)] == before
    assert set(released[len(before) : last]) == {"*"}
    assert released[last:] == (before + disguised + after)[last:]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120))
def test_a_view_knows_where_its_characters_come_from(text: str) -> None:
    folded = fold(text)
    skeleton, places = views.skeleton(folded), views.SKELETON.places(folded)
    assert len(skeleton) == len(places) and list(places) == sorted(set(places))
    assert all(views.SKELETON.apply(folded[i]) == ch for i, ch in zip(places, skeleton, strict=True))
    assert all(a != b for a, b in pairwise(skeleton))
    assert views.skeleton(skeleton) == skeleton
    for table in (views.SOUND, views.SHAPE):
        assert "".join(table.apply(folded[i]) for i in table.places(folded)) == table.apply(folded)


ESCAPES = st.sampled_from(
    [
        "&#36172;",
        "&lt;",
        "%E8%B5%8C",
        "%25e8",
        "\\u8d4c",
        "\\x41",
        "<b>",
        "</p>",
        "](http://a)",
        "!",
        "a",
        "赌",
        "&",
        "%",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ESCAPES, max_size=12).map("".join))
def test_decoded_text_knows_where_its_characters_come_from(text: str) -> None:
    folded = fold(text)
    [decoded] = views.decode(folded, 0, len(folded), leet=True, always=True)
    assert len(decoded.text) == len(decoded.starts) == len(decoded.ends) == len(decoded.techniques)
    assert decoded.starts == sorted(decoded.starts) and decoded.ends == sorted(decoded.ends)
    for ch, start, end, how in zip(decoded.text, decoded.starts, decoded.ends, decoded.techniques, strict=True):
        assert 0 <= start < end <= len(folded)
        assert how or folded[start:end] == ch


# ---- allow phrases, words, stances, second signals


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("灯塔水母发光", []),
        ("灯塔水手", ["灯塔"]),
        ("灯塔水母灯塔", ["灯塔"]),
        ("灯塔 水母", ["灯塔"]),  # an allow phrase is exact
        ("tin tins", []),
        ("tin  tins", ["tins"]),
    ],
)
def test_an_allow_phrase_spares_what_it_covers_whole_and_exactly(text: str, found: list[str]) -> None:
    assert [text[f.start : f.end] for f in screened(text)[0]] == found


def test_an_allow_phrase_does_not_hide_a_term_that_overlaps_its_tail() -> None:
    own = Lexicon([Term("角色情", "violence"), Term("情感诈骗", "violence", allow=("无情感诈骗",))], ["角色情感"])
    text = "角色情感诈骗"
    assert [text[f.start : f.end] for f in screened(text, own)[0]] == ["情感诈骗"]


def test_a_live_entry_is_spared_by_no_phrase_and_no_cue() -> None:
    blocklist = Blocklist()
    scope = {"app": "*", "directions": ["answer"]}
    blocklist.load(
        [{"id": "e", "term": "灯塔", "category": "violence", "action": "block", "tier": "certain", "scope": scope}]
    )
    channel = Channel([blocklist], policy(), SCOPE, readers=[blocklist])
    assert channel.push("法律规定，禁止灯塔水母，警方通报") + channel.finish() == "法律规定，禁止"


CUES = [("law", "刑法"), ("law", "禁止"), ("report", "警方"), ("report", "police"), ("fiction", "小说")]


@pytest.mark.parametrize(
    ("text", "certain", "suspect"),
    [
        ("大家来看蓝色信号", Action.MASK, Action.FLAG),
        ("刑法里写着蓝色信号", Action.MASK, Action.PASS),
        ("刑法禁止蓝色信号", Action.FLAG, Action.PASS),
        ("蓝色信号，警方依刑法处理", Action.FLAG, Action.PASS),
        ("刑法禁止。蓝色信号", Action.MASK, Action.FLAG),
        ("小说里刑法禁止，蓝色信号", Action.FLAG, Action.PASS),
        ("小说里的蓝色信号", Action.MASK, Action.FLAG),
        ("polices 刑法里的蓝色信号", Action.MASK, Action.PASS),
        ("the police said 刑法. 蓝色信号", Action.MASK, Action.FLAG),
        ("蓝色信号. police 刑法", Action.MASK, Action.FLAG),
    ],
)
def test_cues_in_the_sentence_lower_a_term_by_its_stances(text: str, certain: Action, suspect: Action) -> None:
    stances = frozenset({"law", "report"})
    for tier, action in (("certain", certain), ("suspect", suspect)):
        own = Lexicon([Term("蓝色信号", "violence", tier, stances=stances)], cues=CUES)  # type: ignore[arg-type]
        for pieces in ([text], list(text)):
            channel = Channel([own], policy(), SCOPE, readers=[own])
            for piece in pieces:
                channel.push(piece)
            channel.finish()
            assert [f.action for f in channel.findings] == [action]


@pytest.mark.parametrize(
    ("rule", "actions"),
    [
        ("", [1, 1, 1]),
        ("near: 6", [1, 2, 1]),
        ("near: 40", [1, 2, 2]),
        ("count: 3", [1, 1, 2]),
        ("count: 2", [1, 2, 2]),
    ],
)
def test_a_second_signal_makes_a_suspect_term_act(rule: str, actions: list[int]) -> None:
    own = Lexicon([Term(word, "violence", "suspect") for word in ("蓝色信号", "红色手册", "旧船票")])
    rules = parse(f"categories: {{violence: {{answer: mask}}}}\nsuspects: {{{rule}}}".encode()).common
    text = "先说蓝色信号，再说红色手册，过了很久很久以后我们又说起旧船票。"
    for pieces in ([text], list(text)):
        channel = Channel([own], rules, SCOPE, readers=[own])
        released = "".join(map(channel.push, pieces)) + channel.finish()
        assert [int(f.action) for f in channel.findings] == actions
        assert released.count("*") == sum(4 if i < 2 else 3 for i, a in enumerate(actions) if a == 2)


def test_a_compiled_list_read_back_finds_the_same() -> None:
    own = Lexicon([Term(word, "violence") for word in [*WORDS, "a\nb c", "-->", "灯\n塔\n光"]], ["灯塔水母"], CUES)
    other = Lexicon.of(own.arrays())
    assert len(other) == len(own) and other.version == own.version
    for _, disguised, twin in DISGUISED:
        assert screened(f"请看，{disguised}。", other) == screened(f"请看，{disguised}。", own)
        assert screened(f"请看，{twin}。", other) == screened(f"请看，{twin}。", own)
    for text in ("x --> y", "so a\nb c.", "灯\n塔\n光亮", "灯塔水母"):
        assert screened(text, other) == screened(text, own)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("рот женщины", 0),
        ("рот, как и жизнь", 0),
        ("дети, рот", 0),
        ("a рот и сон", 0),
        ("get some рот now", 1),
        ("рот", 1),
    ],
)
def test_a_word_of_another_script_is_judged_the_same_however_it_is_cut(text: str, found: int) -> None:
    """Whether look-alikes stand in their own script may show only after the word."""
    own = Lexicon([Term("pot", "violence")])
    whole = screened(text, own)
    channel = Channel([own], policy(), SCOPE, readers=[own])
    assert "".join(map(channel.push, text)) + channel.finish() == whole[1]
    assert channel.findings == whole[0]
    assert len(whole[0]) == found


def test_a_second_signal_is_none_that_a_reader_found_behind() -> None:
    own = Lexicon([Term("蓝色信号", "violence", "suspect"), Term("红色手册", "violence", "suspect")])
    rules = parse(b"categories: {violence: {answer: mask}}\nsuspects: {near: 900, count: 2}").common
    text = "篮色新号" + "，好" * 300 + "红色手册。"
    for pieces in ([text], list(text)):
        channel = Channel([own], rules, SCOPE, readers=[own])
        assert "".join(map(channel.push, pieces)) + channel.finish() == text
        assert sorted(f.action for f in channel.findings) == [Action.FLAG, Action.FLAG]


def test_what_a_list_enforces_shows_in_its_version() -> None:
    one = [Term("蓝色信号", "violence")]
    lists = [
        Lexicon(one), Lexicon(one, ["蓝色信号灯"]), Lexicon(one, cues=CUES),
        Lexicon([Term("蓝色信号", "violence", off=frozenset({"noise"}))]),
        Lexicon([Term("蓝色信号", "violence", stances=frozenset({"law"}))]),
        Lexicon([Term("蓝色信号", "violence", allow=("蓝色信号灯",))]),
    ]  # fmt: skip
    assert len({each.version for each in lists}) == len(lists)


GATED = [
    # term, text in which it is found, clean twin
    ("fake id", "fake\nid and fake-id", "He was a fake. ID cards were checked."),
    ("fake id", "fake.id", "SELECT fake, id"),
    ("fake id", "f a k e. i d", "| fake | id |"),
    ("stolen cards", "stolen  cards", "stolen\n\nCards"),
    ("heroin", "the hero!n", '"My hero!" In the end'),
    ("heroin", "heroiiin", "heroi in"),
    ("heroin", "he|ro|in", "hero|in"),
    ("heroin", "her*oin", "\\frac{her}{oin}"),
    ("heroin", "hero||in||", "hero+in"),
    ("heroin", "her~oin", '<a title="hero">in'),
    ("whore", "w'h'o'r'e", "Who're you and who’re they"),
    ("meth", "m e t h", "m e t h o d"),
    ("meth", "m e t h a lot", "m e t h a n e"),
    ("meth", "I sell m.e.t.h.", "M.E.T.H.O.D."),
    ("whore", "a w h o r e here", "w h o r e s"),
    ("fake id", "f a k e i d", "f a k e i d e a"),
    ("毒品", "买 毒 品 吗", "消 毒 品 质"),
    ("毒品", "毒\n品", "消\n毒\n品\n质"),
    ("高利贷", "放 高 利 贷", "提 高 利 贷"),
    ("枪支", "枪 | 支", "| 枪 | 支 | 数 |"),
    ("枪支", "想搞| 枪 | 支 |的", "| 枪 | 支 |"),
    ("赌博", "赌@博", "赌@博物馆"),
    ("代开发票", "代$开$发$票", "代$$$开$$$发$$$票"),
    ("赌博", "赌丶博", "打丶赌丶博丶得"),
    ("毒品", "毒丨品", "消丨毒丨品丨质"),
    ("买卖器官", "mai3 mai4 qi4 guan1", "mai3 mai4 qi4 che1"),
    ("代开发票", "dai4kai1fa1piao4", "dai4kai1fa1piao4x"),
    ("卖淫", "mai4 yin2", "mp3 mai4 yin2c"),
    ("phishing", "ph1shing", "ph2shing"),
    ("online casino", "onl1ne casino", "on11ne1 casino"),
    ("heroin", "hërøin", "hërøine"),
    ("fake id", "ꜰake ɨđ", "ꜰake ɨđea"),
    ("枪支", "鎗支", "鎗枝"),
]


@pytest.mark.parametrize(("term", "found", "twin"), GATED)
def test_a_gate_tells_a_disguise_from_ordinary_text_however_it_is_cut(term: str, found: str, twin: str) -> None:
    own = Lexicon([Term(term, "violence")])
    for text, hits in ((found, True), (f"啊，{found} .", True), (twin, False), (f"啊，{twin} .", False)):
        whole = screened(text, own)
        assert bool(whole[0]) is hits, (text, whole)
        channel = Channel([own], policy(), SCOPE, readers=[own])
        assert "".join(map(channel.push, text)) + channel.finish() == whole[1]
        assert channel.findings == whole[0]


def test_an_evenly_spaced_term_waits_for_what_may_make_another_word_of_it() -> None:
    own = Lexicon([Term("meth", "violence"), Term("毒品", "violence")])
    for text in ("m e t h o", "m-e-t-h-a-n-e", "消 毒 品 质", "毒 品 质", "| 毒 | 品 |"):
        whole = screened(text, own)
        for at in range(len(text)):
            channel = Channel([own], policy(), SCOPE, readers=[own])
            assert channel.push(text[:at]) + channel.push(text[at:]) + channel.finish() == whole[1]
            assert channel.findings == whole[0]


def test_a_term_with_a_lone_stroke_in_it_is_found_and_fails_nothing() -> None:
    terms = Terms(["一丿件之", "赌博", "丨丨丨"])
    for text in ("一丿件之", "一件之", "赌丶博", "一 丿 件 之"):
        terms.read(text, text, 0, True)
    assert [h.number for h in terms.find("这里一丿件之", 0, True)[0]] == [0]
