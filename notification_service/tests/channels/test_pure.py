"""What decides, without anything around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from notification_service.channels.breakers import Breakers, Entry
from notification_service.channels.http.channel import MAX_RETRY_AFTER, read_retry_after
from notification_service.channels.interface import Failure, FailureKind
from notification_service.channels.judge import IN_PROGRESS, Judgement, Step, judge
from notification_service.channels.ladder import GiveUp, Retry, decide
from notification_service.channels.slots import Reservation, RouteSlots
from notification_service.channels.webhook.signature import is_genuine, sign
from notification_service.rates import Rate, parse_rates, take_turn
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DELAYS = (timedelta(seconds=10), timedelta(seconds=60))


def failure(kind: FailureKind, **fields: Any) -> Failure:
    return Failure(kind, **{"reason": Reason.PROVIDER_UNAVAILABLE, "detail": "x", **fields})


def after(
    failed: Failure, attempt: int = 1, *, harmless: bool = True, chance: float = 0.5, delays: Any = DELAYS
) -> Retry | GiveUp:
    return decide(failed, attempt=attempt, delays=delays, repeats_are_harmless=harmless, chance=chance)


# --- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.req("F11")
@given(some.floats(0, 1), some.sampled_from([1, 2]))
def test_a_retry_waits_its_step_within_ten_percent(chance: float, attempt: int) -> None:
    decision = after(failure(FailureKind.TEMPORARY), attempt, chance=chance)
    assert isinstance(decision, Retry)
    assert decision.step == DELAYS[attempt - 1]
    assert 0.9 * decision.step <= decision.delay <= 1.1 * decision.step


@pytest.mark.req("I02")
def test_there_are_as_many_retries_as_steps() -> None:
    assert after(failure(FailureKind.TEMPORARY), 3) == GiveUp(Reason.ATTEMPTS_EXHAUSTED)
    assert after(failure(FailureKind.TEMPORARY, reason=Reason.BREAKER_OPEN), 3) == GiveUp(Reason.BREAKER_OPEN)
    assert after(failure(FailureKind.TEMPORARY), delays=()) == GiveUp(Reason.ATTEMPTS_EXHAUSTED)


def test_what_is_permanent_or_unknown() -> None:
    assert after(failure(FailureKind.PERMANENT, reason=Reason.PROVIDER_REJECTED)) == GiveUp(Reason.PROVIDER_REJECTED)
    assert isinstance(after(failure(FailureKind.UNKNOWN)), Retry)
    assert after(failure(FailureKind.UNKNOWN), harmless=False) == GiveUp(Reason.PROVIDER_UNAVAILABLE)


@pytest.mark.req("F10")
@given(some.floats(0, 1), some.integers(0, 3600))
def test_never_before_the_provider_wants_it(chance: float, seconds: int) -> None:
    wanted = timedelta(seconds=seconds)
    decision = after(failure(FailureKind.TEMPORARY, retry_after=wanted), chance=chance)
    assert isinstance(decision, Retry)
    assert decision.delay >= wanted
    # A wait that is no step of the ladder is in no step's queue.
    assert decision.step is None or decision.delay <= 1.1 * decision.step


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("99999999999", MAX_RETRY_AFTER),
        ("²", None),
        ("Thu, 01 Jan 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Thu, 01 Jan 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Thu, 01 Jan 2026 11:00:00 GMT", timedelta(0)),
        ("soon", None),
        ("-5", None),
    ],
)
def test_reading_retry_after(value: str | None, expected: timedelta | None) -> None:
    assert read_retry_after(value, now=NOW) == expected


# --- judging a message ------------------------------------------------------------------------------------------------


def loaded(**changes: Any) -> Any:
    delivery = {
        "status": DeliveryState.QUEUED,
        "attempts": 0,
        "settled_attempts": 0,
        "not_before": None,
        "last_attempt_at": None,
        "channel": "email",
    }
    return SimpleNamespace(
        delivery=SimpleNamespace(**{**delivery, **{key: value for key, value in changes.items() if key in delivery}}),
        notification=changes.get("notification", SimpleNamespace(expires_at=changes.get("expires_at"))),
        user=changes.get("user", SimpleNamespace(is_active=True, email_verified=True)),
        contact=changes.get("contact"),
        address=changes.get("address", "ada@example.org"),
    )


def judged(found: Any, attempt: int = 1, **fields: Any) -> Judgement:
    values = {
        "is_redelivered": False,
        "repeats_are_harmless": True,
        "is_suppressed": False,
        "require_verified": False,
        "now": NOW,
        **fields,
    }
    return judge(found, attempt=attempt, **values)


def test_a_waiting_delivery_is_attempted() -> None:
    assert judged(loaded()).step is Step.ATTEMPT
    assert judged(loaded(status=DeliveryState.PENDING)).step is Step.ATTEMPT
    assert judged(loaded(attempts=1, settled_attempts=1), 2).step is Step.ATTEMPT


@pytest.mark.parametrize(
    ("found", "attempt"),
    [
        (None, 1),
        (loaded(status=DeliveryState.SENT), 1),
        (loaded(status=DeliveryState.RECALLED), 1),
        (loaded(attempts=1, settled_attempts=1), 1),
        (loaded(), 2),
        (loaded(not_before=NOW + timedelta(seconds=1)), 1),
        (loaded(attempts=1, last_attempt_at=NOW), 1),
    ],
)
def test_copies_are_dropped(found: Any, attempt: int) -> None:
    assert judged(found, attempt).step is Step.DROP


@pytest.mark.req("F13")
def test_an_attempt_that_lost_its_worker() -> None:
    begun = loaded(attempts=1, last_attempt_at=NOW)
    assert judged(begun, is_redelivered=True).step is Step.ATTEMPT
    assert judged(begun, is_redelivered=True, repeats_are_harmless=False).step is Step.PARK
    long_ago = loaded(attempts=1, last_attempt_at=NOW - IN_PROGRESS)
    assert judged(long_ago, is_redelivered=True, repeats_are_harmless=False).step is Step.END_UNKNOWN
    assert judged(long_ago).step is Step.ATTEMPT
    assert judged(loaded(attempts=1), repeats_are_harmless=False).step is Step.END_UNKNOWN


@pytest.mark.req("F14")
@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (loaded(notification=None), DeliveryState.RECALLED, Reason.RECALLED),
        (loaded(expires_at=NOW), DeliveryState.EXPIRED, Reason.EXPIRED),
        (loaded(user=None), DeliveryState.SUPPRESSED, Reason.RECIPIENT_INACTIVE),
        (loaded(user=SimpleNamespace(is_active=False)), DeliveryState.SUPPRESSED, Reason.RECIPIENT_INACTIVE),
        (loaded(address=None), DeliveryState.SUPPRESSED, Reason.NO_ADDRESS),
        (loaded(contact=SimpleNamespace(disabled_at=NOW)), DeliveryState.SUPPRESSED, Reason.ADDRESS_DISABLED),
    ],
)
def test_what_must_not_be_sent(found: Any, status: DeliveryState, reason: Reason) -> None:
    assert judged(found) == Judgement(Step.END, status, reason)


def test_what_is_on_the_suppression_list_or_not_proved() -> None:
    assert judged(loaded(), is_suppressed=True).reason is Reason.ADDRESS_DISABLED
    unproved = loaded(user=SimpleNamespace(is_active=True, email_verified=False))
    assert judged(unproved).step is Step.ATTEMPT
    assert judged(unproved, require_verified=True).reason is Reason.ADDRESS_UNVERIFIED
    assert judged(loaded(channel="sms"), require_verified=True).step is Step.ATTEMPT
    contact = SimpleNamespace(disabled_at=None, verified_at=None)
    assert judged(loaded(contact=contact), require_verified=True).reason is Reason.ADDRESS_UNVERIFIED
    proved = SimpleNamespace(disabled_at=None, verified_at=NOW)
    assert judged(loaded(contact=proved), require_verified=True).step is Step.ATTEMPT


# --- breakers, slots, rates -------------------------------------------------------------------------------------------


def enter(breakers: Breakers, route: str) -> Entry:
    entry = breakers.try_enter(route)
    assert entry is not None
    return entry


async def test_a_breaker_opens_probes_and_closes() -> None:
    breakers = Breakers("webhook", threshold=2, open_for=timedelta(seconds=0.1))
    breakers.leave(enter(breakers, "a"), failed=False)
    assert breakers.states() == {}
    # Began before it opened, and end later.
    old = [enter(breakers, "a") for _ in range(3)]
    for _ in range(2):
        breakers.leave(enter(breakers, "a"), failed=True)
    assert breakers.states() == {"a": "opened"}
    assert breakers.try_enter("a") is None
    assert breakers.try_enter("b") is not None
    breakers.leave(old[0], failed=False)
    assert breakers.states() == {"a": "opened"}
    await asyncio.sleep(0.15)
    # One probe at a time, and nobody else decides.
    probe = enter(breakers, "a")
    assert breakers.try_enter("a") is None
    breakers.leave(old[1], failed=False)
    assert breakers.try_enter("a") is None
    breakers.leave(probe, failed=True)
    assert breakers.states() == {"a": "opened"}
    await asyncio.sleep(0.15)
    probe = enter(breakers, "a")
    breakers.leave(old[2], failed=True)
    assert breakers.states() == {"a": "half-opened"}
    assert set(breakers.not_closed(NOW)) == {"a"}
    breakers.leave(probe, failed=False)
    assert breakers.states() == {}
    assert breakers.not_closed(NOW) == {}
    assert breakers.changed == {"a"}


def test_breakers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notification_service.channels.breakers._MAX_ROUTES", 3)
    breakers = Breakers("webhook", threshold=2, open_for=timedelta(seconds=1))
    for route in "abcd":
        breakers.leave(Entry(route), failed=True)
    assert list(breakers.states()) == ["b", "c", "d"]


async def test_slots_are_handed_on_and_lines_are_short() -> None:
    slots = RouteSlots(2)
    first, second, third, fourth = (slots.try_reserve("a", "t", f"sender {number}") for number in range(4))
    assert slots.try_reserve("a", "t", "one more") is None
    other = slots.try_reserve("b")
    assert first
    assert second
    assert third
    assert fourth
    assert other
    await first.wait()
    waiting = asyncio.create_task(fourth.wait())
    third.release()  # gives up its place in the line
    await asyncio.sleep(0)
    assert not waiting.done()
    first.release()
    await waiting
    for each in (second, fourth, other):
        each.release()
    assert slots._taken == {}
    assert slots._lines == {}


@pytest.mark.req("X-18")
async def test_tenants_take_turns_in_a_line_and_within_them_their_senders() -> None:
    slots = RouteSlots(8)
    running = [slots.try_reserve("a", "flood", "f") for _ in range(8)]
    asked = {
        name: [reservation for _ in range(count) if (reservation := slots.try_reserve("a", *name.split()))]
        for name, count in (("flood f", 100), ("flood g", 100), ("other h", 2), ("third i", 1))
    }
    # One sender takes no more than three quarters of its tenant's part of the line, a tenant no more than its own.
    assert {name: len(taken) for name, taken in asked.items()} == {
        "flood f": 6,
        "flood g": 2,
        "other h": 2,
        "third i": 1,
    }
    order: list[str] = []

    async def wait(name: str, place: Reservation) -> None:
        await place.wait()
        order.append(name)
        place.release()

    waiting = [asyncio.create_task(wait(name, place)) for name, places in asked.items() for place in places]
    for place in running:
        assert place is not None
        place.release()
        for _ in range(3):
            await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order[:6] == ["flood f", "other h", "third i", "flood g", "other h", "flood f"]
    assert Counter(order) == {name: len(taken) for name, taken in asked.items()}
    assert slots._taken == {}
    assert slots._lines == {}


@pytest.mark.req("X-18")
async def test_a_few_that_flood_do_not_fill_the_line_for_good() -> None:
    slots = RouteSlots(4)
    for tenant in range(10):
        for _ in range(10):
            slots.try_reserve("a", f"t{tenant}", "s")
    assert slots._lines["a"].count() == 16 - 16 % 3 + 1
    assert slots.try_reserve("a", "another", "s") is None
    assert slots.try_reserve("b", "another", "s") is not None


async def test_whoever_is_cancelled_in_line_gives_back_nothing() -> None:
    slots = RouteSlots(1)
    first, second = slots.try_reserve("a"), slots.try_reserve("a")
    assert first is not None
    assert second is not None
    waiting = asyncio.create_task(second.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    second.release()
    assert slots._taken == {"a": 1}
    first.release()
    assert slots._taken == {}
    third = slots.try_reserve("a")
    assert third is not None
    await third.wait()
    third.release()
    assert slots._taken == {}
    assert slots._lines == {}


def test_reading_rates() -> None:
    assert parse_rates("email=100/s, sms.tenant=60/m,push.sender=1/h") == {
        "email": Rate(100, 1.0),
        "sms.tenant": Rate(60, 60.0),
        "push.sender": Rate(1, 3600.0),
    }
    assert parse_rates("") == {}
    for text in ("email", "email=0/s", "email=1/d", "email.user=1/s"):
        with pytest.raises(ValueError, match="is not like"):
            parse_rates(text)


@given(some.integers(1, 1000), some.lists(some.floats(0, 10), min_size=1, max_size=200))
def test_turns_are_never_faster_than_the_rate(count: int, gaps: list[float]) -> None:
    rate = Rate(count, 1.0)
    now, free_at, turns = 0.0, 0.0, []
    for gap in gaps:
        now += gap
        free_at, wait = take_turn(free_at, rate, now)
        turns.append(now + wait)
    turns.sort()
    # In no second more than twice what is allowed: the burst, and the rate.
    for index, turn in enumerate(turns):
        assert sum(1 for other in turns[index:] if other < turn + 1.0) <= 2 * count + 1


# --- the signature ----------------------------------------------------------------------------------------------------


@pytest.mark.req("F09")
def test_signatures() -> None:
    header = sign(b"body", ["new", "old"], NOW)
    assert header.count("v1=") == 2
    for secret in ("new", "old"):
        assert is_genuine(header, b"body", secret, NOW)
        assert is_genuine(header, b"body", secret, NOW + timedelta(seconds=300))
        assert not is_genuine(header, b"body", secret, NOW + timedelta(seconds=301))
        assert not is_genuine(header, b"other", secret, NOW)
        assert not is_genuine(f"{header.partition(',')[0]},v1=ä", b"body", secret, NOW)
    assert not is_genuine(header, b"body", "another", NOW)
    for broken in ("", "t=x,v1=0", "v1=0", "t=1,t=2,v1=0", "nonsense", "t=²,v1=0", f"t={'9' * 5_000},v1=0"):
        assert not is_genuine(broken, b"body", "new", NOW)
