"""Migrations: up, down, up on both databases, with data; two starters at once; and nothing forgotten (J03)."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, inspect, select

from notification_service.db.base import metadata
from notification_service.db.engine import Database
from notification_service.db.migrate import BASE, migrate
from notification_service.entrypoints import tables
from notification_service.event_types.models import event_types
from notification_service.mailbox.models import store


@pytest.mark.req("J03")
async def test_up_down_up_with_data(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(tables.broadcast_streams).values(tenant="default", top_seq=1))
        epoch = (await connection.execute(select(store.c.epoch))).scalar_one()
    await migrate(database.engine, BASE)
    async with database.read() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert set(names) <= {"alembic_version"}
    await migrate(database.engine)
    async with database.read() as connection:
        # Another store: positions of the first one are not valid here.
        assert (await connection.execute(select(store.c.epoch))).scalar_one() != epoch


@pytest.mark.req("J03")
async def test_two_starters_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    await asyncio.gather(*(migrate(each.engine) for each in databases))
    async with databases[0].read() as connection:
        assert len((await connection.execute(select(store))).all()) == 1
        codes = set((await connection.execute(select(event_types.c.code))).scalars())
    assert {
        "task.assigned",
        "task.updated",
        "task.completed",
        "order.created",
        "order.status_changed",
        "comment.created",
        "login.alert",
        "user.welcome",
        "digest.weekly",
    } <= codes
    for each in databases:
        await each.close()


async def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    def compare(connection: Connection) -> list[object]:
        def is_own(name: str | None, kind: str, _parents: object) -> bool:
            # SQLite's full-text table is made by statements, and its index on PostgreSQL is PostgreSQL's alone.
            return kind != "table" or not str(name).startswith("notification_search")

        def is_of_both(item: object, _name: object, kind: str, *_others: object) -> bool:
            return kind != "index" or connection.dialect.name == "postgresql" or item.name != "ix_notifications_search"  # type: ignore[attr-defined]

        options = {"compare_type": True, "include_name": is_own, "include_object": is_of_both}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    async with database.read() as connection:
        assert await connection.run_sync(compare) == []
