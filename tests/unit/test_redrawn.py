"""Terms whose characters are drawn as others: what is found, what is not, and that a kept list says the same."""

from __future__ import annotations

import pytest

from app import redrawn, views
from app.forms import PAIRS
from app.terms import Terms

LISTED = ["蓝色信号", "土木工程", "赌博机", "末日"]


@pytest.mark.parametrize("terms", [Terms(LISTED), Terms.of(Terms(LISTED).arrays())], ids=["built", "kept"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("睹搏机", "赌博机"),  # one as it is
        ("士术王程", "土木工程"),
        ("监邑佶号", "蓝色信号"),
        ("蓝邑佶口", "蓝色信号"),  # one is another altogether
        ("蓝色佶口", ""),  # too little is redrawn for that
        ("蓝色书号", ""),
        ("末召", ""),  # one as it is, the other a common character that is not close
        ("土木工程", ""),  # as it is: the skeleton's to find
    ],
)
def test_a_redrawn_term_is_found(terms: Terms, text: str, found: str) -> None:
    for before, after in (("", ""), ("请看：", "。")):
        hits, _ = terms.read(before + text + after, before + text + after, 0, True)
        assert [(h.start, h.end, LISTED[h.number], set(h.techniques)) for h in hits] == (
            [(len(before), len(before + text), found, {"lookalike"})] if found else []
        )


def test_resemblance_goes_both_ways_and_what_is_seldom_seen_says_more() -> None:
    for one, other in ("末未", "土士", "己已", "日曰", "人入", "睹赌", "搏博"):
        assert views.looks_like(one, other) and views.looks_like(other, one)
        assert other in views.same_look(one) and one in views.same_look(other)
    assert views.looks_like("囗", "口") == views.looks_like("口", "囗") + 1
    assert not views.looks_like("赌", "天") and not views.looks_like("a", "b")


def test_a_long_list_has_no_anchors() -> None:
    terms = [chr(0x4E00 + i) * 3 for i in range(PAIRS + 1)]
    assert list(redrawn.anchors(terms[:-1])) and not list(redrawn.anchors(terms))
