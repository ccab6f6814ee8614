from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest
from auth_kit import PASSWORD, Answer, Api, make_user, with_settings
from hypothesis import given
from hypothesis import strategies as st

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.api.client_address import find_client_address
from auth_service.config.environment import AuthSettings
from auth_service.rate_limits.actions import Limit, Use, check_below, do_count, do_prune
from auth_service.rate_limits.limits import address_key
from auth_service.rate_limits.models import RateCount

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8::1"))


def login(password: str, *, username: str = "alice", address: str = "192.0.2.1", **headers: str) -> Answer:
    return Api(address=address).post("/api/v1/auth/token", {"username": username, "password": password}, **headers)


@pytest.mark.req("B01")
def test_five_failures_stop_an_account_for_five_minutes_even_for_the_right_password(
    frozen: clock.FrozenClock, alice: User
) -> None:
    assert [login("wrong").status for _ in range(5)] == [401] * 5
    frozen.advance(60)
    refused = login(PASSWORD)
    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (429, "rate_limited", "240")
    assert login(PASSWORD, username="alice@example.org").status == 429  # the account, not the name
    assert login(PASSWORD, address="198.51.100.7").status == 429
    frozen.advance(239)
    assert login(PASSWORD).status == 429
    frozen.advance(1)
    assert login(PASSWORD).status == 200


@pytest.mark.req("B01", "B03")
def test_unknown_names_are_stopped_the_same_way(alice: User) -> None:
    known = [login("wrong").status for _ in range(7)]
    unknown = [login("wrong", username="nobody", address="192.0.2.2").status for _ in range(7)]
    assert known == unknown == [401] * 5 + [429] * 2


@pytest.mark.req("B01")
def test_ten_failures_stop_an_address_for_a_minute(frozen: clock.FrozenClock, alice: User) -> None:
    statuses = [login("wrong", username=f"name{number}").status for number in range(11)]
    assert statuses == [401] * 10 + [429]
    assert login(PASSWORD).status == 429
    assert login(PASSWORD, address="192.0.2.2").status == 200
    frozen.advance(60)
    assert login(PASSWORD).status == 200


@pytest.mark.req("B01")
def test_a_success_starts_the_account_over(alice: User) -> None:
    for _ in range(3):
        assert [login("wrong", address="192.0.2.1").status for _ in range(3)] == [401] * 3
        assert login(PASSWORD).status == 200


@pytest.mark.req("B02")
def test_a_forged_header_changes_nothing(alice: User) -> None:
    statuses = [
        login("wrong", username=f"name{number}", X_Forwarded_For=f"203.0.113.{number}").status for number in range(11)
    ]
    assert statuses[-1] == 429


@pytest.mark.req("B02")
def test_a_listed_proxy_is_believed(alice: User) -> None:
    with with_settings(trusted_proxies=PROXIES):
        statuses = [
            login("wrong", username=f"n{n}", address="10.0.0.1", X_Forwarded_For=f"203.0.113.{n}").status
            for n in range(11)
        ]
        assert statuses == [401] * 11
        same = [
            login("wrong", username=f"m{n}", address="10.0.0.1", X_Forwarded_For=f"1.2.3.{n}, 203.0.113.99").status
            for n in range(11)
        ]
        assert same[-1] == 429  # what the client itself put in front counts for nothing


@pytest.mark.req("B02")
@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "203.0.113.1", "192.0.2.1"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.1", "203.0.113.1"),
        ("10.1.1.1", "203.0.113.1, 10.2.2.2", "203.0.113.1"),
        ("10.1.1.1", "6.6.6.6, 203.0.113.1, 10.2.2.2", "203.0.113.1"),
        ("10.1.1.1", "nonsense", "10.1.1.1"),
        ("10.1.1.1", "203.0.113.1, nonsense", "10.1.1.1"),
        ("2001:db8::1", "2001:db8:f::7", "2001:db8:f::7"),
        ("::ffff:10.1.1.1", "203.0.113.1", "203.0.113.1"),
        ("", "203.0.113.1", None),
    ],
)
def test_the_client_is_the_last_hop_that_no_proxy_vouches_away(peer: str, header: str, client: str | None) -> None:
    assert find_client_address(peer, header, PROXIES) == client


@pytest.mark.req("B02")
@given(header=st.text(max_size=60))
def test_no_header_makes_an_unlisted_peer_someone_else(header: str) -> None:
    assert find_client_address("192.0.2.1", header, PROXIES) == "192.0.2.1"


def test_an_ipv6_neighbourhood_counts_as_one_address() -> None:
    assert address_key("2001:db8:1:2::1") == address_key("2001:db8:1:2:ffff::9")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")


def test_registration_is_limited_per_address(db: None) -> None:
    def register(number: int, address: str = "192.0.2.1") -> int:
        body = {"username": f"u{number}", "email": f"u{number}@example.org", "password": PASSWORD}
        return Api(address=address).post("/api/v1/auth/register", body).status

    with with_settings(register_per_address=3):
        assert [register(number) for number in range(4)] == [201, 201, 201, 429]
        assert register(9, "192.0.2.2") == 201


def test_registration_limits_are_generous_in_development_and_strict_in_production() -> None:
    from auth_service.config.environment import Environment

    settings = AuthSettings()
    assert settings.registrations_per_minute == 600
    assert settings.model_copy(update={"environment": Environment.PRODUCTION}).registrations_per_minute == 20


def test_windows_open_with_the_first_count_and_are_pruned(frozen: clock.FrozenClock, db: None) -> None:
    use = Use(Limit("test", 2, timedelta(seconds=10)), "someone")
    assert [do_count(use), do_count(use)] == [1, 2]
    with pytest.raises(Exception, match="Too many"):
        check_below(use)
    frozen.advance(10)
    check_below(use)
    assert do_count(use) == 1
    assert do_prune() == 0
    frozen.advance(10)
    assert do_prune() == 1
    assert not RateCount.objects.exists()


@pytest.mark.req("A17")
def test_keys_of_limits_are_not_stored_in_clear(alice: User) -> None:
    login("wrong", username="someone@example.org")
    assert all(len(key) == 64 for key in RateCount.objects.values_list("key", flat=True))
    make_user()
