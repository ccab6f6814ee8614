"""Serving an ASGI application on loopback, inside the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from typing_extensions import override

from notification_service.entrypoints.first_bytes import FirstBytes
from notification_service.entrypoints.http_server import KEEP_ALIVE_S


class _Server(uvicorn.Server):
    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are pytest's


@contextlib.asynccontextmanager
async def running_server(
    app: Any, *, lifespan: str = "on", ws: Any = "none"
) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve the application as `herald-notify` does; answers the server and its port."""
    config = uvicorn.Config(
        app,
        http=FirstBytes,
        ws=ws,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
        lifespan=lifespan,  # type: ignore[arg-type]  # its own literal type
    )
    server = _Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the application did not start")
            await asyncio.sleep(0.005)
        yield server, listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


@contextlib.asynccontextmanager
async def serving(app: Any, *, lifespan: str = "on") -> AsyncIterator[str]:
    """The same; answers its address."""
    async with running_server(app, lifespan=lifespan) as (_, port):
        yield f"http://127.0.0.1:{port}"
