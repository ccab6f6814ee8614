from __future__ import annotations

import time
from typing import Any

import pytest
from auth_kit import Device, is_active, log_in, make_admin, make_user
from django.db import connection
from django.test.utils import CaptureQueriesContext

from auth_service.accounts.models import User
from auth_service.audit.models import AuditEvent
from auth_service.identity_events.models import OutboxEvent
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role

BATCH = "/api/v1/users/batch"


def send(admin: Device, *items: Any) -> list[dict[str, Any]]:
    answer = admin.post(BATCH, {"items": list(items)})
    assert answer.status == 200, answer.text
    rows: list[dict[str, Any]] = answer.body["items"]
    assert [row["index"] for row in rows] == list(range(len(items)))
    return rows


def test_rows_are_created_or_updated_by_external_id(admin: Device) -> None:
    first = send(
        admin, {"external_id": "1", "username": "ada", "locale": "de"}, {"external_id": "2", "username": "bea"}
    )
    second = send(admin, {"external_id": "1", "locale": "fr"}, {"external_id": "3", "username": "cyd"})

    assert [row["status"] for row in first] == [201, 201]
    assert [row["status"] for row in second] == [200, 201]
    assert second[0]["id"] == first[0]["id"]
    ada = User.objects.get(external_id="1")
    assert (ada.locale, ada.username) == ("fr", "ada")


def test_each_row_is_judged_alone(admin: Device) -> None:
    make_user("taken", email="mine@example.org", email_verified=True)
    rows = send(
        admin,
        {"username": "good"},
        {"username": "Taken"},
        {"external_id": "9"},
        {"username": "x", "email": "no address"},
        {"username": "good"},
        "not an object",
        {"username": "y", "password": "password"},
        {"username": "z", "email": "mine@example.org", "email_verified": True},
        {"username": "also.good", "password": "a fine pass phrase"},
    )
    assert [row["status"] for row in rows] == [201, 409, 422, 422, 409, 422, 422, 409, 201]
    assert rows[3]["errors"][0]["field"] == "email"
    assert rows[2]["errors"][0]["field"] == "username"
    assert {row["code"] for row in rows if row["status"] >= 400} == {"conflict", "invalid_schema"}
    assert log_in(User.objects.get(username="also.good"), password="a fine pass phrase").token


def test_rights_and_activity_change_with_events_and_audit(admin: Device) -> None:
    user = make_user("ada", external_id="1")
    device = log_in(user)
    send(admin, {"external_id": "1", "roles": ["user", "staff"]})
    send(admin, {"external_id": "1", "is_active": False})

    user.refresh_from_db()
    assert (user.roles, user.is_active) == (("user", "staff"), False)
    assert not is_active(device.token or "")
    kinds = list(OutboxEvent.objects.filter(subject_id=user.id).order_by("revision").values_list("type", flat=True))
    assert kinds[-2:] == [IdentityEventType.USER_ROLES_CHANGED, IdentityEventType.USER_DEACTIVATED]
    assert AuditEvent.objects.filter(action="user.roles_changed", subject_id=str(user.id)).count() == 1
    assert AuditEvent.objects.filter(action="user.deactivated", subject_id=str(user.id)).count() == 1


def test_a_new_password_in_a_batch_ends_the_sessions(admin: Device) -> None:
    user = make_user("ada", external_id="1")
    device = log_in(user)
    send(admin, {"external_id": "1", "password": "quite another phrase"})
    assert not is_active(device.token or "")
    assert OutboxEvent.objects.filter(type=IdentityEventType.SESSION_REVOKED).count() == 1
    assert AuditEvent.objects.filter(action="password.changed", subject_id=str(user.id)).count() == 1


@pytest.mark.req("B10")
def test_a_batch_does_not_remove_the_last_administrator(db: None) -> None:
    admin = log_in(make_user("boss", Role.USER, Role.ADMIN, external_id="b"))
    rows = send(admin, {"external_id": "b", "roles": ["user"]}, {"username": "other"})
    assert [(row["status"], row.get("code")) for row in rows] == [(422, "last_admin"), (201, None)]
    make_admin()
    assert send(admin, {"external_id": "b", "roles": ["user"]})[0]["status"] == 200
    assert User.objects.get(external_id="b").roles == ("user",)


def test_unchanged_rows_make_no_event(admin: Device) -> None:
    row = {"external_id": "1", "username": "ada", "locale": "de"}
    send(admin, row)
    before = OutboxEvent.objects.count()
    assert send(admin, row)[0]["status"] == 200
    assert OutboxEvent.objects.count() == before


@pytest.mark.parametrize("items", [[], None, "x", [{}] * 1_001])
def test_a_batch_has_1_to_1000_rows(admin: Device, items: Any) -> None:
    answer = admin.post(BATCH, {"items": items})
    assert (answer.status, answer.fields) == (422, {"items"})


def test_a_thousand_users_are_a_matter_of_seconds_and_few_statements(admin: Device) -> None:
    rows = [
        {"external_id": f"e{number}", "username": f"user{number}", "email": f"u{number}@example.org"}
        for number in range(1_000)
    ]
    started_s = time.perf_counter()
    with CaptureQueriesContext(connection) as queries:
        created = send(admin, *rows)
    updated = send(admin, *({**row, "locale": "de"} for row in rows))
    took_s = time.perf_counter() - started_s

    assert {row["status"] for row in created} == {201}
    assert {row["status"] for row in updated} == {200}
    assert User.objects.filter(locale="de").count() == 1_000
    # SQLite takes at most 999 parameters a statement; PostgreSQL needs a dozen statements.
    assert len(queries) < (60 if connection.vendor == "sqlite" else 20)
    assert took_s < 10
    revisions = list(OutboxEvent.objects.order_by("revision").values_list("revision", flat=True))
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
