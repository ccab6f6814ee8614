"""Looking up event types."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.event_types.entity import EVERY_TENANT
from notification_service.event_types.models import event_types


async def find_event_types(
    connection: AsyncConnection, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], AnyRow]:
    """Event types by (tenant, code); a built-in type answers for every tenant that has none of its own."""
    if not wanted:
        return {}
    columns = event_types.c
    tenants = {tenant for tenant, _ in wanted} | {EVERY_TENANT}
    rows = await connection.execute(
        select(event_types).where(columns.tenant.in_(tenants), columns.code.in_({code for _, code in wanted}))
    )
    known = {(row.tenant, row.code): row for row in rows}
    found = {(tenant, code): known.get((tenant, code)) or known.get((EVERY_TENANT, code)) for tenant, code in wanted}
    return {key: row for key, row in found.items() if row is not None}
