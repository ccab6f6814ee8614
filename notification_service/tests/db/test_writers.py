"""On SQLite the writers of a process take turns, and nobody waits longer than the limit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from notification_service.db.engine import Database
from notification_service.errors import Unavailable


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/turns.sqlite3"


async def test_writers_come_in_the_order_they_asked(url: str) -> None:
    """SQLite's own waiting gives the lock to whoever happens to look at the right moment."""
    database, order = Database(url), list[int]()

    async def write(number: int) -> None:
        async with database.write() as connection:
            await connection.execute(text("SELECT 1"))
            order.append(number)

    async with database.write():
        waiting = [asyncio.create_task(write(number)) for number in range(20)]
        await asyncio.sleep(0.05)
        assert order == []
    await asyncio.gather(*waiting)
    await database.close()
    assert order == list(range(20))


async def test_a_turn_that_does_not_come_is_an_absent_database(url: str) -> None:
    database = Database(url, timeout=timedelta(seconds=0.1))
    async with database.write():
        with pytest.raises(Unavailable):
            async with database.write():
                pass
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    # Given back, also by the one that waited in vain.
    async with database.write() as connection:
        await connection.execute(text("SELECT 1"))
    await database.close()
