from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from auth_kit import NOON, Api, Device, is_active, log_in, make_service, make_user
from hypothesis import given
from hypothesis import strategies as st

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.identity_events.models import OutboxEvent
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.models import Session
from auth_service.tokens.access_tokens import check_access_token
from auth_service.tokens.liveness import is_cut_off
from auth_service.tokens.models import GlobalCutOff
from shared_contracts.identity_events import IdentityEventType

MOMENTS = st.datetimes(timezones=st.just(UTC))


@pytest.mark.req("A22")
def test_logout_ends_this_session_alone(device: Device, alice: User) -> None:
    other = log_in(alice)

    assert device.post("/api/v1/auth/logout").status == 204

    assert not is_active(device.token or "")
    assert device.get("/api/v1/users/me").status == 401
    assert device.renew().status == 401
    assert is_active(other.token or "")
    assert other.renew().status == 200
    event = OutboxEvent.objects.get(type=IdentityEventType.SESSION_REVOKED)
    assert event.data == {"user_id": str(alice.id), "session_ids": [device.session_id], "reason": "logout"}


def test_logout_all_ends_every_session(device: Device, alice: User) -> None:
    other = log_in(alice)

    assert device.post("/api/v1/auth/logout-all").status == 204

    assert not any(is_active(each.token or "") for each in (device, other))
    assert OutboxEvent.objects.get(type=IdentityEventType.SESSION_REVOKED).data == {
        "user_id": str(alice.id),
        "session_ids": None,
        "reason": "logout_all",
    }


@pytest.mark.req("B11")
def test_users_see_their_devices_without_anything_secret(device: Device, alice: User) -> None:
    phone = log_in(alice, device_id="phone-1", User_Agent="phone/1")

    listed = phone.get("/api/v1/users/me/sessions").body["items"]

    assert [each["id"] for each in listed] == [phone.session_id, device.session_id]
    assert [each["current"] for each in listed] == [True, False]
    assert set(listed[0]) == {
        "id",
        "device_id",
        "device_name",
        "ip",
        "user_agent",
        "created_at",
        "last_seen_at",
        "expires_at",
        "current",
    }


@pytest.mark.req("B11")
def test_users_can_end_one_of_their_sessions(device: Device, alice: User) -> None:
    other = log_in(alice)
    path = f"/api/v1/users/me/sessions/{other.session_id}"

    assert device.delete(path).status == 204
    assert device.delete(path).status == 404

    assert not is_active(other.token or "")
    assert is_active(device.token or "")


@pytest.mark.req("C01")
def test_someone_elses_session_is_not_found_and_goes_on(device: Device) -> None:
    bob = log_in(make_user("bob"))
    assert bob.delete(f"/api/v1/users/me/sessions/{device.session_id}").status == 404
    assert is_active(device.token or "")


@pytest.mark.req("A29")
@pytest.mark.parametrize("token", ["x", "hrt_unknown", "a.b.c"])
def test_revoking_an_unknown_token_is_200(api: Api, token: str) -> None:
    assert api.post("/api/v1/auth/token/revoke", {"token": token}).status == 200


@pytest.mark.parametrize("which", ["refresh", "token"])
def test_revoking_either_token_ends_the_session(device: Device, which: str) -> None:
    answer = Api().post("/api/v1/auth/token/revoke", {"token": getattr(device, which)})
    assert answer.status == 200
    assert not is_active(device.token or "")
    assert device.renew().status == 401


def test_an_administrator_ends_the_sessions_of_a_user(admin: Device, device: Device, alice: User) -> None:
    path = f"/api/v1/users/{alice.id}/sessions"
    assert [each["id"] for each in admin.get(path).body["items"]] == [device.session_id]
    assert admin.delete(path).status == 204
    assert not is_active(device.token or "")


def test_last_seen_moves_with_every_refresh(frozen: clock.FrozenClock, device: Device) -> None:
    frozen.advance(600)
    device.renew()
    session = Session.objects.get(id=device.session_id)
    assert session.last_seen_at == NOON + timedelta(seconds=600)


@pytest.mark.req("A23")
@given(issued=MOMENTS, cut_offs=st.lists(st.none() | MOMENTS, max_size=4))
def test_the_latest_cut_off_decides(issued: datetime, cut_offs: list[datetime | None]) -> None:
    later = [each for each in cut_offs if each is not None and each > issued]
    assert is_cut_off(issued, cut_offs) == bool(later)


@pytest.mark.req("A23")
@pytest.mark.parametrize("levels", list(itertools.product([False, True], repeat=4)))
def test_a_cut_off_at_any_level_counts(
    frozen: clock.FrozenClock, alice: User, levels: tuple[bool, bool, bool, bool]
) -> None:
    account, shop = make_service("tokens:issue")
    token = shop.post("/api/v1/auth/user-tokens", {"items": [{"user_id": str(alice.id)}]}).body["items"][0]["access"]
    claims = check_access_token(token)
    frozen.advance(1)
    at = [clock.now() if level else NOON - timedelta(hours=1) for level in levels]

    GlobalCutOff.objects.update_or_create(id=1, defaults={"tokens_not_before": at[0]})
    User.objects.filter(id=alice.id).update(tokens_not_before=at[1])
    Session.objects.filter(id=claims.sid).update(tokens_not_before=at[2])
    ServiceAccount.objects.filter(id=account.id).update(tokens_not_before=at[3])

    assert is_active(token) is not any(levels)


@pytest.mark.req("A23")
def test_a_token_issued_a_millisecond_after_a_cut_off_counts(frozen: clock.FrozenClock, alice: User) -> None:
    User.objects.filter(id=alice.id).update(tokens_not_before=clock.now())
    frozen.advance(timedelta(milliseconds=-1))
    early = log_in(alice)
    frozen.advance(timedelta(milliseconds=2))
    late = log_in(alice)
    assert not is_active(early.token or "")
    assert is_active(late.token or "")
