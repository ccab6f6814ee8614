"""Asking the auth service whether a token is still good (RFC 7662): many tokens in one call, answers kept for 30 s."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import structlog

from notification_service.batching import Batcher
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from shared_contracts.headers import INTERNAL_KEY

log = structlog.get_logger(__name__)

_BATCH: Final = 500
_CALLS_AT_ONCE: Final = 4
_CALL_LIMIT_S: Final = 5.0
_MAX_CACHED: Final = 50_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What the auth service said of one token.

    Attributes:
        is_active: Everything else is None or empty when it is not.
        roles, scope: As they are now, which may be less than what the token says.
    """

    is_active: bool
    user_id: UUID | None = None
    session_id: UUID | None = None
    roles: tuple[str, ...] = ()
    scope: str = ""
    tenant: str = ""
    username: str | None = None
    expires_at: datetime | None = None


_INACTIVE = Answer(is_active=False)


class Introspection:
    """Asks in batches, so that a thousand connecting sockets cost a few calls; remembers answers for `ttl`."""

    def __init__(self, base_url: str, *, key: str, client: httpx.AsyncClient, ttl: timedelta, clock: Clock) -> None:
        self._url = f"{base_url}/internal/v1/tokens/introspect/batch"
        self._redeem_url = f"{base_url}/internal/v1/tickets/redeem"
        self._headers = {INTERNAL_KEY: key}
        self._client = client
        self._ttl_s = ttl.total_seconds()
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._by_user: dict[UUID, set[bytes]] = {}
        self._batcher = Batcher(self._post, max_batch=_BATCH, calls_at_once=_CALLS_AT_ONCE)

    async def ask(self, token: str, *, fresh: bool = False) -> Answer:
        """What the auth service says of this token, at most `ttl` ago; `fresh`: right now.

        Raises:
            Unavailable: It does not answer.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if not fresh and known is not None and known[0] > self._clock.monotonic():
            return known[1]
        answer = await self._batcher.ask(token)
        self._remember(digest, answer)
        return answer

    async def redeem(self, ticket: str) -> Answer:
        """Exchange a WebSocket ticket, once, for what an introspection of its token would answer.

        Raises:
            Unavailable: The auth service does not answer; whether the ticket is used up is unknown.
        """
        try:
            response = await self._client.post(
                self._redeem_url, json={"ticket": ticket}, headers=self._headers, timeout=_CALL_LIMIT_S
            )
            response.raise_for_status()
            return _read_answer(response.json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("redeeming_failed", problem=f"{type(error).__name__}: {error}")
            raise Unavailable("the auth service does not answer") from error

    def forget_user(self, user_id: UUID) -> None:
        """Ask again about this user's tokens: something about the account changed."""
        for digest in self._by_user.pop(user_id, set()):
            self._known.pop(digest, None)

    def forget_all(self) -> None:
        """Ask again about every token."""
        self._known.clear()
        self._by_user.clear()

    async def _post(self, tokens: Sequence[str]) -> list[Answer]:
        try:
            response = await self._client.post(
                self._url, json={"tokens": list(tokens)}, headers=self._headers, timeout=_CALL_LIMIT_S
            )
            response.raise_for_status()
            return [_read_answer(item) for item in response.json()["items"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("introspection_failed", count=len(tokens), problem=f"{type(error).__name__}: {error}")
            raise Unavailable("the auth service does not answer") from error

    def _remember(self, digest: bytes, answer: Answer) -> None:
        self._known[digest] = self._clock.monotonic() + self._ttl_s, answer
        if answer.user_id is not None:
            self._by_user.setdefault(answer.user_id, set()).add(digest)
        while len(self._known) > _MAX_CACHED:
            dropped, (_, old) = self._known.popitem(last=False)
            if old.user_id is not None and (digests := self._by_user.get(old.user_id)) is not None:
                digests.discard(dropped)
                if not digests:
                    del self._by_user[old.user_id]


def _read_answer(item: dict[str, Any]) -> Answer:
    if item.get("active") is not True:
        return _INACTIVE
    return Answer(
        is_active=True,
        user_id=UUID(item["sub"]),
        session_id=UUID(item["sid"]),
        roles=tuple(item["roles"]),
        scope=item["scope"],
        tenant=item["tenant"],
        username=item.get("username") or item.get("client_id"),
        expires_at=datetime.fromtimestamp(item["exp"], UTC),
    )
