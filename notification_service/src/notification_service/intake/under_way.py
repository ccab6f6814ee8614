"""Idempotency keys whose first request is being stored: a second one is told so, and neither waits nor stores (E10)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from uuid import UUID

from sqlalchemy import String, Uuid, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.rows import make_rows


class KeysUnderWay:
    """Those of this process."""

    def __init__(self) -> None:
        self._held: set[tuple[UUID, str]] = set()

    @contextlib.contextmanager
    def hold(self, caller_id: UUID, keys: Collection[str]) -> Iterator[frozenset[str]]:
        """Hold keys until the block ends; answers those that somebody else holds."""
        wanted = {(caller_id, key) for key in keys}
        mine = wanted - self._held
        self._held |= mine
        try:
            yield frozenset(key for _, key in wanted - mine)
        finally:
            self._held -= mine


async def lock_keys(connection: AsyncConnection, caller_id: UUID, keys: Collection[str]) -> set[str]:
    """Hold keys against other processes until the transaction ends, without waiting; answers those that were free.

    SQLite has one writer, so whoever comes second finds what the first one stored.
    """
    if connection.dialect.name == "sqlite" or not keys:
        return set(keys)
    rows = make_rows(connection, {"caller": Uuid(), "key": String()}, [(caller_id, key) for key in sorted(keys)])
    name = func.hashtextextended(cast(rows.c.caller, String) + ":" + rows.c.key, 0)
    free = await connection.execute(select(rows.c.key).where(func.pg_try_advisory_xact_lock(name)))
    return set(free.scalars())
