"""Proof that the owner of an account is asking, not whoever holds a token of theirs."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings

from auth_service import clock
from auth_service.accounts.errors import ReauthenticationRequired
from auth_service.accounts.models import OtpDevice
from auth_service.accounts.otp_actions import do_use_code
from auth_service.accounts.password_actions import check_current_password
from auth_service.api.caller import Caller
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import check_below, do_count_within
from auth_service.sessions.models import Session
from auth_service.tokens.errors import InvalidOtp


def check_recent_proof(caller: Caller, proof: Mapping[str, str]) -> None:
    """Accept a code, the password, or a login of the last minutes.

    Raises:
        ReauthenticationRequired: None of them.
        WrongPassword: The password is wrong.
        InvalidOtp: The code is wrong.
        RateLimited: Wrong too often.
    """
    user, session_id = caller.user, caller.session_id
    assert user is not None
    assert session_id is not None
    if "password" in proof:
        check_current_password(user, proof["password"])
        return
    if "otp" in proof:
        use = limits.failed_password_check(str(user.id))
        check_below(use)
        device = OtpDevice.objects.select_related("user").filter(user=user, confirmed_at__isnull=False).first()
        if device is None or not do_use_code(device, proof["otp"], caller.origin):
            do_count_within(use)
            raise InvalidOtp
        return
    since = clock.now() - settings.HERALD.sudo_lifetime
    if not Session.objects.filter(id=session_id, client=None, created_at__gte=since).exists():
        raise ReauthenticationRequired
