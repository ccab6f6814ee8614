"""Deliveries are stored once each, with an address, or with the reason why there is none. On both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select

from notification_service.channels.keep import GRACE, keep_deliveries
from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery, PlannedDelivery, Reach, make_delivery_id
from notification_service.channels.queueing import mark_queued
from notification_service.contacts.models import contacts
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.identity.mirror_rows import upsert_users
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.identity_events import UserSnapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
REACH = Reach(frozenset({"email", "sms", "webhook"}))


def plan(user_id: UUID, channel: str = "email", **fields: Any) -> PlannedDelivery:
    return PlannedDelivery(notification_id=uuid4(), user_id=user_id, tenant="default", channel=channel, **fields)


async def keep(database: Database, *planned: PlannedDelivery, reach: Reach = REACH) -> list[KeptDelivery]:
    async with database.write() as connection:
        return await keep_deliveries(connection, planned, NOW, reach=reach)


async def read(database: Database) -> list[AnyRow]:
    async with database.read() as connection:
        return list((await connection.execute(select(deliveries).order_by(deliveries.c.channel))).all())


async def make_user(database: Database, **fields: Any) -> UUID:
    user_id = uuid4()
    values = {"username": user_id.hex, "tenant": "default", "created_at": NOW, "email_verified": False}
    async with database.write() as connection:
        await upsert_users(connection, [UserSnapshot(id=user_id, **{**values, **fields})])
    return user_id


async def add_contact(database: Database, user_id: UUID, channel: str, **fields: Any) -> UUID:
    contact_id = uuid4()
    async with database.write() as connection:
        await connection.execute(
            insert(contacts).values(
                user_id=user_id,
                id=contact_id,
                tenant="default",
                channel=channel,
                address="x",
                address_hash=uuid4().hex,
                hint="x",
                label="",
                created_at=NOW,
                **fields,
            )
        )
    return contact_id


async def test_the_accounts_own_address_needs_no_contact(database: Database) -> None:
    user_id = await make_user(database, email="ada@example.org", phone="+4912345")
    kept = await keep(database, plan(user_id), plan(user_id, "sms"))
    assert {each.channel for each in kept} == {"email", "sms"}
    for row in await read(database):
        assert (row.status, row.reason, row.contact_id, row.attempts) == (DeliveryState.PENDING, None, None, 0)
        assert row.next_attempt_at == NOW + GRACE


async def test_every_usable_contact_gets_a_delivery(database: Database) -> None:
    user_id = await make_user(database)
    ids = {await add_contact(database, user_id, "webhook") for _ in range(2)}
    await add_contact(database, user_id, "webhook", disabled_at=NOW)
    kept = await keep(database, planned := plan(user_id, "webhook"))
    assert {row.contact_id for row in await read(database)} == ids
    assert {each.id for each in kept} == {
        make_delivery_id(planned.notification_id, user_id, "webhook", each) for each in ids
    }


async def test_planning_twice_stores_once(database: Database) -> None:
    user_id = await make_user(database, email="ada@example.org")
    planned = plan(user_id)
    assert len(await keep(database, planned, planned)) == 1
    assert await keep(database, planned) == []
    assert len(await read(database)) == 1


async def test_why_there_is_no_address(database: Database) -> None:
    nobody = await make_user(database)
    unproved = await make_user(database, email="ada@example.org")
    proved = await make_user(database, email="eve@example.org", email_verified=True)
    disabled = await make_user(database)
    await add_contact(database, disabled, "webhook", disabled_at=NOW)
    unverified = await make_user(database)
    await add_contact(database, unverified, "webhook")
    kept = await keep(
        database,
        plan(nobody),
        plan(nobody, "sms"),
        plan(uuid4()),
        plan(nobody, "slack"),
        plan(unproved),
        plan(proved),
        plan(disabled, "webhook"),
        plan(unverified, "webhook"),
        reach=Reach(REACH.configured, require_verified=True),
    )
    assert [each.user_id for each in kept] == [proved]
    found = {(row.user_id, row.channel): (row.status, row.reason, row.next_attempt_at) for row in await read(database)}
    assert found[nobody, "email"] == (DeliveryState.SUPPRESSED, Reason.NO_ADDRESS, None)
    assert found[nobody, "sms"] == (DeliveryState.SUPPRESSED, Reason.NO_ADDRESS, None)
    assert found[nobody, "slack"] == (DeliveryState.SUPPRESSED, Reason.CHANNEL_NOT_CONFIGURED, None)
    assert found[unproved, "email"] == (DeliveryState.SUPPRESSED, Reason.ADDRESS_UNVERIFIED, None)
    assert found[disabled, "webhook"] == (DeliveryState.SUPPRESSED, Reason.ADDRESS_DISABLED, None)
    assert found[unverified, "webhook"] == (DeliveryState.SUPPRESSED, Reason.ADDRESS_UNVERIFIED, None)


async def test_a_channel_without_an_address_falls_back_at_once(database: Database) -> None:
    user_id = await make_user(database, email="ada@example.org")
    kept = await keep(database, plan(user_id, "webhook", fallback=("slack", "email", "sms")))
    assert [each.channel for each in kept] == ["email"]
    rows = {row.channel: row for row in await read(database)}
    assert rows["webhook"].reason == Reason.NO_ADDRESS
    assert rows["slack"].reason == Reason.CHANNEL_NOT_CONFIGURED
    assert rows["email"].fallback == ["sms"]


async def test_what_routing_suppressed_or_held_back_is_kept_and_not_published(database: Database) -> None:
    user_id = await make_user(database, email="ada@example.org")
    later = NOW + timedelta(hours=8)
    rules = [{"rule": "quiet_hours", "value": True, "source": "user"}]
    kept = await keep(
        database,
        plan(user_id, "sms", status=DeliveryState.SUPPRESSED, reason=Reason.CHANNEL_OFF),
        plan(user_id, not_before=later, reason=Reason.QUIET_HOURS, rules=rules),
    )
    assert kept == []
    email, sms = await read(database)
    assert (email.status, email.not_before, email.next_attempt_at) == (DeliveryState.PENDING, later, later)
    assert (email.rules, email.reason) == (rules, Reason.QUIET_HOURS)
    assert (sms.status, sms.reason) == (DeliveryState.SUPPRESSED, Reason.CHANNEL_OFF)


async def test_a_thousand_users_are_a_few_statements(database: Database) -> None:
    people = [uuid4() for _ in range(1000)]
    async with database.write() as connection:
        await upsert_users(
            connection,
            [
                UserSnapshot(
                    id=each,
                    username=each.hex,
                    tenant="default",
                    created_at=NOW,
                    email_verified=True,
                    email=f"{each}@x.org",
                )
                for each in people
            ],
        )
    notification_id = uuid4()
    planned = [
        PlannedDelivery(notification_id=notification_id, user_id=each, tenant="default", channel="email")
        for each in people
    ]
    assert len(await keep(database, *planned)) == 1000
    assert await keep(database) == []


@pytest.mark.req("F12")
async def test_marking_what_is_queued_waits_for_nobodys_rows(database: Database) -> None:
    """Who waits for a row while holding others can end in a deadlock; what is locked, somebody else knows better."""
    people = [await make_user(database, email=f"{name}@example.org") for name in ("ada", "ben")]
    kept = await keep(database, *(plan(each) for each in people))
    assert len(kept) == 2
    queued = [(each, 1) for each in kept]
    if not database.is_sqlite:
        locked = select(deliveries).where(deliveries.c.id == kept[0].id).with_for_update()
        async with database.write() as holding:
            await holding.execute(locked)
            async with asyncio.timeout(20), database.write() as connection:
                await mark_queued(connection, queued, now=NOW)
        states = {row.id: row.status for row in await read(database)}
        assert states == {kept[0].id: DeliveryState.PENDING, kept[1].id: DeliveryState.QUEUED}
    async with database.write() as connection:
        await mark_queued(connection, queued, now=NOW)
    assert {row.status for row in await read(database)} == {DeliveryState.QUEUED}
