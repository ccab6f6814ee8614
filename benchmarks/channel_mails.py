"""How many mails a second one worker process sends: real RabbitMQ, real database, an SMTP sink in another process.

. <environment of the test services>; .venv/bin/python benchmarks/channel_mails.py [mails] [sqlite|postgresql]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from aiosmtpd.smtp import SMTP
from sqlalchemy import func, select

from herald_local.rabbitmq import RabbitNode
from herald_local.testing import POSTGRES_URL, RABBIT_FOLDER
from notification_service.broker.publisher import Publisher
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.models import deliveries
from notification_service.channels.planned import PlannedDelivery
from notification_service.clock import SystemClock
from notification_service.db.engine import Database
from notification_service.db.migrate import migrate
from notification_service.entrypoints.channel_parts import ChannelParts
from notification_service.identity.mirror import upsert_users
from notification_service.notifications.entity import EventTypeDefaults, Sender, make_notification
from notification_service.notifications.repository import Routed, upsert_routed
from notification_service.settings import Settings
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients


class _Sink:
    async def handle_DATA(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802
        return "250 OK"


def serve_sink(port: Any) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(_Sink(), hostname="sink.example"), "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await asyncio.Event().wait()

    asyncio.run(serve())


async def measure(count: int, kind: str, smtp_port: int) -> None:  # noqa: PLR0915 - set up, measure, tear down
    node = RabbitNode(Path(os.environ[RABBIT_FOLDER]))
    vhost = f"bench-{uuid4().hex[:8]}"
    node.ctl("add_vhost", vhost)
    node.ctl("set_permissions", "-p", vhost, "herald", ".*", ".*", ".*")
    amqp_url = node.url.rstrip("/") + "/" + vhost
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/bench.sqlite3"
        name = f"bench_{uuid4().hex[:8]}"
        if kind == "postgresql":
            with psycopg.connect(os.environ[POSTGRES_URL], autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            url = os.environ[POSTGRES_URL].rpartition("/")[0].replace("postgresql://", "postgresql+asyncpg://")
            url = f"{url}/{name}"
        database, clock = Database(url), SystemClock()
        await migrate(database.engine)
        os.environ["NOTIFY_SMTP_URL"] = f"smtp://127.0.0.1:{smtp_port}"
        os.environ["NOTIFY_EMAIL_FROM"] = "Herald <herald@example.com>"
        publisher = Publisher(amqp_url, name="bench", clock=clock)
        parts = ChannelParts(
            Settings(amqp_url=amqp_url), database=database, publisher=publisher, clock=clock, node_id="bench"
        )
        publisher.start()
        await publisher.link.wait_ready(timedelta(seconds=20))
        people = [uuid4() for _ in range(count)]
        now = clock.now()
        notification = make_notification(
            NotificationRequest(title="Your order is on its way", body="x" * 500, recipients=Recipients(all=True)),
            notification_id=uuid4(),
            kind=Kind.PRIVATE,
            sender=Sender(None, "bench"),
            now=now,
            defaults=EventTypeDefaults(),
        )
        snapshots = [
            UserSnapshot(
                id=each, username=each.hex, tenant="default", created_at=now, email_verified=True, email=f"{each}@x.org"
            )
            for each in people
        ]
        planned = [
            PlannedDelivery(notification_id=notification.id, user_id=each, tenant="default", channel="email")
            for each in people
        ]
        async with database.write() as connection:
            await upsert_users(connection, snapshots)
            await upsert_routed(connection, [(notification, Routed(count, []))], now=now, relay_after=now)
            kept = await keep_deliveries(connection, planned, now, reach=parts.reach)
        parts.start()
        await parts.consumers.link.wait_ready(timedelta(seconds=20))
        started, cpu = time.monotonic(), time.process_time()
        await parts.queueing.publish(kept)
        waiting = count
        while waiting:
            await asyncio.sleep(0.05)
            async with database.read() as connection:
                query = select(func.count()).select_from(deliveries).where(deliveries.c.status != "sent")
                waiting = (await connection.execute(query)).scalar_one()
        took, used = time.monotonic() - started, time.process_time() - cpu
        print(f"{kind}: {count} mails in {took:.2f} s, {count / took:.0f}/s, {used / count * 1000:.2f} ms CPU each")
        await parts.stop()
        await parts.receipts.stop()
        await parts.close()
        await publisher.close()
        await database.close()
        if kind == "postgresql":
            with psycopg.connect(os.environ[POSTGRES_URL], autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    node.ctl("delete_vhost", vhost)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    port = multiprocessing.Value("i", 0)
    sink = multiprocessing.Process(target=serve_sink, args=(port,), daemon=True)
    sink.start()
    while not port.value:
        time.sleep(0.05)
    for kind in sys.argv[2:] or ("sqlite", "postgresql"):
        asyncio.run(measure(count, kind, port.value))
    sink.terminate()


if __name__ == "__main__":
    main()
