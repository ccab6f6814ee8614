"""Whether a token with good claims still counts: its session, its subject, and every cut-off time above them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.db.models import QuerySet

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.models import Session
from auth_service.tokens.models import GlobalCutOff
from shared_contracts.access_tokens import RejectedToken, Rejection
from shared_contracts.claims import AccessTokenClaims
from shared_contracts.scopes import Role, Scope, parse_scope

# A gateway asks about thousands of tokens at once. Whole rows, with a dozen times in them, cost Django 48 us each; what
# is looked at costs 31.
_LOOKED_AT: Final = (
    *("user", "client", "expires_at", "tokens_not_before", "ended_at"),
    *("user__tenant", "user__username", "user__roles", "user__is_active", "user__tokens_not_before"),
    *("user__tenant__is_active", "client__is_active", "client__tokens_not_before"),
)

_FindSessions = Callable[[set[UUID]], Iterable[Session]]


@dataclass(frozen=True)
class Live:
    """A token that counts, with the rights its holder has now rather than when it was issued (A18)."""

    claims: AccessTokenClaims
    name: str
    roles: tuple[str, ...]
    scopes: frozenset[Scope]
    user: User | None = None
    service_account: ServiceAccount | None = None


def check_live(claims: AccessTokenClaims) -> Live:
    """The token's holder, all of it, and present rights, in two queries.

    Raises:
        RejectedToken: The session ended, the holder is gone or inactive, or a cut-off time is later than the token.
    """
    found = _check_all([claims], _find_sessions)[0]
    if isinstance(found, RejectedToken):
        raise found
    return found


def check_all_live(many: Sequence[AccessTokenClaims]) -> list[Live | RejectedToken]:
    """The same for many tokens, in three queries at most. Of the users, only what is looked at here is read."""
    return _check_all(many, _find_briefly)


def _check_all(many: Sequence[AccessTokenClaims], find_sessions: _FindSessions) -> list[Live | RejectedToken]:
    users = [claims for claims in many if not claims.is_service]
    services = [claims for claims in many if claims.is_service]
    sessions = {each.id: each for each in find_sessions({claims.sid for claims in users})} if users else {}
    accounts = _find_accounts({claims.sub for claims in services}) if services else {}
    everyone = GlobalCutOff.objects.filter(id=1).values_list("tokens_not_before", flat=True).first() if many else None
    now = clock.now()
    answers: list[Live | RejectedToken] = []
    for claims in many:
        try:
            if claims.is_service:
                answers.append(_check_service(claims, accounts.get(claims.sub), everyone))
            else:
                answers.append(_check_user(claims, sessions.get(claims.sid), everyone, now))
        except RejectedToken as rejected:
            answers.append(rejected)
    return answers


class Ending(StrEnum):
    """Why the holder of a token that was good will get no other one. Told to services, for the sockets they hold."""

    ACCOUNT_CLOSED = "account_closed"
    SESSION_ENDED = "session_ended"


def find_endings(found: Sequence[tuple[AccessTokenClaims, Live | RejectedToken]]) -> list[Ending | None]:
    """What ended, where something did; None for a token that counts or whose holder may refresh it.

    One query when a session is not there any more, else none: it may have been pruned, or its user erased.
    """
    ended = [isinstance(each, RejectedToken) and each.reason is Rejection.SESSION_ENDED for _, each in found]
    asked = {claims.sub for (claims, _), has_ended in zip(found, ended, strict=True) if has_ended}
    existing = set(User.objects.filter(id__in=asked).values_list("id", flat=True)) if asked else set()
    endings: list[Ending | None] = []
    for (claims, each), has_ended in zip(found, ended, strict=True):
        if has_ended:
            endings.append(Ending.SESSION_ENDED if claims.sub in existing else Ending.ACCOUNT_CLOSED)
        else:
            is_closed = isinstance(each, RejectedToken) and each.reason is Rejection.INACTIVE
            endings.append(Ending.ACCOUNT_CLOSED if is_closed else None)
    return endings


def is_cut_off(issued_at: datetime, cut_offs: Iterable[datetime | None]) -> bool:
    """Whether the latest of these cut-off times is later than the token (A23: the latest wins, whichever level)."""
    latest = max((cut_off for cut_off in cut_offs if cut_off is not None), default=None)
    return latest is not None and issued_at < latest


def issued_at(claims: AccessTokenClaims) -> datetime:
    """When the token was made: to the millisecond by its `jti`, else the start of the second in `iat`."""
    by_id = clock.time_of_id(claims.jti)
    return by_id if by_id is not None else datetime.fromtimestamp(claims.iat, tz=clock.now().tzinfo)


def _check_user(claims: AccessTokenClaims, session: Session | None, everyone: datetime | None, now: datetime) -> Live:
    if session is None or session.user_id != claims.sub:
        raise RejectedToken(Rejection.SESSION_ENDED)
    user, client = session.user, session.client
    if not user.is_active or not user.tenant.is_active or user.tenant_id != claims.tenant:
        raise RejectedToken(Rejection.INACTIVE)
    if session.ended_at is not None or session.expires_at <= now:
        raise RejectedToken(Rejection.SESSION_ENDED)
    if client is not None and not client.is_active:
        # The account goes on, the sessions its application opened do not.
        raise RejectedToken(Rejection.SESSION_ENDED)
    client_cut_off = client.tokens_not_before if client else None
    cut_offs = (everyone, user.tokens_not_before, session.tokens_not_before, client_cut_off)
    if is_cut_off(issued_at(claims), cut_offs):
        raise RejectedToken(Rejection.CUT_OFF)
    return Live(claims, user.username, tuple(user.roles), user.scopes, user=user)


def _check_service(claims: AccessTokenClaims, account: ServiceAccount | None, everyone: datetime | None) -> Live:
    if account is None or not account.is_active or not account.tenant.is_active or account.tenant_id != claims.tenant:
        raise RejectedToken(Rejection.INACTIVE)
    if is_cut_off(issued_at(claims), (everyone, account.tokens_not_before)):
        raise RejectedToken(Rejection.CUT_OFF)
    # A token may have been asked for with fewer scopes than the account has; it never has more than the account now.
    scopes = parse_scope(claims.scope) & account.scopes
    return Live(claims, account.client_id, (Role.SERVICE.value,), scopes, service_account=account)


def _find_sessions(ids: set[UUID]) -> QuerySet[Session]:
    return Session.objects.filter(id__in=ids).select_related("user", "user__tenant", "client")


def _find_briefly(ids: set[UUID]) -> QuerySet[Session]:
    return _find_sessions(ids).only(*_LOOKED_AT)


def _find_accounts(ids: set[UUID]) -> dict[UUID, ServiceAccount]:
    return {account.id: account for account in ServiceAccount.objects.filter(id__in=ids).select_related("tenant")}
