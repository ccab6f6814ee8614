"""Finding the channels: every folder below this package that names a `CHANNEL` is one, under its own name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from notification_service import channels
from notification_service.channels.interface import Channel, Tools
from shared_contracts.requests import Channel as ChannelName
from shared_contracts.requests import find_further_channels


def find_channel_classes() -> dict[str, type[Channel]]:
    """Channel classes by name.

    Raises:
        ValueError: Two folders claim one name.
    """
    found: dict[str, type[Channel]] = {}
    for module in pkgutil.iter_modules(channels.__path__, f"{channels.__name__}."):
        if not module.ispkg:
            continue
        channel = getattr(importlib.import_module(module.name), "CHANNEL", None)
        if channel is None:
            continue
        if channel.name in found:
            raise ValueError(f"{module.name} and {found[channel.name].__module__} are both called {channel.name!r}")
        found[channel.name] = channel
    return found


# A channel that is only a folder may be asked for in requests, event types, preferences and contacts like any other.
find_further_channels(lambda: find_channel_classes().keys())


class Registry:
    """The channels of this process, built once."""

    def __init__(self, tools: Tools) -> None:
        self._channels = {name: make(tools) for name, make in sorted(find_channel_classes().items())}
        for name in self._channels:
            ChannelName.add(name)

    def get(self, name: str) -> Channel | None:
        """A channel by name."""
        return self._channels.get(name)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    @property
    def all(self) -> Mapping[str, Channel]:
        """By name."""
        return self._channels

    @property
    def configured(self) -> frozenset[str]:
        """Names of those that can send."""
        return frozenset(name for name, channel in self._channels.items() if channel.is_configured)

    def configured_that_can(self, step: str) -> frozenset[str]:
        """Those of `configured` that have a step not all have."""
        return frozenset(name for name in self.configured if self._channels[name].can(step))

    async def close(self) -> None:
        """Close their connections."""
        for channel in self:
            await channel.close()
