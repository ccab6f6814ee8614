from __future__ import annotations

from django.urls import URLPattern, path

from auth_service.api.views import ApiView


def route(address: str, view: type[ApiView]) -> URLPattern:
    """An address of the API. Written without a slash at its end; `PathMiddleware` takes it with one too."""
    return path(address, view.as_view(), name=view.__name__)
