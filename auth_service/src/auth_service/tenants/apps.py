from __future__ import annotations

from django.apps import AppConfig


class TenantsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.tenants"
    label = "tenants"
