"""Due dates in civil months, over every day of nine years and every hour of some, against a reckoning by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from app import deadlines
from app.deadlines import SHANGHAI, due

LENGTHS = {1: 31, 2: 28, 3: 31, 4: 30, 5: 31, 6: 30, 7: 31, 8: 31, 9: 30, 10: 31, 11: 30, 12: 31}


def by_hand(day: date, months: int) -> date:
    """Counting months one after the other on the fingers."""
    year, month = day.year, day.month
    for _ in range(months):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return date(year, month, min(day.day, 29 if month == 2 and leap else LENGTHS[month]))


def test_every_day_of_2024_to_2032_ends_with_the_day_of_its_number_or_the_months_last() -> None:
    day, seen = date(2024, 1, 1), 0
    before: dict[int, float] = {}
    while day <= date(2032, 12, 31):
        for hour in (0, 7, 8, 15, 16, 23):
            at = datetime(day.year, day.month, day.day, hour, 30, tzinfo=SHANGHAI).timestamp()
            for months in (1, 3, 6, 12):
                found = due(at, months)
                last = datetime.fromtimestamp(found.at, UTC).astimezone(SHANGHAI)
                assert last.date() == by_hand(day, months) and last.time().isoformat() == "23:59:59"
                assert found.rule == f"{day.isoformat()}+P{months}M@Asia/Shanghai"
                assert found.at >= before.get(months, 0), "a later report is never due earlier"
                before[months] = found.at
                seen += 1
        day += timedelta(days=1)
    assert seen == 3288 * 24


@pytest.mark.parametrize(
    ("received", "ends"),
    [
        ("2024-11-30T10:00:00+08:00", "2025-02-28"), ("2023-11-30T10:00:00+08:00", "2024-02-29"),
        ("2024-12-31T23:59:59+08:00", "2025-03-31"), ("2024-12-31T16:00:00+00:00", "2025-04-01"),
        ("2027-11-29T00:00:00+08:00", "2028-02-29"),
    ],
)  # fmt: skip
def test_the_day_is_shanghais_wherever_the_report_came_from(received: str, ends: str) -> None:
    at = datetime.fromisoformat(received).timestamp()
    assert datetime.fromtimestamp(due(at, 3).at, UTC).astimezone(SHANGHAI).date().isoformat() == ends


def test_days_left_are_counted_in_days_of_shanghai() -> None:
    at = due(datetime(2026, 1, 15, 9, tzinfo=SHANGHAI).timestamp(), 3).at
    for now, left in (
        ("2026-04-15T23:59:00", 0),
        ("2026-04-14T00:01:00", 1),
        ("2026-04-16T00:00:01", -1),
        ("2026-01-15T09:00:00", 90),
    ):
        moment = datetime.fromisoformat(now).replace(tzinfo=SHANGHAI).timestamp()
        assert deadlines.days_left(at, moment) == left


def test_a_period_has_at_least_a_month() -> None:
    with pytest.raises(ValueError, match="month"):
        due(0.0, 0)
