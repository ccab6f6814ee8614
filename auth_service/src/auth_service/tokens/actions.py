"""Issuing tokens for sessions: first ones, refreshed ones, tickets for sockets; and taking them back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from django.conf import settings
from django.db import transaction

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.identity_events.actions import do_emit
from auth_service.metrics import REFRESH_REUSED
from auth_service.sessions.actions import do_end_session, make_revoked_event
from auth_service.sessions.devices import Device
from auth_service.sessions.models import EndReason, RefreshToken, Session
from auth_service.tokens.access_tokens import IssuedAccessToken, check_access_token, issue_access_token
from auth_service.tokens.errors import InvalidRefreshToken, TokenReused
from auth_service.tokens.liveness import Live, check_live
from auth_service.tokens.models import SocketTicket
from auth_service.tokens.secrets import derive_secret, hash_secret, make_secret
from shared_contracts.access_tokens import RejectedToken, Rejection
from shared_contracts.claims import AccessTokenClaims

REFRESH_PREFIX = "hrt"
TICKET_PREFIX = "htk"


@dataclass(frozen=True)
class IssuedTokens:
    """What a login or a refresh hands out."""

    access: IssuedAccessToken = field(repr=False)
    refresh: str = field(repr=False)
    session: Session
    user: User


class _Refusal(Enum):
    INVALID = auto()
    REUSED = auto()


def issue_for(user: User, session: Session) -> IssuedAccessToken:
    """An access token with the roles the user has now."""
    return issue_access_token(
        subject_id=user.id, session_id=session.id, roles=user.roles, scopes=user.scopes, tenant=user.tenant_id
    )


def do_issue_first(user: User, session: Session) -> IssuedTokens:
    """The tokens of a new session."""
    refresh = make_secret(REFRESH_PREFIX)
    _make_refresh(refresh, session).save(force_insert=True)
    return IssuedTokens(issue_for(user, session), refresh, session, user)


def do_refresh(refresh: str, device: Device, by: Origin) -> IssuedTokens:
    """Trade a refresh token for new tokens. Of many callers with the same token one wins.

    The same device may ask once more within the grace time, for the answer it lost, and gets the same successor. Any
    other second use ends the whole session: one of the two users is a thief, and nobody can tell which.

    Raises:
        InvalidRefreshToken: Unknown or expired, the session is over, the account inactive or gone.
        TokenReused: It was used before.
    """
    now = clock.now()
    salt = secrets.token_urlsafe(16)
    with transaction.atomic():
        # The one statement that decides who wins: check and mark in one (A14).
        won = RefreshToken.objects.filter(token_hash=hash_secret(refresh), consumed_at=None).update(
            consumed_at=now, consumed_by=device.fingerprint, successor_salt=salt
        )
        rows = RefreshToken.objects.select_related("session__user__tenant", "session__client")
        used = rows.filter(token_hash=hash_secret(refresh)).first()
        if used is None or not _is_usable(used, now):
            outcome: IssuedTokens | _Refusal = _Refusal.INVALID
            transaction.set_rollback(True)  # unused, should the account come back
        elif won:
            outcome = _do_succeed(used, refresh, device, now)
        else:
            outcome = _do_answer_again(used, refresh, device, now, by)
    # Raised after the commit, so that the end of a stolen session is kept.
    if outcome is _Refusal.INVALID:
        raise InvalidRefreshToken
    if outcome is _Refusal.REUSED:
        raise TokenReused
    return outcome


def do_revoke(token: str, by: Origin) -> None:
    """End the session a refresh or access token belongs to. Any other text changes nothing (RFC 7009, section 2.2)."""
    session = _find_session_of(token)
    if session is not None:
        origin = by.acting_as("user", session.user_id, session.user.tenant_id)
        do_end_session(session, EndReason.TOKEN_REVOKED, origin)


def do_issue_ticket(claims: AccessTokenClaims) -> str:
    """A ticket that opens one socket within 30 s, for browsers, which cannot send a token with an upgrade."""
    ticket = make_secret(TICKET_PREFIX)
    now = clock.now()
    SocketTicket.objects.create(
        ticket_hash=hash_secret(ticket),
        session_id=claims.sid,
        claims=claims.model_dump(mode="json"),
        expires_at=now + settings.HERALD.ticket_lifetime,
    )
    Session.objects.filter(id=claims.sid).update(last_seen_at=now)
    return ticket


def do_redeem_ticket(ticket: str) -> Live:
    """The claims a ticket was bought with, once, if they still count.

    Raises:
        RejectedToken: Unknown, used, older than its life, or its token does not count any more.
    """
    now = clock.now()
    redeemable = SocketTicket.objects.filter(ticket_hash=hash_secret(ticket), redeemed_at=None, expires_at__gt=now)
    if not redeemable.update(redeemed_at=now):
        raise RejectedToken(Rejection.MALFORMED)
    claims = SocketTicket.objects.values_list("claims", flat=True).get(ticket_hash=hash_secret(ticket))
    return check_live(AccessTokenClaims.model_validate(claims))


def do_prune_tokens() -> int:
    """Delete refresh tokens and tickets that are past any use; answer how many."""
    now = clock.now()
    deleted = SocketTicket.objects.filter(expires_at__lt=now).delete()[0]
    return deleted + RefreshToken.objects.filter(expires_at__lt=now).delete()[0]


def _do_succeed(used: RefreshToken, refresh: str, device: Device, now: datetime) -> IssuedTokens:
    session = used.session
    successor = _successor_of(refresh, used)
    _make_refresh(successor, session).save(force_insert=True)
    ip = device.ip or session.ip
    Session.objects.filter(id=session.id).update(last_seen_at=now, ip=ip)
    session.last_seen_at, session.ip = now, ip
    return IssuedTokens(issue_for(session.user, session), successor, session, session.user)


def _do_answer_again(
    used: RefreshToken, refresh: str, device: Device, now: datetime, by: Origin
) -> IssuedTokens | _Refusal:
    session = used.session
    same_device = device.fingerprint == used.consumed_by
    in_time = used.consumed_at is not None and now - used.consumed_at <= settings.HERALD.refresh_grace
    if same_device and in_time:
        # Once: the retry of a lost answer. More of them are a fault of the client, not a theft.
        if RefreshToken.objects.filter(id=used.id, repeated_at=None).update(repeated_at=now):
            return IssuedTokens(issue_for(session.user, session), _successor_of(refresh, used), session, session.user)
        return _Refusal.REUSED
    REFRESH_REUSED.inc()
    user = session.user
    Session.objects.filter(id=session.id).update(ended_at=now, end_reason=EndReason.TOKEN_REUSED)
    do_record(
        Action.TOKEN_REUSED,
        by,
        subject=("session", session.id),
        tenant=user.tenant_id,
        details={"user_id": str(user.id), "same_device": same_device},
    )
    do_emit(make_revoked_event(user, EndReason.TOKEN_REUSED, session_id=session.id))
    return _Refusal.REUSED


def _is_usable(token: RefreshToken, now: datetime) -> bool:
    session = token.session
    user = session.user
    return (
        token.expires_at > now
        and session.ended_at is None
        and session.expires_at > now
        and user.is_active
        and user.tenant.is_active
    )


def _successor_of(refresh: str, used: RefreshToken) -> str:
    key = settings.HERALD.secret_key.get_secret_value()
    return derive_secret(REFRESH_PREFIX, key=key, parent=refresh, salt=used.successor_salt)


def _make_refresh(refresh: str, session: Session) -> RefreshToken:
    expires_at = min(clock.now() + settings.HERALD.refresh_lifetime, session.expires_at)
    return RefreshToken(session=session, token_hash=hash_secret(refresh), expires_at=expires_at)


def _find_session_of(token: str) -> Session | None:
    sessions = Session.objects.select_related("user")
    if token.startswith(f"{REFRESH_PREFIX}_"):
        return sessions.filter(refresh_tokens__token_hash=hash_secret(token)).first()
    try:
        claims = check_access_token(token)
    except RejectedToken:
        return None
    return sessions.filter(id=claims.sid, user_id=claims.sub).first()
