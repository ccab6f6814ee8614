from __future__ import annotations

from django.apps import AppConfig


class ConfigApp(AppConfig):
    """Holds the commands that belong to no domain."""

    name = "auth_service.config"
    label = "config"
