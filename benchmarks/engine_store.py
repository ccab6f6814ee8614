"""What one worker process renders and stores, and how fast an inbox of millions answers; a PostgreSQL of its own.

python -m benchmarks.engine_store render [--recipients 1000] [--rounds 30]
python -m benchmarks.engine_store inbox [--items 5000000]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import uvloop
from sqlalchemy import insert

from benchmarks.report import describe_machine
from herald_local.console import say
from herald_local.postgresql import PostgresCluster
from notification_service.db.migrate import migrate
from notification_service.entrypoints.parts import Parts
from notification_service.event_types.catalog import raise_version
from notification_service.event_types.models import event_types
from notification_service.identity.mirror_rows import upsert_users
from notification_service.intake.check import CheckedRequest
from notification_service.intake.receive import Arrival
from notification_service.mailbox.actions import Action
from notification_service.mailbox.inbox import InboxFilter
from notification_service.notifications.entity import Sender
from notification_service.preferences.repository import write_document
from notification_service.settings import Settings
from notification_service.templates.entity import Source
from notification_service.templates.service import write_template
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients

LOCALES = ("en", "de", "pt-BR")
ITEMS_PER_USER = 1_000
HEAVY_ITEMS = 10_000
RECIPIENTS_PER_NOTIFICATION = 100


@contextmanager
def _database(**settings: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="herald-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user must get through
        cluster = PostgresCluster(folder / "postgresql", settings=settings)
        cluster.start()
        try:
            yield cluster.create_database("notify")
        finally:
            cluster.stop()


def _make_parts(database_url: str, process: str) -> Parts:
    values: dict[str, Any] = {
        "environment": "development",
        "internal_service_key": "benchmark-internal-key-0123456789",
        "database_url": database_url,
        "auth_url": "http://127.0.0.1:1",
    }
    return Parts(Settings(_env_file=None, **values), process=process)


# --- rendering and storing --------------------------------------------------------------------------------------------


async def measure_render(database_url: str, *, recipients: int, rounds: int) -> None:
    """Requests to many recipients through the pipeline, from a checked request to the commit."""
    parts = _make_parts(database_url, "worker")
    await migrate(parts.database.engine)
    now = parts.clock.now()
    ids = await _fill(parts, recipients, now)
    for channels, deliveries in ((["in_app"], recipients), (["in_app", "email"], 2 * recipients)):
        await _make_type(parts, channels, now)
        await _route(parts, ids, rounds=3)
        wall, cpu = await _route(parts, ids, rounds=rounds)
        stored = deliveries * rounds
        say(
            "bench",
            f"{'+'.join(channels)}: {stored / wall:,.0f} deliveries/s, {wall / rounds * 1000:.1f} ms a request, "
            f"{cpu / stored * 1e6:.1f} us of the worker's CPU a delivery",
        )
    await parts.close()


async def _fill(parts: Parts, count: int, now: datetime) -> list[UUID]:
    ids = [uuid4() for _ in range(count)]
    people = [
        UserSnapshot(id=each, username=each.hex, tenant="default", created_at=now, locale=LOCALES[number % 3])
        for number, each in enumerate(ids)
    ]
    async with parts.database.write() as connection:
        await upsert_users(connection, people)
        # Every third user has preferences of their own.
        for number, each in enumerate(ids):
            if number % 3 == 0:
                document = {
                    "channels": {"sms": False},
                    "categories": {"orders": {"push": number % 2 == 0}},
                    "quiet_hours": {"enabled": True, "start": "02:00", "end": "02:30"},
                }
                await write_document(connection, user_id=each, tenant="default", document=document, now=now)
    return ids


async def _make_type(parts: Parts, channels: list[str], now: datetime) -> None:
    code = f"order.{len(channels)}"
    values = {"name": "Order", "description": "", "default_enabled": True, "mandatory": False, "priority": "normal"}
    values |= {"is_active": True, "version": 1, "created_at": now, "updated_at": now, "category": "orders"}
    async with parts.database.write() as connection:
        await connection.execute(insert(event_types).values(tenant="default", code=code, channels=channels, **values))
        for locale in LOCALES:
            source = Source(
                f"{locale}: {{{{ data.n | plural(one='# parcel', other='# parcels') }}}} on the way",
                "Order {{ data.order_id }} left at {{ data.at | datetime }}."
                "{% for line in data.lines %} {{ line.name }} {{ line.price | currency('EUR') }}{% endfor %}",
            )
            await write_template(connection, "default", (code, "in_app", locale), source, author_id=None, now=now)
        await raise_version(connection, "default", now)
    _code[0] = code


_code = [""]


async def _route(parts: Parts, ids: list[UUID], *, rounds: int) -> tuple[float, float]:
    """Seconds by the wall clock and of this process's CPU time."""
    lines = [{"name": f"Part {number}", "price": 9.5 + number} for number in range(3)]
    data = {"n": 3, "order_id": "1042", "at": "2026-03-01T01:30:00Z", "lines": lines}
    request = NotificationRequest(
        event_type=_code[0], data=data, recipients=Recipients(users=tuple(str(each) for each in ids))
    )
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        arrival = Arrival(CheckedRequest(uuid4(), request, Kind.EVENT, Sender(None, "shop")), None)  # type: ignore[arg-type]  # only dead letters look at the message
        publishing: Any = await parts.pipeline.handle([arrival], [])
        publishing.close()
    return time.perf_counter() - wall, time.process_time() - cpu


# --- the inbox --------------------------------------------------------------------------------------------------------


async def measure_inbox(database_url: str, *, items: int, calls: int) -> None:
    """Pages, counts, filters and searches of random users, one after another."""
    parts = _make_parts(database_url, "api")
    await migrate(parts.database.engine)
    users = _fill_inboxes(database_url, items)
    heavy, others = users[0], users[1:]
    chosen = random.Random(1)

    async def page(user_id: UUID, **wanted: Any) -> None:
        found = await parts.inbox.get_page(user_id, "default", InboxFilter(**wanted), limit=50, cursor=None)
        assert found.items or wanted.get("text") == "unheardof"

    async def count(user_id: UUID) -> None:
        counts, _ = await parts.inbox.count(user_id, "default")
        assert counts.total

    async def read_one(user_id: UUID) -> None:
        found = await parts.inbox.get_page(user_id, "default", InboxFilter(state="unread"), limit=1, cursor=None)
        await parts.inbox.change(user_id, "default", Action.READ, [UUID(found.items[0]["id"])])

    def anybody() -> UUID:
        return chosen.choice(others)

    for name, call, number in (
        ("page of 50", lambda: page(anybody()), calls),
        ("counts", lambda: count(anybody()), calls),
        ("page of unread", lambda: page(anybody(), state="unread"), calls),
        ("page of a category", lambda: page(anybody(), category="c3"), calls // 2),
        ("search, word of every item", lambda: page(anybody(), text="order"), calls // 2),
        ("search, two words, one of a hundred items", lambda: page(anybody(), text="w17 left"), calls // 2),
        ("search, word of no item", lambda: page(anybody(), text="unheardof"), calls // 2),
        (f"page of 50 of {HEAVY_ITEMS:,} items", lambda: page(heavy), calls // 2),
        (f"counts of {HEAVY_ITEMS:,} items", lambda: count(heavy), calls // 2),
        (f"search, word of none of {HEAVY_ITEMS:,} items", lambda: page(heavy, text="unheardof"), 100),
        ("read one item", lambda: read_one(anybody()), calls // 2),
    ):
        await _time(name, call, number)
    await parts.close()


async def _time(name: str, call: Callable[[], Awaitable[None]], number: int) -> None:
    for _ in range(20):
        await call()
    took = []
    for _ in range(number):
        started = time.perf_counter()
        await call()
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    p50, p95, p99 = (took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.95, 0.99))
    say("bench", f"{name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms ({number} calls)")


def _fill_inboxes(database_url: str, count: int) -> list[UUID]:
    """So many items; the first user has ten times as many as the others."""
    started = time.monotonic()
    users = [uuid4() for _ in range(count // ITEMS_PER_USER)]
    notifications = count // RECIPIENTS_PER_NOTIFICATION
    begin = datetime.now(UTC) - timedelta(days=20)
    with psycopg.connect(database_url, autocommit=True) as connection:
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('mailbox_items', 'notifications')"
            " AND indexname NOT LIKE 'pk_%'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"')
        connection.execute("CREATE TEMP TABLE people (number int PRIMARY KEY, id uuid)")
        with connection.cursor().copy("COPY people FROM STDIN") as copy:
            for number, user_id in enumerate(users):
                copy.write_row((number, user_id))
        connection.execute(
            "CREATE TEMP TABLE sent AS SELECT number, gen_random_uuid() AS id,"
            " %s::timestamptz + number * interval '1 second' AS at FROM generate_series(0, %s) number",
            (begin, max(notifications, HEAVY_ITEMS)),
        )
        connection.execute("CREATE UNIQUE INDEX ON sent (number)")
        connection.execute(
            "INSERT INTO notifications (id, tenant, sender_name, request_hash, kind, event_type, title, body, data,"
            " actions, priority, category, tags, recipients, created_at, routed_at, dispatched_at, relay_after,"
            " recipients_count, rendered, search) SELECT id, 'default', 'shop', '', 'event', 'order.shipped',"
            " 'Order ' || number || ' is on its way',"
            " 'It left the warehouse in the morning, w' || (number / 50 + number) %% 100,"
            " jsonb_build_object('order_id', number), '[]', 'normal',"
            " 'c' || (number / 50 + number) %% 10, '[]', '{\"users\": []}', at,"
            " at, at, at, 100, 0, array_to_tsvector(ARRAY['order', number::text, 'is', 'on', 'its', 'way', 'it',"
            " 'left', 'the', 'warehouse', 'in', 'morning', 'w' || (number / 50 + number) %% 100]) FROM sent",
            (),
        )
        # Words and categories are spread so that every user has some of each.
        # User n has every notification whose number is n modulo so many, as if it had gone to a group.
        step = max(1, notifications // ITEMS_PER_USER)
        connection.execute(
            "INSERT INTO mailbox_items (user_id, seq, changed_seq, notification_id, created_at, read_at, seen_at)"
            " SELECT p.id, s.seq, s.seq, n.id, n.at, CASE WHEN s.seq %% 4 > 0 THEN n.at END,"
            " CASE WHEN s.seq %% 2 > 0 THEN n.at END FROM people p CROSS JOIN generate_series(1, %s) AS s(seq)"
            " JOIN sent n ON n.number = (s.seq - 1) * %s + p.number %% %s WHERE p.number > 0",
            (ITEMS_PER_USER, step, step),
        )
        connection.execute(
            "INSERT INTO mailbox_items (user_id, seq, changed_seq, notification_id, created_at)"
            " SELECT p.id, n.number + 1, n.number + 1, n.id, n.at FROM people p, sent n"
            " WHERE p.number = 0 AND n.number < %s",
            (HEAVY_ITEMS,),
        )
        connection.execute(
            "INSERT INTO user_streams (user_id, tenant, top_seq, unread, unseen, total, broadcast_floor)"
            " SELECT id, 'default', %s, %s, %s, %s, 0 FROM people",
            (ITEMS_PER_USER, ITEMS_PER_USER // 4, ITEMS_PER_USER // 2, ITEMS_PER_USER),
        )
        for _, statement in indexes:
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE mailbox_items")
        connection.execute("VACUUM ANALYZE notifications")
        connection.execute("VACUUM ANALYZE user_streams")
        row = connection.execute("SELECT count(*) FROM mailbox_items").fetchone()
    assert row is not None
    say("bench", f"{row[0]:,} items of {len(users):,} users after {time.monotonic() - started:.0f} s")
    return users


def main() -> None:
    """Start a PostgreSQL, measure, end it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_store", description=__doc__)
    parser.add_argument("what", choices=("render", "inbox"))
    parser.add_argument("--recipients", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--items", type=int, default=5_000_000)
    parser.add_argument("--calls", type=int, default=2_000)
    options = parser.parse_args()
    say("bench", ", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    if options.what == "render":
        with _database() as url:
            uvloop.run(measure_render(url, recipients=options.recipients, rounds=options.rounds))
        return
    # Memory as a small server of its own would give it; WAL as large as loading takes.
    with _database(
        shared_buffers="1GB", max_wal_size="8GB", maintenance_work_mem="512MB", synchronous_commit="off"
    ) as url:
        asyncio.run(measure_inbox(url, items=options.items, calls=options.calls))


if __name__ == "__main__":
    main()
