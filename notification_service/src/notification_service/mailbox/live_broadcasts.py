"""Which broadcasts of a tenant count right now, remembered per process so that counts cost no query per user."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.rows import RowsStatement
from notification_service.mailbox.models import broadcast_streams, broadcasts


@dataclass(slots=True)
class LiveList:
    """The broadcasts of one tenant that are neither removed nor expired at `version`.

    Attributes:
        version: Of the tenant's row in `broadcast_streams`.
        seqs: Of broadcasts that never expire, rising.
        expiring: (expiry, seq) of the others.
    """

    version: int
    seqs: list[int]
    expiring: list[tuple[datetime, int]]
    _moment: datetime | None = field(default=None, compare=False)
    _left: list[int] = field(default_factory=list, compare=False)

    def count_after(self, floor: int, now: datetime) -> int:
        """How many count for a user who has been there since `floor`."""
        if now != self._moment:
            # Once for all users of a batch, which are of the same moment.
            self._moment, self._left = now, sorted(seq for expiry, seq in self.expiring if expiry > now)
        return sum(len(seqs) - bisect_right(seqs, floor) for seqs in (self.seqs, self._left) if seqs)


NONE = LiveList(0, [], [])


_FIND_VERSIONS = RowsStatement(
    {"tenant": String()},
    lambda _, rows: select(broadcast_streams.c.tenant, broadcast_streams.c.version).join(
        rows, broadcast_streams.c.tenant == rows.c.tenant
    ),
)


class LiveBroadcasts:
    """The lists of all tenants this process has met; each is read again when its version has changed."""

    def __init__(self) -> None:
        self._lists: dict[str, LiveList] = {}

    async def load(self, connection: AsyncConnection, tenants: Collection[str]) -> dict[str, LiveList]:
        """The current lists of these tenants: one query, and one more when something changed."""
        if not tenants:
            return {}
        found = await _FIND_VERSIONS.execute(connection, [(tenant,) for tenant in sorted(tenants)])
        versions: dict[str, int | None] = dict.fromkeys(tenants)
        return await self.load_at(connection, versions | {row.tenant: row.version for row in found})

    async def load_at(self, connection: AsyncConnection, found: Mapping[str, int | None]) -> dict[str, LiveList]:
        """The lists at versions that were read with something else; None: the tenant never had a broadcast."""
        versions = {tenant: version for tenant, version in found.items() if version is not None}
        stale = {tenant: version for tenant, version in versions.items() if self._version(tenant) != version}
        if stale:
            await self._reload(connection, stale)
        return {tenant: self._lists[tenant] if tenant in versions else NONE for tenant in found}

    def _version(self, tenant: str) -> int | None:
        known = self._lists.get(tenant)
        return known.version if known else None

    async def _reload(self, connection: AsyncConnection, versions: dict[str, int]) -> None:
        columns = broadcasts.c
        rows = await connection.execute(
            select(columns.tenant, columns.seq, columns.expires_at)
            .where(columns.tenant.in_(sorted(versions)), columns.removed_at.is_(None))
            .order_by(columns.tenant, columns.seq)
        )
        fresh = {tenant: LiveList(version, [], []) for tenant, version in versions.items()}
        for tenant, seq, expires_at in rows:
            if expires_at is None:
                fresh[tenant].seqs.append(seq)
            else:
                fresh[tenant].expiring.append((expires_at, seq))
        self._lists.update(fresh)
