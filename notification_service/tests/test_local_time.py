from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from notification_service.local_time import (
    at_local,
    find_zone,
    next_full_hour,
    next_local,
    parse_time,
    quiet_until,
    zone_of,
)

BERLIN = zone_of("Europe/Berlin")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_zones_that_do_not_exist_are_utc() -> None:
    assert find_zone("Mars/Olympus") is None
    assert find_zone("../../etc/passwd") is None
    assert find_zone(None) is None
    assert str(zone_of("Mars/Olympus")) == "UTC"


def test_a_time_that_does_not_exist_and_one_that_exists_twice() -> None:
    # 29 March 2026: 02:30 does not exist in Berlin. 25 October: 02:30 comes twice, first at 00:30 UTC.
    assert at_local(datetime(2026, 3, 29, tzinfo=BERLIN), time(2, 30), BERLIN) == utc(2026, 3, 29, 1, 30)
    assert at_local(datetime(2026, 10, 25, tzinfo=BERLIN), time(2, 30), BERLIN) == utc(2026, 10, 25, 0, 30)


def test_the_next_local_time_is_after_now_and_on_a_wanted_day() -> None:
    assert next_local(utc(2026, 3, 28, 7), BERLIN, time(8)) == utc(2026, 3, 29, 6)
    assert next_local(utc(2026, 3, 28, 6, 59), BERLIN, time(8)) == utc(2026, 3, 28, 7)
    assert next_local(utc(2026, 3, 30, 6), BERLIN, time(8), ("mon",)) == utc(2026, 4, 6, 6)
    with pytest.raises(ValueError, match="no weekday"):
        next_local(utc(2026, 3, 30), BERLIN, time(8), ("never",))


def test_full_hours_of_zones_with_half_hours() -> None:
    assert next_full_hour(utc(2026, 1, 1, 12, 10), zone_of("Asia/Kolkata")) == utc(2026, 1, 1, 12, 30)
    assert next_full_hour(utc(2026, 1, 1, 12), BERLIN) == utc(2026, 1, 1, 13)


def test_times_of_day() -> None:
    assert parse_time("07:05") == time(7, 5)
    with pytest.raises(ValueError, match="must be in"):
        parse_time("25:00")


@pytest.mark.req("X-10")
@pytest.mark.parametrize(
    ("now", "start", "end", "days", "expected"),
    [
        (utc(2026, 1, 5, 12), "22:00", "07:00", None, None),
        (utc(2026, 1, 5, 22), "22:00", "07:00", None, utc(2026, 1, 6, 6)),
        (utc(2026, 1, 6, 5), "22:00", "07:00", None, utc(2026, 1, 6, 6)),
        (utc(2026, 1, 6, 6), "22:00", "07:00", None, None),
        (utc(2026, 1, 5, 12), "12:00", "14:00", None, utc(2026, 1, 5, 13)),
        # 2026-01-05 is a Monday; the night to Tuesday belongs to Monday.
        (utc(2026, 1, 6, 5), "22:00", "07:00", ("mon",), utc(2026, 1, 6, 6)),
        (utc(2026, 1, 6, 5), "22:00", "07:00", ("tue",), None),
        # The whole weekend: one period, over midnight.
        (utc(2026, 1, 10, 12), "00:00", "00:00", ("sat", "sun"), utc(2026, 1, 11, 23)),
        # The night the clocks go forward is an hour shorter, and the one they go back an hour longer.
        (utc(2026, 3, 28, 23), "23:00", "08:00", None, utc(2026, 3, 29, 6)),
        (utc(2026, 10, 24, 23), "23:00", "08:00", None, utc(2026, 10, 25, 7)),
    ],
)
def test_when_quiet_hours_end(
    now: datetime, start: str, end: str, days: tuple[str, ...] | None, expected: datetime | None
) -> None:
    given = () if days is None else (days,)
    assert quiet_until(now, BERLIN, parse_time(start), parse_time(end), *given) == expected


def test_quiet_hours_without_a_gap_end_after_eight_days() -> None:
    found = quiet_until(utc(2026, 1, 5), zone_of("UTC"), time(0), time(0))
    assert found == utc(2026, 1, 13)
