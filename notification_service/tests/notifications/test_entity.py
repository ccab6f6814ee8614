from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from notification_service.notifications.entity import (
    EventTypeDefaults,
    Notification,
    Sender,
    hash_request,
    make_notification,
)
from notification_service.notifications.frames import (
    encode_content,
    encode_kept_item,
    encode_new_broadcast,
    encode_new_item,
)
from notification_service.notifications.handover import make_intake_message
from notification_service.notifications.kept import Counts
from shared_contracts import headers
from shared_contracts.requests import Channel, Kind, NotificationRequest, Priority, Recipients
from shared_contracts.ws.frames import Notification as NotificationFrame

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GROUP = UUID(int=9)


def make(kind: Kind = Kind.PRIVATE, defaults: EventTypeDefaults | None = None, **fields: Any) -> Notification:
    request = NotificationRequest(**{"title": "t", "recipients": Recipients(users=(str(UUID(int=1)),)), **fields})
    return make_notification(
        request,
        notification_id=UUID(int=7),
        kind=kind,
        sender=Sender(UUID(int=3), "ada"),
        now=NOW,
        defaults=defaults or EventTypeDefaults(),
    )


def test_an_event_type_fills_in_what_is_left_out() -> None:
    defaults = EventTypeDefaults("orders", (Channel.IN_APP,), Priority.HIGH, timedelta(days=3))
    filled = make(Kind.EVENT, defaults, title=None, event_type="order.created")
    assert (filled.title, filled.category, filled.channels, filled.priority) == (
        None,
        "orders",
        (Channel.IN_APP,),
        Priority.HIGH,
    )
    assert filled.expires_at == NOW + timedelta(days=3)
    kept = make(
        Kind.EVENT, defaults, title="own", category="c", priority="low", ttl_seconds=60, event_type="order.created"
    )
    assert (kept.title, kept.category, kept.priority) == ("own", "c", Priority.LOW)
    assert kept.expires_at == NOW + timedelta(seconds=60)


def test_without_an_event_type_it_is_a_message() -> None:
    plain = make()
    assert (plain.event_type, plain.priority, plain.expires_at, plain.deliver_at) == (
        "message",
        Priority.NORMAL,
        None,
        None,
    )


def test_the_time_to_live_begins_with_the_delivery() -> None:
    later = NOW + timedelta(hours=1)
    scheduled = make(deliver_at=later, ttl_seconds=60)
    assert (scheduled.deliver_at, scheduled.expires_at) == (later, later + timedelta(seconds=60))
    assert make(deliver_at=NOW - timedelta(hours=1)).deliver_at is None


def test_the_group_is_shown_when_exactly_one_was_addressed() -> None:
    assert make(Kind.GROUP, recipients=Recipients(groups=(GROUP,))).group_id == GROUP
    assert make(Kind.GROUP, recipients=Recipients(groups=(GROUP, UUID(int=8)))).group_id is None
    assert make(Kind.EVENT, recipients=Recipients(groups=(GROUP,))).group_id is None


def test_in_app_is_wanted_unless_other_channels_are_named() -> None:
    assert make().wants_in_app
    assert make(channels=("email", "in_app")).wants_in_app
    assert not make(channels=("email",)).wants_in_app


def test_equal_requests_have_equal_hashes_however_they_are_spelt() -> None:
    one = NotificationRequest.model_validate_json('{"title":"t","recipients":{"users":[]},"data":{"a":1,"b":2}}')
    two = NotificationRequest.model_validate_json('{"data":{"b":2,"a":1},"title":"t"}')
    assert hash_request(one) == hash_request(two)
    assert hash_request(one) != hash_request(one.model_copy(update={"title": "u"}))


def test_spliced_frames_are_what_the_contract_says() -> None:
    content = encode_content(
        make(data={"a": [1, "ü"]}, actions=({"id": "x", "label": "X", "url": "https://e.example"},))
    )
    body = encode_new_item(content, seq=5, counts=Counts(2, 1, 9))
    frame = NotificationFrame.model_validate_json(b'{"type":"notification","position":"p",' + body[1:])
    assert (frame.seq, frame.counts.unread if frame.counts else None, frame.data) == (5, 2, {"a": [1, "ü"]})
    assert frame.sender == {"id": str(UUID(int=3)), "name": "ada"}
    assert (frame.silent, frame.muted_devices) == (False, None)
    quiet = encode_new_item(content, seq=5, counts=Counts(2, 1, 9), is_silent=True)
    muted = encode_new_item(content, seq=5, counts=Counts(2, 1, 9), muted_devices=("a", "b"))
    for body, expected in ((quiet, (True, None)), (muted, (False, ["a", "b"]))):
        frame = NotificationFrame.model_validate_json(b'{"type":"notification","position":"p",' + body[1:])
        assert (frame.silent, frame.muted_devices, frame.seq) == (*expected, 5)
    shared = NotificationFrame.model_validate_json(
        b'{"type":"notification","position":"p",' + encode_new_broadcast(content)[1:]
    )
    assert (shared.seq, shared.counts, shared.state.read_at) == (None, None, None)


def test_a_kept_broadcast_has_neither_number_nor_counts() -> None:
    body = encode_kept_item(encode_content(make()), seq=None, flags=None, counts=None)
    frame = NotificationFrame.model_validate_json(b'{"type":"notification",' + body[1:])
    assert (frame.seq, frame.counts) == (None, None)


def test_without_a_sender_there_is_none() -> None:
    request = NotificationRequest(title="t", recipients=Recipients(all=True))
    plain = make_notification(
        request,
        notification_id=UUID(int=7),
        kind=Kind.BROADCAST,
        sender=Sender(),
        now=NOW,
        defaults=EventTypeDefaults(),
    )
    assert plain.content()["sender"] is None
    message = make_intake_message(plain, NOW)
    assert (message.exchange, message.routing_key) == ("notifications.fanout", "")
    assert message.headers == {headers.ACCEPTED_AT: NOW.isoformat()}


def test_the_hand_over_is_a_message_any_backend_could_send() -> None:
    scheduled = make(ttl_seconds=100, tags=("a",), data={"k": 1})
    message = make_intake_message(scheduled, NOW + timedelta(seconds=40))
    request = NotificationRequest.model_validate_json(message.body)
    assert (request.ttl_seconds, request.tags, request.data) == (60, ("a",), {"k": 1})
    assert (message.exchange, message.routing_key, message.message_id) == (
        "notifications.direct",
        "private",
        str(UUID(int=7)),
    )
    assert message.headers[headers.SENDER_NAME] == "ada"
    late = make_intake_message(scheduled, NOW + timedelta(seconds=500))
    assert NotificationRequest.model_validate_json(late.body).ttl_seconds == 1
