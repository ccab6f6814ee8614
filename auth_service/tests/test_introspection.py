from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jwt
import pytest
from auth_kit import (
    Answer,
    Api,
    Device,
    internal,
    introspect,
    is_active,
    log_in,
    make_service,
    make_user,
    with_settings,
)
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pydantic import SecretStr

from auth_service import clock
from auth_service.accounts.actions import do_set_roles
from auth_service.accounts.models import User
from auth_service.audit.origin import SYSTEM
from auth_service.internal_api import keys
from auth_service.service_accounts.models import ServiceAccount
from auth_service.tenants.models import Tenant
from shared_contracts.scopes import Role, Scope

INTROSPECT = "/internal/v1/tokens/introspect"
BATCH = "/internal/v1/tokens/introspect/batch"
INACTIVE = '{"active":false}'


def test_an_active_token_is_described_as_rfc_7662_says(device: Device, alice: User) -> None:
    found = introspect(device.token or "")

    assert set(found) == {
        "active",
        "sub",
        "sid",
        "jti",
        "iss",
        "aud",
        "iat",
        "nbf",
        "exp",
        "scope",
        "roles",
        "tenant",
        "token_type",
        "token_use",
        "username",
    }
    assert (found["roles"], found["scope"], found["tenant"]) == (["user"], "inbox messages:send", "default")
    assert found["sub"] == str(alice.id)


def test_a_service_accounts_token_names_the_client(db: None) -> None:
    account, service = make_service(Scope.NOTIFICATIONS_SEND)
    found = introspect(service.token or "")
    assert (found["client_id"], found["roles"], found["sub"]) == (account.client_id, ["service"], str(account.id))
    assert "username" not in found


def test_forms_are_read_where_the_standard_names_them(device: Device) -> None:
    def form(api: Api, path: str, body: bytes) -> Answer:
        return api.post(path, body, Content_Type="application/x-www-form-urlencoded")

    token = (device.token or "").encode()
    assert form(internal(), INTROSPECT, b"token_type_hint=access_token&token=" + token).body["active"] is True
    assert form(internal(), INTROSPECT, b"token=%FF%00").status == 400
    assert form(internal(), INTROSPECT, b"").status == 422
    assert form(internal(), BATCH, b"tokens=x").status == 415
    assert form(Api(), "/api/v1/auth/token/revoke", b"token=" + token).status == 200
    assert form(internal(), INTROSPECT, b"token=" + token).text == INACTIVE


@pytest.mark.req("A26")
def test_whatever_does_not_count_is_answered_with_the_same_bytes(device: Device, alice: User) -> None:
    ended = log_in(alice)
    ended.post("/api/v1/auth/logout")
    tokens = ["", "x", "a.b.c", device.refresh, ended.token, (device.token or "")[:-2], "ü" * 50, "\x00"]
    for token in tokens:
        answer = internal().post(INTROSPECT, {"token": token})
        if "\x00" in (token or ""):
            assert answer.status == 422
            continue
        assert (answer.status, answer.text) == (200, INACTIVE)
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.req("A25")
@pytest.mark.parametrize("path", [INTROSPECT, BATCH, "/internal/v1/tickets/redeem"])
def test_only_the_internal_key_opens_the_internal_api(device: Device, path: str) -> None:
    body = {"token": device.token}
    for caller in (
        Api(),
        Api(device.token),
        Api(headers={"X-Internal-Key": "wrong"}),
        Api(headers={"X-Internal-Key": ""}),
    ):
        answer = caller.post(path, body)
        assert (answer.status, answer.code) == (401, "not_authenticated")
        assert "WWW-Authenticate" in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.req("A25")
def test_introspection_by_get_is_405_for_everyone(api: Api) -> None:
    assert api.get(INTROSPECT).status == 405
    answer = internal().get(INTROSPECT)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.req("A25")
def test_guessing_the_internal_key_is_limited_and_the_right_key_is_not(device: Device) -> None:
    guesses = [Api(headers={"X-Internal-Key": f"guess-{n}"}).post(INTROSPECT, {"token": "x"}) for n in range(32)]
    assert [answer.status for answer in guesses] == [401] * 30 + [429] * 2
    assert int(guesses[-1].headers["Retry-After"]) > 0
    assert is_active(device.token or "")


@pytest.mark.req("A27")
def test_two_keys_count_at_once(device: Device) -> None:
    with with_settings(internal_service_key=SecretStr("the-new-key-of-24-characters, the-old-key-of-24-characters")):
        for key in ("the-new-key-of-24-characters", "the-old-key-of-24-characters"):
            assert Api(headers={"X-Internal-Key": key}).post(INTROSPECT, {"token": "x"}).status == 200
        assert internal().post(INTROSPECT, {"token": "x"}).status == 401


@pytest.mark.req("A27")
def test_keys_in_a_file_rotate_without_a_restart(db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_RECHECK_S", 0.0)
    monkeypatch.setattr(keys, "_file", keys.KeyFile())
    path = tmp_path / "keys"
    path.write_text("first-key-with-24-characters\n")

    def status(key: str) -> int:
        return Api(headers={"X-Internal-Key": key}).post(INTROSPECT, {"token": "x"}).status

    with with_settings(internal_service_key_file=path):
        assert status("first-key-with-24-characters") == 200
        path.write_text("second-key-with-24-characters,first-key-with-24-characters")
        assert status("first-key-with-24-characters") == status("second-key-with-24-characters") == 200
        path.write_text("second-key-with-24-characters")
        assert status("first-key-with-24-characters") == 401
        assert status("second-key-with-24-characters") == 200
        path.unlink()
        assert status("second-key-with-24-characters") == 401
        assert status("") == 401


@pytest.mark.req("A18")
def test_introspection_tells_the_rights_of_this_moment(device: Device, alice: User) -> None:
    do_set_roles(alice, [Role.USER, Role.STAFF], SYSTEM)
    assert introspect(device.token or "")["roles"] == ["user", "staff"]
    do_set_roles(alice, [Role.USER], SYSTEM)
    assert introspect(device.token or "")["scope"] == "inbox messages:send"


def test_introspection_costs_two_queries(device: Device) -> None:
    _, service = make_service(Scope.USERS_READ)
    for token in (device.token, service.token):
        with CaptureQueriesContext(connection) as queries:
            introspect(token or "")
        assert len(queries) <= 2, [query["sql"] for query in queries]


def test_a_batch_answers_like_one_by_one_in_three_queries(device: Device, alice: User) -> None:
    _, service = make_service(Scope.TOKENS_ISSUE)
    others = [log_in(make_user()) for _ in range(20)]
    others[3].post("/api/v1/auth/logout")
    issued = service.post("/api/v1/auth/user-tokens", {"items": [{"user_id": str(make_user().id)} for _ in range(3)]})
    by_client = [item["access"] for item in issued.body["items"]]
    tokens = ["junk", device.token, service.token, *by_client, *(other.token for other in others)]

    with CaptureQueriesContext(connection) as queries:
        answer = internal().post(BATCH, {"tokens": tokens})

    assert answer.body["items"] == [introspect(token or "") for token in tokens]
    assert [item["active"] for item in answer.body["items"]].count(False) == 2
    assert len(queries) <= 3


@pytest.mark.req("A19", "A20", "A22", "A26")
def test_a_batch_says_what_ended_and_only_for_what_was_signed_here(device: Device, alice: User, admin: Device) -> None:
    names = ("logged out", "closed", "erased", "refreshable", "by a client")
    people = {name: make_user() for name in names}
    devices = {name: log_in(person) for name, person in people.items()}
    devices["logged out"].post("/api/v1/auth/logout")
    admin.post(f"/api/v1/users/{people['closed'].id}/deactivate")
    admin.delete(f"/api/v1/users/{people['erased'].id}")
    User.objects.filter(id=people["refreshable"].id).update(tokens_not_before=clock.now())
    client, service = make_service(Scope.TOKENS_ISSUE)
    issued = service.post("/api/v1/auth/user-tokens", {"items": [{"user_id": str(people["by a client"].id)}]})
    ServiceAccount.objects.filter(id=client.id).update(is_active=False)
    Tenant.objects.create(slug="closing", name="Closing")
    of_tenant = log_in(make_user(tenant="closing"))
    Tenant.objects.filter(slug="closing").update(is_active=False)
    expected = {
        "junk": None,
        (devices["logged out"].token or "")[:-2]: None,
        devices["logged out"].refresh or "": None,
        device.token or "": None,
        devices["logged out"].token or "": "session_ended",
        devices["closed"].token or "": "account_closed",
        devices["erased"].token or "": "account_closed",
        devices["refreshable"].token or "": None,
        issued.body["items"][0]["access"]: "session_ended",
        of_tenant.token or "": "account_closed",
    }

    with CaptureQueriesContext(connection) as queries:
        answer = internal().post(BATCH, {"tokens": list(expected)})

    assert dict(zip(expected, answer.body["endings"], strict=True)) == expected
    assert [item for item in answer.body["items"] if not item["active"]] == [{"active": False}] * (len(expected) - 1)
    assert len(queries) <= 4


@pytest.mark.parametrize("tokens", [[], ["x"] * 501, None, "x", [1]])
def test_a_batch_has_1_to_500_tokens(db: None, tokens: Any) -> None:
    assert internal().post(BATCH, {"tokens": tokens}).status == 422


@pytest.mark.req("D03")
def test_a_ticket_is_worth_its_claims_once(device: Device) -> None:
    bought = device.post("/api/v1/auth/ws-ticket")
    assert (bought.status, bought.body["expires_in"]) == (200, 30)

    first = internal().post("/internal/v1/tickets/redeem", {"ticket": bought.body["ticket"]})
    second = internal().post("/internal/v1/tickets/redeem", {"ticket": bought.body["ticket"]})

    answered = first.body
    signed_again = answered.pop("access")
    assert answered == introspect(device.token or "") == introspect(signed_again)
    assert jwt.decode(signed_again, options={"verify_signature": False}) == jwt.decode(
        device.token or "", options={"verify_signature": False}
    )
    assert second.text == INACTIVE


@pytest.mark.req("D03")
def test_a_ticket_is_worth_nothing_after_30_seconds_or_the_session(frozen: Any, device: Device, alice: User) -> None:
    late = device.post("/api/v1/auth/ws-ticket").body["ticket"]
    frozen.advance(31)
    assert internal().post("/internal/v1/tickets/redeem", {"ticket": late}).text == INACTIVE

    ticket = device.post("/api/v1/auth/ws-ticket").body["ticket"]
    device.post("/api/v1/auth/logout")
    assert internal().post("/internal/v1/tickets/redeem", {"ticket": ticket}).text == INACTIVE


@pytest.mark.django_db(transaction=True)
@pytest.mark.req("D03")
def test_of_parallel_redemptions_one_wins() -> None:
    device = log_in(make_user("racer"))
    ticket = device.post("/api/v1/auth/ws-ticket").body["ticket"]
    answers: list[str] = []
    start = threading.Barrier(10)

    def redeem() -> None:
        start.wait()
        answers.append(internal().post("/internal/v1/tickets/redeem", {"ticket": ticket}).text)
        connection.close()

    threads = [threading.Thread(target=redeem) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer == INACTIVE for answer in answers) == [False, *([True] * 9)]
