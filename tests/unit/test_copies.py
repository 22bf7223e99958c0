"""Near copies: found from the first shared character on, whole or streamed; nothing else is, and nothing kept can be read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import policy
from app.copies import LEAST, RUN, SPACED, Copies, Runs, grams, runs
from app.detectors.blocklist import Blocklist, pack, unpack, unpack_runs
from app.keys import Keys
from app.passages import compact, fingerprint
from app.streaming import Channel
from app.text import fold, origins
from app.types import TECHNIQUES, Action, Finding, Scope
from tests.bench import copies as bench
from tests.conftest import SECRET

KEY = Keys(SECRET).all("fingerprint")
KID = "0"
SCOPE = Scope("default", "answer")
POLICY = policy.parse(b"").common
HAN = "春天的第一场雨落在石桥上，也落在桥下的小船里。船夫收起竹篙，等着对岸的人把灯笼一盏一盏点亮，再慢慢划回去；河水比昨夜又高了半尺。"
LATIN = "The old ferryman folded his map, counted nine lanterns across the water, and rowed home before the river rose again."
BEFORE = "好的。ok，"


def row(passage: str, number: int = 0, action: str = "block", near: bool = True) -> dict[str, Any]:
    """A row of the entries table."""
    scope = {"app": "*", "directions": ["prompt", "answer"]}
    print_ = pack(fingerprint(passage, KID, KEY[KID]), runs(passage, KID, KEY[KID]) if near else None)
    return {"id": f"ent_{number}", "fingerprint": print_, "category": "violence", "action": action, "scope": scope}


def blocklist(*rows: dict[str, Any], keys: dict[str, bytes] = KEY) -> Blocklist:
    found = Blocklist(keys)
    found.load(rows)
    return found


def found(text: str, *passages: str) -> list[tuple[str, int]]:
    """The pieces of the original text in which grams are found, and whose they are."""
    numbered = [(i, runs(passage, KID, KEY[KID])) for i, passage in enumerate(passages)]
    told, hold, wake = Copies(numbered, KEY).find(fold(text), 0, True)
    assert (hold, wake) == (len(fold(text)), 0)
    back = origins(text)
    return [(text[back[start] : back[end - 1] + 1], i) for start, end, i in told]


def stream(detector: Blocklist, chunks: list[str]) -> tuple[str, list[Finding], Action | None, int]:
    """What goes out, what is found, how it ends, and what leaked."""
    channel = Channel([detector, detector.passages], POLICY, SCOPE)
    out = "".join([*map(channel.push, chunks), channel.finish()])
    return out, channel.findings, channel.stopped, channel.leaked


# ---- what is a near copy


@pytest.mark.parametrize(("passage", "length"), [(HAN, RUN), (LATIN, SPACED)])
def test_every_run_of_a_passage_is_found_wherever_it_stands_and_no_shorter_one(passage: str, length: int) -> None:
    dense = compact(fold(passage))
    for at in range(len(dense) - length + 1):
        run = dense[at : at + length]
        assert found(f"甲乙，{run}。丙", passage) == [(run, 0)]
        assert found(f"甲乙，{run[:-1]}。丙", passage) == []


@pytest.mark.parametrize(
    "text",
    [
        HAN[5:40],
        "\u200b".join(HAN[5:40]),
        "，".join(HAN[5:40]),
        "落在石橋上，也落在橋下的小船裏。船夫收起竹篙，等著對岸的人",
        HAN[30:] + HAN[:30],
        HAN.replace("小船", "木船").replace("昨夜", "昨日"),
        "counted NINE lanterns across the water",
        "ｃｏｕｎｔｅｄ　ｎｉｎｅ　ｌａｎｔｅｒｎｓ　ａｃｒｏｓｓ　ｔｈｅ　ｗａｔｅｒ",
        LATIN.replace("ferryman", "boatman").replace("water", "stream"),
    ],
)
def test_a_passage_is_found_in_part_edited_padded_redrawn_and_reordered(text: str) -> None:
    assert found(text, HAN, LATIN)


@pytest.mark.parametrize(
    "passage",
    [
        HAN[: LEAST - 3],
        "0123456789" * 8,
        "哈哈哈哈哈呵呵呵呵呵" * 8,
        "haha hehe " * 20,
    ],
)
def test_a_short_passage_and_poor_evidence_give_no_runs(passage: str) -> None:
    made = runs(passage, KID, KEY[KID])
    assert len(made) == 0
    assert "runs" not in pack(fingerprint(passage, KID, KEY[KID]), made)
    assert found(passage * 2, passage) == []


def test_what_stands_in_clean_texts_is_no_evidence() -> None:
    clean = "也落在桥下的小船里。船夫收起竹篙，等着对岸的人"
    made = runs(HAN, KID, KEY[KID], set(grams(clean)))
    assert len(made) == len(runs(HAN, KID, KEY[KID])) - len(list(grams(clean)))
    copies = Copies([(0, made)], KEY)
    assert copies.find(fold(clean), 0, True)[0] == []
    assert copies.find(fold(HAN), 0, True)[0] != []


def test_grams_are_of_folded_and_compacted_text() -> None:
    assert list(grams("ＡＢ-c" * 9)) == list(grams("abc" * 9)) == [("abc" * 9)[at : at + SPACED] for at in range(4)]
    assert list(grams("雨" * 21)) == ["雨" * RUN] * 2
    assert list(grams("雨" * 19)) == list(grams("a" * 23)) == list(grams("")) == []


def test_a_gram_of_several_passages_is_found_for_each() -> None:
    both = found(HAN, HAN, HAN + LATIN)
    assert {i for _, i in both} == {0, 1}
    assert len(both) == 2 * len(list(grams(HAN)))


# ---- the detector


def test_a_row_without_runs_finds_what_occurs_whole_and_nothing_else() -> None:
    detector = blocklist(row(HAN, near=False))
    (whole,) = detector.passages.scan(fold(HAN), 0, True, SCOPE).candidates
    assert whole.techniques == frozenset()
    assert detector.passages.scan(fold(HAN[:-2]), 0, True, SCOPE).candidates == []


def test_evidence_says_that_it_was_a_near_copy() -> None:
    assert "copy" in TECHNIQUES
    _, (finding,), stopped, _ = stream(blocklist(row(HAN)), [BEFORE + "也落在橋下的小船裏。船夫收起竹篙，等着對岸的人"])
    assert (finding.technique, finding.rule, stopped) == ("copy+traditional+width", "ent_0", Action.BLOCK)
    _, (whole,), _, _ = stream(blocklist(row(HAN)), [HAN])
    assert (whole.start, whole.end, whole.technique) == (0, len(HAN) - 1, "width")


@pytest.mark.parametrize("action", ["flag", "mask"])
def test_a_near_copy_is_one_finding_over_all_that_was_copied(action: str) -> None:
    parts = HAN[2:28], "。中间的话。", HAN[34:]
    text = BEFORE + "".join(parts)
    out, findings, _, leaked = stream(blocklist(row(HAN, action=action)), list(text))
    first = len(BEFORE)
    # The stop at its end is nobody's: what is told begins and ends with a letter.
    assert [(f.start, f.end) for f in findings] == [
        (first, first + len(parts[0])),
        (len(text) - len(parts[2]), len(text) - 1),
    ]
    masked = "".join("*" if any(f.start <= i < f.end for f in findings) else ch for i, ch in enumerate(text))
    assert (out, leaked) == (text if action == "flag" else masked, 0)


def test_only_what_may_become_a_gram_is_held() -> None:
    detector = blocklist(row(HAN))
    channel = Channel([detector, detector.passages], POLICY, SCOPE)
    assert channel.push("可以。") == "可以。"
    assert channel.push("也落在桥下的") == ""
    assert channel.push("河边") == "也"
    assert channel.push("树林") == "落在桥下的河边树林"


def test_a_change_of_one_row_acts_at_once_and_its_end_too() -> None:
    detector = blocklist(row(LATIN, 1))
    text = HAN[:30]
    detector.change({"ent_0": row(HAN)}, whole=False)
    assert stream(detector, [text])[2] is Action.BLOCK
    detector.change({"ent_0": None}, whole=False)
    assert stream(detector, [text])[0] == text


@cache
def _cut_material() -> tuple[Blocklist, str]:
    detector = blocklist(row(HAN, 0, "mask"), row(LATIN, 1, "flag"), row(HAN[20:] + LATIN, 2, "mask"))
    text = f"好的，{HAN[3:30]}木{HAN[31:]} ok。{LATIN[:70]} x，{HAN[22:]}{LATIN[:40]}，再见"
    return detector, text


def test_what_is_found_and_let_go_is_the_same_wherever_the_text_is_cut() -> None:
    detector, text = _cut_material()
    whole = stream(detector, [text])
    assert {f.rule for f in whole[1]} == {"ent_0", "ent_1", "ent_2"} and whole[3] == 0
    assert stream(detector, list(text)) == whole
    for at in range(len(text) + 1):
        assert stream(detector, [text[:at], text[at:]]) == whole


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["flag", "mask", "block"]), st.data())
def test_near_copies_are_found_the_same_and_leak_nothing_however_a_text_is_cut(
    seed: int, action: str, data: st.DataObject
) -> None:
    dice = random.Random(seed)
    passages = bench.passages(4, dice)
    detector = blocklist(*(row(bench.joined(p), n, action) for n, p in enumerate(passages)))
    edit = dice.choice(list(bench.EDITS.values()))
    text = "".join(f"{dice.choice(bench.halves()[1])} {edit(p, dice)}" for p in dice.sample(passages, 2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = stream(detector, [text])
    assert stream(detector, chunks) == stream(detector, list(text)) == whole
    out, findings, stopped, leaked = whole
    assert leaked == 0
    shared = list(_shared(text, [bench.joined(p) for p in passages]))
    if action == "block":
        assert out == (text[: shared[0]] if shared else text)
        assert (stopped is not None) == bool(shared)
    else:
        assert {i for f in findings for i in range(f.start, f.end) if text[i].isalnum()} >= set(shared)
        assert action == "flag" or all(out[i] == "*" for i in shared)


def _shared(text: str, passages: list[str]) -> Iterator[int]:
    """Where original characters stand that belong to a run shared with a passage, told without a key."""
    kept = {gram for p in passages for gram in grams(p) if len(set(gram)) >= 6 and not gram.isdigit()}
    folded, back = fold(text), origins(text)
    places = [i for i, ch in enumerate(folded) if ch.isalnum()]
    dense = compact(folded)
    lengths = {len(gram) for gram in kept}
    last = -1
    for at in range(len(dense)):
        end = max((n for n in lengths if dense[at : at + n] in kept), default=0)
        last = max(last, at + end - 1)
        if at <= last:
            yield back[places[at]]


# ---- what is kept


def test_runs_survive_the_store() -> None:
    made = runs(HAN, KID, KEY[KID])
    packed = pack(fingerprint(HAN, KID, KEY[KID]), made)
    assert unpack_runs(packed) == made and unpack(packed) == fingerprint(HAN, KID, KEY[KID])
    assert unpack_runs(pack(unpack(packed))) is None
    assert len(packed["runs"]) < 32 * len(made) + 32


def test_what_is_kept_says_nothing_without_the_key_and_nothing_of_another_passage() -> None:
    """Not even that they share characters: whoever can file a report could make a code book of them."""
    one, two = runs(HAN, KID, KEY[KID]), runs(HAN + "尾", KID, KEY[KID])
    assert one == runs(HAN.replace("，", "\n"), KID, KEY[KID])
    assert not _pieces(one) & _pieces(two)
    other = {KID: Keys("x" * 32).derive("fingerprint")}
    assert Copies([(0, one)], other).find(fold(HAN), 0, True)[0] == []


def _pieces(of: Runs) -> set[bytes]:
    return {of.sealed[i : i + 6] for i in range(len(of.sealed) - 5)}


def test_runs_of_an_unknown_kid_are_counted_and_not_found() -> None:
    foreign = row(HAN) | {"fingerprint": row(HAN)["fingerprint"] | {"kid": "gone"}}
    detector = blocklist(foreign, row(LATIN, 1))
    assert detector.foreign == 1
    assert stream(detector, [HAN])[0] == HAN
    assert stream(detector, [LATIN])[2] is Action.BLOCK


def test_runs_of_every_known_kid_are_found() -> None:
    keys = Keys(f"n:{'n' * 32},o:{'o' * 32}").all("fingerprint")
    copies = Copies([(0, runs(HAN, "o", keys["o"])), (1, runs(LATIN, "n", keys["n"]))], keys)
    assert {i for text in (HAN, LATIN) for _, _, i in copies.find(fold(text), 0, True)[0]} == {0, 1}
    assert replace(runs(HAN, "o", keys["o"]), kid="n") != runs(HAN, "n", keys["n"])


# ---- recall, and what must not be found


def test_near_copies_of_a_hundred_passages_are_found() -> None:
    rows = bench.recall(100)
    assert len(rows) == len(bench.EDITS) == 6
    assert all(r["zh"] == "100.0%" for r in rows), rows
    assert sum(float(r["found"].rstrip("%")) for r in rows) / len(rows) >= 93, rows


def test_nothing_is_found_in_the_harmless_texts_of_the_project() -> None:
    """The runs leave out no clean grams here: the texts themselves are what is asked."""
    passages = [bench.joined(p) for p in bench.passages(100, random.Random(2))]
    copies = Copies([(n, runs(p, KID, KEY[KID])) for n, p in enumerate(passages)], KEY)
    harmless = bench.halves()[1][-3500:]
    hit = [text for text in harmless if copies.find(fold(text), 0, True)[0]]
    assert hit == []
