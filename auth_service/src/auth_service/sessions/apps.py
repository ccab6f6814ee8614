from __future__ import annotations

from django.apps import AppConfig


class SessionsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.sessions"
    label = "user_sessions"  # django.contrib.sessions, which the admin needs, has the plain word
