"""The trail: exactly one event per action, append-only (requirement G06)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from auth_kit import PASSWORD, Api, Device, internal, log_in, make_service, make_user, pages_of
from django.db import DatabaseError, connection, transaction

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.accounts.watch_actions import do_announce_hidden_changes
from auth_service.audit.models import AuditEvent
from auth_service.tokens.key_actions import do_cut_off_all_tokens, do_rotate_keys
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role, Scope

EVENTS = "/api/v1/audit-events"


def one_new(action: str, act: Callable[[], Any]) -> AuditEvent:
    """What the action adds: exactly one event of this kind, and no other."""
    before = set(AuditEvent.objects.values_list("id", flat=True))
    act()
    added = AuditEvent.objects.exclude(id__in=before)
    assert [event.action for event in added] == [action]
    return added[0]


@pytest.mark.req("G06")
def test_logins_leave_one_event_each_with_who_and_from_where(alice: User) -> None:
    visitor = Api(address="192.0.2.7", headers={"User-Agent": "test/1", "X-Correlation-Id": "correlation-1"})

    def login(password: str) -> Any:
        return visitor.post("/api/v1/auth/token", {"username": "alice", "password": password})

    failed = one_new("login.failed", lambda: login("wrong"))
    succeeded = one_new("login.succeeded", lambda: login(PASSWORD))

    assert (failed.actor_type, failed.actor_id, failed.subject_id) == ("anonymous", None, str(alice.id))
    assert (succeeded.actor_type, succeeded.actor_id) == ("user", alice.id)
    for event in (failed, succeeded):
        assert (event.ip, event.user_agent, event.correlation_id) == ("192.0.2.7", "test/1", "correlation-1")
        assert event.tenant == "default"
    unknown = one_new("login.failed", lambda: visitor.post("/api/v1/auth/token", {"username": "x", "password": "y"}))
    assert (unknown.subject_id, unknown.details) == ("", {"reason": "invalid_credentials"})


@pytest.mark.req("G06")
def test_rights_and_activity_leave_one_event_each(admin: Device, alice: User) -> None:
    path = f"/api/v1/users/{alice.id}"
    roles = one_new("user.roles_changed", lambda: admin.put(f"{path}/roles", {"roles": ["staff"]}))
    assert (roles.actor_id, roles.subject_id) == (admin.user.id, str(alice.id))
    assert roles.details == {"from": ["user"], "to": ["staff"]}
    one_new("user.deactivated", lambda: admin.post(f"{path}/deactivate"))
    one_new("user.activated", lambda: admin.post(f"{path}/activate"))
    one_new("user.updated", lambda: admin.patch(path, {"locale": "de"}))
    one_new("user.erased", lambda: admin.delete(path))
    one_new("user.created", lambda: admin.post("/api/v1/users", {"username": "new"}))


@pytest.mark.req("G06")
def test_what_changes_nothing_leaves_nothing(admin: Device, alice: User) -> None:
    before = AuditEvent.objects.count()
    path = f"/api/v1/users/{alice.id}"
    admin.put(f"{path}/roles", {"roles": ["user"]})
    admin.post(f"{path}/activate")
    admin.patch(path, {"locale": "en"})
    admin.put(f"{path}/roles", {"roles": ["nonsense"]})
    assert AuditEvent.objects.count() == before


@pytest.mark.req("G06", "A15")
def test_reuse_of_a_refresh_token_leaves_one_event(frozen: clock.FrozenClock, device: Device) -> None:
    spent = device.refresh
    device.renew()
    frozen.advance(timedelta(seconds=11))
    body = {"refresh": spent}
    event = one_new("token.reused", lambda: Api().post("/api/v1/auth/token/refresh", body))
    assert event.details["user_id"] == str(device.user.id)


@pytest.mark.req("G06")
def test_keys_sessions_groups_accounts_and_tenants_leave_one_event_each(admin: Device, device: Device) -> None:
    rotated = one_new("key.rotated", do_rotate_keys)
    assert (rotated.actor_type, rotated.ip) == ("system", None)
    one_new("group.created", lambda: admin.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}))
    group = admin.get("/api/v1/groups").body["items"][0]["id"]
    one_new("group.members_changed", lambda: admin.put(f"/api/v1/groups/{group}/members/{device.user.id}"))
    one_new("group.updated", lambda: admin.patch(f"/api/v1/groups/{group}", {"name": "O"}))
    one_new("group.deleted", lambda: admin.delete(f"/api/v1/groups/{group}"))
    made: dict[str, Any] = {}
    one_new(
        "service_account.created",
        lambda: made.update(admin.post("/api/v1/service-accounts", {"name": "s", "scopes": []}).body),
    )
    path = f"/api/v1/service-accounts/{made['id']}"
    wrong = {"client_id": made["client_id"], "client_secret": "wrong"}
    one_new("service_login.failed", lambda: Api().post("/api/v1/auth/service-token", wrong))
    one_new("service_account.secret_rotated", lambda: admin.post(f"{path}/rotate-secret"))
    one_new("service_account.updated", lambda: admin.patch(path, {"is_active": False}))
    one_new("service_account.deleted", lambda: admin.delete(path))
    one_new("tenant.created", lambda: admin.post("/api/v1/tenants", {"slug": "t", "name": "T"}))
    one_new("tenant.updated", lambda: admin.patch("/api/v1/tenants/t", {"name": "U"}))
    one_new("user.exported", lambda: device.get("/api/v1/users/me/export"))
    one_new("session.ended", lambda: device.post("/api/v1/auth/logout"))
    one_new("tokens.cut_off", do_cut_off_all_tokens)


@pytest.mark.req("A19", "G06")
def test_changes_by_sql_are_told_and_written_down_once(device: Device, alice: User) -> None:
    User.objects.filter(id=alice.id).update(is_active=False)
    one_new("user.deactivated", do_announce_hidden_changes)
    assert do_announce_hidden_changes() == 0
    User.objects.filter(id=alice.id).update(is_active=True, roles=("user", "staff"))
    before = AuditEvent.objects.count()
    assert do_announce_hidden_changes() == 1
    assert AuditEvent.objects.count() == before + 2
    assert device.renew().status == 401  # the session ended for good


@pytest.mark.req("G06")
def test_the_trail_cannot_be_changed_by_code_or_by_sql(alice: User) -> None:
    event = AuditEvent.objects.first() or pytest.fail("there is no event")
    for act in (event.save, event.delete, AuditEvent.objects.all().delete):
        with pytest.raises(TypeError, match="append-only"):
            act()
    with pytest.raises(TypeError, match="append-only"):
        AuditEvent.objects.update(action="x")
    for statement in (
        "DELETE FROM audit_auditevent",
        "UPDATE audit_auditevent SET action = 'x'",
        "UPDATE audit_auditevent SET actor_id = NULL, ip = NULL, user_agent = '', tenant = 'x'",
        "UPDATE audit_auditevent SET ip = '192.0.2.1'",
        *(["TRUNCATE audit_auditevent"] if connection.vendor == "postgresql" else []),
    ):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert AuditEvent.objects.count() == 1


def test_the_trail_is_listed_filtered_and_paged(admin: Device, alice: User) -> None:
    for _ in range(3):
        log_in(alice)
    listed = admin.get(f"{EVENTS}?limit=2").body
    assert set(listed["items"][0]) == {
        "id",
        "occurred_at",
        "action",
        "actor_type",
        "actor_id",
        "subject_type",
        "subject_id",
        "tenant",
        "ip",
        "user_agent",
        "correlation_id",
        "details",
    }
    everything = list(pages_of(admin, f"{EVENTS}?limit=2"))
    assert len(everything) == AuditEvent.objects.count()
    moments = [event["occurred_at"] for event in everything]
    assert moments == sorted(moments, reverse=True)
    assert len(list(pages_of(admin, f"{EVENTS}?action=login.succeeded&actor_id={alice.id}"))) == 3
    assert list(pages_of(admin, f"{EVENTS}?from={moments[0]}".replace("+", "%2B"))) == everything[:1]
    assert list(pages_of(admin, f"{EVENTS}?to={moments[-1]}")) == []
    for query in ("from=yesterday", "actor_id=x", "ordering=ip", f"action={'x' * 65}"):
        assert admin.get(f"{EVENTS}?{query}").status == 422


def test_only_administrators_read_the_trail(device: Device) -> None:
    assert device.get(EVENTS).status == 403
    assert log_in(make_user("sam", Role.STAFF)).get(EVENTS).status == 403
    assert make_service(Scope.AUDIT_READ)[1].get(EVENTS).status == 200


@pytest.mark.req("C06", "G06")
def test_other_services_append_their_events_once(admin: Device) -> None:
    event = {
        "id": str(new_id()),
        "occurred_at": "2026-01-02T03:04:05Z",
        "action": "dead_letter.replayed",
        "actor_type": "user",
        "actor_id": str(admin.user.id),
        "subject_type": "dead_letter",
        "subject_id": "17",
        "tenant": "default",
        "ip": "192.0.2.1",
        "details": {"count": 1},
    }
    first = internal().post("/internal/v1/audit-events", {"items": [event]})
    second = internal().post("/internal/v1/audit-events", {"items": [event, {**event, "id": str(new_id())}]})
    assert (first.body, second.body) == ({"written": 1}, {"written": 1})
    found = admin.get(f"{EVENTS}?action=dead_letter.replayed&ordering=occurred_at").body["items"][0]
    assert {key: found[key] for key in event} == event
    for wrong in ({**event, "action": "Nonsense"}, {**event, "actor_type": "god"}, {**event, "ip": "x"}):
        assert internal().post("/internal/v1/audit-events", {"items": [wrong]}).status == 422
