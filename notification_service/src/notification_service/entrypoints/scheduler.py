"""The scheduler: relays what a crash left. Has a small HTTP side for health and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.processes import make_checks, run_publisher, run_scheduler
from notification_service.entrypoints.web_app import make_app

READY = ("database", "broker")


def make_scheduler(parts: Parts) -> FastAPI:
    """The application of this process."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with run_publisher(parts), run_scheduler(parts):
            yield

    return make_app(parts, [], checks=make_checks(parts), ready=READY, lifespan=lifespan)
