"""Rate limits per channel, provider, tenant and sender: each delivery that is too early gets a turn of its own, later.

The generic cell rate algorithm (ITU-T I.371): one number per limit, the moment from which it is free. Reserving a turn
moves that number on, so ten thousand messages over a limit are spread over time once, in order, and none of them has to
ask again. In process memory, or in Redis, where all workers share it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from notification_service.channels.admission import make_share
from notification_service.clock import Clock
from notification_service.rates import Rate, take_turn

log = structlog.get_logger(__name__)

_MAX_KEYS: Final = 100_000
_REDIS_LIMIT_S: Final = 0.5


class Turns(Protocol):
    """Where the numbers are kept."""

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> list[float]:
        """Reserve a turn under each of these limits, in order; answers the waits in seconds."""

    async def close(self) -> None:
        """Close what is open."""


class MemoryTurns:
    """In this process: right for one worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_at: OrderedDict[str, float] = OrderedDict()

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> list[float]:
        """Reserve turns."""
        now = self._clock.monotonic()
        waits = []
        for key, rate in wanted:
            self._free_at[key], wait = take_turn(self._free_at.pop(key, 0.0), rate, now)
            waits.append(wait)
        while len(self._free_at) > _MAX_KEYS:
            self._free_at.popitem(last=False)
        return waits

    async def close(self) -> None:
        """Nothing is open."""


# The same arithmetic as `take_turn`, in one step for all workers, by the clock of Redis.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local waits = {}
for index, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * index - 1]), tonumber(ARGV[2 * index])
  local begin = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local free = begin + interval
  redis.call('SET', key, string.format('%.6f', free), 'PX', math.ceil((free - now) * 1000) + 1000)
  waits[index] = string.format('%.6f', math.max(0, begin - now - burst))
end
return waits
"""


class RedisTurns:
    """In Redis, for several workers. While Redis does not answer, each worker counts for itself."""

    def __init__(self, url: str, clock: Clock) -> None:
        # Here, because it takes a tenth of the time a process needs to start, and most run without Redis.
        from redis.asyncio import Redis  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415

        self._errors = (RedisError, OSError, TimeoutError)
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=_REDIS_LIMIT_S, socket_connect_timeout=_REDIS_LIMIT_S, decode_responses=True
        )
        self._script: Any = self._redis.register_script(_SCRIPT)
        self._own = MemoryTurns(clock)

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> list[float]:
        """Reserve turns."""
        keys = [f"herald:rate:{key}" for key, _ in wanted]
        arguments = [number for _, rate in wanted for number in (rate.interval_s, rate.burst_s)]
        try:
            return [float(wait) for wait in await self._script(keys=keys, args=arguments)]
        except self._errors as error:
            log.warning("rate_limits_without_redis", problem=type(error).__name__)
            return await self._own.take(wanted)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@dataclass(frozen=True, slots=True)
class Asking:
    """One delivery that asks for its turn.

    Attributes:
        route: Its provider account or endpoint.
    """

    channel: str
    route: str
    tenant: str
    sender: str

    @property
    def share(self) -> str:
        """Who gets an equal part of the channel's limit when there is not enough for all."""
        return make_share(self.tenant, self.sender)


@dataclass(frozen=True, slots=True)
class Turn:
    """When a delivery may go.

    Attributes:
        wait: Zero: now.
        share: Set when only the channel's limit makes it wait: then whoever has a share of that may change places.
    """

    wait: timedelta
    share: str | None = None


class RateLimits:
    """The limits that hold for deliveries."""

    def __init__(self, rates: Mapping[str, Rate], turns: Turns) -> None:
        self._rates = rates
        self._turns = turns

    async def reserve(self, asking: Sequence[Asking]) -> list[Turn]:
        """A turn for each, in order, reserved now; one question to Redis, however many there are."""
        wanted: list[tuple[str, Rate]] = []
        counts = []
        for each in asking:
            limits = self._limits_of(each)
            wanted += limits
            counts.append(len(limits))
        waits = iter(await self._turns.take(wanted)) if wanted else iter(())
        return [
            _make_turn(each, each.channel in self._rates, list(islice(waits, count)))
            for each, count in zip(asking, counts, strict=True)
        ]

    def _limits_of(self, asking: Asking) -> list[tuple[str, Rate]]:
        """The channel's own first."""
        scopes = (
            (asking.channel, asking.channel),
            (f"{asking.channel}.provider", asking.route),
            (f"{asking.channel}.tenant", asking.tenant),
            (f"{asking.channel}.sender", asking.share),
        )
        return [(f"{scope}:{name}", rate) for scope, name in scopes if (rate := self._rates.get(scope)) is not None]

    async def close(self) -> None:
        """Close what is open."""
        await self._turns.close()


def _make_turn(asking: Asking, has_channel_limit: bool, waits: list[float]) -> Turn:  # noqa: FBT001 - private
    wait = max(waits, default=0.0)
    own = max(waits[1:] if has_channel_limit else waits, default=0.0)
    return Turn(timedelta(seconds=wait), asking.share if wait and not own else None)
