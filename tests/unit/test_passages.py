"""Passages: found wherever and however they are written, whole or streamed, and never readable from what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import policy
from app.detectors.blocklist import Blocklist, pack, unpack
from app.keys import Keys
from app.passages import GATE, MAX, MIN, Fingerprint, Passages, compact, fingerprint
from app.streaming import Channel
from app.text import fold, origins
from app.types import Finding, Scope
from tests.conftest import SECRET

KEY = Keys(SECRET).all("fingerprint")
KID = "0"
HAN = "这是一段只为测试而写的示例文字，其中没有任何内容。"
LATIN = "The quick sample sentence of this test, number 42."
SCOPE = Scope("default", "answer")
POLICY = policy.parse(b"").common
NOISE = [" ", "\n", "，", "…", "-", "\u200b", "\u3000", "*", "😀", "\ufe0f", "\u0301"]


def row(passage: str, number: int = 0, action: str = "block", key: dict[str, bytes] = KEY) -> dict[str, Any]:
    """A row of the entries table."""
    kid = next(iter(key))
    scope = {"app": "*", "directions": ["prompt", "answer"]}
    return {
        "id": f"ent_{number}", "fingerprint": pack(fingerprint(passage, kid, key[kid])), "category": "violence",
        "action": action, "tier": "certain", "scope": scope,
    }  # fmt: skip


def blocklist(*rows: dict[str, Any]) -> Blocklist:
    found = Blocklist(KEY)
    found.load(rows)
    return found


def spans(text: str, *passages: str) -> list[str]:
    """The pieces of the original text that are found."""
    prints = [fingerprint(p, KID, KEY[KID]) for p in passages]
    found, hold, _ = Passages(prints, KEY).find(fold(text), 0, True)
    assert hold == len(fold(text))
    back = origins(text)
    return [text[back[start] : back[end - 1] + 1] for start, end, _ in sorted(found)]


def stream(detector: Blocklist, chunks: list[str]) -> tuple[str, list[Finding], Any]:
    """What goes out, what is found, and how it ends."""
    channel = Channel([detector, detector.passages], POLICY, SCOPE)
    out = "".join([*map(channel.push, chunks), channel.finish()])
    return out, channel.findings, channel.stopped


@st.composite
def disguised(draw: st.DrawFn, passage: str) -> str:
    """The passage as somebody else would write it: other spacing, punctuation, case and width."""
    written = []
    for ch in compact(passage):
        forms = [ch, ch.upper(), ch.lower()]
        if "!" <= ch <= "~":
            forms.append(chr(ord(ch) + 0xFEE0))
        written.append(draw(st.sampled_from(forms)) + "".join(draw(st.lists(st.sampled_from(NOISE), max_size=2))))
    return "".join(written)


@st.composite
def relatives(draw: st.DrawFn) -> list[str]:
    """A passage and others that begin inside it: its ends, its middles, and what goes on after it."""
    made = [draw(st.text("ab", min_size=MIN, max_size=24))]
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, 8))
        tail = made[0][start : start + draw(st.integers(4, 24))] + draw(st.text("ab", max_size=6))
        made.append(tail.ljust(MIN, "b"))
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    st.sampled_from([HAN, LATIN]),
    st.text("这是段的Tq a，\n", max_size=12),
    st.text("文字的42. ，b", max_size=12),
)
def test_a_passage_is_found_however_it_is_written_and_wherever_it_stands(
    data: st.DataObject, passage: str, before: str, after: str
) -> None:
    text = before + data.draw(disguised(passage)) + after
    (found,) = spans(text, passage)
    assert compact(fold(found)) == compact(fold(passage))


@pytest.mark.parametrize(
    "text",
    [
        HAN,
        HAN.replace("，", ""),
        "\n".join(HAN),
        " ".join(HAN.strip("。")),
        "這是一段只為測試而寫的示例文字，其中沒有任何內容",
        f"前面的话。{HAN}后面的话。",
        f"这是一段这是一段只为测试{HAN}",
        "前" * 5000 + HAN,
    ],
)
def test_a_passage_is_found_in_another_layout_and_script(text: str) -> None:
    (found,) = spans(text, HAN)
    assert compact(fold(found)) == compact(fold(HAN))


@pytest.mark.parametrize(
    "text", [HAN[1:], HAN[:-2], HAN.replace("示例", "例示"), HAN.replace("测", "测测"), LATIN, "", "这" * 100]
)
def test_another_text_is_not_found(text: str) -> None:
    assert spans(text, HAN) == []


def test_every_occurrence_of_every_passage_is_found() -> None:
    start = compact(HAN)[:MIN]
    found = [compact(fold(piece)) for piece in spans(f"{HAN}x{LATIN}{HAN}", HAN, start, LATIN)]
    assert found == [start, compact(HAN), compact(fold(LATIN)), start, compact(HAN)]


@settings(max_examples=60, deadline=None)
@given(st.text("ab示例", min_size=MIN, max_size=60))
def test_a_passage_of_any_length_finds_itself(passage: str) -> None:
    assert any(compact(found) == passage for found in spans(f"x{passage}x", passage))


@settings(max_examples=200, deadline=None)
@given(
    relatives(),
    st.lists(st.sampled_from(["a", "b", "ab", "aab ", "-", "½", "\u200b", "x", "A"]), max_size=40),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
    st.data(),
)
def test_what_is_found_and_let_go_does_not_depend_on_the_cut(
    passages: list[str], parts: list[str], put: list[int], data: st.DataObject
) -> None:
    """A small alphabet and passages put in at random: many beginnings, overlaps and prefixes of each other."""
    for at, which in enumerate(put):
        parts.insert(min(len(parts), 7 * at), passages[which % len(passages)])
    text = "".join(parts)
    actions = [data.draw(st.sampled_from(["flag", "mask", "block"])) for _ in passages]
    detector = blocklist(*(row(p, i, a) for i, (p, a) in enumerate(zip(passages, actions, strict=True))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert stream(detector, chunks) == stream(detector, [text]) == stream(detector, list(text))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([HAN, LATIN]))
def test_not_one_character_of_a_blocked_passage_goes_out(data: st.DataObject, passage: str) -> None:
    before = data.draw(st.text("好的。 ok", max_size=50))
    text = before + data.draw(disguised(passage)) + "后文。"
    out, findings, _ = stream(blocklist(row(passage)), list(text))
    assert out == before
    assert [f.start for f in findings] == [len(before)]


def test_only_what_may_become_a_passage_is_held() -> None:
    detector = blocklist(row(HAN))
    channel = Channel([detector, detector.passages], POLICY, SCOPE)
    assert channel.push("好的。") == "好的。"
    assert channel.push("这是一段") == ""
    assert channel.push("别的话") == "这是一段别的话"
    assert channel.push("这是一段只为测试而写的") == ""
    assert channel.push("真实文字") != ""
    assert channel.push("这") == ""
    assert channel.finish() == "这"


def test_a_passage_that_differs_late_is_let_go_whole() -> None:
    text = HAN.replace("任何", "什么") * 3
    out, findings, stopped = stream(blocklist(row(HAN)), list(text))
    assert (out, findings, stopped) == (text, [], None)


def test_a_passage_between_scopes_acts_only_in_its_own() -> None:
    mine = row(HAN) | {"scope": {"app": "web", "directions": ["answer"]}}
    detector = blocklist(mine)
    found = [
        len(detector.passages.scan(fold(HAN), 0, True, Scope(app, direction)).candidates)
        for app in ("web", "other") for direction in ("answer", "prompt")
    ]  # fmt: skip
    assert found == [1, 0, 0, 0]


@pytest.mark.parametrize("passage", ["", "示例", "a b c d e f g h i j k", "。" * 50, "a" * (MIN - 1), "示" * (MAX + 1)])
def test_a_passage_too_short_or_too_long_is_refused_without_being_shown(passage: str) -> None:
    with pytest.raises(ValueError, match=rf"{MIN} to {MAX} letters or digits, this one has {len(compact(passage))}$"):
        fingerprint(passage, KID, KEY[KID])


@pytest.mark.parametrize("length", [MIN, MIN + 1, 100, MAX])
def test_a_passage_within_the_limits_is_taken(length: int) -> None:
    made = fingerprint("示, " * length, KID, KEY[KID])
    assert made.length == length
    lengths = [n for n, _ in made.marks]
    assert lengths[:GATE] == list(range(1, GATE + 1)) and lengths == sorted(set(lengths))
    assert len(lengths) < 40


def test_a_fingerprint_says_nothing_without_its_key() -> None:
    other = Keys("x" * 32).derive("fingerprint")
    mine, theirs = fingerprint(HAN, KID, KEY[KID]), fingerprint(HAN, KID, other)
    assert not {mac for _, mac in mine.marks} & {mac for _, mac in theirs.marks}
    assert mine == fingerprint(HAN.replace("，", "\n"), KID, KEY[KID])
    assert not any(ch in str(pack(mine)) for ch in compact(HAN))
    assert Passages([theirs], KEY).find(fold(HAN), 0, True) == ([], len(fold(HAN)), 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, MAX), st.binary(max_size=16)), min_size=1, max_size=5))
def test_a_fingerprint_survives_the_store(marks: list[tuple[int, bytes]]) -> None:
    made = Fingerprint("k", tuple(marks))
    assert unpack(pack(made)) == made


def test_a_passage_of_an_unknown_kid_is_counted_and_not_found() -> None:
    detector = blocklist(row(HAN, 0, key={"gone": b"x" * 32}), row(LATIN, 1))
    assert (len(detector), detector.foreign) == (2, 1)
    assert stream(detector, list(HAN)) == (HAN, [], None)
    assert stream(detector, list(LATIN))[0] == ""
    detector.load([row(LATIN)])
    assert (len(detector), detector.foreign) == (1, 0)


def test_passages_of_every_known_kid_are_found() -> None:
    keys = Keys(f"n:{'n' * 32},o:{'o' * 32}").all("fingerprint")
    detector = Blocklist(keys)
    detector.load([row(HAN, 0, key={"o": keys["o"]}), row(LATIN, 1, key={"n": keys["n"]})])
    assert detector.foreign == 0
    assert [f.rule for text in (HAN, LATIN) for f in stream(detector, [text])[1]] == ["ent_0", "ent_1"]
