"""A stamp is RFC 3339 in UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from app import clock


@given(st.floats(0, 4e9, allow_nan=False))
@example(1_700_000_000.9999996)
@example(1_700_000_000.9999994)
@example(1_700_000_000.0)
def test_a_stamp_is_what_the_library_writes_and_comes_back(at: float) -> None:
    written = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert clock.stamp(at) == written
    assert abs(clock.seconds(written) - at) < 0.0011
