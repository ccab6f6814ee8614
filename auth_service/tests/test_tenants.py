from __future__ import annotations

import pytest
from auth_kit import PASSWORD, Api, Device, introspect, is_active, log_in, make_admin, make_service, make_user, pages_of

from auth_service.accounts.models import User
from auth_service.audit.models import AuditEvent
from auth_service.identity_events.models import OutboxEvent
from auth_service.tokens.access_tokens import check_access_token
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role, Scope

TENANTS = "/api/v1/tenants"


@pytest.fixture
def acme(admin: Device) -> Device:
    """Another tenant's administrator, made by an operator."""
    assert admin.post(TENANTS, {"slug": "acme", "name": "Acme"}).status == 201
    made = admin.post(
        "/api/v1/users",
        {"username": "acme-boss", "password": PASSWORD, "roles": ["user", "admin"], "tenant": "acme"},
    )
    assert made.status == 201, made.text
    return log_in(User.objects.get(username="acme-boss"))


def test_a_token_names_its_tenant(acme: Device) -> None:
    assert check_access_token(acme.token or "").tenant == "acme"
    assert introspect(acme.token or "")["tenant"] == "acme"


def test_nobody_reads_across_tenants(acme: Device, admin: Device, alice: User) -> None:
    names = {row["username"] for row in pages_of(acme, "/api/v1/users")}
    assert names == {"acme-boss"}
    assert "acme-boss" not in {row["username"] for row in pages_of(admin, "/api/v1/users")}
    assert acme.get(f"/api/v1/users/{alice.id}").status == 404
    assert acme.get("/api/v1/users?tenant=default").body["items"] == []
    assert acme.get("/api/v1/groups?tenant=default").body["items"] == []
    assert acme.get("/api/v1/audit-events?tenant=default").body["items"] == []
    assert {event["tenant"] for event in pages_of(acme, "/api/v1/audit-events")} == {"acme"}
    staff = log_in(make_user("sam", Role.STAFF))
    assert staff.get("/api/v1/users?tenant=acme").body["items"] == []
    assert staff.get(f"/api/v1/users/{acme.user.id}").status == 404


def test_operators_look_after_every_tenant(acme: Device, admin: Device) -> None:
    listed = [row["username"] for row in pages_of(admin, "/api/v1/users?tenant=acme")]
    assert listed == ["acme-boss"]
    assert admin.get(f"/api/v1/users/{acme.user.id}").body["tenant"] == "acme"
    assert [row["slug"] for row in pages_of(admin, f"{TENANTS}?limit=1")] == ["acme", "default"]
    assert [row["slug"] for row in pages_of(acme, TENANTS)] == ["acme"]
    assert acme.get(f"{TENANTS}/default").status == 404
    assert acme.post(TENANTS, {"slug": "x", "name": "X"}).status == 403
    assert acme.patch(f"{TENANTS}/acme", {"name": "Mine"}).status == 403


def test_rows_are_made_in_ones_own_tenant_only(acme: Device, admin: Device) -> None:
    assert acme.post("/api/v1/users", {"username": "x", "tenant": "default"}).status == 403
    assert acme.post("/api/v1/groups", {"name": "X", "slug": "x", "tenant": "default"}).status == 403
    assert acme.post("/api/v1/service-accounts", {"name": "x", "scopes": [], "tenant": "default"}).status == 403
    assert acme.post("/api/v1/users/batch", {"items": [{"username": "x"}], "tenant": "default"}).status == 403
    assert acme.post("/api/v1/users", {"username": "mine"}).body["tenant"] == "acme"
    assert admin.post("/api/v1/users", {"username": "y", "tenant": "nowhere"}).fields == {"tenant"}
    assert admin.patch(f"/api/v1/users/{acme.user.id}", {"tenant": "default"}).body["tenant"] == "acme"


def test_the_same_slug_and_external_id_live_in_two_tenants(acme: Device, admin: Device) -> None:
    for caller in (acme, admin):
        assert caller.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}).status == 201
        assert caller.post("/api/v1/users", {"username": f"u-{caller.user.id}", "external_id": "1"}).status == 201


def test_a_group_takes_members_of_its_own_tenant_only(acme: Device, admin: Device, alice: User) -> None:
    group = acme.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}).body["id"]
    assert acme.put(f"/api/v1/groups/{group}/members/{alice.id}").status == 404
    batch = acme.post(f"/api/v1/groups/{group}/members/batch", {"add": [str(alice.id)]})
    assert batch.body["unknown"] == [str(alice.id)]
    assert admin.put(f"/api/v1/groups/{group}/members/{alice.id}").status == 404


def test_a_service_account_issues_tokens_in_its_own_tenant_only(acme: Device, alice: User) -> None:
    _, service = make_service(Scope.TOKENS_ISSUE, tenant="acme")
    make_user("acme-user", tenant="acme", external_id="7")
    make_user("other", external_id="8")
    rows = service.post(
        "/api/v1/auth/user-tokens",
        {"items": [{"user_id": str(alice.id)}, {"external_id": "7"}, {"external_id": "8"}]},
    ).body["items"]
    assert [row["status"] for row in rows] == [404, 201, 404]


def test_a_tenant_switched_off_has_no_valid_token_and_no_login(acme: Device, admin: Device) -> None:
    _, service = make_service(Scope.USERS_READ, tenant="acme")
    assert admin.patch(f"{TENANTS}/acme", {"is_active": False}).body["is_active"] is False

    assert not is_active(acme.token or "")
    assert not is_active(service.token or "")
    assert acme.renew().status == 401
    login = Api().post("/api/v1/auth/token", {"username": "acme-boss", "password": PASSWORD})
    assert (login.status, login.code) == (401, "invalid_credentials")
    # Told once, whatever else is changed while it is off: gateways look at every token they hold.
    admin.patch(f"{TENANTS}/acme", {"is_active": False, "name": "Acme, closed"})
    assert OutboxEvent.objects.filter(type=IdentityEventType.KEY_ROTATED).count() == 1
    admin.patch(f"{TENANTS}/acme", {"is_active": True})
    assert is_active(acme.token or "")
    assert acme.renew().status == 200
    assert OutboxEvent.objects.filter(type=IdentityEventType.KEY_ROTATED).count() == 1


def test_the_default_tenant_stays_on(admin: Device) -> None:
    answer = admin.patch(f"{TENANTS}/default", {"is_active": False})
    assert (answer.status, answer.fields) == (422, {"is_active"})


@pytest.mark.parametrize("slug", ["", "A", "a b", "-a", "a-", "x" * 64, "ä", "a/b"])
def test_slugs_are_plain(admin: Device, slug: str) -> None:
    assert admin.post(TENANTS, {"slug": slug, "name": "X"}).status == 422


def test_a_slug_is_taken_once_and_changes_are_written_down(admin: Device) -> None:
    assert admin.post(TENANTS, {"slug": "acme", "name": "Acme"}).status == 201
    assert admin.post(TENANTS, {"slug": "acme", "name": "Again"}).status == 409
    assert admin.patch(f"{TENANTS}/acme", {"name": "Acme Inc."}).body["name"] == "Acme Inc."
    assert admin.patch(f"{TENANTS}/nowhere", {"name": "X"}).status == 404
    actions = AuditEvent.objects.filter(subject_id="acme").order_by("occurred_at").values_list("action", flat=True)
    assert list(actions) == ["tenant.created", "tenant.updated"]


@pytest.mark.req("B10")
def test_each_tenant_keeps_its_last_administrator(acme: Device, admin: Device) -> None:
    make_admin()
    answer = admin.put(f"/api/v1/users/{acme.user.id}/roles", {"roles": ["user"]})
    assert (answer.status, answer.code) == (422, "last_admin")
