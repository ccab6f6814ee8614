"""Event types and settings of all tenants, remembered per process and never stale.

Every change of a tenant's configuration raises a number in the same transaction. One small query per batch reads the
numbers of the tenants concerned; what is remembered is used only while the numbers are the same. Templates and default
preferences are remembered by the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowsStatement
from notification_service.event_types.entity import EVERY_TENANT, EventType, Settings
from notification_service.event_types.models import event_types, tenant_settings
from shared_contracts.requests import Channel, Priority

Version = tuple[int, int]
"""The tenant's own number, and that of what is built in."""

_DEFAULTS: Final = Settings()

_unsaved = itertools.count(1)


@dataclass(frozen=True, slots=True)
class TenantCatalog:
    """One tenant's configuration at one version."""

    tenant: str
    version: Version
    settings: Settings = _DEFAULTS
    types: dict[str, EventType] = field(default_factory=dict)


class Catalog:
    """This process's memory of the configuration."""

    def __init__(self) -> None:
        self._known: dict[str, TenantCatalog] = {}

    async def load(self, connection: AsyncConnection, tenants: Collection[str]) -> dict[str, TenantCatalog]:
        """The present configuration of these tenants: one query, and two more for each tenant that changed."""
        if not tenants:
            return {}
        rows = await _FIND_VERSIONS.execute(connection, [(tenant,) for tenant in sorted({*tenants, EVERY_TENANT})])
        numbers = {row.tenant: row.version for row in rows}
        built_in = numbers.get(EVERY_TENANT, 0)
        return await self.load_at(connection, {tenant: (numbers.get(tenant, 0), built_in) for tenant in tenants})

    async def load_at(self, connection: AsyncConnection, versions: Mapping[str, Version]) -> dict[str, TenantCatalog]:
        """The same for tenants whose versions were read with something else."""
        for tenant, version in versions.items():
            known = self._known.get(tenant)
            if known is None or known.version != version:
                self._known[tenant] = await _read(connection, tenant, version)
        return {tenant: self._known[tenant] for tenant in versions}

    async def load_unsaved(self, connection: AsyncConnection, tenants: Collection[str]) -> dict[str, TenantCatalog]:
        """The configuration as the transaction under way has changed it, under a version that no other has. It is not
        remembered: were the transaction undone, the number it had raised could come again with another content.
        """
        return {tenant: await _read(connection, tenant, (-next(_unsaved), 0)) for tenant in tenants}


_FIND_VERSIONS = RowsStatement(
    {"tenant": String()},
    lambda _, rows: select(tenant_settings.c.tenant, tenant_settings.c.version).join(
        rows, tenant_settings.c.tenant == rows.c.tenant
    ),
)


async def _read(connection: AsyncConnection, tenant: str, version: Version) -> TenantCatalog:
    row = (await connection.execute(select(tenant_settings).where(tenant_settings.c.tenant == tenant))).one_or_none()
    settings = _DEFAULTS
    if row is not None:
        settings = Settings(row.default_locale, row.unknown_event_types, row.branding or {}, row.html_layout)
    found = await connection.execute(select(event_types).where(event_types.c.tenant.in_((tenant, EVERY_TENANT))))
    own: dict[str, EventType] = {}
    built_in: dict[str, EventType] = {}
    for each in found:
        (built_in if each.tenant == EVERY_TENANT else own)[each.code] = to_event_type(each)
    return TenantCatalog(tenant, version, settings, {**built_in, **own})


def to_event_type(row: AnyRow) -> EventType:
    """A stored row."""
    return EventType(
        tenant=row.tenant,
        code=row.code,
        name=row.name,
        description=row.description,
        category=row.category,
        channels=tuple(Channel(name) for name in row.channels) if row.channels else None,
        default_enabled=row.default_enabled,
        mandatory=row.mandatory,
        priority=Priority(row.priority),
        is_active=row.is_active,
        data_schema=row.data_schema,
        retention_days=row.retention_days,
        throttle=row.throttle,
        digest=row.digest,
        escalation=row.escalation,
        version=row.version,
    )


async def raise_version(connection: AsyncConnection, tenant: str, now: datetime, **changes: Any) -> None:
    """Note, in the transaction of a change, that the tenant's configuration is another one now.

    Args:
        connection: In a write transaction.
        changes: Columns of `tenant_settings` that change with it.
    """
    values = {
        "tenant": tenant,
        "version": 1,
        "default_locale": _DEFAULTS.default_locale,
        "unknown_event_types": _DEFAULTS.unknown_event_types,
        "updated_at": now,
        **changes,
    }
    insertion = insert_into(connection, tenant_settings).values(**values)
    await connection.execute(
        insertion.on_conflict_do_update(
            index_elements=[tenant_settings.c.tenant],
            set_={"version": tenant_settings.c.version + 1, "updated_at": now, **changes},
        )
    )
