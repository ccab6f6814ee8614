from __future__ import annotations

from django.apps import AppConfig


class AccountsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.accounts"
    label = "accounts"
