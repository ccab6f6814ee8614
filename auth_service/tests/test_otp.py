from __future__ import annotations

from datetime import timedelta

import pyotp
import pytest
from auth_kit import PASSWORD, Answer, Api, Device, log_in, with_settings
from pydantic import SecretStr

from auth_service import clock
from auth_service.accounts.models import OtpDevice, RecoveryCode, User
from auth_service.audit.models import AuditEvent

OTP = "/api/v1/users/me/otp"


def code(secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(clock.timestamp_s() + 30 * steps)


def enrol(device: Device) -> tuple[str, list[str]]:
    begun = device.post(OTP)
    assert begun.status == 200, begun.text
    secret = begun.body["secret"]
    assert begun.body["otpauth_uri"].startswith("otpauth://totp/Herald:alice?")
    confirmed = device.post(f"{OTP}/confirm", {"otp": code(secret, -1)})
    assert confirmed.status == 200, confirmed.text
    return secret, confirmed.body["recovery_codes"]


def login(**more: str) -> Answer:
    return Api().post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD, **more})


def test_a_login_needs_a_code_once_the_factor_is_confirmed(frozen: clock.FrozenClock, device: Device) -> None:
    device.post(OTP)
    assert login().status == 200  # not confirmed yet
    secret, _ = enrol(device)

    asked = login()
    assert (asked.status, asked.code) == (401, "otp_required")
    assert (login(otp="000000").status, login(otp="000000").code) == (401, "invalid_otp")
    assert (login(otp="١٢٣٤٥٦").status, login(otp="١٢٣٤٥٦").code) == (401, "invalid_otp")
    frozen.advance(600)
    assert login(otp=code(secret)).status == 200


def test_a_wrong_password_never_asks_for_a_code(frozen: clock.FrozenClock, device: Device) -> None:
    secret, _ = enrol(device)
    answer = Api().post("/api/v1/auth/token", {"username": "alice", "password": "wrong", "otp": code(secret)})
    assert answer.code == "invalid_credentials"


def test_each_code_works_once(frozen: clock.FrozenClock, device: Device) -> None:
    secret, _ = enrol(device)
    assert login(otp=code(secret)).status == 200
    assert login(otp=code(secret)).code == "invalid_otp"
    assert login(otp=code(secret, -1)).code == "invalid_otp"  # older than the last one used
    frozen.advance(30)
    assert login(otp=code(secret)).status == 200


@pytest.mark.parametrize(("steps", "good"), [(-2, False), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_half_a_minute_off(frozen: clock.FrozenClock, device: Device, steps: int, good: bool) -> None:
    secret, _ = enrol(device)
    frozen.advance(timedelta(minutes=5))
    assert (login(otp=code(secret, steps)).status == 200) is good


def test_each_recovery_code_works_once_in_any_case(frozen: clock.FrozenClock, device: Device, alice: User) -> None:
    _, codes = enrol(device)
    assert len(set(codes)) == 10
    assert login(otp=codes[0].upper()).status == 200
    assert login(otp=codes[0]).code == "invalid_otp"
    assert login(otp=codes[1].replace("-", " ")).status == 200
    assert RecoveryCode.objects.filter(user=alice, used_at=None).count() == 8
    assert AuditEvent.objects.filter(action="recovery_code.used", actor_id=alice.id).count() == 2


@pytest.mark.req("B01")
def test_guessing_codes_is_limited_like_guessing_passwords(frozen: clock.FrozenClock, device: Device) -> None:
    secret, _ = enrol(device)
    statuses = [login(otp=f"00000{number}").status for number in range(6)]
    assert statuses == [401] * 5 + [429]
    assert login(otp=code(secret)).status == 429


def test_asking_for_a_code_is_no_failure(frozen: clock.FrozenClock, device: Device) -> None:
    secret, _ = enrol(device)
    for _ in range(8):
        assert login().code == "otp_required"
    assert login(otp=code(secret)).status == 200


def test_the_factor_is_removed_shortly_after_a_login_or_with_proof(frozen: clock.FrozenClock, device: Device) -> None:
    secret, codes = enrol(device)
    frozen.advance(timedelta(minutes=11))

    refused = device.delete(OTP)
    assert (refused.status, refused.code) == (403, "reauthentication_required")
    assert device.delete(OTP, {"otp": "000000"}).code == "invalid_otp"
    assert device.delete(OTP, {"password": "wrong"}).status == 403
    assert device.delete(OTP, {"otp": codes[3]}).status == 204
    assert login().status == 200
    assert device.delete(OTP, {"password": PASSWORD}).status == 204  # nothing there: nothing happens

    fresh = log_in(device.user)
    enrol(fresh)
    assert fresh.delete(OTP).status == 204
    assert not RecoveryCode.objects.exists()
    assert AuditEvent.objects.filter(action="otp.disabled").count() == 2
    assert secret


def test_one_factor_at_a_time(frozen: clock.FrozenClock, device: Device) -> None:
    enrol(device)
    assert device.post(OTP).status == 409
    assert device.post(f"{OTP}/confirm", {"otp": "123456"}).status == 409


def test_a_wrong_first_code_switches_nothing_on(frozen: clock.FrozenClock, device: Device) -> None:
    device.post(OTP)
    assert device.post(f"{OTP}/confirm", {"otp": "000000"}).fields == {"otp"}
    assert login().status == 200


@pytest.mark.req("A17")
def test_the_secret_is_stored_encrypted_and_survives_a_new_secret_key(
    frozen: clock.FrozenClock, device: Device, alice: User
) -> None:
    secret, codes = enrol(device)
    stored = OtpDevice.objects.get(user=alice).secret_encrypted
    assert secret not in stored
    hashes = list(RecoveryCode.objects.values_list("code_hash", flat=True))
    assert not any(each.replace("-", "") in each_hash for each in codes for each_hash in hashes)

    from django.conf import settings

    old = settings.HERALD.secret_key
    with with_settings(secret_key=SecretStr("x" * 40), secret_key_fallbacks=(old,)):
        assert login(otp=code(secret)).status == 200
    with with_settings(secret_key=SecretStr("x" * 40)):
        frozen.advance(60)
        assert login(otp=code(secret)).code == "invalid_otp"
