"""A plain batch is stored by one statement on PostgreSQL, everything else in a transaction: with the same result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from service import make_settings
from sqlalchemy import insert, select, text

from notification_service.entrypoints.arriving import Stored
from notification_service.entrypoints.parts import Parts
from notification_service.errors import Unavailable
from notification_service.event_types.catalog import raise_version
from notification_service.event_types.models import event_types
from notification_service.identity.mirror_rows import upsert_users
from notification_service.intake.check import CheckedRequest
from notification_service.intake.receive import Arrival
from notification_service.mailbox.models import items, streams
from notification_service.notifications.entity import Sender
from notification_service.notifications.kept import Counts, KeptItem
from notification_service.notifications.models import notifications
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Channel, Kind, NotificationRequest, Priority, Recipients

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
AT_ONCE, TRANSACTION = "at-once", "transaction"

pytestmark = pytest.mark.parametrize(
    ("migrated_url", "way"),
    [("postgresql", AT_ONCE), ("postgresql", TRANSACTION), ("sqlite", TRANSACTION)],
    indirect=["migrated_url"],
)


@dataclass
class Site:
    """A worker's parts, two users, and what was handed on to be published."""

    parts: Parts
    way: str
    ada: UUID = field(default_factory=uuid4)
    bob: UUID = field(default_factory=uuid4)
    was_at_once: bool = False

    async def handle(self, *arrivals: Arrival) -> list[KeptItem]:
        """Store a batch; answers what would be published, in order."""
        kept: list[KeptItem] = []

        async def note(found: Sequence[KeptItem], _broadcasts: object = ()) -> Any:
            kept.extend(found)
            raise _Enough

        tried: list[bool] = []
        at_once = self.parts.pipeline._at_once
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.parts.dispatcher, "dispatch", note)
            if at_once is not None:
                patch.setattr(at_once, "store", _noting(at_once.store, tried))
            rest = await self.parts.pipeline.handle(arrivals, [])
            with pytest.raises(_Enough):
                await rest
        self.was_at_once = any(tried)
        return kept

    async def read(self, column: Any) -> list[Any]:
        async with self.parts.database.read() as connection:
            return list((await connection.execute(select(column).order_by(column))).scalars())

    def find_numbers(self, kept: list[KeptItem], user_id: UUID) -> list[tuple[int, str | None, int]]:
        """What one user gets: number, title, and the unread count that goes with it."""
        return [(each.seq, each.notification.title, each.counts.unread) for each in kept if each.user_id == user_id]


class _Enough(Exception):
    """Nothing is to be published here."""


def _noting(
    store: Callable[[Sequence[Arrival]], Awaitable[Any]], tried: list[bool]
) -> Callable[[Sequence[Arrival]], Awaitable[Any]]:
    async def noting(arrivals: Sequence[Arrival]) -> Any:
        stored = await store(arrivals)
        tried.append(isinstance(stored, Stored))
        return stored

    return noting


@pytest.fixture
async def site(migrated_url: str, way: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    settings = make_settings("http://127.0.0.1:1", amqp_url, migrated_url, tmp_path, database_timeout=20)
    made = Parts(settings, process="worker")
    found = Site(made, way)
    if found.way is TRANSACTION:
        made.pipeline._at_once = None
    people = [
        UserSnapshot(id=each, username=each.hex, tenant="default", created_at=NOW, email="a@example.org")
        for each in (found.ada, found.bob)
    ]
    async with made.database.write() as connection:
        await upsert_users(connection, people)
    yield found
    await made.close()


def arrival(*user_ids: UUID, title: str = "T", **fields: Any) -> Arrival:
    recipients = Recipients(users=tuple(str(each) for each in user_ids))
    request = NotificationRequest(recipients=recipients, title=title, **fields)
    return Arrival(CheckedRequest(uuid4(), request, Kind.PRIVATE, Sender(None, "shop")), None)  # type: ignore[arg-type]


async def test_numbers_follow_the_order_of_arrival(site: Site) -> None:
    first = await site.handle(arrival(site.ada, title="0"))
    assert site.was_at_once is (site.way is AT_ONCE)
    kept = await site.handle(
        arrival(site.ada, title="1"),
        arrival(site.bob, site.ada, title="2", priority=Priority.HIGH),
        arrival(site.ada, title="3", ttl_seconds=3_600),
    )
    assert site.was_at_once is (site.way is AT_ONCE)
    assert site.find_numbers(first, site.ada) == [(1, "0", 1)]
    assert site.find_numbers(kept, site.ada) == [(2, "1", 2), (3, "2", 3), (4, "3", 4)]
    assert site.find_numbers(kept, site.bob) == [(1, "2", 1)]
    assert [each.notification.title for each in kept] == ["1", "2", "2", "3"]
    async with site.parts.database.read() as connection:
        rows = (await connection.execute(select(streams).order_by(streams.c.top_seq.desc()))).all()
        stored = (await connection.execute(select(items).order_by(items.c.user_id, items.c.seq))).all()
    assert [(row.user_id, row.tenant, row.top_seq, row.unread, row.unseen, row.total) for row in rows] == [
        (site.ada, "default", 4, 4, 4, 4),
        (site.bob, "default", 1, 1, 1, 1),
    ]
    assert [(row.user_id, row.seq, row.changed_seq) for row in stored] == sorted(
        [(site.ada, seq, seq) for seq in (1, 2, 3, 4)] + [(site.bob, 1, 1)]
    )
    assert [row.expires_at - row.created_at for row in stored if row.expires_at] == [timedelta(hours=1)]
    assert {row.created_at for row in stored} <= set(await site.read(notifications.c.created_at))
    assert await site.read(notifications.c.recipients_count) == [1, 1, 1, 2]


async def test_what_was_stored_before_takes_no_number_and_is_not_published_again(site: Site) -> None:
    twice = arrival(site.ada, title="twice")
    await site.handle(twice)
    kept = await site.handle(arrival(site.ada, title="new"), twice, arrival(site.ada, title="newer"))
    assert site.find_numbers(kept, site.ada) == [(2, "new", 2), (3, "newer", 3)]
    assert await site.handle(twice) == []
    assert await site.read(items.c.seq) == [1, 2, 3]
    assert await site.read(streams.c.top_seq) == [3]


async def test_the_same_batch_by_two_at_the_same_time_is_stored_once(site: Site) -> None:
    batch = [arrival(site.ada, title=str(number)) for number in range(20)]
    both = await asyncio.gather(
        *(site.parts.pipeline.handle(batch if number % 2 else batch[::-1], []) for number in range(4)),
        return_exceptions=True,
    )
    for each in both:
        # One that waited for another's rows in a circle is rolled back by PostgreSQL, and comes again.
        if isinstance(each, BaseException):
            assert isinstance(each, Unavailable)
            await site.handle(*batch)
        else:
            each.close()  # type: ignore[attr-defined]  # a coroutine, not begun
    assert await site.read(items.c.seq) == list(range(1, 21))
    assert await site.read(streams.c.unread) == [20]


async def add_type(site: Site, **fields: Any) -> None:
    values = {"name": "Order", "description": "", "default_enabled": True, "mandatory": False, "priority": "normal"}
    values |= {"is_active": True, "version": 1, "created_at": NOW, "updated_at": NOW}
    async with site.parts.database.write() as connection:
        await connection.execute(insert(event_types).values(tenant="default", code="order", **(values | fields)))
        await raise_version(connection, "default", NOW)


@pytest.mark.parametrize(
    ("fields", "type_"),
    [
        ({"channels": (Channel.IN_APP, Channel.EMAIL)}, None),
        ({"collapse_key": "order-1"}, None),
        ({"event_type": "order"}, {"throttle": {"limit": 100, "window_seconds": 60}}),
        ({"event_type": "order"}, {"channels": ["in_app", "email"]}),
        ({"event_type": "order"}, {"escalation": {"steps": [{"after_seconds": 60, "channels": ["email"]}]}}),
    ],
    ids=["email", "collapse", "throttled", "type-with-email", "escalating"],
)
async def test_more_than_items_takes_the_transaction(
    site: Site, fields: dict[str, Any], type_: dict[str, Any] | None
) -> None:
    if type_ is not None:
        await add_type(site, **type_)
    decided: list[int] = []
    decide = site.parts.deciding._decide

    async def counting(connection: Any, addressed: Any, *arguments: Any, **options: Any) -> Any:
        decided.append(len(addressed))
        return await decide(connection, addressed, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.parts.deciding, "_decide", counting)
        kept = await site.handle(arrival(site.ada, title="more", **fields), arrival(site.bob))
    assert not site.was_at_once
    # What was decided on the way is not decided again.
    assert decided == [2]
    assert site.find_numbers(kept, site.ada) == [(1, "more", 1)]
    assert site.find_numbers(kept, site.bob) == [(1, "T", 1)]


async def test_an_event_type_that_only_fills_in_is_plain(site: Site) -> None:
    await add_type(site, priority="high")
    kept = await site.handle(arrival(site.ada, event_type="order"))
    assert site.was_at_once is (site.way is AT_ONCE)
    assert [each.counts for each in kept] == [Counts(unread=1, unseen=1, total=1)]
    assert await site.read(notifications.c.event_type) == ["order"]


@pytest.mark.req("H15")
async def test_a_batch_whose_connection_ends_is_stored_by_the_next_try(site: Site) -> None:
    await site.handle(arrival(site.ada))
    if not site.parts.database.is_sqlite:
        async with site.parts.database.write() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    batch = arrival(site.ada, title="again")
    kept: list[KeptItem] = []
    # The pool notices with the first try; the consumer hands the batch over again.
    for _ in range(3):
        with contextlib.suppress(Unavailable):
            kept = kept or await site.handle(batch)
    assert site.find_numbers(kept, site.ada) == [(2, "again", 2)]
