from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.http import HttpRequest
from typing_extensions import override

from auth_service.accounts.models import User


class AccountBackend(BaseBackend):
    """Who is logged in on the Django admin. Logging in goes through `accounts.admin_login`, never through here."""

    @override
    def authenticate(self, request: HttpRequest | None, **_credentials: Any) -> None:
        """Nobody: this way in has neither limits nor a second factor."""
        return

    @override
    def get_user(self, user_id: Any) -> User | None:
        """The user of an admin session, while the account is active."""
        return User.objects.filter(pk=user_id, is_active=True, tenant__is_active=True).first()
