"""python-socketio with its Redis manager: a room for each user. Runs in its own environment."""

# mypy: ignore-errors
# The packages are in another environment.

from __future__ import annotations

import os
from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"]))


@server.event
async def connect(sid: str, _environ: dict[str, Any], auth: dict[str, str]) -> None:
    """Join the user's room."""
    await server.enter_room(sid, auth["user"])


application = socketio.ASGIApp(server)
