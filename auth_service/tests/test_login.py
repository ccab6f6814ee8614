from __future__ import annotations

from collections.abc import Callable

import jwt
import pytest
from auth_kit import PASSWORD, Api, introspect, log_in, make_user, with_settings

from auth_service import clock
from auth_service.accounts.actions import do_erase_user, do_set_active
from auth_service.accounts.models import User
from auth_service.accounts.password_actions import do_set_password
from auth_service.accounts.passwords import hash_password, is_outdated, is_password_of
from auth_service.audit.origin import SYSTEM
from auth_service.sessions.models import Session
from auth_service.tokens import login_actions
from auth_service.tokens.access_tokens import check_access_token, key_folder
from shared_contracts.claims import AccessTokenClaims
from shared_contracts.scopes import ROLE_SCOPES, Role, format_scope


def test_login_answers_tokens_session_and_user(api: Api, alice: User) -> None:
    answer = api.post(
        "/api/v1/auth/token",
        {"username": "alice", "password": PASSWORD, "device_id": "phone-1", "device_name": "Phone"},
        User_Agent="test/1",
    )

    assert answer.status == 200
    assert set(answer.body) == {"access", "refresh", "token_type", "expires_in", "session_id", "user"}
    assert answer.body["token_type"] == "Bearer"
    assert answer.body["expires_in"] == 900
    assert answer.body["user"]["id"] == str(alice.id)
    assert answer.body["user"]["last_login_at"].endswith("Z")
    session = Session.objects.get(id=answer.body["session_id"])
    assert (session.user_id, session.device_name, session.ip, session.user_agent) == (
        alice.id,
        "Phone",
        "127.0.0.1",
        "test/1",
    )


def test_null_says_the_same_as_leaving_an_optional_field_out(api: Api, alice: User) -> None:
    nothing = {"otp": None, "device_id": None, "device_name": None}
    assert (
        api.post("/api/v1/auth/token", {"username": "alice", "email": None, "password": PASSWORD, **nothing}).status
        == 200
    )
    assert api.post("/api/v1/auth/token", {"username": None, "email": None, "password": PASSWORD}).fields == {
        "username"
    }
    person = {"username": "nell", "email": "nell@example.org", "password": "correct-horse-9", "locale": None}
    made = api.post("/api/v1/auth/register", {**person, "timezone": None, "phone": None})
    assert (made.status, made.body["locale"], made.body["timezone"]) == (201, "en", "UTC")


def test_access_token_is_exactly_what_the_contract_says(alice: User) -> None:
    token = log_in(alice).token
    assert token is not None

    header = jwt.get_unverified_header(token)
    assert header == {"alg": "RS256", "kid": key_folder().load().signing_key(clock.now()).kid, "typ": "at+jwt"}
    payload = jwt.decode(token, options={"verify_signature": False})
    assert set(payload) == set(AccessTokenClaims.model_fields)
    claims = check_access_token(token)
    assert (claims.iss, claims.aud, claims.sub, claims.tenant) == (
        "http://127.0.0.1:8000",
        "herald",
        alice.id,
        "default",
    )
    assert claims.exp - claims.iat == 900
    assert claims.nbf == claims.iat
    assert claims.roles == ("user",)
    assert claims.scope == "inbox messages:send"


@pytest.mark.parametrize("role", [Role.USER, Role.PUBLISHER, Role.STAFF, Role.ADMIN])
def test_each_role_has_its_scopes(db: None, role: Role) -> None:
    device = log_in(make_user("someone", role))
    assert device.token is not None
    assert check_access_token(device.token).scope == format_scope(ROLE_SCOPES[role])


@pytest.mark.parametrize(
    "name", [{"username": "ALICE"}, {"email": "Alice@Example.org"}, {"username": "alice@example.org"}]
)
def test_login_takes_name_or_address_in_any_case(api: Api, alice: User, name: dict[str, str]) -> None:
    assert api.post("/api/v1/auth/token", {**name, "password": PASSWORD}).status == 200


def test_login_without_a_name_is_refused_by_field(api: Api) -> None:
    answer = api.post("/api/v1/auth/token", {"password": PASSWORD})
    assert (answer.status, answer.fields) == (422, {"username"})


@pytest.mark.req("B03")
def test_unknown_wrong_inactive_and_passwordless_look_alike(api: Api, alice: User) -> None:
    make_user("sleeper", is_active=False)
    make_user("imported", password=None)
    tries = [("nobody", PASSWORD), ("alice", "wrong"), ("sleeper", PASSWORD), ("imported", "anything")]

    answers = [api.post("/api/v1/auth/token", {"username": name, "password": word}) for name, word in tries]

    assert {answer.status for answer in answers} == {401}
    bodies = [{**answer.body, "correlation_id": ""} for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["code"] == "invalid_credentials"
    headers = [{k: v for k, v in answer.headers.items() if k != "X-Correlation-Id"} for answer in answers]
    assert all(each == headers[0] for each in headers)
    assert headers[0]["WWW-Authenticate"].startswith("Bearer")


def test_an_address_claimed_twice_belongs_to_who_proved_it(api: Api) -> None:
    make_user("first", email="shared@example.org")
    make_user("second", email="shared@example.org", email_verified=True, password="another good password")

    answer = api.post("/api/v1/auth/token", {"email": "shared@example.org", "password": "another good password"})

    assert answer.status == 200
    assert answer.body["user"]["username"] == "second"


def test_a_hash_of_yesterdays_cost_is_renewed_at_login(alice: User) -> None:
    before = alice.password
    with with_settings(argon2_time_cost=2):
        assert is_outdated(before)
        log_in(alice)
        alice.refresh_from_db()
        assert alice.password != before
        assert not is_outdated(alice.password)
        log_in(alice)


def test_introspection_of_a_fresh_token_names_the_user(alice: User) -> None:
    device = log_in(alice)
    assert device.token is not None
    found = introspect(device.token)
    assert found["active"] is True
    assert (found["sub"], found["sid"], found["username"]) == (str(alice.id), device.session_id, "alice")


def do_meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Do something between the comparison of a login's hash and the session it leads to."""

    def compare(user: User | None, password: str) -> bool:
        is_right = is_password_of(user, password)
        change()
        return is_right

    monkeypatch.setattr(login_actions, "is_password_of", compare)


@pytest.mark.req("A19", "A20", "A21")
@pytest.mark.parametrize("what", ["another password", "closed", "erased"])
def test_a_login_that_was_checked_before_the_account_changed_is_refused(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    changes: dict[str, Callable[[], object]] = {
        "another password": lambda: do_set_password(alice, "a brand new phrase", SYSTEM),
        "closed": lambda: do_set_active(alice, SYSTEM, is_active=False),
        "erased": lambda: do_erase_user(alice, SYSTEM),
    }
    do_meanwhile(monkeypatch, changes[what])
    answer = api.post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD})
    assert (answer.status, answer.code) == (401, "invalid_credentials")
    assert not Session.objects.filter(user_id=alice.id).exists()


@pytest.mark.req("A21")
def test_renewing_a_hash_does_not_bring_an_old_password_back(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_settings(argon2_time_cost=2):
        do_meanwhile(monkeypatch, lambda: do_set_password(alice, "a brand new phrase", SYSTEM))
        assert api.post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD}).status == 401
    alice.refresh_from_db()
    assert is_password_of(alice, "a brand new phrase")


def test_a_hash_that_another_login_renews_at_the_same_moment_keeps_nobody_out(
    api: Api, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    do_meanwhile(monkeypatch, lambda: User.objects.filter(id=alice.id).update(password=hash_password(PASSWORD)))
    assert api.post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD}).status == 200
