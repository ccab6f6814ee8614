"""A gateway node alone: WebSockets, health, metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.processes import make_checks, run_access, run_gateway, run_publisher
from notification_service.entrypoints.web_app import make_app
from notification_service.gateway.endpoints import make_sse_router

READY = ("database", "broker", "keys", "gateway")


def make_gateway(parts: Parts) -> FastAPI:
    """The application of this process; uvicorn is given the WebSocket protocol class beside it."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with run_publisher(parts), run_access(parts), run_gateway(parts):
            yield

    assert parts.gateway.node_id == parts.node_id
    return make_app(parts, [make_sse_router(parts.gateway)], checks=make_checks(parts), ready=READY, lifespan=lifespan)
