"""What following a mailed link does. A link that does not count is refused with one text, whatever the reason (B09)."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import F

from auth_service import clock
from auth_service.accounts.actions import get_locked, make_user_event
from auth_service.accounts.errors import InvalidLink
from auth_service.accounts.models import LinkPurpose, MailedLink, User
from auth_service.accounts.password_actions import do_set_password
from auth_service.accounts.passwords import check_new_password
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.identity_events.actions import do_emit
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import do_forget
from auth_service.tokens.secrets import hash_secret
from shared_contracts.identity_events import IdentityEventType


def check_link(token: str, purpose: LinkPurpose) -> MailedLink:
    """The link behind a token; changes nothing.

    Raises:
        InvalidLink: Unknown, used, too old, for another purpose, or for an address the account no longer has.
    """
    link = MailedLink.objects.select_related("user__tenant").filter(token_hash=hash_secret(token)).first()
    if (
        link is None
        or link.purpose != purpose
        or link.used_at is not None
        or link.expires_at <= clock.now()
        or link.email_key != link.user.email_key
        or not link.user.is_active
        or not link.user.tenant.is_active
    ):
        raise InvalidLink
    return link


def do_reset_password(token: str, password: str, by: Origin) -> User:
    """Set a new password by a mailed link; every session ends (A21).

    Raises:
        InvalidLink: The link does not count.
        InvalidInput: The password breaks a rule; the link can be used again.
    """
    link = check_link(token, LinkPurpose.PASSWORD_RESET)
    check_new_password(password, link.user, field="new_password")
    _do_use(link)
    user = link.user
    do_set_password(user, password, by.acting_as("user", user.id, user.tenant_id), action=Action.PASSWORD_RESET)
    do_forget(limits.failed_login_of_account(str(user.id)))
    return user


def do_verify_email(token: str, by: Origin) -> User:
    """Take an address for proved.

    Raises:
        InvalidLink: The link does not count, or someone else has proved the address meanwhile.
    """
    link = check_link(token, LinkPurpose.EMAIL_VERIFICATION)
    try:
        with transaction.atomic():
            user = get_locked(link.user_id)
            # Looked at again under the lock: the address may have been changed since, and nobody has proved that one.
            if link.email_key != user.email_key:
                raise InvalidLink
            _do_use(link)
            user.email_verified = True
            user.save(update_fields=["email_verified"])
            origin = by.acting_as("user", user.id, user.tenant_id)
            do_record(Action.EMAIL_VERIFIED, origin, subject=("user", user.id), tenant=user.tenant_id)
            do_emit(make_user_event(IdentityEventType.USER_UPDATED, user))
    except IntegrityError:
        raise InvalidLink from None
    return user


def _do_use(link: MailedLink) -> None:
    # One statement: of two who follow the same link one gets through, and none whose address was changed meanwhile.
    unused = MailedLink.objects.filter(id=link.id, used_at=None, email_key=F("user__email_key"))
    if not unused.update(used_at=clock.now()):
        raise InvalidLink
