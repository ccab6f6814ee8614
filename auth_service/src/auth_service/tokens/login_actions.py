"""Logging in with a password: limits, the check itself, and what is written down about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from django.db import transaction

from auth_service import clock
from auth_service.accounts.lookup import find_by_login
from auth_service.accounts.models import User
from auth_service.accounts.names import make_email_key
from auth_service.accounts.otp_actions import check_second_factor
from auth_service.accounts.passwords import hash_password, is_outdated, is_password_of
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import RateLimited
from auth_service.identity_events.actions import do_emit
from auth_service.metrics import LOGINS
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import Use, check_below, do_count, do_forget
from auth_service.sessions.actions import do_open_session
from auth_service.sessions.devices import Device
from auth_service.tokens.actions import IssuedTokens, do_issue_first
from auth_service.tokens.errors import InvalidCredentials, OtpRequired, Unauthenticated

_ONE_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Credentials:
    """What someone typed. Exactly one of `username` and `email` is given."""

    password: str = field(repr=False)
    username: str | None = None
    email: str | None = None
    otp: str | None = field(default=None, repr=False)

    @property
    def typed_key(self) -> str:
        """The name as typed, folded: counts failures where there is no account to count them for."""
        return make_email_key(self.username or self.email or "")


def check_credentials(credentials: Credentials, by: Origin) -> User:
    """The user these credentials belong to, active, second factor included.

    Raises:
        RateLimited: Too many failures of this account or from this address, also for the right password (B01).
        InvalidCredentials: Wrong name or password, unknown, inactive or password-less account: all alike (B03).
        OtpRequired: The password is right and a code is needed.
        InvalidOtp: The code is wrong.

    What it found may change before the caller acts on it: see `_do_enter`.
    """
    user = find_by_login(username=credentials.username, email=credentials.email)
    uses = (
        limits.failed_login_of_account(str(user.id) if user else credentials.typed_key),
        limits.failed_login_from_address(by.ip),
    )
    check_below(*uses)
    try:
        _check_password(user, credentials.password)
        assert user is not None
        check_second_factor(user, credentials.otp, by)
    except Unauthenticated as refusal:
        _do_note_failure(user, refusal, uses, by)
        raise
    # Guesses that ran at the same time may have used the limit up meanwhile: then this one must not tell (B01).
    check_below(*uses)
    do_forget(uses[0])
    if is_outdated(user.password):
        _do_renew_hash(user, credentials.password)
    return user


def do_log_in(credentials: Credentials, device: Device, by: Origin) -> IssuedTokens:
    """Check credentials and begin a session.

    Raises:
        ServiceError: As `check_credentials` does.
    """
    user = check_credentials(credentials, by)
    with transaction.atomic():
        _do_enter(user)
        session, events = do_open_session(user, device)
        issued = do_issue_first(user, session)
        do_record(
            Action.LOGIN_SUCCEEDED,
            by.acting_as("user", user.id, user.tenant_id),
            subject=("session", session.id),
            details={"second_factor": credentials.otp is not None, "new_device": bool(events)},
        )
        do_emit(*events)
    LOGINS.labels(outcome="succeeded").inc()
    return issued


def _do_enter(user: User) -> None:
    """Lock the account for the rest of the transaction, if it still is what the credentials were checked against.

    Comparing a hash takes tens of milliseconds. Who changes the password or closes the account meanwhile ends every
    session there is, and this one is not there yet: it must not begin (A19, A21). The lock has the other one wait.
    """
    now = clock.now()
    # By the time of the change, not by the hash: that is renewed without the password being another one.
    unchanged = User.objects.filter(id=user.id, is_active=True, password_changed_at=user.password_changed_at)
    if not unchanged.update(last_login_at=now):
        raise InvalidCredentials
    user.last_login_at = now


def _do_renew_hash(user: User, password: str) -> None:
    """Hash the password anew, at today's cost, unless it was changed meanwhile."""
    renewed = hash_password(password)
    if User.objects.filter(id=user.id, password=user.password).update(password=renewed):
        user.password = renewed


def _check_password(user: User | None, password: str) -> None:
    is_right = is_password_of(user, password)
    if user is None or not is_right or not user.is_active or not user.tenant.is_active:
        raise InvalidCredentials


def _do_note_failure(user: User | None, refusal: Unauthenticated, uses: tuple[Use, ...], by: Origin) -> None:
    if isinstance(refusal, OtpRequired):
        return  # the first half of a login that is going well
    counts = [do_count(use) for use in uses]
    do_record(
        Action.LOGIN_FAILED,
        by,
        subject=("user", user.id) if user else None,
        tenant=user.tenant_id if user else None,
        details={"reason": refusal.code},
    )
    LOGINS.labels(outcome="failed").inc()
    if any(count > use.limit.count for count, use in zip(counts, uses, strict=True)):
        check_below(*uses)
        # A login that succeeded at the same moment has started the count over: this guess is still one too many.
        raise RateLimited(_ONE_SECOND)
