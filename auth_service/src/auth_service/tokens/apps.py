from __future__ import annotations

from django.apps import AppConfig


class TokensApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.tokens"
    label = "tokens"
