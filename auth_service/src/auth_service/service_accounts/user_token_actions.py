"""Tokens for users whom an application has logged in by itself (`tokens:issue`), many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.api.batches import make_refused_row
from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.errors import NotFound, PermissionDenied, ServiceError
from auth_service.repeating import repeated
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.actions import make_session
from auth_service.sessions.devices import Device
from auth_service.sessions.models import Session
from auth_service.tokens.access_tokens import IssuedAccessToken
from auth_service.tokens.actions import issue_for
from shared_contracts.scopes import Role, scopes_of

MAX_TOKENS_PER_CALL = 500
_CHUNK = 500

Row = Mapping[str, Any]
_Place = tuple[UUID, str]
_Key = tuple[str, str]


class UserTooMighty(PermissionDenied):
    """The user may do more than the service account: its token would be a way up (B10)."""

    detail = "This user has rights the service account does not have."


@dataclass(frozen=True)
class UserToken:
    """What became of one item."""

    index: int
    user: User | None = None
    access: IssuedAccessToken | None = None
    error: ServiceError | None = None

    def as_row(self) -> dict[str, Any]:
        """The item as it is answered."""
        if self.error is not None or self.access is None or self.user is None:
            return make_refused_row(self.index, self.error or NotFound())
        return {
            "index": self.index,
            "status": 201,
            "user_id": str(self.user.id),
            "external_id": self.user.external_id,
            "access": self.access.token,
            "expires_in": self.access.expires_in_s,
            "session_id": str(self.access.claims.sid),
        }


@repeated
def do_issue_user_tokens(rows: Sequence[tuple[int, Row]], caller: Caller, device: Device) -> list[UserToken]:
    """An access token for each user, in five statements however many there are.

    Asking again for the same user and device continues the session there is, so that a renewed token has the same
    `sid` and nothing piles up.
    """
    account = caller.service_account
    assert account is not None
    found = _find_users([row for _, row in rows], account.tenant_id)
    items: list[tuple[int, User | None, ServiceError | None, str]] = []
    for index, row in rows:
        user = found.get(_key_of(row))
        items.append((index, user, _refusal(user, caller), row.get("device_id") or ""))
    places = {(user.id, device_id): user for _, user, error, device_id in items if user is not None and error is None}
    sessions = _do_find_or_open(places, account, device)
    tokens: list[UserToken] = []
    for index, user, error, device_id in items:
        if user is None or error is not None:
            tokens.append(UserToken(index, error=error))
        else:
            tokens.append(UserToken(index, user, issue_for(user, sessions[user.id, device_id])))
    details = {"count": len(places)}
    do_record(Action.USER_TOKENS_ISSUED, caller.origin, subject=("service_account", account.id), details=details)
    return tokens


def _refusal(user: User | None, caller: Caller) -> ServiceError | None:
    if user is None or not user.is_active:
        return NotFound("There is no such active user in this tenant.")
    if not user.scopes - scopes_of([Role.USER]) <= caller.scopes:
        return UserTooMighty()
    return None


def _key_of(row: Row) -> _Key:
    return ("id", str(row["user_id"])) if row.get("user_id") else ("external_id", row.get("external_id") or "")


def _find_users(rows: Sequence[Row], tenant: str) -> dict[_Key, User]:
    ids = {row["user_id"] for row in rows if row.get("user_id")}
    external_ids = {row["external_id"] for row in rows if row.get("external_id")}
    users = User.objects.filter(Q(id__in=ids) | Q(external_id__in=external_ids), tenant_id=tenant)
    return {key: user for user in users for key in (("id", str(user.id)), ("external_id", user.external_id or ""))}


def _do_find_or_open(places: Mapping[_Place, User], account: ServiceAccount, device: Device) -> dict[_Place, Session]:
    now = clock.now()
    with transaction.atomic():
        mine = Session.objects.filter(client=account, user_id__in={user_id for user_id, _ in places}, ended_at=None)
        # What has run out makes room for its successor.
        mine.filter(expires_at__lte=now).update(ended_at=now)
        alive = {(session.user_id, session.device_id): session for session in mine if session.expires_at > now}
        opened = [
            make_session(user, Device(device_id, None, device.ip, device.user_agent), client=account)
            for (user_id, device_id), user in places.items()
            if (user_id, device_id) not in alive
        ]
        # Another worker may open the same session at this moment: its row stands, and is read below.
        Session.objects.bulk_create(opened, batch_size=_CHUNK, ignore_conflicts=True)
        if opened:
            alive = {(session.user_id, session.device_id): session for session in mine.all()}
        prolonged = now + settings.HERALD.session_lifetime
        chosen = [alive[place].id for place in places]
        Session.objects.filter(id__in=chosen).update(last_seen_at=now, expires_at=prolonged)
    return alive
