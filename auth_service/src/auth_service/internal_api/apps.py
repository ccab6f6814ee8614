from __future__ import annotations

from django.apps import AppConfig


class InternalApiApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.internal_api"
    label = "internal_api"
