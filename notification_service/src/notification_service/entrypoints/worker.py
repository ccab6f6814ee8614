"""A worker: accepts from RabbitMQ, routes, keeps, dispatches. Has a small HTTP side for health and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.processes import Worker, make_checks, run_publisher, run_worker
from notification_service.entrypoints.web_app import make_app

READY = ("database", "broker", "workers")


def make_worker(parts: Parts) -> FastAPI:
    """The application of this process."""
    worker = Worker(parts)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        async with run_publisher(parts), run_worker(worker):
            yield

    return make_app(parts, [], checks=make_checks(parts, worker), ready=READY, lifespan=lifespan)
