from __future__ import annotations

from uuid import UUID

from django.db import transaction

from auth_service import clock
from auth_service.accounts.actions import get_locked
from auth_service.accounts.errors import WrongPassword
from auth_service.accounts.mail_actions import do_ask_for_mail
from auth_service.accounts.models import LinkPurpose, MailedLink, MailKind, User
from auth_service.accounts.passwords import check_new_password, hash_password, is_password_of
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.identity_events.actions import do_emit
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import check_below, do_count_within, do_forget
from auth_service.sessions.actions import do_end_all_sessions
from auth_service.sessions.models import EndReason


def check_current_password(user: User, password: str) -> None:
    """Let the owner through, not whoever found an unlocked device.

    Raises:
        WrongPassword: It is not the password.
        RateLimited: Wrong too often.
    """
    use = limits.failed_password_check(str(user.id))
    check_below(use)
    if not is_password_of(user, password):
        do_count_within(use)
        raise WrongPassword
    do_forget(use)


def do_change_password(user: User, current: str, new: str, by: Origin, *, keep_session: UUID) -> None:
    """Change one's own password; every other session ends.

    Raises:
        WrongPassword: The current one is wrong.
        InvalidInput: The new one breaks a rule.
        RateLimited: Wrong too often.
    """
    check_current_password(user, current)
    check_new_password(new, user, field="new_password")
    do_set_password(user, new, by, keep_session=keep_session)


def do_set_password(
    user: User,
    password: str,
    by: Origin,
    *,
    action: Action = Action.PASSWORD_CHANGED,
    keep_session: UUID | None = None,
) -> User:
    """Set a checked password and end every session but one (A21); the owner gets a mail about it."""
    encoded = hash_password(password)
    reason = EndReason.PASSWORD_RESET if action is Action.PASSWORD_RESET else EndReason.PASSWORD_CHANGED
    with transaction.atomic():
        fresh = get_locked(user.id)
        fresh.password, fresh.password_changed_at = encoded, clock.now()
        fresh.save(update_fields=["password", "password_changed_at"])
        # Links mailed before are void: one of them may be why the password was changed (B09).
        MailedLink.objects.filter(user=fresh, purpose=LinkPurpose.PASSWORD_RESET).delete()
        if fresh.email:
            do_ask_for_mail(MailKind.PASSWORD_CHANGED, fresh.email, user=fresh)
        event = do_end_all_sessions(fresh, reason, except_id=keep_session)
        do_record(action, by, subject=("user", fresh.id), tenant=fresh.tenant_id)
        do_emit(event)
    return fresh
