"""How often codes are sent: nobody's phone is to be flooded, and nobody's account charged, in a user's name.

Counted by address and by user, not by contact: those come and go at their owner's will.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.contacts.models import contact_code_turns
from notification_service.db.dialects import insert_into

_HOUR: Final = timedelta(hours=1)
PAUSE: Final = timedelta(seconds=60)
"""Between two codes to one address."""
PER_ADDRESS: Final = 5
"""Codes to one address in an hour, whoever asks."""
PER_USER: Final = 10
"""Codes one user asks for in an hour, wherever they go."""


async def take_code_turn(
    connection: AsyncConnection, *, user_id: UUID, channel: str, address_hash: str, now: datetime
) -> timedelta:
    """Take the turn of a code; answers how long to wait when it is too early. Nothing is taken then.

    Args:
        connection: In a write transaction.
        user_id: Who asks.
        channel: Of the address.
        address_hash: Of the address.
        now: When.
    """
    address = f"{channel}:{address_hash}"
    limits = {
        _key("pause", address): (PAUSE, timedelta()),
        _key("address", address): _limit(PER_ADDRESS),
        _key("user", str(user_id)): _limit(PER_USER),
    }
    columns = contact_code_turns.c
    # Kept only while it says something.
    await connection.execute(delete(contact_code_turns).where(columns.free_at < now))
    rows = await connection.execute(
        select(columns.key, columns.free_at).where(columns.key.in_(limits)).order_by(columns.key).with_for_update()
    )
    free_at: dict[str, datetime] = {row.key: row.free_at for row in rows}
    begins = {key: max(free_at.get(key, now), now) for key in limits}
    wait = max(begins[key] - now - burst for key, (_, burst) in limits.items())
    if wait > timedelta():
        return wait
    values = [{"key": key, "free_at": begins[key] + interval} for key, (interval, _) in sorted(limits.items())]
    insertion = insert_into(connection, contact_code_turns).values(values)
    await connection.execute(
        insertion.on_conflict_do_update(index_elements=[columns.key], set_={"free_at": insertion.excluded.free_at})
    )
    return timedelta()


def _limit(count: int) -> tuple[timedelta, timedelta]:
    """Interval and burst of so many an hour, all of which may come at once (ITU-T I.371)."""
    interval = _HOUR / count
    return interval, _HOUR - interval


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\x00{value}".encode()).hexdigest()
