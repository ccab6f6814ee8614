"""Examples of the OpenAPI document, by the name of the body's schema. A test checks each against its schema."""

from __future__ import annotations

from typing import Any, Final

from notification_service.rest.more_examples import MORE_EXAMPLES

_ALICE: Final = "0198c0de-0001-7000-8000-00000000a11c"
_SHOP: Final = "0198c0de-0002-7000-8000-000000000540"
_GROUP: Final = "0198c0de-0003-7000-8000-00000000de30"
_NOTIFICATION: Final = "0198c0de-0010-7000-8000-000000001042"
_POSITION: Final = "5f1c09aa.000000000003.00000000002a"
_CURSOR: Final = "q0Zs1mB0u8mEJ2aVWzQyLDNd"
_CREATED_AT: Final = "2026-03-01T09:30:00.000Z"
_COUNTS: Final = {"unread": 3, "unseen": 1, "total": 12}

_REQUEST: Final = {
    "version": 1,
    "event_type": "message",
    "recipients": {"users": [_ALICE, "ext:customer-77"], "groups": [], "roles": [], "all": False},
    "title": "Your order is on its way",
    "body": "Order 1042 left the warehouse.",
    "data": {"order_id": "1042"},
    "actions": [{"id": "track", "label": "Track", "url": "https://shop.example/o/1042"}],
    "channels": ["in_app"],
    "priority": "normal",
    "category": "orders",
    "tags": ["shipping"],
    "collapse_key": "order-1042",
    "ttl_seconds": 604800,
}
_CONTENT: Final = {
    "id": _NOTIFICATION,
    "kind": "private",
    "event_type": "message",
    "title": "Your order is on its way",
    "body": "Order 1042 left the warehouse.",
    "data": {"order_id": "1042"},
    "actions": [{"id": "track", "label": "Track", "url": "https://shop.example/o/1042"}],
    "priority": "normal",
    "category": "orders",
    "tags": ["shipping"],
    "group_id": None,
    "sender": {"id": _SHOP, "name": "shop"},
    "created_at": _CREATED_AT,
    "expires_at": "2026-03-08T09:30:00.000Z",
}
_ITEM: Final = {
    **_CONTENT,
    "seq": 42,
    "state": {"read_at": None, "seen_at": None, "archived_at": None},
    "read_at": None,
    "seen_at": None,
    "archived_at": None,
    "snoozed_until": None,
}
_EVENT_TYPE: Final = {
    "code": "order.shipped",
    "name": "An order was shipped",
    "description": "Sent when the parcel service has taken the parcel.",
    "category": "orders",
    "channels": ["in_app", "email"],
    "default_enabled": True,
    "mandatory": False,
    "priority": "normal",
    "is_active": True,
    "data_schema": None,
    "retention_days": 30,
    "throttle": None,
    "digest": None,
    "escalation": None,
}
_DELIVERY: Final = {
    "id": "0198c0de-0020-7000-8000-00000000d001",
    "notification_id": _NOTIFICATION,
    "user_id": _ALICE,
    "recipient": None,
    "channel": "in_app",
    "status": "acked",
    "reason": None,
    "attempts": 1,
    "created_at": _CREATED_AT,
    "last_attempt_at": _CREATED_AT,
    "delivered_at": _CREATED_AT,
    "provider_message_id": None,
    "error": None,
    "seen_at": None,
    "read_at": None,
    "archived_at": None,
}
_DEAD_LETTER: Final = {
    "id": "0198c0de-0030-7000-8000-00000000dead",
    "reason": "invalid_schema",
    "detail": "recipients: nobody is named",
    "source": "shop",
    "exchange": "notifications.direct",
    "routing_key": "private",
    "message_id": _NOTIFICATION,
    "payload": {"title": "Hello"},
    "is_truncated": False,
    "attempts": 1,
    "created_at": _CREATED_AT,
    "replayed_at": None,
}

EXAMPLES: Final[dict[str, Any]] = {
    **MORE_EXAMPLES,
    # notifications
    "NotificationRequest": _REQUEST,
    "AcceptedOut": {"id": _NOTIFICATION, "status": "accepted"},
    "BatchIn": {
        "items": [{"recipients": {"users": [_ALICE]}, "title": "One"}, {"recipients": {"users": ["?"]}, "title": "Two"}]
    },
    "BatchOut": {
        "items": [
            {"index": 0, "status": 202, "id": _NOTIFICATION},
            {
                "index": 1,
                "status": 422,
                "code": "invalid_schema",
                "detail": "1 field is wrong",
                "errors": [{"field": "recipients.users.0", "message": "must be a UUID or 'ext:<external id>'"}],
            },
        ]
    },
    "StatusOut": {
        "id": _NOTIFICATION,
        "status": "dispatched",
        "created_at": _CREATED_AT,
        "recipients_count": 1,
        "counts_by_channel_and_state": {"in_app": {"acked": 1}},
        "problems": [],
        "deliveries": {"items": [_DELIVERY], "next_cursor": None},
    },
    # inbox
    "InboxOut": {"items": [_ITEM], "next_cursor": _CURSOR},
    "ItemOut": _ITEM,
    "CountsOut": _COUNTS,
    "ItemPatch": {"read": True},
    "InboxBatchIn": {"action": "read", "ids": [_NOTIFICATION]},
    "InboxBatchOut": {"changed": 1, "counts": _COUNTS},
    "SyncOut": {
        "items": [
            {
                "type": "notification",
                "position": _POSITION,
                "redelivered": False,
                "seq": 42,
                "counts": _COUNTS,
                **_CONTENT,
            }
        ],
        "position": _POSITION,
        "has_more": False,
        "resume": "recovered",
        "counts": _COUNTS,
    },
    "AckIn": {"position": _POSITION, "device_id": "phone-1"},
    # event types
    "EventTypeIn": _EVENT_TYPE,
    "EventTypePatch": {"is_active": False},
    "EventTypeOut": {
        **_EVENT_TYPE,
        "version": 1,
        "built_in": False,
        "created_at": _CREATED_AT,
        "updated_at": _CREATED_AT,
    },
    "EventTypesOut": {
        "items": [
            {**_EVENT_TYPE, "version": 1, "built_in": False, "created_at": _CREATED_AT, "updated_at": _CREATED_AT}
        ],
        "next_cursor": None,
    },
    # dead letters
    "DeadLetterOut": _DEAD_LETTER,
    "DeadLetterDetailOut": {**_DEAD_LETTER, "notification": None, "history": []},
    "DeadLettersOut": {"items": [_DEAD_LETTER], "next_cursor": None},
    "ReplayIn": {"ids": [_DEAD_LETTER["id"]]},
    "ReplayOut": {"replayed": 1},
}
