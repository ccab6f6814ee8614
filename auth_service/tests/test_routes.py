"""Every route is classified here, and every class is tried out (requirements C01, C02)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from auth_kit import Api, Device, internal, log_in, make_admin, make_service, make_user
from django.urls import URLPattern, URLResolver, get_resolver

from auth_service.accounts.models import User
from auth_service.api.access import Access, Rule
from auth_service.api.views import ApiView
from auth_service.groups.models import Group, Membership
from auth_service.service_accounts.models import ServiceAccount
from auth_service.tenants.models import Tenant
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role, Scope

PUBLIC, USER, CALLER, ADMIN = Access.PUBLIC, Access.USER, Access.CALLER, Access.ADMIN
INTERNAL, OPERATOR, OPERATOR_ADMIN = Access.INTERNAL, Access.OPERATOR, Access.OPERATOR_ADMIN
READ, WRITE, GROUPS = Scope.USERS_READ, Scope.USERS_WRITE, Scope.GROUPS_WRITE

ROUTES: dict[str, dict[str, Rule]] = {
    "api/v1/auth/register": {"POST": PUBLIC},
    "api/v1/auth/token": {"POST": PUBLIC},
    "api/v1/auth/token/refresh": {"POST": PUBLIC},
    "api/v1/auth/token/revoke": {"POST": PUBLIC},
    "api/v1/auth/service-token": {"POST": PUBLIC},
    "api/v1/auth/password/reset": {"POST": PUBLIC},
    "api/v1/auth/password/reset/confirm": {"POST": PUBLIC},
    "api/v1/auth/email/verify": {"POST": PUBLIC},
    "api/v1/auth/email/verify/resend": {"POST": PUBLIC},
    "api/v1/auth/user-tokens": {"POST": Scope.TOKENS_ISSUE},
    "api/v1/auth/logout": {"POST": USER},
    "api/v1/auth/logout-all": {"POST": USER},
    "api/v1/auth/ws-ticket": {"POST": USER},
    "api/v1/users/me": {"GET": USER, "PATCH": USER, "DELETE": USER},
    "api/v1/users/me/password": {"POST": USER},
    "api/v1/users/me/export": {"GET": USER},
    "api/v1/users/me/otp": {"POST": USER, "DELETE": USER},
    "api/v1/users/me/otp/confirm": {"POST": USER},
    "api/v1/users/me/sessions": {"GET": USER},
    "api/v1/users/me/sessions/<uuid:session_id>": {"DELETE": USER},
    "api/v1/users": {"GET": READ, "POST": WRITE},
    "api/v1/users/batch": {"POST": WRITE},
    "api/v1/users/<uuid:user_id>": {"GET": READ, "PATCH": WRITE, "DELETE": WRITE},
    "api/v1/users/<uuid:user_id>/activate": {"POST": WRITE},
    "api/v1/users/<uuid:user_id>/deactivate": {"POST": WRITE},
    "api/v1/users/<uuid:user_id>/roles": {"PUT": WRITE},
    "api/v1/users/<uuid:user_id>/sessions": {"GET": WRITE, "DELETE": WRITE},
    "api/v1/groups": {"GET": CALLER, "POST": GROUPS},
    "api/v1/groups/<uuid:group_id>": {"GET": CALLER, "PATCH": GROUPS, "DELETE": GROUPS},
    "api/v1/groups/<uuid:group_id>/members": {"GET": CALLER},
    "api/v1/groups/<uuid:group_id>/members/batch": {"POST": GROUPS},
    "api/v1/groups/<uuid:group_id>/members/<uuid:user_id>": {"PUT": GROUPS, "DELETE": GROUPS},
    "api/v1/service-accounts": {"GET": ADMIN, "POST": ADMIN},
    "api/v1/service-accounts/<uuid:account_id>": {"GET": ADMIN, "PATCH": ADMIN, "DELETE": ADMIN},
    "api/v1/service-accounts/<uuid:account_id>/rotate-secret": {"POST": ADMIN},
    "api/v1/tenants": {"GET": Scope.TENANTS_WRITE, "POST": OPERATOR_ADMIN},
    "api/v1/tenants/<str:slug>": {"GET": Scope.TENANTS_WRITE, "PATCH": OPERATOR_ADMIN},
    "api/v1/audit-events": {"GET": Scope.AUDIT_READ},
    "internal/v1/tokens/introspect": {"POST": INTERNAL},
    "internal/v1/tokens/introspect/batch": {"POST": INTERNAL},
    "internal/v1/tickets/redeem": {"POST": INTERNAL},
    "internal/v1/users": {"GET": INTERNAL},
    "internal/v1/users/erased": {"GET": INTERNAL},
    "internal/v1/groups": {"GET": INTERNAL},
    "internal/v1/memberships": {"GET": INTERNAL},
    "internal/v1/audit-events": {"POST": INTERNAL},
    ".well-known/jwks.json": {"GET": PUBLIC},
    ".well-known/oauth-authorization-server": {"GET": PUBLIC},
    "health": {"GET": PUBLIC},
    "health/live": {"GET": PUBLIC},
    "health/ready": {"GET": PUBLIC},
    "health/database": {"GET": PUBLIC},
    "health/broker": {"GET": PUBLIC},
    "metrics": {"GET": OPERATOR},
    "api/schema": {"GET": OPERATOR},
    "api/docs": {"GET": OPERATOR},
}
PAGES = {"account/forgot-password", "account/reset-password", "account/verify-email"}
"""For people who followed a link: public, with a CSRF check of their own."""


def walk(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for each in patterns:
        if isinstance(each, URLResolver):
            if str(each.pattern) != "admin/":
                yield from walk(each.url_patterns, prefix + str(each.pattern))
        elif isinstance(each, URLPattern):
            yield prefix + str(each.pattern), each.callback


def calls() -> list[tuple[str, str, Rule]]:
    return [(path, method, rule) for path, rules in ROUTES.items() for method, rule in rules.items()]


def fill(path: str) -> str:
    """An address with ids that belong to nobody."""
    return "/" + re.sub(r"<(\w+):\w+>", lambda found: "nothing" if found[1] == "str" else str(new_id()), path)


@pytest.mark.req("C02")
def test_every_route_is_classified_as_it_declares_itself() -> None:
    found = dict(walk(get_resolver().url_patterns))
    assert set(found) - PAGES == set(ROUTES)
    for path, rules in ROUTES.items():
        view = found[path].view_class
        assert issubclass(view, ApiView), path
        methods = {name.upper() for name in view.http_method_names if hasattr(view, name)} - {"HEAD", "OPTIONS"}
        assert dict(view.access) == rules, path
        assert methods == set(rules), path


@pytest.mark.req("C02")
@pytest.mark.parametrize(("path", "method", "rule"), calls())
def test_without_a_token_nothing_but_the_public_answers(db: None, path: str, method: str, rule: Rule) -> None:
    answer = Api().call(method, fill(path), {})
    if rule in {PUBLIC, OPERATOR}:
        assert answer.status not in {401, 403}, answer.text
    else:
        assert answer.status == 401, answer.text
        assert "WWW-Authenticate" in answer.headers


@pytest.mark.req("C02")
def test_the_lowest_role_gets_403_wherever_a_right_is_needed(device: Device) -> None:
    for path, method, rule in calls():
        if isinstance(rule, Scope) or rule in {ADMIN, OPERATOR_ADMIN}:
            answer = device.call(method, fill(path), {})
            assert (answer.status, answer.code) == (403, "permission_denied"), (path, method, answer.text)
        if rule is INTERNAL:
            assert device.call(method, fill(path), {}).status == 401


@pytest.mark.req("C02", "A09")
def test_a_service_account_is_nobody_on_a_persons_routes(db: None) -> None:
    _, service = make_service(*[scope for scope in Scope if scope is not Scope.INBOX])
    for path, method, rule in calls():
        if rule is USER:
            assert service.call(method, fill(path), {}).status == 401, path
        if rule in {ADMIN, OPERATOR_ADMIN}:
            assert service.call(method, fill(path), {}).status == 403, path


@pytest.mark.req("C02")
def test_the_right_alone_opens_the_door(db: None) -> None:
    for path, method, rule in calls():
        if isinstance(rule, Scope):
            _, service = make_service(rule)
            assert service.call(method, fill(path), {}).status not in {401, 403}, (path, method)


@pytest.mark.req("C02")
def test_staff_reads_and_only_administrators_write(db: None) -> None:
    staff = log_in(make_user("sam", Role.USER, Role.STAFF))
    for path, method, rule in calls():
        if rule is READ:
            assert staff.call(method, fill(path), {}).status in {200, 404}
        elif isinstance(rule, Scope) or rule in {ADMIN, OPERATOR_ADMIN}:
            assert staff.call(method, fill(path), {}).status == 403, (path, method)


def snapshot() -> list[Any]:
    return [
        list(User.objects.order_by("id").values("id", "username", "email", "is_active", "roles", "password")),
        list(Group.objects.order_by("id").values("id", "name")),
        list(Membership.objects.order_by("id").values("group_id", "user_id")),
        list(ServiceAccount.objects.order_by("id").values("id", "name", "secret_hash")),
    ]


@pytest.mark.req("C01")
def test_two_users_one_of_whom_owns_everything(db: None) -> None:
    """Every route with an id, called by someone it does not belong to: 404 or 403, and nothing changes."""
    owner = log_in(make_user("owner"))
    group = make_admin().post("/api/v1/groups", {"name": "Private", "slug": "private"}).body["id"]
    account, _ = make_service(Scope.USERS_READ)
    ids = {"user_id": owner.user.id, "session_id": owner.session_id, "group_id": group, "account_id": account.id}
    stranger = log_in(make_user("stranger"))
    before = snapshot()

    tried = 0
    for path, method, _ in calls():
        if "<uuid" in path:
            address = "/" + re.sub(r"<uuid:(\w+)>", lambda found: str(ids[found[1]]), path)
            answer = stranger.call(method, address, {"name": "x", "roles": ["admin"], "username": "x"})
            assert answer.status in {403, 404}, (path, method, answer.text)
            assert "owner" not in answer.text
            tried += 1

    assert tried >= 15
    assert snapshot() == before
    assert owner.get("/api/v1/users/me").status == 200


@pytest.mark.req("C01")
def test_administrators_of_another_tenant_are_strangers_too(db: None) -> None:
    Tenant.objects.create(slug="acme", name="Acme")
    Tenant.objects.create(slug="other", name="Other")
    owner = log_in(make_user("owner", tenant="acme"))
    keeper = log_in(make_user("keeper", Role.ADMIN, tenant="acme"))
    group = keeper.post("/api/v1/groups", {"name": "Private", "slug": "private"}).body["id"]
    account, _ = make_service(Scope.USERS_READ, tenant="acme")
    ids = {"user_id": owner.user.id, "session_id": owner.session_id, "group_id": group, "account_id": account.id}
    stranger = log_in(make_user("stranger", Role.USER, Role.ADMIN, tenant="other"))
    before = snapshot()

    for path, method, _ in calls():
        if "<uuid" in path:
            address = "/" + re.sub(r"<uuid:(\w+)>", lambda found: str(ids[found[1]]), path)
            body = {"name": "x", "roles": ["user"], "username": "x"}
            assert stranger.call(method, address, body).status == 404, (path, method)
        if "<str:slug>" in path:
            assert stranger.call(method, "/api/v1/tenants/acme", {"name": "x"}).status in {403, 404}

    assert snapshot() == before
    assert Tenant.objects.get(slug="acme").name == "Acme"


def test_the_internal_key_opens_the_internal_routes(db: None) -> None:
    for path, method, rule in calls():
        if rule is INTERNAL:
            assert internal().call(method, fill(path), {}).status in {200, 422}, path
