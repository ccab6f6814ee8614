"""Reading and writing preferences; set-based, and users who never changed anything have no row to be read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowsStatement
from notification_service.preferences.evaluate import Layer
from notification_service.preferences.models import preference_defaults, user_preferences

TENANT_ROLE: Final = ""
"""The role under which a tenant's own defaults are kept."""

_STRENGTH: Final = {"admin": 0, "staff": 1, "publisher": 2, "user": 3}


@dataclass(frozen=True, slots=True)
class Defaults:
    """Documents of one tenant by role; its own under ''."""

    documents: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def layers_for(self, roles: Iterable[str]) -> tuple[Layer, ...]:
        """The layers below the user's own: the roles', the strongest first, then the tenant's."""
        if not self.documents:
            return ()
        ranked = sorted(roles, key=lambda role: (_STRENGTH.get(role, len(_STRENGTH)), role))
        found = [Layer("role", self.documents[role]) for role in ranked if role in self.documents]
        if TENANT_ROLE in self.documents:
            found.append(Layer("tenant", self.documents[TENANT_ROLE]))
        return tuple(found)


class DefaultsStore:
    """This process's memory of default preferences, valid for one version of each tenant's configuration."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, Defaults]] = {}

    async def load(self, connection: AsyncConnection, tenant: str, version: Any) -> Defaults:
        """The tenant's defaults; no query while the version is the same."""
        known = self._known.get(tenant)
        if known is not None and known[0] == version:
            return known[1]
        rows = await connection.execute(
            select(preference_defaults.c.role, preference_defaults.c.document).where(
                preference_defaults.c.tenant == tenant
            )
        )
        found = Defaults({row.role: row.document for row in rows})
        self._known[tenant] = version, found
        return found


_FIND_DOCUMENTS = RowsStatement(
    {"id": Uuid()},
    lambda _, rows: select(user_preferences.c.user_id, user_preferences.c.document).join(
        rows, user_preferences.c.user_id == rows.c.id
    ),
)


async def find_documents(connection: AsyncConnection, user_ids: Collection[UUID]) -> dict[UUID, dict[str, Any]]:
    """Own documents of those of these users who have one; one query."""
    if not user_ids:
        return {}
    rows = await _FIND_DOCUMENTS.execute(connection, [(each,) for each in user_ids])
    return {row.user_id: row.document for row in rows}


async def find_for_update(connection: AsyncConnection, user_id: UUID) -> dict[str, Any]:
    """The user's document, locked until the transaction ends; empty when there is none."""
    found = await connection.execute(
        select(user_preferences.c.document).where(user_preferences.c.user_id == user_id).with_for_update()
    )
    return found.scalar_one_or_none() or {}


async def write_document(
    connection: AsyncConnection, *, user_id: UUID, tenant: str, document: dict[str, Any], now: datetime
) -> int:
    """Replace the user's document; answers its version."""
    insertion = insert_into(connection, user_preferences).values(
        user_id=user_id, tenant=tenant, document=document, version=1, updated_at=now
    )
    statement = insertion.on_conflict_do_update(
        index_elements=[user_preferences.c.user_id],
        set_={"document": insertion.excluded.document, "version": user_preferences.c.version + 1, "updated_at": now},
    ).returning(user_preferences.c.version)
    version: int = (await connection.execute(statement)).scalar_one()
    return version


async def write_defaults(
    connection: AsyncConnection, *, tenant: str, role: str, document: dict[str, Any], now: datetime
) -> None:
    """Replace a default document; an empty one removes it."""
    columns = preference_defaults.c
    if not document:
        await connection.execute(delete(preference_defaults).where(columns.tenant == tenant, columns.role == role))
        return
    insertion = insert_into(connection, preference_defaults).values(
        tenant=tenant, role=role, document=document, version=1, updated_at=now
    )
    await connection.execute(
        insertion.on_conflict_do_update(
            index_elements=[columns.tenant, columns.role],
            set_={"document": insertion.excluded.document, "version": columns.version + 1, "updated_at": now},
        )
    )


def make_layers(document: dict[str, Any] | None, below: Sequence[Layer]) -> tuple[Layer, ...]:
    """A user's layers from their own document, if they have one, and those below."""
    return (Layer("user", document), *below) if document else tuple(below)
