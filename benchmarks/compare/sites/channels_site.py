"""Django Channels with its Redis layer: what is sent to a user's group is written. Runs in its own environment."""

# mypy: ignore-errors
# The packages are in another environment.

from __future__ import annotations

import os
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

settings.configure(
    SECRET_KEY="benchmark",  # noqa: S106 - signs nothing
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            # The default of 100 waiting messages drops what comes faster.
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "capacity": 100_000},
        }
    },
)
django.setup()


class Device(AsyncWebsocketConsumer):
    """One connection of one user."""

    async def connect(self) -> None:
        """Join the user's group."""
        user_id = self.scope["path"].rpartition("/")[2]
        await self.channel_layer.group_add(f"user.{user_id}", self.channel_name)
        await self.accept()

    async def notification(self, event: dict[str, Any]) -> None:
        """Write one notification."""
        await self.send(text_data=event["text"])


application = ProtocolTypeRouter({"websocket": Device.as_asgi()})
