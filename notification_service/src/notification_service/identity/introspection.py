"""Asking the auth service whether a token is still good (RFC 7662): many tokens in one call, answers kept for 30 s."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
import structlog

from notification_service.batching import Batcher
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from shared_contracts.claims import AccessTokenClaims
from shared_contracts.headers import INTERNAL_KEY

log = structlog.get_logger(__name__)

Shared = TypeVar("Shared")

_BATCH: Final = 500
_CALLS_AT_ONCE: Final = 4
_CALL_LIMIT_S: Final = 5.0
_MAX_CACHED: Final = 50_000
# Users remembered as changed; answers are under way for seconds at most.
_MAX_CHANGED: Final = 10_000
_MAX_TRIES: Final = 3
# Sessions and users each, the latest; access tokens live for minutes.
_MAX_ENDED: Final = 50_000


class Ending(StrEnum):
    """Why a token that was good counts no more, and no other one will be given for it."""

    ACCOUNT_CLOSED = "account_closed"
    SESSION_ENDED = "session_ended"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the auth service said of one token.

    Attributes:
        is_active: Everything else but `ending` is None or empty when it is not.
        ending: Of an inactive one; None where a fresh token would do.
        roles, scope: As they are now, which may be less than what the token says.
        access: Of a redeemed ticket: the token it was bought with.
    """

    is_active: bool
    user_id: UUID | None = None
    session_id: UUID | None = None
    roles: tuple[str, ...] = ()
    scope: str = ""
    tenant: str = ""
    username: str | None = None
    expires_at: datetime | None = None
    access: str | None = field(default=None, repr=False)
    ending: Ending | None = None


_INACTIVE = Answer(is_active=False)
_ENDED = {each.value: Answer(is_active=False, ending=each) for each in Ending}


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
        # When what about whom: an answer that was under way while its user changed says what was, not what is.
        self._changes = 0
        self._changed: OrderedDict[UUID, int] = OrderedDict()
        self._everybody_changed = 0
        self._ended: OrderedDict[UUID, None] = OrderedDict()
        self._cut_off: OrderedDict[UUID, tuple[float, UUID | None]] = OrderedDict()
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
        answer = _INACTIVE
        for _ in range(_MAX_TRIES):
            asked_at = self._changes
            answer = await self._batcher.ask(token)
            if answer.user_id is None or not self.has_changed(answer.user_id, since=asked_at):
                self._remember(digest, answer)
                break
        return answer

    @property
    def moment(self) -> int:
        """What `has_changed` compares with: now, in changes heard of so far."""
        return self._changes

    def has_changed(self, user_id: UUID, *, since: int) -> bool:
        """Whether something about this user was heard of after that moment; in doubt, yes."""
        return max(self._changed.get(user_id, 0), self._everybody_changed) > since

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

    def note_ended(
        self, user_id: UUID, session_ids: Collection[UUID] | None = None, *, spared: UUID | None = None
    ) -> None:
        """Sessions of this user ended (`session_ids` None: all but `spared`): what counts while nobody can be asked."""
        self.forget_user(user_id)
        if session_ids is None:
            self._cut_off[user_id] = self._clock.now().timestamp(), spared
            self._cut_off.move_to_end(user_id)
        self._ended.update(dict.fromkeys(session_ids or ()))
        for bounded in (self._cut_off, self._ended):
            while len(bounded) > _MAX_ENDED:
                bounded.popitem(last=False)

    def is_known_ended(self, claims: AccessTokenClaims) -> bool:
        """Whether this token is one of those whose end was heard of."""
        if claims.sid in self._ended:
            return True
        at, spared = self._cut_off.get(claims.sub, (0.0, None))
        return claims.iat <= at and claims.sid != spared

    def forget_user(self, user_id: UUID) -> None:
        """Ask again about this user's tokens: something about the account changed."""
        self._changes += 1
        self._changed[user_id] = self._changes
        self._changed.move_to_end(user_id)
        if len(self._changed) > _MAX_CHANGED:
            self._everybody_changed = self._changed.popitem(last=False)[1]
        for digest in self._by_user.pop(user_id, set()):
            self._known.pop(digest, None)

    def forget_all(self) -> None:
        """Ask again about every token."""
        self._changes += 1
        self._everybody_changed = self._changes
        self._changed.clear()
        self._known.clear()
        self._by_user.clear()

    async def _post(self, tokens: Sequence[str]) -> list[Answer]:
        try:
            response = await self._client.post(
                self._url, json={"tokens": list(tokens)}, headers=self._headers, timeout=_CALL_LIMIT_S
            )
            response.raise_for_status()
            body = response.json()
            # Without them, as an earlier version answers, devices try another token and learn it from that.
            endings = body.get("endings") or [None] * len(tokens)
            return [_read_answer(*both) for both in zip(body["items"], endings, strict=True)]
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


def _read_answer(item: dict[str, Any], ending: str | None = None) -> Answer:
    if item.get("active") is not True:
        # A word of a later version says no more than none.
        return _ENDED.get(ending or "", _INACTIVE)
    return Answer(
        is_active=True,
        user_id=UUID(item["sub"]),
        session_id=UUID(item["sid"]),
        # Few different ones, and tens of thousands of answers.
        roles=_share(tuple(item["roles"])),
        scope=_share(item["scope"]),
        tenant=_share(item["tenant"]),
        username=item.get("username") or item.get("client_id"),
        expires_at=datetime.fromtimestamp(item["exp"], UTC),
        access=item.get("access"),
    )


@lru_cache(maxsize=1024)
def _share(value: Shared) -> Shared:
    """The first of all equal values."""
    return value
