from __future__ import annotations

from typing import Any

import pytest
from auth_kit import Api, Device, introspect, is_active, log_in, make_service, make_user
from django.db import connection
from django.test.utils import CaptureQueriesContext

from auth_service.accounts.models import User
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.models import RefreshToken, Session
from auth_service.tokens.access_tokens import check_access_token
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role, Scope

ACCOUNTS = "/api/v1/service-accounts"
TOKEN = "/api/v1/auth/service-token"
USER_TOKENS = "/api/v1/auth/user-tokens"


def make(admin: Device, name: str = "shop", *scopes: str) -> dict[str, Any]:
    answer = admin.post(ACCOUNTS, {"name": name, "scopes": list(scopes or (Scope.NOTIFICATIONS_SEND,))})
    assert answer.status == 201, answer.text
    body: dict[str, Any] = answer.body
    return body


def token_of(account: dict[str, Any], **more: str) -> Any:
    return Api().post(TOKEN, {"client_id": account["client_id"], "client_secret": account["client_secret"], **more})


@pytest.mark.req("A30")
def test_the_secret_is_shown_once_and_never_again(admin: Device) -> None:
    account = make(admin)
    assert set(account) >= {"id", "client_id", "client_secret", "scopes", "is_active"}
    path = f"{ACCOUNTS}/{account['id']}"
    for answer in (admin.get(path), admin.get(ACCOUNTS), admin.patch(path, {"name": "shop 2"})):
        assert account["client_secret"] not in answer.text
        assert "client_secret" not in answer.text


@pytest.mark.req("A30")
def test_a_service_token_has_only_the_accounts_scopes_and_no_refresh(admin: Device) -> None:
    account = make(admin, "shop", Scope.NOTIFICATIONS_SEND, Scope.TOKENS_ISSUE)

    answer = token_of(account)

    assert answer.status == 200
    assert set(answer.body) == {"access", "token_type", "expires_in", "scope"}
    claims = check_access_token(answer.body["access"])
    assert (str(claims.sub), claims.roles) == (account["id"], ("service",))
    assert claims.scope == "notifications:send tokens:issue"
    assert token_of(account, scope="notifications:send").body["scope"] == "notifications:send"
    assert token_of(account, scope="users:write").status == 403
    assert token_of(account, scope="nonsense").status == 403
    assert not RefreshToken.objects.filter(session__user_id=account["id"]).exists()


@pytest.mark.req("A30")
def test_a_service_account_cannot_log_in_like_a_person(admin: Device) -> None:
    account = make(admin)
    for name in (account["client_id"], account["name"]):
        answer = Api().post("/api/v1/auth/token", {"username": name, "password": account["client_secret"]})
        assert answer.status == 401


@pytest.mark.req("A30")
def test_disabling_ends_tokens_at_once(admin: Device) -> None:
    account = make(admin)
    token = token_of(account).body["access"]
    assert is_active(token)

    admin.patch(f"{ACCOUNTS}/{account['id']}", {"is_active": False})

    assert not is_active(token)
    assert (token_of(account).status, token_of(account).code) == (401, "invalid_credentials")
    admin.patch(f"{ACCOUNTS}/{account['id']}", {"is_active": True})
    assert token_of(account).status == 200


def test_scopes_taken_away_stop_counting_in_old_tokens(admin: Device) -> None:
    account = make(admin, "shop", Scope.NOTIFICATIONS_SEND, Scope.USERS_READ)
    token = token_of(account).body["access"]
    admin.patch(f"{ACCOUNTS}/{account['id']}", {"scopes": [Scope.NOTIFICATIONS_SEND]})
    assert introspect(token)["scope"] == "notifications:send"
    assert Api(token).get("/api/v1/users").status == 403


def test_rotation_replaces_the_secret_and_ends_its_tokens(admin: Device) -> None:
    account = make(admin)
    old = token_of(account).body["access"]

    rotated = admin.post(f"{ACCOUNTS}/{account['id']}/rotate-secret").body

    assert rotated["client_secret"] != account["client_secret"]
    assert token_of(account).status == 401
    assert not is_active(old)
    assert token_of(rotated).status == 200
    assert is_active(token_of(rotated).body["access"])


@pytest.mark.parametrize("scopes", [["inbox"], ["root"], "users:read", None, [1]])
def test_wrong_scopes_are_refused(admin: Device, scopes: Any) -> None:
    answer = admin.post(ACCOUNTS, {"name": "x", "scopes": scopes})
    assert answer.status == 422
    assert {field.split(".")[0] for field in answer.fields} == {"scopes"}


def test_names_are_unique(admin: Device) -> None:
    make(admin, "one")
    second = make(admin, "two")
    assert admin.post(ACCOUNTS, {"name": "one", "scopes": []}).status == 409
    assert admin.patch(f"{ACCOUNTS}/{second['id']}", {"name": "one"}).status == 409


def test_only_administrators_look_after_service_accounts(admin: Device, device: Device) -> None:
    account = make(admin)
    _, service = make_service(*[scope for scope in Scope if scope is not Scope.INBOX])
    staff = log_in(make_user("sam", Role.STAFF))
    for caller in (device, service, staff):
        for answer in (
            caller.get(ACCOUNTS),
            caller.post(ACCOUNTS, {"name": "x", "scopes": []}),
            caller.get(f"{ACCOUNTS}/{account['id']}"),
            caller.patch(f"{ACCOUNTS}/{account['id']}", {"name": "x"}),
            caller.delete(f"{ACCOUNTS}/{account['id']}"),
            caller.post(f"{ACCOUNTS}/{account['id']}/rotate-secret"),
        ):
            assert answer.status == 403
    assert ServiceAccount.objects.get(id=account["id"]).name == "shop"


def test_an_application_gets_tokens_for_its_users(db: None) -> None:
    _, shop = make_service(Scope.TOKENS_ISSUE)
    ada = make_user("ada", external_id="42")
    bob = make_user("bob")

    answer = shop.post(USER_TOKENS, {"items": [{"external_id": "42", "device_id": "web"}, {"user_id": str(bob.id)}]})

    assert answer.status == 200
    rows = answer.body["items"]
    assert [row["status"] for row in rows] == [201, 201]
    assert set(rows[0]) == {"index", "status", "user_id", "external_id", "access", "expires_in", "session_id"}
    for row, user in zip(rows, (ada, bob), strict=True):
        found = introspect(row["access"])
        assert (found["sub"], found["sid"], found["roles"]) == (str(user.id), row["session_id"], ["user"])
        assert Api(row["access"]).get("/api/v1/users/me").body["id"] == str(user.id)


def test_asking_again_continues_the_session(db: None) -> None:
    _, shop = make_service(Scope.TOKENS_ISSUE)
    user = make_user()
    items = [{"user_id": str(user.id), "device_id": "web"}, {"user_id": str(user.id), "device_id": "tv"}]

    first, second = (shop.post(USER_TOKENS, {"items": items}).body["items"] for _ in range(2))

    assert [row["session_id"] for row in first] == [row["session_id"] for row in second]
    assert len({row["session_id"] for row in first}) == 2
    Api(first[0]["access"]).post("/api/v1/auth/logout")
    third = shop.post(USER_TOKENS, {"items": items}).body["items"]
    assert third[0]["session_id"] != first[0]["session_id"]
    assert not is_active(second[0]["access"])
    assert is_active(third[0]["access"])


def test_items_are_judged_one_by_one(db: None) -> None:
    _, shop = make_service(Scope.TOKENS_ISSUE, Scope.NOTIFICATIONS_SEND)
    asleep = make_user("asleep", is_active=False)
    boss = make_user("boss", Role.USER, Role.ADMIN)
    writer = make_user("writer", Role.PUBLISHER)
    rows = shop.post(
        USER_TOKENS,
        {
            "items": [
                {"user_id": str(new_id())},
                {"external_id": "unknown"},
                {"user_id": str(asleep.id)},
                {"user_id": str(boss.id)},
                {"user_id": str(writer.id)},
                {"user_id": "x"},
                {},
                {"user_id": str(writer.id), "external_id": "1"},
            ]
        },
    ).body["items"]
    assert [row["status"] for row in rows] == [404, 404, 404, 403, 201, 422, 422, 422]
    fields = [[error["field"] for error in row.get("errors", ())] for row in rows]
    assert fields == [[], [], [], [], [], ["user_id"], [""], [""]]
    assert {row["code"] for row in rows if "code" in row} == {"not_found", "permission_denied", "invalid_schema"}


def test_five_hundred_tokens_cost_few_statements(db: None) -> None:
    _, shop = make_service(Scope.TOKENS_ISSUE)
    user = make_user()
    items = [{"user_id": str(user.id), "device_id": f"d{number}"} for number in range(500)]

    with CaptureQueriesContext(connection) as queries:
        rows = shop.post(USER_TOKENS, {"items": items}).body["items"]

    assert {row["status"] for row in rows} == {201}
    assert len({row["access"] for row in rows}) == 500
    assert len(queries) < (30 if connection.vendor == "sqlite" else 15)
    assert Session.objects.filter(user=user).count() == 500
    assert shop.post(USER_TOKENS, {"items": [*items, items[0]]}).status == 422


def test_only_service_accounts_with_the_scope_issue_tokens(admin: Device, device: Device, alice: User) -> None:
    _, service = make_service(Scope.NOTIFICATIONS_SEND)
    for caller in (admin, device, service):
        assert caller.post(USER_TOKENS, {"items": [{"user_id": str(alice.id)}]}).status == 403


def test_disabling_an_account_ends_the_sessions_it_opened(admin: Device, alice: User) -> None:
    account, shop = make_service(Scope.TOKENS_ISSUE)
    token = shop.post(USER_TOKENS, {"items": [{"user_id": str(alice.id)}]}).body["items"][0]["access"]
    admin.patch(f"{ACCOUNTS}/{account.id}", {"is_active": False})
    assert not is_active(token)
    assert admin.delete(f"{ACCOUNTS}/{account.id}").status == 204


@pytest.mark.req("B01")
def test_guessing_a_secret_is_limited(admin: Device) -> None:
    account = make(admin)
    guess = {**account, "client_secret": "wrong"}
    assert [token_of(guess).status for _ in range(6)] == [401] * 5 + [429]
    assert token_of(account).status == 429
