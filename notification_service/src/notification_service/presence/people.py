"""Looking at people: who may see whom, and when those not connected were last seen; many questions in one look."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from notification_service.batching import Batcher
from notification_service.db.engine import Database
from notification_service.presence.repository import find_acquainted, find_in_tenant, read_last_seen


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: they see themselves, people of a shared group and, with the right, everyone of the tenant (ADR 0060).

    Attributes:
        sees_tenant: They have the right `presence:read`.
    """

    id: UUID
    tenant: str
    sees_tenant: bool


Visible = dict[UUID, datetime | None]
"""Users that may be seen; when each was last seen, None: never."""


class People:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looking: Batcher[tuple[Viewer, frozenset[UUID]], Visible] = Batcher(
            self._look, max_batch=100, calls_at_once=2
        )

    async def look(self, viewer: Viewer, user_ids: Collection[UUID]) -> Visible:
        """Those of these users the viewer may see.

        Raises:
            Unavailable: The database does not answer.
        """
        return await self._looking.ask((viewer, frozenset(user_ids)))

    async def _look(self, questions: Sequence[tuple[Viewer, frozenset[UUID]]]) -> list[Visible]:
        pairs = sorted(
            {(viewer.id, each) for viewer, ids in questions if not viewer.sees_tenant for each in ids - {viewer.id}}
        )
        by_tenant: dict[str, set[UUID]] = {}
        for viewer, ids in questions:
            if viewer.sees_tenant:
                by_tenant.setdefault(viewer.tenant, set()).update(ids)
        async with self._database.read() as connection:
            acquainted = await find_acquainted(connection, pairs)
            in_tenant = {tenant: await find_in_tenant(connection, tenant, ids) for tenant, ids in by_tenant.items()}
            visible = [
                (ids & {viewer.id})
                | (
                    ids & in_tenant[viewer.tenant]
                    if viewer.sees_tenant
                    else {each for each in ids if (viewer.id, each) in acquainted}
                )
                for viewer, ids in questions
            ]
            seen = await read_last_seen(connection, sorted(set().union(*visible)))
        return [{user_id: seen.get(user_id) for user_id in ids} for ids in visible]
