"""Health of a process: alive is one thing, ready another. Also its metrics."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from notification_service.errors import NotAuthenticated
from notification_service.settings import Environment, Settings
from shared_contracts.headers import INTERNAL_KEY

Check = Callable[[], Awaitable[bool]]


def make_health_router(checks: Mapping[str, Check], ready: tuple[str, ...], settings: Settings) -> APIRouter:
    """`/health/...` and `/metrics`.

    Args:
        checks: What can be asked, by name; each has a page of its own.
        ready: Which of them must hold before this process takes traffic.
    """
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Is the process alive")
    async def live() -> dict[str, str]:
        """Always, as long as it answers; what it depends on does not matter here."""
        return {"status": "ok"}

    @router.get("/health/ready", summary="May traffic be sent here", response_model=None)
    async def is_ready() -> JSONResponse:
        """200 when everything it needs is there, else 503 naming what is not."""
        return _answer(await _run({name: checks[name] for name in ready}))

    @router.get("/health", summary="Everything at a glance", response_model=None)
    @router.get("/health/", include_in_schema=False, response_model=None)
    async def summary() -> JSONResponse:
        """All checks; 503 while one that is needed fails."""
        found = await _run(checks)
        return _answer(found, failing_if=ready)

    def add(name: str, check: Check) -> None:
        @router.get(f"/health/{name}", summary=f"Is the {name} there", response_model=None, name=f"health_{name}")
        async def one() -> JSONResponse:
            return _answer(await _run({name: check}))

    for name, check in checks.items():
        add(name, check)

    @router.get("/metrics", summary="Prometheus metrics", response_model=None)
    async def metrics(key: Annotated[str | None, Header(alias=INTERNAL_KEY)] = None) -> Response:
        """Open in development; in production only with the internal key."""
        if settings.environment is Environment.PRODUCTION and not _is_internal(key, settings):
            raise NotAuthenticated("metrics need the internal key")
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def _is_internal(key: str | None, settings: Settings) -> bool:
    given = (key or "").encode()
    return any(hmac.compare_digest(given, known.encode()) for known in settings.internal_keys)


async def _run(checks: Mapping[str, Check]) -> dict[str, bool]:
    results = await asyncio.gather(*(check() for check in checks.values()))
    return dict(zip(checks, results, strict=True))


def _answer(found: Mapping[str, bool], failing_if: tuple[str, ...] | None = None) -> JSONResponse:
    needed = [name for name in found if failing_if is None or name in failing_if]
    is_good = all(found[name] for name in needed)
    content: dict[str, Any] = {
        "status": "ok" if is_good else "unavailable",
        "checks": {name: "ok" if holds else "unavailable" for name, holds in found.items()},
    }
    return JSONResponse(content, status_code=200 if is_good else 503, headers={} if is_good else {"Retry-After": "2"})
