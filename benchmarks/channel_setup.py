"""What the benchmarks of channels share: services of their own, an installation of one worker process, deliveries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import func, select

from herald_local.rabbitmq import RabbitNode
from herald_local.testing import POSTGRES_URL, RABBIT_FOLDER, backing_services
from notification_service.broker.publisher import Publisher
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery, PlannedDelivery
from notification_service.clock import SystemClock
from notification_service.db.engine import Database
from notification_service.db.migrate import migrate
from notification_service.entrypoints.channel_parts import ChannelParts
from notification_service.identity.mirror_rows import upsert_users
from notification_service.notifications.entity import EventTypeDefaults, Sender, make_notification
from notification_service.notifications.repository import Routed, upsert_routed
from notification_service.settings import Settings
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients


@contextlib.contextmanager
def services() -> Iterator[None]:
    """A RabbitMQ node and a PostgreSQL cluster, unless the environment names some."""
    if RABBIT_FOLDER in os.environ and POSTGRES_URL in os.environ:
        yield
        return
    with backing_services() as started:
        os.environ.update(started)
        yield


@dataclass(frozen=True)
class Installation:
    """One worker process's channels around a real broker and a real database."""

    parts: ChannelParts
    database: Database
    clock: SystemClock

    async def add_people(self, count: int, *, tenant: str = "default", number_from: int | None = None) -> list[UUID]:
        """Users with an e-mail address each, and a phone number each when told where to begin."""
        people = [uuid4() for _ in range(count)]
        now = self.clock.now()
        snapshots = [
            UserSnapshot(
                id=each,
                username=each.hex,
                tenant=tenant,
                created_at=now,
                email_verified=True,
                email=f"{each}@x.org",
                phone=f"+49151{number_from + index}" if number_from is not None else None,
            )
            for index, each in enumerate(people)
        ]
        async with self.database.write() as connection:
            await upsert_users(connection, snapshots)
        return people

    async def store(self, people: Sequence[UUID], channel: str, *, tenant: str = "default") -> list[KeptDelivery]:
        """One notification with a delivery for each, stored and not published."""
        now = self.clock.now()
        notification = make_notification(
            NotificationRequest(
                title="Your order is on its way", body="x" * 500, recipients=Recipients(all=True), tenant=tenant
            ),
            notification_id=uuid4(),
            kind=Kind.PRIVATE,
            sender=Sender(None, "bench"),
            now=now,
            defaults=EventTypeDefaults(),
        )
        planned = [
            PlannedDelivery(notification_id=notification.id, user_id=each, tenant=tenant, channel=channel)
            for each in people
        ]
        async with self.database.write() as connection:
            await upsert_routed(connection, [(notification, Routed(len(people), []))], now=now, relay_after=now)
            return await keep_deliveries(connection, planned, now, reach=self.parts.reach)

    async def count_waiting(self) -> int:
        """Deliveries that have not ended."""
        query = select(func.count()).select_from(deliveries).where(deliveries.c.status.in_(("pending", "queued")))
        async with self.database.read() as connection:
            return int((await connection.execute(query)).scalar_one())


@contextlib.asynccontextmanager
async def installed(
    kind: str, settings: Callable[[], dict[str, str]], **changes: object
) -> AsyncIterator[Installation]:
    """An installation that consumes until the block ends.

    Args:
        kind: `sqlite` or `postgresql`.
        settings: The channels' own, for the environment.
        changes: Settings of the service.
    """
    os.environ.update(settings())
    node = RabbitNode(Path(os.environ[RABBIT_FOLDER]))
    vhost = f"bench-{uuid4().hex[:8]}"
    node.ctl("add_vhost", vhost)
    node.ctl("set_permissions", "-p", vhost, "herald", ".*", ".*", ".*")
    amqp_url = node.url.rstrip("/") + "/" + vhost
    with tempfile.TemporaryDirectory() as folder, _database_of(kind, folder) as url:
        # A busy machine is measured as busy; it is no failure.
        database, clock = Database(url, timeout=timedelta(seconds=30)), SystemClock()
        await migrate(database.engine)
        publisher = Publisher(amqp_url, name="bench", clock=clock)
        parts = ChannelParts(
            Settings.model_validate({"amqp_url": amqp_url, "rate_limits": "", **changes}),
            database=database,
            publisher=publisher,
            clock=clock,
            node_id="bench",
        )
        publisher.start()
        await publisher.link.wait_ready(timedelta(seconds=20))
        parts.start()
        await parts.consumers.link.wait_ready(timedelta(seconds=20))
        try:
            yield Installation(parts, database, clock)
        finally:
            await parts.stop()
            await parts.receipts.stop()
            await parts.close()
            await publisher.close()
            await database.close()
            await asyncio.to_thread(node.ctl, "delete_vhost", vhost)


@contextlib.contextmanager
def _database_of(kind: str, folder: str) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder}/bench.sqlite3"
        return
    name = f"bench_{uuid4().hex[:8]}"
    with psycopg.connect(os.environ[POSTGRES_URL], autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        url = os.environ[POSTGRES_URL].rpartition("/")[0].replace("postgresql://", "postgresql+asyncpg://")
        yield f"{url}/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
