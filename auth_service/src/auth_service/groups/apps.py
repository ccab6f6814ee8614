from __future__ import annotations

from django.apps import AppConfig


class GroupsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.groups"
    label = "groups"
