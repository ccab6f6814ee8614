"""Codes to addresses: few to one address, few for one user, whatever becomes of the contacts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from notification_service.contacts.code_turns import PAUSE, PER_ADDRESS, PER_USER, take_code_turn
from notification_service.db.engine import Database

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def ask(database: Database, user_id: UUID, address: str, seconds: float) -> float:
    async with database.write() as connection:
        wait = await take_code_turn(
            connection, user_id=user_id, channel="sms", address_hash=address, now=NOW + timedelta(seconds=seconds)
        )
    return wait.total_seconds()


async def test_one_address_gets_few_codes_whoever_asks(database: Database) -> None:
    assert await ask(database, uuid4(), "a", 0) == 0
    assert await ask(database, uuid4(), "a", 20) == PAUSE.total_seconds() - 20
    # What was refused counts for nothing.
    assert await ask(database, uuid4(), "a", 60) == 0
    for number in range(2, PER_ADDRESS):
        assert await ask(database, uuid4(), "a", 60 * number) == 0
    wait = await ask(database, uuid4(), "a", 60 * PER_ADDRESS)
    assert 0 < wait <= 3600 / PER_ADDRESS
    assert await ask(database, uuid4(), "a", 60 * PER_ADDRESS + wait) == 0
    assert await ask(database, uuid4(), "b", 60 * PER_ADDRESS) == 0


async def test_one_user_asks_for_few_codes_wherever_they_go(database: Database) -> None:
    user_id = uuid4()
    for number in range(PER_USER):
        assert await ask(database, user_id, f"address {number}", number) == 0
    assert await ask(database, user_id, "another", PER_USER) > 0
    assert await ask(database, uuid4(), "another", PER_USER) == 0
    assert await ask(database, user_id, "another", 3600) == 0
