from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notification_service.gateway.bucket import BURST_S, Bucket


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket(5.0, 0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert 0.19 < bucket.wait_s() <= 0.2
    assert not bucket.take(0.1)
    assert bucket.take(0.21)
    assert bucket.wait_s() > 0


def test_idle_time_saves_up_no_more_than_a_burst() -> None:
    bucket = Bucket(1.0, 0.0)
    assert sum(bucket.take(1_000.0) for _ in range(10)) == 2
    assert Bucket(1.0, 0.0).wait_s() == 0.0


@given(st.lists(st.floats(0.0, 1.0), max_size=200), st.floats(0.5, 100.0))
def test_never_more_than_the_rate_and_one_burst(pauses: list[float], rate: float) -> None:
    bucket, now, taken = Bucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
    assert taken <= rate * now + rate * BURST_S + 1e-6
