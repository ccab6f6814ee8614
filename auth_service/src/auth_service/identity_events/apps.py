from __future__ import annotations

from django.apps import AppConfig


class IdentityEventsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.identity_events"
    label = "identity_events"
