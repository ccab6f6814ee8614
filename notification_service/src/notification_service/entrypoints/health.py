"""Health of a process: alive is one thing, ready another. Also its metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from notification_service.rest.documentation import describe_problem
from notification_service.rest.operators import OperatorsOnly
from notification_service.settings import Settings

Check = Callable[[], Awaitable[bool]]


def make_health_router(checks: Mapping[str, Check], ready: tuple[str, ...], settings: Settings) -> APIRouter:
    """`/health/...` and `/metrics`.

    Args:
        checks: What can be asked, by name; each has a page of its own.
        ready: Which of them must hold before this process takes traffic.
    """
    router = APIRouter(tags=["health"])
    may_be_away: dict[int | str, dict[str, Any]] = {503: {"description": "Not now; `checks` names what is missing."}}

    @router.get("/health/live", summary="Is the process alive")
    async def live() -> dict[str, str]:
        """Always, as long as it answers; what it depends on does not matter here."""
        return {"status": "ok"}

    @router.get("/health/ready", summary="May traffic be sent here", response_model=None, responses=may_be_away)
    async def is_ready() -> JSONResponse:
        """200 when everything it needs is there, else 503 naming what is not."""
        return _answer(await _run({name: checks[name] for name in ready}))

    @router.get("/health", summary="Everything at a glance", response_model=None, responses=may_be_away)
    @router.get("/health/", include_in_schema=False, response_model=None)
    async def summary() -> JSONResponse:
        """All checks; 503 while one that is needed fails."""
        found = await _run(checks)
        return _answer(found, failing_if=ready)

    def add(name: str, check: Check) -> None:
        @router.get(
            f"/health/{name}",
            summary=f"Is the {name} there",
            description=f"200 while this process can use it: {name}.",
            response_model=None,
            name=name,
            responses=may_be_away,
        )
        async def one() -> JSONResponse:
            return _answer(await _run({name: check}))

    for name, check in checks.items():
        add(name, check)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=PlainTextResponse,
        dependencies=[Depends(OperatorsOnly(settings))],
        responses={401: describe_problem(401)},
    )
    async def metrics() -> Response:
        """Open in development; in production only with the internal key."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


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
