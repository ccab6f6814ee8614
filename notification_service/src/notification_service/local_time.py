"""Local wall-clock times as moments in UTC, right on the days the clocks change. Pure.

A local time that does not exist (clocks go forward) is taken with the offset before the change, so 02:30 becomes 03:30;
one that exists twice (clocks go back) is the first of both. Both are `fold=0` of PEP 495.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@lru_cache(maxsize=1024)
def find_zone(name: str | None) -> ZoneInfo | None:
    """The time zone of this IANA name; None when there is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def zone_of(name: str | None) -> ZoneInfo:
    """The time zone of this name, UTC when there is none."""
    return find_zone(name) or ZoneInfo("UTC")


def parse_time(text: str) -> time:
    """A time of day from `HH:MM`.

    Raises:
        ValueError: It is none.
    """
    hours, _, minutes = text.partition(":")
    return time(int(hours), int(minutes))


def at_local(day: datetime, at: time, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, of this wall-clock time on the calendar day of `day`."""
    return datetime.combine(day.date(), at, tzinfo=zone).astimezone(UTC)


def next_local(after: datetime, zone: ZoneInfo, at: time, days: Collection[str] = DAYS) -> datetime:
    """The first moment after `after` at which it is `at` o'clock there, on one of these weekdays.

    Args:
        after: Aware.
        days: At least one of `DAYS`.
    """
    local = after.astimezone(zone)
    for offset in range(9):
        day = local + timedelta(days=offset)
        moment = at_local(day, at, zone)
        if moment > after and DAYS[day.weekday()] in days:
            return moment
    raise ValueError(f"no weekday of {sorted(days)} exists")


def next_full_hour(after: datetime, zone: ZoneInfo) -> datetime:
    """The next full hour of the wall clock there; zones with half hours have theirs at half past UTC's."""
    local = after.astimezone(zone)
    past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return (after - past + timedelta(hours=1)).astimezone(UTC)


def quiet_until(now: datetime, zone: ZoneInfo, start: time, end: time, days: Collection[str] = DAYS) -> datetime | None:
    """When the quiet hours end that `now` is in, in UTC; None when it is in none.

    A period belongs to the weekday it begins on. `start` equal to `end` is a whole day. Periods that follow each other
    without a gap are one; a week without a gap ends after eight days.
    """
    limit = now + timedelta(days=8)
    found = _end_of_period(now, zone, start, end, days)
    while found is not None and found < limit:
        following = _end_of_period(found, zone, start, end, days)
        if following is None:
            return found
        found = following
    return found


def _end_of_period(now: datetime, zone: ZoneInfo, start: time, end: time, days: Collection[str]) -> datetime | None:
    local = now.astimezone(zone)
    for back in (0, 1):
        day = local - timedelta(days=back)
        if DAYS[day.weekday()] not in days:
            continue
        begins = at_local(day, start, zone)
        ends = at_local(day + timedelta(days=int(start >= end)), end, zone)
        if begins <= now < ends:
            return ends
    return None
