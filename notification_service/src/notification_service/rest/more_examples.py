"""Examples of bodies, continued: what was sent, templates, preferences, schedules, contacts, deliveries, presence."""

from __future__ import annotations

from typing import Any, Final

_ALICE: Final = "0198c0de-0001-7000-8000-00000000a11c"
_SHOP: Final = "0198c0de-0002-7000-8000-000000000540"
_NOTIFICATION: Final = "0198c0de-0010-7000-8000-000000001042"
_CREATED_AT: Final = "2026-03-01T09:30:00.000Z"
_LATER: Final = "2026-03-01T10:00:00.000Z"

_SENT: Final = {
    "id": _NOTIFICATION,
    "status": "dispatched",
    "kind": "event",
    "event_type": "order.shipped",
    "title": "Your order is on its way",
    "body": None,
    "data": {"order_id": "1042"},
    "priority": "normal",
    "category": "orders",
    "tags": ["shipping"],
    "channels": ["in_app", "email"],
    "recipients": {"users": [_ALICE], "groups": [], "roles": [], "all": False},
    "recipients_count": 1,
    "sender": {"id": _SHOP, "name": "shop"},
    "version": 1,
    "created_at": _CREATED_AT,
    "deliver_at": None,
    "expires_at": None,
    "updated_at": None,
    "recalled_at": None,
}
_TEMPLATE: Final = {
    "title": "Order {{ data.order_id }} is on its way",
    "body": "Hello {{ user.username }}, it left the warehouse.",
    "html": None,
}
_TEMPLATE_OUT: Final = {
    "event_type": "order.shipped",
    "channel": "email",
    "locale": "en",
    **_TEMPLATE,
    "version": 2,
    "updated_at": _CREATED_AT,
}
_CONTACT: Final = {
    "id": "0198c0de-0040-7000-8000-00000000c001",
    "channel": "webhook",
    "address": "https://hooks.shop.example/herald",
    "label": "order system",
    "verified": False,
    "enabled": True,
    "disabled_reason": None,
    "created_at": _CREATED_AT,
}
_ATTEMPT: Final = {
    "number": 1,
    "route": "smtp",
    "started_at": _CREATED_AT,
    "latency_ms": 84,
    "outcome": "sent",
    "reason": None,
    "detail": None,
    "provider_message_id": "<0198c0de@herald.example>",
}
_DELIVERY: Final = {
    "id": "0198c0de-0020-7000-8000-00000000d002",
    "notification_id": _NOTIFICATION,
    "user_id": _ALICE,
    "recipient": None,
    "channel": "email",
    "status": "sent",
    "reason": None,
    "attempts": 1,
    "created_at": _CREATED_AT,
    "last_attempt_at": _CREATED_AT,
    "delivered_at": None,
    "provider_message_id": "<0198c0de@herald.example>",
    "error": None,
    "seen_at": None,
    "read_at": None,
    "archived_at": None,
}
_SCHEDULE_REQUEST: Final = {"recipients": {"users": [_ALICE]}, "title": "Weekly report"}
_RECURRENCE: Final = {"every": "week", "at": "09:00", "days": ["mon"], "timezone": "Europe/Berlin"}
_SCHEDULE: Final = {
    "id": "0198c0de-0050-7000-8000-00000000005c",
    "request": _SCHEDULE_REQUEST,
    "recurrence": _RECURRENCE,
    "next_at": "2026-03-02T08:00:00.000Z",
    "fired_count": 0,
    "created_at": _CREATED_AT,
}
_NUMBERS: Final = {"sent": 120, "delivered": 118, "acked": 110, "read": 74, "failed": 2, "suppressed": 5}
_LATENCY: Final = {"p50_ms": 9, "p95_ms": 31, "p99_ms": 58}
_RULE: Final = {"rule": "channel", "value": False, "source": "user"}

_ERASURE_KEY: Final = {
    "crv": "Ed25519",
    "kty": "OKP",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "alg": "EdDSA",
    "use": "sig",
    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
}

MORE_EXAMPLES: Final[dict[str, Any]] = {
    # what was erased
    "KeySetOut": {"keys": [_ERASURE_KEY]},
    "ErasureOut": {
        "user_id": _ALICE,
        "tenant": "default",
        "requested_at": _CREATED_AT,
        "sweeps": 3,
        "is_complete": True,
        "erased": {"contacts": 1, "dead_letters": 1, "mailbox_items": 42},
        "report": "eyJhbGciOiJFZERTQSIsInR5cCI6ImhlcmFsZC1lcmFzdXJlLXJlcG9ydCtqd3QifQ.e30.c2lnbmF0dXJl",
    },
    # what was sent
    "HistoryOut": {"items": [_SENT], "next_cursor": None},
    "ChangeIn": {"title": "Your order is delayed", "version": 1},
    "ChangeOut": {
        "id": _NOTIFICATION,
        "status": "dispatched",
        "version": 2,
        "items": 1,
        "cancelled": 0,
        "not_recallable": 0,
    },
    "TraceOut": {
        "notification_id": _NOTIFICATION,
        "user_id": _ALICE,
        "outcome": "delivered",
        "channels": [
            {"channel": "in_app", "outcome": "acked", "reason": None, "rules": [], "attempts": []},
            {"channel": "email", "outcome": "suppressed", "reason": "channel_off", "rules": [_RULE], "attempts": []},
        ],
    },
    # templates
    "TemplateIn": _TEMPLATE,
    "TemplateOut": _TEMPLATE_OUT,
    "TemplatesOut": {"items": [_TEMPLATE_OUT], "next_cursor": None},
    "VersionsOut": {
        "items": [{"version": 2, **_TEMPLATE, "created_at": _CREATED_AT, "author_id": None}],
        "next_cursor": None,
    },
    "RollbackIn": {"version": 1},
    "PreviewIn": {"data": {"order_id": "1042"}, "user_id": None},
    "PreviewOut": {"title": "Order 1042 is on its way", "body": "Hello Ada", "html": None, "locale": "en"},
    # preferences and settings
    "ScreenOut": {
        "items": [
            {
                "code": "order.shipped",
                "name": "An order was shipped",
                "category": "orders",
                "mandatory": False,
                "channels": {"email": {"enabled": False, "locked": False, "reason": "channel_off", "rules": [_RULE]}},
            }
        ]
    },
    "SettingsIn": {"default_locale": "de"},
    "SettingsOut": {"default_locale": "de", "unknown_event_types": "refuse", "branding": {}, "html_layout": None},
    # digests and schedules
    "PendingOut": {
        "items": [
            {
                "id": "0198c0de-0060-7000-8000-00000000d165",
                "channel": "email",
                "key": "daily",
                "due_at": _LATER,
                "count": 1,
                "items": [
                    {
                        "notification_id": _NOTIFICATION,
                        "title": "Your order is on its way",
                        "body": "Order 1042 left the warehouse.",
                        "created_at": _CREATED_AT,
                    }
                ],
            }
        ],
        "next_cursor": None,
    },
    "ScheduleIn": {"request": _SCHEDULE_REQUEST, "recurrence": _RECURRENCE},
    "ScheduleOut": _SCHEDULE,
    "SchedulesOut": {"items": [_SCHEDULE], "next_cursor": None},
    # contacts and deliveries
    "ContactIn": {"channel": "webhook", "address": "https://hooks.shop.example/herald", "label": "order system"},
    "ContactOut": _CONTACT,
    "ContactsOut": {"items": [_CONTACT], "next_cursor": None},
    "NewContactOut": {**_CONTACT, "secret": "whsec-shown-once", "verification": None},
    "CodeIn": {"code": "493817"},
    "WebPushKeyOut": {
        "public_key": "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM"
    },
    "SuppressionIn": {"channel": "email", "address": "ada@example.org", "reason": "complaint"},
    "SuppressionsOut": {
        "items": [
            {
                "id": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592",
                "channel": "email",
                "address": "a…@example.org",
                "reason": "complaint",
                "user_id": None,
                "created_at": _CREATED_AT,
            }
        ],
        "next_cursor": None,
    },
    "ChannelsOut": {
        "channels": [{"name": "email", "configured": True, "pending": 0, "queued": 12}],
        "breakers": [
            {
                "channel": "email",
                "route": "email:smtp.example.org:587",
                "state": "opened",
                "since": _CREATED_AT,
                "node": "worker-host-7-1a2b3c",
            }
        ],
    },
    "DeliveriesOut": {"items": [_DELIVERY], "next_cursor": None},
    "DeliveryDetailOut": {**_DELIVERY, "history": [_ATTEMPT]},
    # presence
    "PresencesOut": {
        "items": [
            {
                "user_id": _ALICE,
                "status": "online",
                "last_seen_at": _CREATED_AT,
                "device_count": 1,
                "devices": [{"device_id": "phone-1", "status": "online"}],
            }
        ],
        "next_cursor": None,
    },
    "ConnectionsOut": {
        "items": [
            {
                "id": "0198c0de-0070-7000-8000-00000000c0cc",
                "node": "gateway-1",
                "user_id": _ALICE,
                "session_id": "0198c0de-0080-7000-8000-000000005e55",
                "device_id": "phone-1",
                "transport": "websocket",
                "status": "online",
                "client": "shop-app 2.1",
                "remote_address": "203.0.113.7",
                "user_agent": None,
                "connected_at": _CREATED_AT,
                "sent_seq": 42,
                "unacked": 0,
            }
        ],
        "next_cursor": None,
        "missing_nodes": 0,
    },
    # analytics
    "SummaryOut": {
        "from": _CREATED_AT,
        "to": _LATER,
        "bucket": "hour",
        "totals": _NUMBERS,
        "by_channel": {"in_app": _NUMBERS},
        "by_event_type": {"order.shipped": _NUMBERS},
        "buckets": [{"start": _CREATED_AT, **_NUMBERS}],
        "latency": _LATENCY,
        "latency_by_channel": {"in_app": _LATENCY},
    },
}
