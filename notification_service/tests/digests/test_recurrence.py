from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notification_service.digests.recurrence import next_time

# A Friday.
START = datetime(2026, 3, 27, 10, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"every": "hour"}, datetime(2026, 3, 27, 11, 0, tzinfo=UTC)),
        # Half an hour beside everybody else's hours.
        ({"every": "hour", "timezone": "Asia/Kolkata"}, datetime(2026, 3, 27, 10, 30, tzinfo=UTC)),
        ({"every": "day", "at": "09:00"}, datetime(2026, 3, 28, 9, 0, tzinfo=UTC)),
        # The night in which clocks are put forward: 09:00 in Berlin is 07:00 from then on.
        ({"every": "week", "at": "09:00", "timezone": "Europe/Berlin"}, datetime(2026, 3, 30, 7, 0, tzinfo=UTC)),
    ],
)
def test_the_next_time(rule: dict[str, str], expected: datetime) -> None:
    assert next_time(rule, START) == expected


def test_after_its_end_there_is_none() -> None:
    rule = {"every": "hour", "until": (START + timedelta(minutes=45)).isoformat()}
    assert next_time(rule, START) == datetime(2026, 3, 27, 11, 0, tzinfo=UTC)
    assert next_time(rule, START + timedelta(hours=1)) is None
