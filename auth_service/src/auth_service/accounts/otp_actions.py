"""The second factor: TOTP (RFC 6238) and recovery codes."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field

import pyotp
from django.db import transaction

from auth_service import clock
from auth_service.accounts.models import OtpDevice, RecoveryCode, User
from auth_service.accounts.vault import decrypt, encrypt
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import Conflict, InvalidInput
from auth_service.tokens.errors import InvalidOtp, OtpRequired
from auth_service.tokens.secrets import hash_secret

ISSUER_NAME = "Herald"
RECOVERY_CODE_COUNT = 10
_STEP_S = 30
# One step either way: a phone's clock may be half a minute off, and typing takes time (RFC 6238, section 5.2).
_STEPS_OFF = 1


@dataclass(frozen=True)
class Enrolment:
    """What an authenticator application needs, shown once."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)


def has_second_factor(user: User) -> bool:
    """Whether logins of this user need a code."""
    return OtpDevice.objects.filter(user=user, confirmed_at__isnull=False).exists()


def check_second_factor(user: User, otp: str | None, by: Origin) -> None:
    """Check the code of a login; nothing to do for a user without a second factor.

    Raises:
        OtpRequired: There is one, and no code was given.
        InvalidOtp: Wrong, too old, or used before.
    """
    device = OtpDevice.objects.filter(user=user, confirmed_at__isnull=False).first()
    if device is None:
        return
    if not otp:
        raise OtpRequired
    if not do_use_code(device, otp, by):
        raise InvalidOtp


def do_use_code(device: OtpDevice, otp: str, by: Origin) -> bool:
    """Use up a code of the device, or a recovery code; answer whether it was good."""
    code = otp.strip().replace(" ", "")
    if code.isascii() and code.isdigit():
        return _do_use_totp(device, code)
    used = RecoveryCode.objects.filter(user_id=device.user_id, code_hash=_hash_code(code), used_at=None)
    if not used.update(used_at=clock.now()):
        return False
    user = device.user
    do_record(
        Action.RECOVERY_CODE_USED,
        by.acting_as("user", user.id, user.tenant_id),
        subject=("user", user.id),
        details={"left": RecoveryCode.objects.filter(user=user, used_at=None).count()},
    )
    return True


def do_enrol(user: User) -> Enrolment:
    """Make a new secret. Logins go on without it until a code confirms it; asking again makes another one.

    Raises:
        Conflict: A confirmed second factor is in use; delete it first.
    """
    secret = pyotp.random_base32()
    with transaction.atomic():
        if has_second_factor(user):
            raise Conflict("A second factor is in use. Delete it first.")
        OtpDevice.objects.update_or_create(
            user=user, defaults={"secret_encrypted": encrypt(secret), "created_at": clock.now(), "last_step": 0}
        )
    return Enrolment(secret, pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER_NAME))


def do_confirm(user: User, otp: str, by: Origin) -> list[str]:
    """Switch the second factor on with a first code; answer the recovery codes, shown this once.

    Raises:
        Conflict: Nothing to confirm.
        InvalidInput: The code is wrong.
    """
    with transaction.atomic():
        device = OtpDevice.objects.select_for_update().filter(user=user, confirmed_at=None).first()
        if device is None:
            raise Conflict("There is no second factor waiting for its first code.")
        if not _do_use_totp(device, otp.strip().replace(" ", "")):
            raise InvalidInput.of("otp", "the code is wrong")
        OtpDevice.objects.filter(user=user).update(confirmed_at=clock.now())
        codes = [_make_code() for _ in range(RECOVERY_CODE_COUNT)]
        RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create([RecoveryCode(user=user, code_hash=_hash_code(code)) for code in codes])
        do_record(Action.OTP_ENABLED, by, subject=("user", user.id), tenant=user.tenant_id)
    return codes


def do_remove(user: User, by: Origin) -> None:
    """Switch the second factor off. Nothing happens when there is none."""
    with transaction.atomic():
        deleted = OtpDevice.objects.filter(user=user).delete()[0]
        RecoveryCode.objects.filter(user=user).delete()
        if deleted:
            do_record(Action.OTP_DISABLED, by, subject=("user", user.id), tenant=user.tenant_id)


def _do_use_totp(device: OtpDevice, code: str) -> bool:
    secret = decrypt(device.secret_encrypted)
    if secret is None:
        return False
    totp = pyotp.TOTP(secret)
    present = clock.timestamp_s() // _STEP_S
    for step in range(present - _STEPS_OFF, present + _STEPS_OFF + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            # One statement: of two logins with the same code one wins.
            return bool(OtpDevice.objects.filter(user_id=device.user_id, last_step__lt=step).update(last_step=step))
    return False


def _make_code() -> str:
    """80 random bits in four groups, for paper."""
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


def _hash_code(code: str) -> str:
    return hash_secret(code.lower().replace("-", ""))
