"""Event types that nobody made, created when they are first named, where the tenant allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.dialects import insert_into
from notification_service.event_types.catalog import Catalog, TenantCatalog, Version, raise_version
from notification_service.event_types.entity import PLAIN_MESSAGE, EventType
from notification_service.event_types.models import event_types
from notification_service.templates.service import write_default_templates
from shared_contracts.requests import NotificationRequest

log = structlog.get_logger(__name__)


async def load_catalogs(
    connection: AsyncConnection,
    catalog: Catalog,
    requests: Iterable[NotificationRequest],
    now: datetime,
    *,
    versions: Mapping[str, Version] = MappingProxyType({}),
) -> dict[str, TenantCatalog]:
    """The configuration these requests need; types they name first are created on the way, where that is allowed.

    Args:
        connection: In a write transaction.
        versions: Those known already, by tenant.
    """
    named = {(each.tenant, each.event_type) for each in requests}
    tenants = {tenant for tenant, _ in named}
    found = await catalog.load(connection, tenants - versions.keys())
    found |= await catalog.load_at(connection, {each: versions[each] for each in tenants & versions.keys()})
    created = set()
    for tenant, code in sorted(named, key=str):
        known = found[tenant]
        if code is None or code == PLAIN_MESSAGE.code or code in known.types:
            continue
        if known.settings.unknown_event_types == "create":
            await _create(connection, known, code, now)
            created.add(tenant)
    return {**found, **await catalog.load_unsaved(connection, created)} if created else found


async def _create(connection: AsyncConnection, catalog: TenantCatalog, code: str, now: datetime) -> None:
    name = code.replace(".", " ").replace("_", " ").replace("-", " ").strip().capitalize() or code
    type_ = EventType(tenant=catalog.tenant, code=code, name=name, category=code.split(".", 1)[0][:64])
    await connection.execute(
        insert_into(connection, event_types)
        .values(
            tenant=catalog.tenant,
            code=code,
            name=name,
            description="",
            category=type_.category,
            default_enabled=True,
            mandatory=False,
            priority=str(type_.priority),
            is_active=True,
            version=1,
            created_at=now,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )
    locale = catalog.settings.default_locale
    await write_default_templates(connection, catalog.tenant, type_, locale=locale, now=now)
    await raise_version(connection, catalog.tenant, now)
    log.info("event_type_created_on_the_fly", code=code)
