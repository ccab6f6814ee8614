from __future__ import annotations

from uuid import UUID

from django.db import transaction

from auth_service import clock
from auth_service.accounts.actions import get_locked
from auth_service.accounts.models import LinkPurpose, MailedLink, User
from auth_service.accounts.passwords import hash_password
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.identity_events.actions import do_emit
from auth_service.sessions.actions import do_end_all_sessions
from auth_service.sessions.models import EndReason


def do_set_password(
    user: User,
    password: str,
    by: Origin,
    *,
    action: Action = Action.PASSWORD_CHANGED,
    keep_session: UUID | None = None,
) -> User:
    """Set a checked password and end every session but one (A21)."""
    encoded = hash_password(password)
    reason = EndReason.PASSWORD_RESET if action is Action.PASSWORD_RESET else EndReason.PASSWORD_CHANGED
    with transaction.atomic():
        fresh = get_locked(user.id)
        fresh.password, fresh.password_changed_at = encoded, clock.now()
        fresh.save(update_fields=["password", "password_changed_at"])
        # Links mailed before are void: one of them may be why the password was changed (B09).
        MailedLink.objects.filter(user=fresh, purpose=LinkPurpose.PASSWORD_RESET).delete()
        event = do_end_all_sessions(fresh, reason, except_id=keep_session)
        do_record(action, by, subject=("user", fresh.id), tenant=fresh.tenant_id)
        do_emit(event)
    return fresh
