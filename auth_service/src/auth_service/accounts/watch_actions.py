"""Changes that someone made behind the service's back, by SQL: told to everyone all the same (A19)."""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, Q

from auth_service.accounts.actions import make_user_event
from auth_service.accounts.models import User
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import SYSTEM
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.sessions.actions import do_end_all_sessions
from auth_service.sessions.models import EndReason
from shared_contracts.identity_events import IdentityEventType

log = structlog.get_logger(__name__)

BATCH_SIZE = 200
_UNANNOUNCED = ~Q(is_active=F("announced_is_active")) | ~Q(roles=F("announced_roles"))


def do_announce_hidden_changes() -> int:
    """Emit what the last event of a user does not say; answer for how many users. An index holds just these rows."""
    found = list(User.objects.filter(_UNANNOUNCED).order_by("id").values_list("id", flat=True)[:BATCH_SIZE])
    for user_id in found:
        _do_announce(user_id)
    return len(found)


def _do_announce(user_id: UUID) -> None:
    with transaction.atomic():
        user = User.objects.select_for_update().filter(_UNANNOUNCED, id=user_id).first()
        if user is None:
            return  # another process was faster
        events: list[NewEvent] = []
        if user.roles != user.announced_roles:
            details = {"from": list(user.announced_roles), "to": list(user.roles)}
            do_record(
                Action.USER_ROLES_CHANGED, SYSTEM, subject=("user", user.id), tenant=user.tenant_id, details=details
            )
            events.append(make_user_event(IdentityEventType.USER_ROLES_CHANGED, user))
        if user.is_active != user.announced_is_active:
            if not user.is_active:
                do_end_all_sessions(user, EndReason.ACCOUNT_DEACTIVATED)
            action = Action.USER_ACTIVATED if user.is_active else Action.USER_DEACTIVATED
            do_record(action, SYSTEM, subject=("user", user.id), tenant=user.tenant_id)
            kind = IdentityEventType.USER_ACTIVATED if user.is_active else IdentityEventType.USER_DEACTIVATED
            events.append(make_user_event(kind, user))
        user.announced_is_active, user.announced_roles = user.is_active, user.roles
        user.save(update_fields=["announced_is_active", "announced_roles"])
        do_emit(*events)
    log.warning("hidden_change_announced", user_id=str(user_id), changes=[str(event.type) for event in events])
