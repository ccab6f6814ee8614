"""The auth service's public keys, in memory: fetched in the background, never on the way of a request."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import httpx
import jwt
import structlog

from notification_service.background import end_tasks, keep_running
from notification_service.clock import Clock
from shared_contracts.claims import SIGNING_ALGORITHMS

log = structlog.get_logger(__name__)

_REFRESH: Final = timedelta(minutes=5)
_RETRY: Final = timedelta(seconds=2)
# 30 s: whoever sends tokens with made-up key ids causes at most one fetch in this time.
_COOL_DOWN_S: Final = 30.0
_FETCH_LIMIT_S: Final = 5.0


class KeySet:
    """Keys by `kid`, each usable with its own algorithm only."""

    def __init__(self, url: str, *, client: httpx.AsyncClient, clock: Clock) -> None:
        self._url = url
        self._client = client
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked = asyncio.Event()
        self._last_asked_for_unknown = -_COOL_DOWN_S
        self._fetched = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether any key is known; without one the process is not ready."""
        return bool(self._keys)

    def start(self) -> None:
        """Begin to fetch, and to fetch again every five minutes."""
        self._task = keep_running(self._run, name="key-set")

    async def stop(self) -> None:
        """Stop fetching."""
        await end_tasks(self._task)

    def refresh(self) -> None:
        """Fetch now: the auth service announced a rotation."""
        self._asked.set()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id. An unknown id waits for one fetch, unless one was made for another just before."""
        key = self._keys.get(kid)
        if key is not None or self._clock.monotonic() - self._last_asked_for_unknown < _COOL_DOWN_S:
            return key
        self._last_asked_for_unknown = self._clock.monotonic()
        self._fetched.clear()
        self._asked.set()
        try:
            async with asyncio.timeout(_FETCH_LIMIT_S):
                await self._fetched.wait()
        except TimeoutError:
            return None
        return self._keys.get(kid)

    async def _run(self) -> None:
        while True:
            self._asked.clear()
            pause = _REFRESH if await self._fetch() else _RETRY
            try:
                async with asyncio.timeout(pause.total_seconds()):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _fetch(self) -> bool:
        try:
            response = await self._client.get(self._url, timeout=_FETCH_LIMIT_S)
            response.raise_for_status()
            keys = _read_keys(response.json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as error:
            log.warning("key_set_not_fetched", problem=f"{type(error).__name__}: {error}")
            return False
        if keys.keys() != self._keys.keys():
            log.info("key_set_changed", key_ids=sorted(keys))
        self._keys = keys
        self._fetched.set()
        return True


def _read_keys(document: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    keys = {}
    for entry in document["keys"]:
        algorithm = entry.get("alg")
        if algorithm in SIGNING_ALGORITHMS and isinstance(entry.get("kid"), str) and entry.get("use", "sig") == "sig":
            keys[entry["kid"]] = jwt.PyJWK(entry, algorithm)
    if not keys:
        raise ValueError("the key set holds no usable key")
    return keys
