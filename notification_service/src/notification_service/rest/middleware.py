"""ASGI middleware: correlation id, body limit, trailing slash, security headers, one log line per request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notification_service import failpoints
from notification_service.clock import Clock
from notification_service.errors import TooLarge
from notification_service.identity import audit
from notification_service.rest.problems import answer_fault, answer_other_method, find_fixed_paths
from shared_contracts.headers import CORRELATION_ID, correlation_id_from

log = structlog.get_logger(__name__)

DEFAULT_BODY_LIMIT: Final = 256 * 1024
_DRAIN_LIMIT_BYTES: Final = 32 * 1024 * 1024
_DRAIN_LIMIT_S: Final = 5.0
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# Asked for every few seconds by machines; a line each would bury everything else.
_QUIET_PATHS: Final = ("/health", "/metrics")


class RequestFrame:
    """Outermost: gives every request its correlation id and its answer the headers all answers have."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        correlation_id = correlation_id_from(Headers(scope=scope).get(CORRELATION_ID))
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
        status = 500
        has_begun = False
        started = self._clock.monotonic()

        async def send_with_headers(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                headers[CORRELATION_ID] = correlation_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)
            if message["type"] == "http.response.body" and scope["method"] == "POST":
                failpoints.reach("after_answer")

        client = scope.get("client")
        user_agent = Headers(scope=scope).get("user-agent")
        audit.request_origin.set(audit.make_origin(client[0] if client else None, user_agent, correlation_id))
        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                # A handler of the application would answer outside of this frame, without what every answer has.
                log.error("unexpected_error", path=path, exc_info=error)  # noqa: TRY400 - it is in exc_info
                if has_begun:
                    raise
                await answer_fault(scope)(scope, receive, send_with_headers)
            finally:
                if not path.startswith(_QUIET_PATHS):
                    duration_ms = round((self._clock.monotonic() - started) * 1000, 1)
                    log.info("request_answered", method=scope["method"], path=path, status=status, ms=duration_ms)


class FixedPaths:
    """Lets a path without a parameter have the methods of its own routes alone.

    Otherwise PATCH /inbox/counts would be a change of the item `counts`, and 422 in place of 405.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._methods: dict[str, set[str]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] == "http":
            if self._methods is None:
                self._methods = find_fixed_paths(scope["app"])
            methods = self._methods.get(scope["path"])
            if methods is not None and scope["method"] not in methods:
                await answer_other_method(scope, methods)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Stops reading a body beyond the limit of its path; nothing of it reaches a handler.

    The answer comes at once; what the client is still sending is then read and thrown away for a moment. Closing before
    would reset the connection, and the client would see that in place of the answer.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int], on_too_large: Callable[..., ASGIApp]) -> None:
        self._app = app
        self._limits = limits
        self._on_too_large = on_too_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], DEFAULT_BODY_LIMIT)
        declared = Headers(scope=scope).get("content-length")
        is_too_large = declared is not None and (not declared.isdigit() or int(declared) > limit)
        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen, is_too_large
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    is_too_large = True
                    raise TooLarge(limit)
            return message

        async def send_and_drain(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (is_too_large and is_last):
                await send(message)
                return
            await send({**message, "more_body": True})
            await _drain(receive)
            await send({"type": "http.response.body", "body": b""})

        app = self._on_too_large(limit) if is_too_large else self._app
        await app(scope, receive_limited, send_and_drain)


async def _drain(receive: Receive) -> None:
    thrown_away = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            while thrown_away < _DRAIN_LIMIT_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                thrown_away += len(message.get("body", b""))
