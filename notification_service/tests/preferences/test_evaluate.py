from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from notification_service.preferences.evaluate import (
    Decision,
    Layer,
    Outcome,
    Situation,
    Source,
    TypeRules,
    depends_on_timezone,
    evaluate,
    evaluate_switch,
    wants_channel,
)
from shared_contracts.requests import Channel, Priority

NOW = datetime(2026, 1, 5, 12, 10, tzinfo=UTC)
TYPE = TypeRules("order.shipped", "orders")


def layers(**documents: dict[str, Any]) -> tuple[Layer, ...]:
    order: tuple[Source, ...] = ("user", "role", "tenant")
    return tuple(Layer(source, documents[source]) for source in order if source in documents)


def decide(
    channel: Channel = Channel.EMAIL,
    type_: TypeRules = TYPE,
    priority: Priority = Priority.NORMAL,
    timezone: str = "UTC",
    **documents: dict[str, Any],
) -> Decision:
    return evaluate(channel, type_, priority, Situation(layers(**documents), timezone, NOW))


def test_nothing_said_means_the_types_own_default() -> None:
    assert decide().outcome is Outcome.SEND
    off = decide(type_=TypeRules("x", default_enabled=False))
    assert (off.outcome, off.reason, off.rules[0].source) == (Outcome.OFF, "event_type_off", "event_type")


def test_the_particular_counts_before_the_general_within_a_layer() -> None:
    document: dict[str, Any] = {
        "channels": {"email": False, "sms": False},
        "categories": {"orders": {"sms": True}},
        "event_types": {"order.shipped": {"email": True}},
    }
    assert decide(user=document).rules[0].rule == "event_types.order.shipped.email"
    assert decide(user=document).outcome is Outcome.SEND
    assert decide(Channel.SMS, user=document).rules[0].rule == "categories.orders.sms"
    assert decide(Channel.SMS, TypeRules("x", None), user=document).reason == "channel_off"


def test_the_nearer_layer_counts_before_the_farther() -> None:
    off, on = {"channels": {"email": False}}, {"event_types": {"order.shipped": {"email": True}}}
    assert decide(user=off, tenant=on).reason == "channel_off"
    assert decide(role=on, tenant=off).outcome is Outcome.SEND
    assert decide(tenant=off).rules[0].source == "tenant"
    assert decide(role={"categories": {"orders": {"email": False}}}, tenant=on).reason == "category_off"


def test_what_is_mandatory_cannot_be_switched_off_nor_collected() -> None:
    locked = TypeRules("login.alert", "security", mandatory=True, default_enabled=False)
    found = decide(type_=locked, user={"channels": {"email": False}, "digest": {"email": "daily"}})
    assert (found.outcome, found.rules[0].rule) == (Outcome.SEND, "mandatory")


QUIET = {"quiet_hours": {"enabled": True, "start": "12:00", "end": "14:00"}}


@pytest.mark.req("X-10")
def test_quiet_hours_hold_all_but_in_app_and_the_critical() -> None:
    held = decide(user=QUIET)
    assert (held.outcome, held.reason, held.key) == (Outcome.HOLD, "quiet_hours", "quiet_hours")
    assert held.due_at == datetime(2026, 1, 5, 14, tzinfo=UTC)
    shown = decide(Channel.IN_APP, user=QUIET)
    assert (shown.outcome, shown.is_silent, shown.rules[-1].rule) == (Outcome.SEND, True, "quiet_hours")
    assert not decide(Channel.IN_APP, priority=Priority.CRITICAL, user=QUIET).is_silent
    assert not decide(Channel.IN_APP, timezone="Asia/Tokyo", user=QUIET).is_silent
    assert decide(priority=Priority.CRITICAL, user=QUIET).outcome is Outcome.SEND
    assert decide(timezone="Asia/Tokyo", user=QUIET).outcome is Outcome.SEND
    assert decide(user={**QUIET, "timezone": "Asia/Tokyo"}).outcome is Outcome.SEND
    off = decide(user={"quiet_hours": {"enabled": False}}, tenant=QUIET)
    assert (off.outcome, off.rules[-1].rule) == (Outcome.SEND, "quiet_hours")
    assert decide(type_=TypeRules("digest.summary", "digests"), user=QUIET).outcome is Outcome.SEND


def test_digests_by_preference_and_by_type() -> None:
    hourly = decide(user={"digest": {"email": "hourly"}})
    assert (hourly.outcome, hourly.reason, hourly.key) == (Outcome.DIGEST, "digested", "preference")
    assert hourly.due_at == datetime(2026, 1, 5, 13, tzinfo=UTC)
    daily = decide(user={"digest": {"email": "daily"}, "digest_time": "09:30"}, timezone="Europe/Berlin")
    assert daily.due_at == datetime(2026, 1, 6, 8, 30, tzinfo=UTC)
    weekly = decide(user={"digest": {"email": "weekly"}, "digest_day": "wed"})
    assert weekly.due_at == datetime(2026, 1, 7, 8, tzinfo=UTC)
    assert decide(user={"digest": {"email": "weekly"}}).due_at == datetime(2026, 1, 12, 8, tzinfo=UTC)
    of_type = TypeRules("x", digest={"interval": "daily"})
    assert decide(type_=of_type).key == "type:x"
    assert decide(Channel.IN_APP, of_type).outcome is Outcome.SEND
    assert decide(type_=of_type, user={"digest": {"email": "immediate"}}).outcome is Outcome.SEND
    assert decide(type_=TypeRules("x", digest={"interval": "immediate"})).outcome is Outcome.SEND
    window = decide(Channel.IN_APP, TypeRules("x", digest={"window_seconds": 60, "channels": ["in_app"]}))
    assert window.due_at == datetime(2026, 1, 5, 12, 11, tzinfo=UTC)


def test_a_digest_is_never_due_in_quiet_hours() -> None:
    found = decide(user={**QUIET, "digest": {"email": "hourly"}})
    assert found.due_at == datetime(2026, 1, 5, 14, tzinfo=UTC)


def test_a_channel_is_asked_for_by_type_or_category_and_not_in_general() -> None:
    assert not wants_channel(Channel.EMAIL, TYPE, layers())
    assert not wants_channel(Channel.EMAIL, TYPE, layers(user={"channels": {"email": True}}))
    assert wants_channel(Channel.EMAIL, TYPE, layers(user={"categories": {"orders": {"email": True}}}))
    refused = layers(
        user={"event_types": {"order.shipped": {"email": False}}}, tenant={"categories": {"orders": {"email": True}}}
    )
    assert not wants_channel(Channel.EMAIL, TYPE, refused)


def test_when_the_time_zone_matters() -> None:
    assert not depends_on_timezone(layers(user={"channels": {"email": False}}), TYPE)
    assert depends_on_timezone(layers(user=QUIET), TYPE)
    assert depends_on_timezone(layers(tenant={"digest": {"email": "daily"}}), TYPE)
    assert depends_on_timezone((), TypeRules("x", digest={"interval": "daily"}))


def test_the_screen_asks_the_same() -> None:
    switch = evaluate_switch(Channel.EMAIL, TYPE, layers(user={"channels": {"email": False}}))
    assert (switch.is_on, switch.reason, switch.rules[0].describe()) == (
        False,
        "channel_off",
        {"rule": "channels.email", "value": False, "source": "user"},
    )
