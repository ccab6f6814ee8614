"""What an AMQP message must be (contract section 4.2; requirements I01, E02)."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from notification_service.intake.check import CheckedRequest, Refused, check_message, find_missing_recipients
from shared_contracts import headers
from shared_contracts.requests import MAX_REQUEST_BYTES, Kind, Recipients

ID = UUID("018f0000-0000-7000-8000-000000000001")
USER = "018f0000-0000-7000-8000-000000000002"


def check(body: bytes | dict[str, Any], **changes: Any) -> CheckedRequest | Refused:
    values: dict[str, Any] = {
        "exchange": "notifications.direct",
        "routing_key": "private",
        "message_id": str(ID),
        "app_id": "shop",
        "message_headers": {},
    }
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return check_message(body=text, **{**values, **changes})


def accepted(body: dict[str, Any], **changes: Any) -> CheckedRequest:
    checked = check(body, **changes)
    assert isinstance(checked, CheckedRequest)
    return checked


def reason(body: bytes | dict[str, Any], **changes: Any) -> str:
    checked = check(body, **changes)
    assert isinstance(checked, Refused)
    assert checked.detail
    return str(checked.reason)


PRIVATE = {"title": "t", "recipients": {"users": [USER]}}


def test_a_good_message_is_taken_with_its_id_and_source() -> None:
    checked = accepted(PRIVATE)
    assert (checked.id, checked.kind, checked.sender.id, checked.sender.name) == (ID, Kind.PRIVATE, None, "shop")
    assert checked.accepted_at is None


@pytest.mark.parametrize("message_id", [None, "", "not-a-uuid", "1"])
def test_the_message_id_must_be_a_uuid(message_id: str | None) -> None:
    assert reason(PRIVATE, message_id=message_id) == "missing_message_id"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"{'a':1}", b"[" * 60_000])
def test_what_is_not_json(body: bytes) -> None:
    assert reason(body) == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"{}", b'{"title":1}'])
def test_json_that_is_no_request(body: bytes) -> None:
    assert reason(body) == "invalid_schema"


def test_the_detail_names_fields_and_not_values() -> None:
    checked = check({"title": "s3cr3t\x00", "priority": "s3cr3t", "recipients": {"users": [USER]}})
    assert isinstance(checked, Refused)
    assert "title" in checked.detail
    assert "priority" in checked.detail
    assert "s3cr3t" not in checked.detail


def test_the_longest_message() -> None:
    def body(size: int) -> dict[str, Any]:
        return {**PRIVATE, "body": "x" * (size - len(json.dumps({**PRIVATE, "body": ""})))}

    assert accepted(body(MAX_REQUEST_BYTES)).kind is Kind.PRIVATE
    assert reason(body(MAX_REQUEST_BYTES + 1)) == "too_large"
    assert reason({**PRIVATE, "data": {"k": "x" * 16 * 1024}}) == "too_large"
    # What the REST API measured before it added the event type's defaults.
    from_rest = accepted(body(MAX_REQUEST_BYTES + 1), message_headers={headers.SENDER_ID: str(ID)})
    assert from_rest.kind is Kind.PRIVATE


def test_each_routing_key_needs_its_recipients() -> None:
    group = {"title": "t", "recipients": {"groups": [USER]}}
    assert accepted(group, routing_key="group").kind is Kind.GROUP
    assert accepted(group, routing_key="event").kind is Kind.EVENT
    assert accepted({"title": "t", "recipients": {"roles": ["staff"]}}, routing_key="group").kind is Kind.GROUP
    assert reason(group, routing_key="private") == "invalid_schema"
    assert reason(PRIVATE, routing_key="group") == "invalid_schema"
    assert reason({"title": "t"}, routing_key="event") == "invalid_schema"


def test_what_comes_by_fanout_is_for_everyone() -> None:
    checked = accepted({"title": "t"}, exchange="notifications.fanout", routing_key="")
    assert (checked.kind, checked.request.recipients.all) == (Kind.BROADCAST, True)


def test_over_rest_somebody_must_be_named() -> None:
    assert find_missing_recipients(Recipients(), None) is not None
    assert find_missing_recipients(Recipients(all=True), None) is None


def test_who_asked_over_rest_is_in_the_headers() -> None:
    given = {headers.SENDER_ID: USER, headers.SENDER_NAME: "ada", headers.ACCEPTED_AT: "2026-01-02T03:04:05+00:00"}
    checked = accepted(PRIVATE, message_headers=given)
    assert (checked.sender.id, checked.sender.name) == (UUID(USER), "ada")
    assert checked.accepted_at is not None
    assert checked.accepted_at.isoformat() == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    "given",
    [
        {headers.SENDER_ID: 5, headers.ACCEPTED_AT: 5},
        {headers.SENDER_ID: "x", headers.ACCEPTED_AT: "yesterday"},
        {headers.ACCEPTED_AT: "2026-01-02T03:04:05"},
    ],
)
def test_strange_headers_are_ignored(given: dict[str, Any]) -> None:
    checked = accepted(PRIVATE, message_headers=given)
    assert (checked.sender.id, checked.sender.name, checked.accepted_at) == (None, "shop", None)


def test_a_source_may_be_missing_long_or_strange() -> None:
    assert accepted(PRIVATE, app_id=None).sender.name is None
    assert accepted(PRIVATE, app_id="x" * 1000 + "\x00").sender.name == "x" * 255
    assert accepted(PRIVATE, app_id="a\x00b").sender.name == "a\ufffdb"
    assert accepted(PRIVATE, message_headers={headers.SENDER_ID: USER, headers.SENDER_NAME: 5}).sender.name is None
