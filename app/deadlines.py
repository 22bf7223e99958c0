"""Due dates in civil months. Law: a pure function of the moment a report came and of the period that applies; computed once, at intake,
and kept as an instant with the rule that gave it. No clock is read here.

China has one time and no summer time (since 1991), so its zone is a fixed offset and needs no tables. A period of months ends with the
day that has the same number, or the last day of a month that has no such day (Civil Code, Articles 200 to 203); a day ends at midnight.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone
from typing import NamedTuple

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
DRAFT_MONTHS = 3
"""Draft Measures, Article 15."""


class Due(NamedTuple):
    """`at`: the last second of the last day, seconds since the epoch. `rule`: how it was found, for whoever asks years later."""

    at: float
    rule: str


def after_months(day: date, months: int) -> date:
    """The same day so many months on; the last of a month that has no such day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def due(received: float, months: int) -> Due:
    """When what came at `received` (seconds since the epoch) is due, `months` civil months on. Raises ValueError for no month at all."""
    if months < 1:
        raise ValueError("a period has at least one month")
    first = datetime.fromtimestamp(received, UTC).astimezone(SHANGHAI).date()
    last = after_months(first, months)
    end = datetime(last.year, last.month, last.day, 23, 59, 59, tzinfo=SHANGHAI)
    return Due(end.timestamp(), f"{first.isoformat()}+P{months}M@Asia/Shanghai")


def day_end(received: float, days: int) -> float:
    """The last second of the day so many days on."""
    day = datetime.fromtimestamp(received, UTC).astimezone(SHANGHAI).date() + timedelta(days=days)
    return datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=SHANGHAI).timestamp()


def days_left(at: float, now: float) -> int:
    """Whole days of Shanghai from today to the last day; negative once it is past."""
    today = datetime.fromtimestamp(now, UTC).astimezone(SHANGHAI).date()
    return (datetime.fromtimestamp(at, UTC).astimezone(SHANGHAI).date() - today).days
