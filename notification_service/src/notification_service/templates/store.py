"""Templates of all tenants, remembered per process; valid for one version of a tenant's configuration."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.event_types.catalog import TenantCatalog
from notification_service.templates.entity import Key, Source, Template, TemplateSet
from notification_service.templates.models import template_versions, templates

_IDENTITY: Final = ("tenant", "event_type", "channel", "locale")


class TemplateStore:
    """This process's memory of templates."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, TemplateSet]] = {}

    async def load(self, connection: AsyncConnection, catalog: TenantCatalog) -> TemplateSet:
        """The tenant's templates; one query when its configuration changed, else none."""
        known = self._known.get(catalog.tenant)
        if known is not None and known[0] == catalog.version:
            return known[1]
        before = known[1].templates if known is not None else {}
        rows = await connection.execute(select(templates).where(templates.c.tenant == catalog.tenant))
        fresh: dict[Key, Template] = {}
        for row in rows:
            key = (row.event_type, row.channel, row.locale)
            source = Source(row.title, row.body, row.html, row.version)
            old = before.get(key)
            # What is compiled stays compiled.
            fresh[key] = old if old is not None and old.source == source else Template(source, row.locale)
        found = TemplateSet(catalog.settings.default_locale, fresh)
        self._known[catalog.tenant] = catalog.version, found
        return found


def where_template(table: Any, tenant: str, key: Key) -> Any:
    """The condition for one template, or for all its versions."""
    values = (tenant, *key)
    return and_(*(table.c[name] == value for name, value in zip(_IDENTITY, values, strict=True)))


async def delete_type(connection: AsyncConnection, tenant: str, code: str) -> None:
    """Delete every template of an event type, its versions with it."""
    for table in (templates, template_versions):
        await connection.execute(delete(table).where(table.c.tenant == tenant, table.c.event_type == code))
