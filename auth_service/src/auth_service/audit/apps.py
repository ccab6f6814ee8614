from __future__ import annotations

from django.apps import AppConfig


class AuditApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.audit"
    label = "audit"
