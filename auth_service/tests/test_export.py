"""The export: what both services hold, or nothing."""

from __future__ import annotations

import json
import os

import pytest
from auth_kit import Device, with_settings
from notification_site import NotificationSite

from auth_service.accounts import foreign_export
from auth_service.accounts.models import User
from auth_service.audit.models import AuditEvent
from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY

EXPORT = "/api/v1/users/me/export"


def test_an_export_holds_everything_of_both_services_but_secrets(
    device: Device, alice: User, notification_site: NotificationSite
) -> None:
    answer = device.get(EXPORT)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert "attachment" in answer.headers["Content-Disposition"]
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.body
    assert body["profile"]["username"] == "alice"
    assert [session["id"] for session in body["sessions"]] == [device.session_id]
    assert {event["action"] for event in body["audit_events"]} >= {"user.created", "login.succeeded", "user.exported"}
    assert body["notifications"] == {"inbox": [{"title": "Grüße", "for": str(alice.id)}]}
    assert notification_site.asked == [(f"/internal/v1/users/{alice.id}/export", DEVELOPMENT_INTERNAL_KEY)]
    alice.refresh_from_db()
    assert not any(secret in answer.text for secret in (alice.password, device.refresh, device.token or ""))


def test_a_large_export_passes_through_whole(device: Device, notification_site: NotificationSite) -> None:
    notification_site.body = json.dumps({"inbox": ["x" * 1000] * 3000}).encode()
    assert len(device.get(EXPORT).body["notifications"]["inbox"]) == 3000


@pytest.mark.parametrize("fault", ["gone", "refused", "failing", "cut short", "too long"])
def test_half_an_export_is_none(
    device: Device, notification_site: NotificationSite, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    changes = {}
    match fault:
        case "gone":
            changes = {"notification_url": "http://127.0.0.1:1"}
        case "refused":
            notification_site.status = 401
        case "failing":
            notification_site.status = 503
        case "cut short":
            notification_site.is_cut_short = True
        case "too long":
            monkeypatch.setattr(foreign_export, "MAX_BYTES", 10)
    with with_settings(**changes):
        answer = device.get(EXPORT)
    assert (answer.status, answer.code) == (503, "unavailable")
    assert "notification service" in answer.body["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert not AuditEvent.objects.filter(action="user.exported").exists()


def test_exports_are_limited(device: Device) -> None:
    statuses = [device.get(EXPORT).status for _ in range(11)]
    assert statuses == [200] * 10 + [429]


def test_environment_proxies_are_not_for_the_own_services(
    device: Device, monkeypatch: pytest.MonkeyPatch, notification_site: NotificationSite
) -> None:
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    assert device.get(EXPORT).status == 200
