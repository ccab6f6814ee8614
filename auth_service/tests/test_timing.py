"""Whether time tells what text does not (requirement B04)."""

from __future__ import annotations

import time

import pytest
from auth_kit import Api, make_user, with_settings

from auth_service.accounts.passwords import hash_of_nobody
from auth_service.rate_limits.models import RateCount

pytestmark = pytest.mark.only_on("sqlite")


@pytest.mark.req("B04")
def test_a_login_takes_as_long_for_known_unknown_inactive_and_passwordless(db: None) -> None:
    # A hash of 10 ms or so: less than in production, but far more than the rest of a login.
    with with_settings(
        argon2_memory_kib=8_192,
        argon2_time_cost=2,
        login_failures_per_account=10_000,
        login_failures_per_address=10_000,
    ):
        hash_of_nobody.cache_clear()
        make_user("known")
        make_user("asleep", is_active=False)
        make_user("imported", password=None)
        names = ("known", "nobody", "asleep", "imported")
        took_ms: dict[str, list[float]] = {name: [] for name in names}
        for round_number in range(18):
            for name in names:
                body = {"username": name, "password": f"wrong {round_number}"}
                started_s = time.process_time()
                status = Api().post("/api/v1/auth/token", body).status
                if round_number >= 3:  # the first ones load and warm what they need
                    took_ms[name].append((time.process_time() - started_s) * 1_000)
                assert status == 401
    hash_of_nobody.cache_clear()
    # The work itself, in processor time: what else the machine does would show in the clock's.
    least = {name: min(values) for name, values in took_ms.items()}
    assert max(least.values()) / min(least.values()) < 1.15, least
    assert RateCount.objects.exists()
