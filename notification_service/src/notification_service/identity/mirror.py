"""The mirror of users, groups and memberships: kept by identity events, read again in full when one was missed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import httpx
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.batching import Batcher
from notification_service.broker.consumer import Incoming
from notification_service.clock import Clock
from notification_service.db.dialects import insert_into
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.identity.mirror_rows import (
    Event,
    OnErased,
    add_members,
    apply_events,
    upsert_groups,
    upsert_users,
)
from notification_service.identity.models import groups, memberships, progress, users
from shared_contracts.headers import INTERNAL_KEY
from shared_contracts.identity_events import (
    GroupSnapshot,
    Membership,
    UserSnapshot,
    parse_identity_event,
)

log = structlog.get_logger(__name__)

_NAME: Final = "identity"
_PAGE: Final = 1000
_CALL_LIMIT_S: Final = 10.0
# 2 s in all: identity events arrive within a quarter of a second, unless the broker or the mirror's worker is away.
_CATCH_UP_TRIES: Final = 80
_CATCH_UP_PAUSE: Final = timedelta(milliseconds=25)

# A request line has room for 8,190 characters in the auth service's server.
_MAX_QUERY: Final = 6_000
_MAX_IDS: Final = 100

Follower = Callable[[Sequence[Event]], Awaitable[None]]
"""Is told of events after they were applied, and again if the process dies before it is done."""


class AuthListings:
    """The auth service's full copies, in pages."""

    def __init__(self, base_url: str, *, key: str, client: httpx.AsyncClient) -> None:
        self._base_url = base_url
        self._headers = {INTERNAL_KEY: key}
        self._client = client

    async def pages(self, what: str, **filters: str | Sequence[str]) -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
        """Pages of `users`, `groups` or `memberships`, each with the revision it was read at.

        Raises:
            Unavailable: The auth service does not answer.
        """
        cursor: str | None = None
        while True:
            parameters: dict[str, str | Sequence[str]] = {"limit": str(_PAGE), **filters}
            if cursor:
                parameters["cursor"] = cursor
            page = await self._get(what, parameters)
            yield page["revision"], page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def find_erased(self, ids: Sequence[UUID]) -> dict[UUID, str]:
        """Those of these users that were erased, with their tenants. Whom it does not know is not among them.

        Raises:
            Unavailable: The auth service does not answer.
        """
        found: dict[UUID, str] = {}
        for start in range(0, len(ids), _MAX_IDS):
            named = ",".join(str(each) for each in ids[start : start + _MAX_IDS])
            page = await self._get("users/erased", {"ids": named})
            found |= {UUID(item["id"]): item["tenant"] for item in page["items"]}
        return found

    async def _get(self, what: str, parameters: dict[str, str | Sequence[str]]) -> Any:
        try:
            response = await self._client.get(
                f"{self._base_url}/internal/v1/{what}",
                params=parameters,
                headers=self._headers,
                timeout=_CALL_LIMIT_S,
            )
            response.raise_for_status()
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"the auth service does not list its {what}: {type(error).__name__}") from error


class Mirror:
    """Applies identity events, in order of their revision; one process at a time does (single active consumer)."""

    def __init__(
        self,
        database: Database,
        listings: AuthListings,
        clock: Clock,
        *,
        on_erased: OnErased | None = None,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._database = database
        self._listings = listings
        self._clock = clock
        self._on_erased = on_erased or _pass_over
        self._followers = tuple(followers)
        self._revisions: Batcher[None, int] = Batcher(self._ask_revision, max_batch=1000, calls_at_once=1)

    async def __call__(self, batch: Sequence[Incoming]) -> Awaitable[None]:
        """Handler of the queue `identity.mirror`."""
        arrived = sorted(_parse_all(batch), key=lambda event: event.revision)
        events = arrived
        async with self._database.read() as connection:
            known = await _read_revision(connection)
        events = [event for event in events if known is None or event.revision > known]
        if known is None or not _is_gapless(events, after=known):
            log.info("identity_mirror_behind", known=known, next=events[0].revision if events else None)
            known = await self.read_again()
            events = [event for event in events if event.revision > known]
        if events:
            async with self._database.write() as connection:
                await _lock_revision(connection)
                await apply_events(connection, events, on_erased=self._on_erased)
                await _write_revision(connection, events[-1].revision)
        # All that arrived: what is known by its revision may be known from before a crash, and nobody told yet.
        return self._tell(arrived)

    async def _tell(self, events: Sequence[Event]) -> None:
        for follower in self._followers:
            await follower(events)

    async def ensure_filled(self) -> None:
        """Read everything once, if that never happened."""
        async with self._database.read() as connection:
            known = await _read_revision(connection)
        if known is None:
            await self.read_again()

    async def read_again(self) -> int:
        """Replace the mirror by what the auth service has now; answers the revision it stands at.

        The first page's revision counts: what changed while later pages were read comes again as events.

        Raises:
            Unavailable: The auth service does not answer; the mirror stays as it is.
        """
        revision: int | None = None
        people: list[UserSnapshot] = []
        teams: list[GroupSnapshot] = []
        members: list[Membership] = []
        wanted: tuple[tuple[str, type[BaseModel], list[Any]], ...] = (
            ("users", UserSnapshot, people),
            ("groups", GroupSnapshot, teams),
            ("memberships", Membership, members),
        )
        for what, model, found in wanted:
            async for page_revision, items in self._listings.pages(what):
                revision = page_revision if revision is None else revision
                found += [model.model_validate(item) for item in items]
        async with self._database.read() as connection:
            gone = await _find_others(connection, users, {person.id for person in people})
        erased = await self._listings.find_erased(gone)
        async with self._database.write() as connection:
            await _lock_revision(connection)
            for user_id, tenant in erased.items():
                await self._on_erased(connection, user_id, tenant)
            await connection.execute(delete(memberships))
            await _delete_others(connection, users, {person.id for person in people})
            await _delete_others(connection, groups, {team.id for team in teams})
            await upsert_users(connection, people)
            await upsert_groups(connection, teams)
            await add_members(connection, [(each.group_id, each.user_id) for each in members])
            await _write_revision(connection, revision or 0)
        log.info("identity_mirror_filled", users=len(people), groups=len(teams), revision=revision)
        return revision or 0

    async def catch_up(self) -> None:
        """Wait until the mirror contains what the auth service has now, for a moment at most.

        Whoever adds a member to a group and then writes to the group means the new member too. Costs one call for all
        batches that ask at the same time. While the auth service is down, what the mirror has must do.
        """
        try:
            wanted = await self._revisions.ask(None)
        except Unavailable:
            return
        known: int | None = None
        for _ in range(_CATCH_UP_TRIES):
            async with self._database.read() as connection:
                known = await _read_revision(connection)
            if known is not None and known >= wanted:
                return
            await self._clock.sleep(_CATCH_UP_PAUSE)
        log.warning("identity_mirror_lags", known=known, wanted=wanted)

    async def _ask_revision(self, questions: Sequence[None]) -> list[int]:
        async for revision, _ in self._listings.pages("groups", limit="1"):
            return [revision] * len(questions)
        raise Unavailable("the auth service does not tell its revision")

    async def fetch_users(self, ids: set[UUID], external: set[tuple[str, str]]) -> list[UserSnapshot]:
        """Ask the auth service for users the mirror does not know yet, and keep those that exist.

        A backend may notify a user it created a moment ago, before the event has arrived here.
        """
        found: list[UserSnapshot] = []
        filters: list[dict[str, str | Sequence[str]]] = [{"ids": ",".join(part)} for part in _split_ids(ids)]
        filters += [{"tenant": tenant, "external_id": part} for tenant, part in _split_external(external)]
        oldest: int | None = None
        for each in filters:
            async for revision, items in self._listings.pages("users", **each):
                oldest = revision if oldest is None else min(oldest, revision)
                found += [UserSnapshot.model_validate(item) for item in items]
        if found:
            async with self._database.write() as connection:
                if await _is_not_ahead_of(connection, oldest):
                    await upsert_users(connection, found)
        return found

    async def fetch_groups(self, ids: set[UUID]) -> bool:
        """The same for groups, with their members; answers whether any exists."""
        teams: list[GroupSnapshot] = []
        oldest: int | None = None
        for part in _split_ids(ids):
            async for revision, items in self._listings.pages("groups", ids=",".join(part)):
                oldest = revision if oldest is None else min(oldest, revision)
                teams += [GroupSnapshot.model_validate(item) for item in items]
        if not teams:
            return False
        members: list[tuple[UUID, UUID]] = []
        for team in teams:
            async for _, items in self._listings.pages("memberships", group_id=str(team.id)):
                members += [(UUID(item["group_id"]), UUID(item["user_id"])) for item in items]
        async with self._database.write() as connection:
            if await _is_not_ahead_of(connection, oldest):
                await upsert_groups(connection, teams)
                await add_members(connection, members)
        return True


async def _pass_over(_connection: AsyncConnection, _user_id: UUID, _tenant: str) -> None:
    """Nobody wants to know."""


def _split_ids(ids: set[UUID]) -> list[list[str]]:
    ordered = sorted(str(each) for each in ids)
    return [ordered[start : start + _MAX_IDS] for start in range(0, len(ordered), _MAX_IDS)]


def _split_external(external: set[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """External ids by tenant, in parts that fit into a request line."""
    for tenant, pairs in itertools.groupby(sorted(external), key=itemgetter(0)):
        part: list[str] = []
        length = 0
        for _, external_id in pairs:
            cost = len(quote(external_id, safe="")) + len("&external_id=")
            if part and (length + cost > _MAX_QUERY or len(part) == _MAX_IDS):
                yield tenant, part
                part, length = [], 0
            part.append(external_id)
            length += cost
        yield tenant, part


def _parse_all(batch: Sequence[Incoming]) -> list[Event]:
    events = []
    for message in batch:
        try:
            events.append(parse_identity_event(message.body))
        except ValidationError:
            # Its revision is missing then, which makes the mirror read everything again.
            log.error("identity_event_unreadable", size_bytes=len(message.body))  # noqa: TRY400
    return events


def _is_gapless(events: Sequence[Event], *, after: int) -> bool:
    expected = after
    for event in events:
        if event.revision not in (expected, expected + 1):
            return False
        expected = event.revision
    return True


async def _find_others(connection: AsyncConnection, table: Any, ids: set[UUID]) -> list[UUID]:
    known = set((await connection.execute(select(table.c.id))).scalars())
    return sorted(known - ids)


async def _delete_others(connection: AsyncConnection, table: Any, ids: set[UUID]) -> None:
    gone = await _find_others(connection, table, ids)
    for start in range(0, len(gone), _PAGE):
        await connection.execute(delete(table).where(table.c.id.in_(gone[start : start + _PAGE])))


async def _read_revision(connection: AsyncConnection) -> int | None:
    found = await connection.execute(select(progress.c.revision).where(progress.c.name == _NAME))
    return found.scalar_one_or_none()


async def _lock_revision(connection: AsyncConnection) -> int | None:
    """The revision; whoever else writes to the mirror waits until this transaction ends."""
    found = await connection.execute(select(progress.c.revision).where(progress.c.name == _NAME).with_for_update())
    return found.scalar_one_or_none()


async def _is_not_ahead_of(connection: AsyncConnection, revision: int | None) -> bool:
    """Whether what was read at this revision is still news. If the mirror is further, it knows better by itself."""
    known = await _lock_revision(connection)
    return known is None or (revision is not None and known <= revision)


async def _write_revision(connection: AsyncConnection, revision: int) -> None:
    insertion = insert_into(connection, progress).values(name=_NAME, revision=revision)
    await connection.execute(
        insertion.on_conflict_do_update(
            index_elements=[progress.c.name], set_={"revision": insertion.excluded.revision}
        )
    )
