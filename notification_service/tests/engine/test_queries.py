"""Routing costs a number of statements that does not grow with the recipients; and what it costs at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from service import make_settings
from sqlalchemy import event, func, insert, select

from notification_service.channels.models import deliveries
from notification_service.entrypoints.deciding import Addressed
from notification_service.entrypoints.parts import Parts
from notification_service.event_types.catalog import raise_version
from notification_service.event_types.models import event_types
from notification_service.identity.mirror import upsert_users
from notification_service.identity.repository import find_people, read_audience
from notification_service.mailbox.models import items
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.notifications.fanouts import begin_fanouts
from notification_service.notifications.models import fanouts, notification_contents, notifications
from notification_service.notifications.repository import Routed, upsert_routed
from notification_service.preferences.repository import write_document
from notification_service.templates.entity import Source
from notification_service.templates.service import write_template
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Channel, Kind, NotificationRequest, Recipients

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LOCALES = ("en", "de", "pt-BR")


@pytest.fixture
async def parts(migrated_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    made = Parts(make_settings("http://127.0.0.1:1", amqp_url, migrated_url, tmp_path), process="worker")
    yield made
    await made.close()


async def fill(parts: Parts, count: int) -> list[UUID]:
    ids = sorted(uuid4() for _ in range(count))
    people = [
        UserSnapshot(
            id=each, username=each.hex, tenant="default", created_at=NOW, locale=LOCALES[number % len(LOCALES)]
        )
        for number, each in enumerate(ids)
    ]
    async with parts.database.write() as connection:
        await upsert_users(connection, people)
        for number, each in enumerate(ids):
            if number % 10 == 0:
                document = {"categories": {"orders": {"email": number % 20 == 0}}}
                await write_document(connection, user_id=each, tenant="default", document=document, now=NOW)
        values: dict[str, Any] = {"name": "Order", "description": "", "default_enabled": True, "mandatory": False}
        values |= {"priority": "normal", "is_active": True, "version": 1, "created_at": NOW, "updated_at": NOW}
        values |= {"tenant": "default", "code": "order", "category": "orders", "channels": ["in_app", "email"]}
        values |= {"throttle": {"limit": 100, "window_seconds": 60}}
        await connection.execute(insert(event_types).values(**values))
        for locale in LOCALES:
            source = Source(f"{locale} {{{{ data.n }}}}", "{{ data.n | number }}")
            key = ("order", "in_app", locale)
            await write_template(connection, "default", key, source, author_id=None, now=NOW)
        await raise_version(connection, "default", NOW)
    return ids


def make(**fields: Any) -> Notification:
    return make_notification(
        NotificationRequest(**{"event_type": "order", "data": {"n": 1234}, **fields}),
        notification_id=uuid4(),
        kind=Kind.EVENT,
        sender=Sender(None, "shop"),
        now=NOW,
        defaults=EventTypeDefaults("orders", (Channel.IN_APP, Channel.EMAIL)),
    )


@contextmanager
def counted(parts: Parts) -> Iterator[list[str]]:
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        said.append(statement)

    event.listen(parts.database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(parts.database.engine.sync_engine, "before_cursor_execute", note)


async def route(parts: Parts, ids: list[UUID]) -> int:
    notification = make(recipients=Recipients(users=tuple(str(each) for each in ids)))
    async with parts.database.write() as connection:
        with counted(parts) as said:
            people = await find_people(connection, ids)
            catalogs = await parts.catalog.load(connection, {"default"})
            addressed = Addressed(notification, catalogs["default"].types["order"], [people[each] for each in ids])
            routed = await parts.deciding.route(connection, [addressed], catalogs, NOW)
        await upsert_routed(
            connection,
            [(routed.bases[notification.id], Routed(len(ids), []))],
            now=NOW,
            relay_after=NOW,
        )
    assert len(routed.kept) == len(ids)
    assert {item.notification.title for item in routed.kept} == {f"{locale} 1234" for locale in LOCALES}
    return len(said)


async def test_a_thousand_recipients_cost_as_many_statements_as_ten(parts: Parts) -> None:
    ids = await fill(parts, 1_020)
    await route(parts, ids[:10])  # what is remembered is remembered
    few = await route(parts, ids[10:20])
    many = await route(parts, ids[20:])
    assert many == few
    assert few <= 20
    async with parts.database.read() as connection:
        texts = (await connection.execute(select(func.count()).select_from(notification_contents))).scalar_one()
        off = await connection.execute(
            select(func.count()).select_from(deliveries).where(deliveries.c.reason == "category_off")
        )
        # Two languages beside the notification's own, each stored once, in each of three notifications.
        assert texts == 3 * 2
        assert off.scalar_one() == sum(number % 20 == 10 for number in range(1_020))


async def test_a_large_audience_is_served_in_pieces_and_senders_take_turns(parts: Parts) -> None:
    ids = await fill(parts, 1_200)
    everybody = Recipients(roles=("user",))
    async with parts.database.write() as connection:
        await upsert_users(
            connection,
            [
                UserSnapshot(id=each, username=each.hex, tenant="default", created_at=NOW, roles=("user",))
                for each in ids
            ],
        )
        flood = [make(recipients=everybody) for _ in range(3)]
        single = make(recipients=Recipients(users=(str(ids[0]),)))
        single = replace(single, sender=Sender(None, "another"))
        routed = [(each, Routed(0, [])) for each in (*flood, single)]
        await upsert_routed(connection, routed, now=NOW, relay_after=NOW)
        await begin_fanouts(connection, [*flood, single], NOW)
        assert len(await read_audience(connection, "default", everybody, after=None, limit=5_000)) == 1_200
    # The second sender's one message is served second, not after three thousand others.
    await parts.fanning_out.serve_piece()
    await parts.fanning_out.serve_piece()
    async with parts.database.read() as connection:
        served = await connection.execute(
            select(items.c.notification_id, func.count()).group_by(items.c.notification_id)
        )
        assert {row[0]: row[1] for row in served}[single.id] == 1
    while await parts.fanning_out.serve_piece():
        pass
    async with parts.database.read() as connection:
        served = await connection.execute(
            select(items.c.notification_id, func.count()).group_by(items.c.notification_id)
        )
        assert {row[0]: row[1] for row in served} == {each.id: 1_200 for each in flood} | {single.id: 1}
        assert (await connection.execute(select(fanouts))).all() == []
        left = select(func.count()).select_from(notifications).where(notifications.c.dispatched_at.is_(None))
        assert (await connection.execute(left)).scalar_one() == 0
