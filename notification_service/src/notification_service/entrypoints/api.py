"""The REST API alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.processes import make_checks, run_access, run_observer, run_publisher
from notification_service.entrypoints.web_app import make_api_routers, make_app

READY = ("database", "broker", "keys")


def make_api(parts: Parts) -> FastAPI:
    """The application of this process."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with run_publisher(parts), run_access(parts), run_observer(parts):
            yield

    routers = make_api_routers(parts)
    return make_app(parts, routers, checks=make_checks(parts), ready=READY, lifespan=lifespan)
