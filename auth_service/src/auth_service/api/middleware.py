"""What happens around every request, whichever view answers it."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from auth_service.api.client_address import get_client_address
from auth_service.api.correlation import set_correlation_id
from auth_service.api.problems import make_response, translate
from auth_service.errors import TooLarge
from auth_service.metrics import REQUEST_SECONDS, REQUESTS
from shared_contracts.headers import CORRELATION_ID, correlation_id_from

log = structlog.get_logger(__name__)

Handler = Callable[[HttpRequest], HttpResponseBase]

_QUIET = ("/health", "/metrics")
"""Asked every few seconds by machines: logged only when they fail."""

_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
# The admin and the API pages come from this service alone; the API page's own script is inline in its template.
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self'{inline}; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)


class CorrelationMiddleware:
    """Gives every request an id, every answer that id, and the log one line about it."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer one request."""
        correlation_id = correlation_id_from(request.headers.get(CORRELATION_ID))
        set_correlation_id(correlation_id)
        started_s = time.perf_counter()
        response = self._get_response(request)
        response.headers[CORRELATION_ID] = correlation_id
        if isinstance(response, HttpResponse) and response.status_code not in _BODILESS:
            response.headers.setdefault("Content-Length", str(len(response.content)))
        self._note(request, response, correlation_id, time.perf_counter() - started_s)
        return response

    def _note(self, request: HttpRequest, response: HttpResponseBase, correlation_id: str, took_s: float) -> None:
        match = request.resolver_match
        # The pattern, not the path: a label per id would grow without end, and paths may hold what someone typed.
        route = f"/{match.route}" if match is not None else "unknown"
        method = request.method if request.method in _METHODS else "other"
        REQUESTS.labels(method=method, route=route, status=str(response.status_code)).inc()
        REQUEST_SECONDS.labels(method=method, route=route).observe(took_s)
        if route.startswith(_QUIET) and response.status_code < 400:
            return
        log.info(
            "request_answered",
            method=method,
            route=route,
            status=response.status_code,
            took_ms=round(took_s * 1_000, 1),
            client_address=get_client_address(request),
            correlation_id=correlation_id,
        )


_BODILESS = frozenset({204, 304})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})


class ProblemMiddleware:
    """Answers in the API's way what never reaches a view, and refuses bodies that announce themselves as too long."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer one request."""
        try:
            announced_bytes = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            announced_bytes = 0
        if announced_bytes > settings.HERALD.max_body_bytes:
            return make_response(TooLarge())
        return self._get_response(request)

    def process_exception(self, _request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """What a view outside the API raised: a database that does not answer is 503 there too."""
        known = translate(exception)
        return make_response(known)


class PathMiddleware:
    """Takes every address with and without a slash at its end; a redirect would lose the body of a POST."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer one request."""
        path = request.path_info
        if path.startswith("/admin"):
            if path == "/admin":
                request.path_info = "/admin/"
        elif path.endswith("/"):
            request.path_info = path.rstrip("/") or "/"
        return self._get_response(request)


class SecurityHeadersMiddleware:
    """Content security policy and caching rules; Django's own middleware sets the rest."""

    def __init__(self, get_response: Handler) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer one request."""
        response = self._get_response(request)
        path = request.path_info
        if path.startswith(("/admin", "/account")):
            policy = _PAGE_POLICY.format(inline="")
        elif path.startswith("/api/docs"):
            policy = _PAGE_POLICY.format(inline=" 'unsafe-inline'")
        else:
            policy = _API_POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
        if path.startswith(("/api/v1", "/internal", "/admin", "/account")):
            response.headers.setdefault("Cache-Control", "no-store")
        return response
