"""The notification request (contract section 4.2; requirements E03, E04)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared_contracts.requests import Kind, NotificationRequest, describe_errors, with_everyone

USER = "018f0000-0000-7000-8000-000000000001"


def parse(**fields: Any) -> NotificationRequest:
    return NotificationRequest.model_validate_json(json.dumps({"title": "t", **fields}))


def fields_wrong(**fields: Any) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        parse(**fields)
    return [field for field, _ in describe_errors(refused.value.errors())]


def test_event_type_or_title_must_be_present() -> None:
    with pytest.raises(ValidationError, match="event_type or title"):
        NotificationRequest.model_validate_json('{"body": "b"}')
    assert NotificationRequest.model_validate_json('{"event_type": "order.shipped"}').title is None


@pytest.mark.req("E04")
@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"title": ""}, "title"),
        ({"title": "a\r\nBcc: x"}, "title"),
        ({"title": "a\x00"}, "title"),
        ({"body": "a\x00"}, "body"),
        ({"data": {"k": "a\x00"}}, "data"),
        ({"data": {"a\x00": 1}}, "data"),
        ({"data": []}, "data"),
        ({"tags": ["a\x00"]}, "tags.0"),
        ({"category": "a\nb"}, "category"),
        ({"collapse_key": "\x7f"}, "collapse_key"),
        ({"event_type": "Order Shipped"}, "event_type"),
        ({"recipients": {"users": ["nobody"]}}, "recipients.users.0"),
        ({"recipients": {"users": ["ext:"]}}, "recipients.users.0"),
        ({"recipients": {"groups": ["x"]}}, "recipients.groups.0"),
        ({"actions": [{"id": "a", "label": "b", "url": "javascript:alert(1)"}]}, "actions.0.url"),
        ({"channels": ["pigeon"]}, "channels.0"),
        ({"channels": []}, "channels"),
        ({"priority": "urgent"}, "priority"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"deliver_at": "2030-01-01T00:00:00"}, "deliver_at"),
        ({"version": 2}, "version"),
        ({"locale": "not a locale"}, "locale"),
        ({"data": {"k": "x" * 16 * 1024}}, "data"),
        ({"title": None}, "title"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], wrong: str) -> None:
    assert wrong in fields_wrong(**fields)


@pytest.mark.req("E03")
@pytest.mark.parametrize(
    "data",
    [
        '{"a":' * 100 + "1" + "}" * 100,
        '{"a":' + "9" * 5000 + "}",
        '{"a":1e999}',
        '{"a":NaN}',
        '{"a":9223372036854775808}',
    ],
)
def test_json_that_some_reader_could_not_hold_is_refused(data: str) -> None:
    with pytest.raises(ValidationError):
        NotificationRequest.model_validate_json('{"title":"t","data":' + data + "}")


def test_data_is_limited_to_16_kib_encoded() -> None:
    assert parse(data={"k": "x" * (16 * 1024 - 8)}).data.keys() == {"k"}
    with pytest.raises(ValidationError, match="16 KiB"):
        parse(data={"k": "x" * (16 * 1024 - 7)})


def test_unknown_fields_are_ignored_for_newer_publishers() -> None:
    assert parse(colour="red") == parse()


@pytest.mark.parametrize(
    ("routing_key", "fields", "kind"),
    [
        ("private", {}, Kind.PRIVATE),
        ("group", {}, Kind.GROUP),
        ("event", {}, Kind.EVENT),
        (None, {"recipients": {"all": True}}, Kind.BROADCAST),
        (None, {"recipients": {"users": [USER]}}, Kind.PRIVATE),
        (None, {"recipients": {"users": [USER], "groups": [USER]}}, Kind.PRIVATE),
        (None, {"recipients": {"groups": [USER]}}, Kind.GROUP),
        (None, {"recipients": {"roles": ["staff"]}}, Kind.GROUP),
        (None, {"recipients": {"users": [USER]}, "event_type": "order.shipped"}, Kind.EVENT),
        (None, {"recipients": {"users": [USER]}, "event_type": "message"}, Kind.PRIVATE),
    ],
)
def test_kind_follows_the_routing_key_or_else_the_recipients(
    routing_key: str | None, fields: dict[str, Any], kind: Kind
) -> None:
    assert parse(**fields).kind_for(routing_key) is kind


def test_users_may_be_named_by_external_id_and_uuids_are_normalised() -> None:
    users = parse(recipients={"users": ["ext:42", USER.upper()]}).recipients.users
    assert users == ("ext:42", USER)


def test_what_comes_by_fanout_is_for_everyone() -> None:
    assert with_everyone(parse(recipients={"users": [USER]})).recipients.all
