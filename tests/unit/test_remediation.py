"""The states of a case: every move from every state either leads where the table says or is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestError
from app.figures import upper
from app.remediation import DUTY, ENDED, TABLE, UNDECIDED, Case, moved, verdict

ALL = sorted(UNDECIDED | DUTY | ENDED | {"rejected"})
SAID = {
    "reason": "r", "category": "violence", "vendor": "v", "reference": "1", "date": "2026-01-01", "role": "legal",
    "asked": {"model": "m"}, "outcome": {"outcome": "failed"},
}  # fmt: skip


def case(state: str, **more: object) -> Case:
    return Case("case_1", "default", "violence", state, 1.0, 100.0, "rule", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ALL)
@pytest.mark.parametrize("move", TABLE)
def test_a_move_leads_where_the_table_says_or_is_refused_with_the_states_it_leads_from(state: str, move: str) -> None:
    if state in TABLE[move].here:
        after = moved(case(state), move, 2.0, **SAID)
        assert after.due == 100.0 and after.received == 1.0, "no move touches the clock"
        for name in TABLE[move].needs:
            with pytest.raises(RequestError) as missing:
                moved(case(state), move, 2.0, **{k: v for k, v in SAID.items() if k != name})
            assert missing.value.param == name and missing.value.status == 422
    else:
        with pytest.raises(RequestError) as wrong:
            moved(case(state), move, 2.0, **SAID)
        assert wrong.value.status == 409 and state in wrong.value.message


@given(st.lists(st.sampled_from(sorted(TABLE)), max_size=30), st.floats(2, 300))
def test_whatever_is_done_a_case_ends_by_a_passing_probe_or_a_written_exception_alone(
    moves: list[str], now: float
) -> None:
    now_, state = now, case("received")
    for move in moves:
        try:
            after = moved(state, move, now_, **SAID)
        except RequestError:
            continue
        if after.state in ENDED and state.state not in ENDED:
            assert move == "except" or (move == "judge" and state.left == "closed")
        state = after
        assert state.due == 100.0
    assert moved(case("probing"), "judge", now, outcome={"outcome": "passed"}).state == "closed"


def test_a_failed_probe_goes_back_to_where_the_case_was_or_shows_that_time_is_up() -> None:
    asked = moved(case("in_optimisation"), "probe", 2.0, asked={"model": "m"})
    assert moved(asked, "judge", 3.0, outcome={"outcome": "failed"}).state == "in_optimisation"
    assert moved(asked, "judge", 300.0, outcome={"outcome": "inconclusive"}).state == "overdue"
    closed = moved(case("closed", ended=2.0), "probe", 9.0, asked={"model": "m"})
    assert moved(closed, "judge", 9.0, outcome={"outcome": "failed"}).state == "reopened"
    assert moved(closed, "judge", 9.0, outcome={"outcome": "inconclusive"}).state == "closed"


def sets(**counts: tuple[int, int]) -> dict[str, dict[str, float]]:
    return {
        name: {"judged": n, "again": hits, "upper": upper(hits, n) if n else 1.0} for name, (hits, n) in counts.items()
    }


def test_a_probe_passes_only_where_no_set_can_have_five_in_a_hundred() -> None:
    assert verdict(sets(original=(0, 60), variants=(0, 60))) == "passed"
    assert verdict(sets(original=(0, 59), variants=(0, 60))) == "inconclusive"
    assert verdict(sets(original=(0, 60))) == "inconclusive"
    assert verdict({}) == "inconclusive"
    assert verdict(sets(original=(1, 60), variants=(0, 60))) == "failed"
    assert verdict(sets(original=(0, 60), variants=(1, 10))) == "failed"
    assert verdict(sets(original=(1, 2000), variants=(0, 2000))) == "passed", "one of two thousand bounds it too"


def test_a_row_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    state = case("confirmed", entries=("e1",), reporters=("a",))
    assert Case.of(state.row() | {"something": 1}, 0) == state
