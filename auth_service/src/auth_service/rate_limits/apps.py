from __future__ import annotations

from django.apps import AppConfig


class RateLimitsApp(AppConfig):
    """Names this package to Django."""

    name = "auth_service.rate_limits"
    label = "rate_limits"
