"""Finding the account that a login names."""

from __future__ import annotations

from auth_service.accounts.models import User
from auth_service.accounts.names import make_email_key, make_username_key


def find_by_username(username: str) -> User | None:
    """The account with this name, in any spelling that looks the same."""
    return User.objects.select_related("tenant").filter(username_key=make_username_key(username)).first()


def find_by_email(email: str) -> User | None:
    """The account this address belongs to: whoever proved it, else whoever claimed it first."""
    accounts = User.objects.select_related("tenant").filter(email_key=make_email_key(email))
    return accounts.order_by("-email_verified", "created_at", "id").first()


def find_by_login(*, username: str | None = None, email: str | None = None) -> User | None:
    """The account a login names. A username that is no account's and holds an @ is taken for an address."""
    if username is not None:
        found = find_by_username(username)
        if found is not None or "@" not in username:
            return found
        email = username
    return find_by_email(email) if email is not None else None
