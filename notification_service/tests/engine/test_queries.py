"""Routing costs a number of statements that does not grow with the recipients; and what it costs at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from service import make_settings
from sqlalchemy import event, func, insert, select

from notification_service.channels.models import deliveries
from notification_service.channels.ports import Pending, Verdict
from notification_service.channels.ports import Recipient as ChannelRecipient
from notification_service.entrypoints.deciding import Addressed
from notification_service.entrypoints.engine_port import PreferenceGate
from notification_service.entrypoints.parts import Parts
from notification_service.event_types.catalog import raise_version
from notification_service.event_types.models import event_types
from notification_service.identity.mirror_rows import upsert_users
from notification_service.identity.repository import find_people, read_audience
from notification_service.intake.check import CheckedRequest
from notification_service.intake.receive import Arrival
from notification_service.mailbox.models import broadcasts, items
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.notifications.fanouts import advance, begin_fanouts, claim_next
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
    made = Parts(
        make_settings("http://127.0.0.1:1", amqp_url, migrated_url, tmp_path, database_timeout=20), process="worker"
    )
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


@pytest.mark.req("X-18")
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


@pytest.mark.req("X-18")
async def test_tenants_take_turns_however_many_senders_one_has(parts: Parts) -> None:
    many = [replace(make(recipients=Recipients(roles=("user",))), sender=Sender(None, f"s{n}")) for n in range(5)]
    few = replace(make(recipients=Recipients(roles=("user",))), tenant="other", sender=Sender(None, "s0"))
    served = []
    async with parts.database.write() as connection:
        await begin_fanouts(connection, [*many, few], NOW)
        for number in range(1, 9):
            job = await claim_next(connection)
            assert job is not None
            served.append(job.notification_id)
            await advance(connection, job.notification_id, after=uuid4(), now=NOW + timedelta(seconds=number))
    assert served.count(few.id) == 4
    assert set(served[::2]) == {few.id} or set(served[1::2]) == {few.id}
    # Within a tenant every sender has a turn before one has a second.
    assert len({each for each in served if each != few.id}) == 4


@pytest.mark.req("X-4")
async def test_a_broadcast_is_one_row_however_many_it_is_for(parts: Parts) -> None:
    await fill(parts, 1_500)
    notification_id = uuid4()
    request = NotificationRequest(title="All", recipients=Recipients(all=True))
    arrival = Arrival(CheckedRequest(notification_id, request, Kind.BROADCAST, Sender(None, "shop")), None)  # type: ignore[arg-type]
    with counted(parts) as said:
        publishing = await parts.pipeline.handle([arrival], [])
    publishing.close()  # type: ignore[attr-defined]  # a coroutine, not begun: nothing is to be published here
    assert len(said) <= 20
    async with parts.database.read() as connection:
        for table, rows in ((notifications, 1), (broadcasts, 1), (items, 0), (notification_contents, 0), (fanouts, 0)):
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == rows, table
        stored = (await connection.execute(select(notifications.c.recipients_count))).scalar_one()
    assert stored == 1_500


async def test_preferences_are_asked_once_for_all_that_is_about_to_be_sent(parts: Parts) -> None:
    ids = await fill(parts, 60)
    notification = make(recipients=Recipients(users=tuple(str(each) for each in ids)))
    async with parts.database.read() as connection:
        people = await find_people(connection, ids)
    pending = [
        Pending(
            uuid4(),
            notification,
            ChannelRecipient(each, people[each].username, None, None, people[each].locale, people[each].timezone),
            "email",
            1,
        )
        for each in ids
    ]
    said_for: list[int] = []
    verdicts: Sequence[Verdict] = ()
    for wanted in (pending[:1], pending[:2], pending):
        async with parts.database.write() as connection:
            with counted(parts) as said:
                gate = PreferenceGate(parts.catalog, parts.deciding)
                verdicts = await gate.check(connection, wanted, NOW)
        said_for.append(len(said))
    assert said_for[1] == said_for[2] <= 3
    assert [each.reason for each in verdicts] == ["category_off" if number % 20 == 10 else None for number in range(60)]
