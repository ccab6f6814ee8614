"""Rate limits per channel, tenant and sender: each message that is too early gets a turn of its own, later.

The generic cell rate algorithm (ITU-T I.371): one number per limit, the moment from which it is free. Reserving a turn
moves that number on, so ten thousand messages over a limit are spread over time once, in order, and none of them has to
ask again. In process memory, or in Redis, where all workers share it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from notification_service.clock import Clock
from notification_service.rates import Rate, take_turn

log = structlog.get_logger(__name__)

_MAX_KEYS: Final = 100_000
_REDIS_LIMIT_S: Final = 0.5


class Turns(Protocol):
    """Where the numbers are kept."""

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> float:
        """Reserve a turn under every one of these limits; answers the longest wait in seconds."""

    async def close(self) -> None:
        """Close what is open."""


class MemoryTurns:
    """In this process: right for one worker."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_at: OrderedDict[str, float] = OrderedDict()

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> float:
        """Reserve a turn."""
        now = self._clock.monotonic()
        wait = 0.0
        for key, rate in wanted:
            self._free_at[key], own = take_turn(self._free_at.pop(key, 0.0), rate, now)
            wait = max(wait, own)
        while len(self._free_at) > _MAX_KEYS:
            self._free_at.popitem(last=False)
        return wait

    async def close(self) -> None:
        """Nothing is open."""


# The same arithmetic as `take_turn`, in one step for all workers, by the clock of Redis.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local wait = 0
for index, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * index - 1]), tonumber(ARGV[2 * index])
  local begin = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local free = begin + interval
  redis.call('SET', key, string.format('%.6f', free), 'PX', math.ceil((free - now) * 1000) + 1000)
  wait = math.max(wait, begin - now - burst)
end
return string.format('%.6f', wait)
"""


class RedisTurns:
    """In Redis, for several workers. While Redis does not answer, each worker counts for itself."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=_REDIS_LIMIT_S, socket_connect_timeout=_REDIS_LIMIT_S, decode_responses=True
        )
        self._script: Any = self._redis.register_script(_SCRIPT)
        self._own = MemoryTurns(clock)

    async def take(self, wanted: Sequence[tuple[str, Rate]]) -> float:
        """Reserve a turn."""
        keys = [f"herald:rate:{key}" for key, _ in wanted]
        arguments = [number for _, rate in wanted for number in (rate.interval_s, rate.burst_s)]
        try:
            return float(await self._script(keys=keys, args=arguments))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("rate_limits_without_redis", problem=type(error).__name__)
            return await self._own.take(wanted)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


class RateLimits:
    """The limits that hold for a delivery."""

    def __init__(self, rates: Mapping[str, Rate], turns: Turns) -> None:
        self._rates = rates
        self._turns = turns

    async def wait_for(self, channel: str, *, tenant: str, sender: str) -> timedelta:
        """How long a delivery must wait for its turn, which is reserved now; zero: it may go."""
        if not self._rates:
            return timedelta()
        scopes = ((channel, channel), (f"{channel}.tenant", tenant), (f"{channel}.sender", f"{tenant}:{sender}"))
        wanted = [(f"{scope}:{name}", rate) for scope, name in scopes if (rate := self._rates.get(scope)) is not None]
        return timedelta(seconds=await self._turns.take(wanted)) if wanted else timedelta()

    async def close(self) -> None:
        """Close what is open."""
        await self._turns.close()
