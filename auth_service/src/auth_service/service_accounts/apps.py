from __future__ import annotations

from django.apps import AppConfig


class ServiceAccountsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.service_accounts"
    label = "service_accounts"
