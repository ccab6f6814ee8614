from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from notification_service.event_types.defaults import UnusableType, UsableType, find_type
from notification_service.event_types.entity import PLAIN_MESSAGE, EventType, make_validator
from notification_service.notifications.entity import EventTypeDefaults
from shared_contracts.requests import Channel, NotificationRequest, Priority


def order(**changes: Any) -> EventType:
    values: dict[str, Any] = {
        "tenant": "default",
        "code": "order.created",
        "name": "Order",
        "category": "orders",
        "channels": (Channel.IN_APP,),
        "priority": Priority.HIGH,
        "retention_days": 7,
    }
    return EventType(**{**values, **changes})


REQUEST = NotificationRequest(event_type="order.created", data={"id": 7})


def test_a_type_gives_its_defaults() -> None:
    found = find_type(REQUEST, {"order.created": order()})
    assert isinstance(found, UsableType)
    assert found.defaults == EventTypeDefaults("orders", (Channel.IN_APP,), Priority.HIGH, timedelta(days=7))
    bare = find_type(REQUEST, {"order.created": order(channels=None, retention_days=None)})
    assert isinstance(bare, UsableType)
    assert (bare.defaults.channels, bare.defaults.retention) == (None, None)


def test_unknown_and_inactive_types_cannot_be_used() -> None:
    for types, reason in (
        ({}, "unknown_event_type"),
        ({"order.created": order(is_active=False)}, "event_type_inactive"),
    ):
        found = find_type(REQUEST, types)
        assert isinstance(found, UnusableType)
        assert found.reason == reason


def test_a_message_needs_no_type() -> None:
    for request in (NotificationRequest(title="t"), NotificationRequest(title="t", event_type="message")):
        assert find_type(request, {}) == UsableType(PLAIN_MESSAGE, EventTypeDefaults())


SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "lines": {"type": "array", "items": {"type": "integer"}}},
    "required": ["id", "total"],
}


@pytest.mark.req("X-14")
def test_data_must_fit_the_schema_and_every_problem_is_named() -> None:
    types = {"order.created": order(data_schema=SCHEMA)}
    wrong = NotificationRequest(event_type="order.created", data={"id": 7, "lines": [1, "two"]})
    found = find_type(wrong, types)
    assert isinstance(found, UnusableType)
    assert found.reason == "invalid_schema"
    assert {field for field, _ in found.errors} == {"data", "data.id", "data.lines.1"}
    assert isinstance(find_type(wrong, types, check_data=False), UsableType)
    right = NotificationRequest(event_type="order.created", data={"id": "7", "total": 1})
    assert isinstance(find_type(right, types), UsableType)


def test_at_most_twenty_problems_are_named() -> None:
    many = order(data_schema={"properties": {f"f{n}": {"type": "string"} for n in range(50)}})
    assert len(many.check_data({f"f{n}": 1 for n in range(50)})) == 20


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"pattern": "(a"},
        {"minimum": "x"},
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a valid JSON Schema"):
        make_validator(schema)
