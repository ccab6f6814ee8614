"""Examples for the OpenAPI document."""

from __future__ import annotations

from typing import Any

USER: dict[str, Any] = {
    "id": "0192f6a0-c0de-7abc-8def-0123456789ab",
    "external_id": "customer-42",
    "username": "ada",
    "email": "ada@example.org",
    "email_verified": True,
    "phone": "+4930123456",
    "locale": "de",
    "timezone": "Europe/Berlin",
    "roles": ["user"],
    "tenant": "default",
    "is_active": True,
    "created_at": "2026-01-02T03:04:05Z",
    "last_login_at": "2026-01-03T08:00:00Z",
}
REGISTRATION = {"username": "ada", "email": "ada@example.org", "password": "a-long-passphrase", "locale": "de"}
NEW_USER = {"username": "ada", "email": "ada@example.org", "external_id": "customer-42", "roles": ["user"]}
BATCH = {"items": [NEW_USER, {"external_id": "customer-43", "is_active": False}]}
BATCH_ANSWER = {
    "items": [
        {"index": 0, "status": 201, "id": USER["id"], "external_id": "customer-42", "username": "ada"},
        {
            "index": 1,
            "status": 422,
            "code": "invalid_schema",
            "detail": "Some fields are wrong.",
            "errors": [{"field": "username", "message": "is needed to create a user"}],
        },
    ]
}
