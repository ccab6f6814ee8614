from __future__ import annotations

from auth_service.accounts.actions import NewUser, do_create_user
from auth_service.accounts.mail_actions import do_ask_for_mail
from auth_service.accounts.models import MailKind, User
from auth_service.accounts.passwords import check_new_password
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin


def do_register(new: NewUser, by: Origin) -> User:
    """Make an account for a visitor, with the least role, and mail a link that proves the address.

    Raises:
        InvalidInput: The password breaks a rule.
        UsernameTaken: Someone has this name, or one that looks the same.
    """
    check_new_password(new.password or "", User(username=new.username, email=new.email))
    user = do_create_user(new, by, action=Action.USER_REGISTERED)
    do_ask_for_mail(MailKind.EMAIL_VERIFICATION, user.email or "", user=user)
    return user
