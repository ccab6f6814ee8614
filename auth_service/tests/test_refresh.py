"""Rotation, families and reuse (requirements A14 to A16, A20)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from auth_kit import (
    PASSWORD,
    Answer,
    Api,
    Device,
    is_active,
    log_in,
    make_admin,
    make_service,
    make_user,
    with_settings,
)
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from auth_service import clock
from auth_service.accounts.actions import do_set_active, do_set_roles
from auth_service.accounts.models import User
from auth_service.audit.models import AuditEvent
from auth_service.audit.origin import SYSTEM
from auth_service.identity_events.models import OutboxEvent
from auth_service.sessions.models import RefreshToken
from auth_service.tokens.access_tokens import check_access_token
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role, Scope


def refresh(token: str, **headers: str) -> Answer:
    return Api().post("/api/v1/auth/token/refresh", {"refresh": token}, **headers)


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """The same work in many threads that start together."""
    return together(*[work] * count)


def together(*works: Callable[[], Any]) -> list[Any]:
    """What each came to, all having started at the same moment."""
    start = threading.Barrier(len(works))
    results: list[Any] = []

    def run(work: Callable[[], Any]) -> None:
        start.wait()
        try:
            results.append(work())
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_refresh_answers_new_tokens_of_the_same_session(device: Device) -> None:
    answer = refresh(device.refresh)

    assert answer.status == 200
    assert set(answer.body) == {"access", "refresh", "token_type", "expires_in", "session_id", "user"}
    assert answer.body["session_id"] == device.session_id
    assert answer.body["refresh"] != device.refresh
    assert is_active(answer.body["access"])


@pytest.mark.req("A18")
def test_refresh_reads_the_roles_afresh(device: Device, alice: User) -> None:
    do_set_roles(alice, [Role.USER, Role.STAFF], SYSTEM)

    answer = refresh(device.refresh)

    assert answer.body["user"]["roles"] == ["user", "staff"]
    assert check_access_token(answer.body["access"]).roles == ("user", "staff")


@pytest.mark.parametrize("token", ["", "x", "hrt_unknown", "hrt_" + "x" * 3_000, "é" * 20])
def test_unknown_refresh_tokens_are_refused(api: Api, token: str) -> None:
    answer = refresh(token)
    assert (answer.status, "WWW-Authenticate" in answer.headers) in {(401, True), (422, False)}


@pytest.mark.req("A15")
def test_reuse_after_the_grace_ends_the_whole_session(frozen: clock.FrozenClock, device: Device, alice: User) -> None:
    other = log_in(alice, User_Agent="other/1")
    counted = REGISTRY.get_sample_value("auth_refresh_reuse_total") or 0.0
    first = refresh(device.refresh)
    frozen.advance(11)

    again = refresh(device.refresh)

    assert (again.status, again.code) == (401, "token_reused")
    assert refresh(first.body["refresh"]).status == 401
    assert not is_active(first.body["access"])
    assert not is_active(device.token or "")
    assert is_active(other.token or "")
    assert REGISTRY.get_sample_value("auth_refresh_reuse_total") == counted + 1
    assert AuditEvent.objects.filter(action="token.reused", subject_id=device.session_id).count() == 1
    event = OutboxEvent.objects.filter(type=IdentityEventType.SESSION_REVOKED).get()
    assert event.data == {"user_id": str(alice.id), "session_ids": [device.session_id], "reason": "token_reused"}


@pytest.mark.req("A16")
def test_a_lost_answer_can_be_asked_for_once_more(frozen: clock.FrozenClock, device: Device) -> None:
    first = refresh(device.refresh)
    frozen.advance(9)

    second = refresh(device.refresh)
    third = refresh(device.refresh)

    assert second.status == 200
    assert second.body["refresh"] == first.body["refresh"]
    assert (third.status, third.code) == (401, "token_reused")
    assert refresh(second.body["refresh"]).status == 200


@pytest.mark.req("A16")
@pytest.mark.parametrize("stranger", [{"User_Agent": "other/1"}, {"address": "192.0.2.9"}])
def test_a_second_use_from_another_device_is_theft_at_once(device: Device, stranger: dict[str, str]) -> None:
    first = refresh(device.refresh)
    address = stranger.pop("address", "127.0.0.1")

    stolen = Api(address=address).post("/api/v1/auth/token/refresh", {"refresh": device.refresh}, **stranger)

    assert (stolen.status, stolen.code) == (401, "token_reused")
    assert refresh(first.body["refresh"]).status == 401


@pytest.mark.req("A16")
def test_a_device_that_names_itself_may_change_its_address(device: Device) -> None:
    body = {"refresh": device.refresh, "device_id": "phone-1"}
    first = Api(address="192.0.2.1").post("/api/v1/auth/token/refresh", body)
    second = Api(address="192.0.2.2").post("/api/v1/auth/token/refresh", body)
    assert (first.status, second.status) == (200, 200)
    assert first.body["refresh"] == second.body["refresh"]


@pytest.mark.req("A14")
@pytest.mark.django_db(transaction=True)
def test_of_parallel_refreshes_one_wins(request: pytest.FixtureRequest) -> None:
    for round_number in range(int(os.environ.get("AUTH_RACE_ROUNDS", "5"))):
        device = log_in(make_user(f"racer{round_number}"))

        answers = at_once(20, lambda token=device.refresh: refresh(token))  # type: ignore[misc]

        won = [answer for answer in answers if answer.status == 200]
        assert 1 <= len(won) <= 2, [answer.status for answer in answers]
        assert {answer.status for answer in answers} <= {200, 401}
        assert len({answer.body["refresh"] for answer in won}) == 1
        assert RefreshToken.objects.filter(session_id=device.session_id).count() == 2
        assert refresh(won[0].body["refresh"]).status == 200


@pytest.mark.req("A19")
def test_an_inactive_account_cannot_refresh(device: Device, alice: User) -> None:
    do_set_active(alice, SYSTEM, is_active=False)
    assert refresh(device.refresh).status == 401
    do_set_active(alice, SYSTEM, is_active=True)
    assert refresh(device.refresh).status == 401


@pytest.mark.req("A19")
def test_an_account_switched_off_by_sql_cannot_refresh(device: Device, alice: User) -> None:
    User.objects.filter(id=alice.id).update(is_active=False)
    assert refresh(device.refresh).status == 401
    assert not is_active(device.token or "")
    assert Api(device.token).get("/api/v1/users/me").status == 401


@pytest.mark.req("A20")
def test_refresh_of_an_erased_account_is_401(device: Device) -> None:
    assert device.delete("/api/v1/users/me").status == 204
    answer = refresh(device.refresh)
    assert (answer.status, answer.code) == (401, "invalid_token")


@pytest.mark.req("A20")
@pytest.mark.django_db(transaction=True)
def test_an_account_erased_in_the_middle_of_everything_is_a_clear_answer_to_everyone() -> None:
    admin, (_, service) = make_admin(), make_service(Scope.TOKENS_ISSUE)
    group = admin.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}).body["id"]
    for round_number in range(4):
        device = log_in(make_user(f"gone{round_number}"))
        user_id = str(device.user.id)
        login = {"username": device.user.username, "password": PASSWORD}
        answers: list[Answer] = together(
            partial(admin.delete, f"/api/v1/users/{user_id}"),
            *[partial(refresh, device.refresh)] * 2,
            *[partial(Api().post, "/api/v1/auth/token", login)] * 2,
            partial(service.post, "/api/v1/auth/user-tokens", {"items": [{"user_id": user_id}]}),
            partial(admin.put, f"/api/v1/groups/{group}/members/{user_id}"),
        )
        assert {answer.status for answer in answers} <= {200, 201, 204, 401, 404}, [each.text for each in answers]
        assert not User.objects.filter(id=device.user.id).exists()
        assert device.renew().status == 401


def test_refresh_tokens_run_out(frozen: clock.FrozenClock, device: Device) -> None:
    with with_settings(session_lifetime=timedelta(days=365)):
        frozen.advance(30 * 24 * 3600 + 1)
        assert refresh(device.refresh).status == 401


def test_a_session_ends_however_often_it_is_refreshed(frozen: clock.FrozenClock, device: Device) -> None:
    statuses = []
    for _ in range(4):
        frozen.advance(25 * 24 * 3600)
        statuses.append(device.renew().status)
    assert statuses == [200, 200, 200, 401]


def test_refresh_costs_at_most_six_queries(device: Device) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert device.renew().status == 200
    statements = [query["sql"] for query in queries if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))]
    assert len(statements) <= 6, statements
