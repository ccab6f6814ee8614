"""Event types over REST: created at run time, usable at once."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.errors import Conflict, NotFound
from notification_service.event_types.catalog import Catalog, raise_version, to_event_type
from notification_service.event_types.entity import EVERY_TENANT
from notification_service.event_types.models import event_types
from notification_service.event_types.repository import find_event_types
from notification_service.event_types.schemas import (
    NULLABLE,
    Changes,
    EventTypeIn,
    EventTypeOut,
    EventTypePatch,
    EventTypesOut,
    SettingsIn,
    SettingsOut,
)
from notification_service.identity.access import Caller
from notification_service.identity.audit import record
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from notification_service.templates.entity import Source
from notification_service.templates.locales import normalize
from notification_service.templates.service import check_default_templates, check_source, write_default_templates
from notification_service.templates.store import delete_type
from shared_contracts.scopes import Scope

log = structlog.get_logger(__name__)


class ListQuery(BaseModel):
    """Which page."""

    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


def make_event_type_router(  # noqa: PLR0915 - a router is a list of endpoints
    database: Database, catalog: Catalog, clock: Clock, callers: Callers, cursors: Cursors
) -> APIRouter:
    """`/event-types` and everything below it."""
    router = APIRouter(prefix="/api/v1/event-types", tags=["event types"], route_class=JsonRoute)
    Reader = Annotated[Caller, Depends(callers.needs())]  # noqa: N806 - a type
    Writer = Annotated[Caller, Depends(callers.needs(Scope.EVENT_TYPES_WRITE))]  # noqa: N806 - a type

    @router.get("", summary="List event types")
    async def list_types(caller: Reader, query: Annotated[ListQuery, Query()]) -> EventTypesOut:
        """The tenant's own and the built-in ones, by code."""
        scope = f"event-types:{caller.tenant}"
        after = cursors.read(scope, query.cursor)
        rows = await _list(database, caller.tenant, after, query.limit)
        page = rows[: query.limit]
        following = cursors.write(scope, page[-1].code) if len(rows) > query.limit else None
        return EventTypesOut(items=[_describe(row) for row in page], next_cursor=following)

    @router.post("", status_code=201, summary="Create an event type")
    async def create(wanted: EventTypeIn, caller: Writer, response: Response) -> EventTypeOut:
        """Usable at once, in every process."""
        now = clock.now()
        values = {**_dump(wanted), "tenant": caller.tenant, "version": 1}
        async with database.write() as connection:
            if (caller.tenant, wanted.code) in await _find_own(connection, caller.tenant, wanted.code):
                raise Conflict(f"there is an event type {wanted.code!r} already")
            await connection.execute(insert(event_types).values(**values, created_at=now, updated_at=now))
            row = await _get(connection, caller.tenant, wanted.code)
            locale = (await catalog.load(connection, {caller.tenant}))[caller.tenant].settings.default_locale
            await write_default_templates(connection, caller.tenant, to_event_type(row), locale=locale, now=now)
            await raise_version(connection, caller.tenant, now)
            await record(connection, caller, "event_type.created", subject=("event_type", wanted.code), now=now)
        log.info("event_type_created", code=wanted.code, user_id=str(caller.id))
        response.headers["Location"] = f"/api/v1/event-types/{wanted.code}"
        return _describe(row)

    @router.get("/{code}", summary="One event type")
    async def get_type(code: str, caller: Reader) -> EventTypeOut:
        """The tenant's own, else the built-in one."""
        async with database.read() as connection:
            return _describe(await _get(connection, caller.tenant, code))

    @router.patch("/{code}", summary="Change an event type")
    async def change(code: str, patch: EventTypePatch, caller: Writer) -> EventTypeOut:
        """Takes effect at once; its version rises. A built-in type becomes the tenant's own copy.

        An active type needs a template in the tenant's default locale for each of its channels; those of channels that
        come new with this change are made.
        """
        given = _dump(patch)
        changes: Changes = {name: value for name, value in given.items() if value is not None or name in NULLABLE}
        now = clock.now()
        async with database.write() as connection:
            row = await _get(connection, caller.tenant, code)
            if row.tenant == EVERY_TENANT:
                copy: dict[str, Any] = {**row._mapping, "tenant": caller.tenant}  # noqa: SLF001 - SQLAlchemy's name
                await connection.execute(insert(event_types).values(**copy))
            await connection.execute(
                update(event_types)
                .where(event_types.c.tenant == caller.tenant, event_types.c.code == code)
                .values(**changes, version=row.version + 1, updated_at=now)
            )
            before, row = row, await _get(connection, caller.tenant, code)
            locale = (await catalog.load(connection, {caller.tenant}))[caller.tenant].settings.default_locale
            if before.tenant == EVERY_TENANT or (row.channels or []) != (before.channels or []):
                await write_default_templates(connection, caller.tenant, to_event_type(row), locale=locale, now=now)
            if row.is_active:
                await check_default_templates(connection, caller.tenant, to_event_type(row), locale=locale)
            await raise_version(connection, caller.tenant, now)
            details = {"fields": sorted(changes), "version": row.version}
            subject = ("event_type", code)
            await record(connection, caller, "event_type.updated", subject=subject, details=details, now=now)
        log.info("event_type_changed", code=code, version=row.version, user_id=str(caller.id))
        return _describe(row)

    @router.delete("/{code}", status_code=204, summary="Delete an event type")
    async def remove(code: str, caller: Writer) -> Response:
        """Requests that name it are refused from now on. A built-in type can only be switched off."""
        async with database.write() as connection:
            row = await _get(connection, caller.tenant, code)
            if row.tenant == EVERY_TENANT:
                raise Conflict("a built-in event type cannot be deleted; set is_active to false")
            await connection.execute(
                delete(event_types).where(event_types.c.tenant == caller.tenant, event_types.c.code == code)
            )
            await delete_type(connection, caller.tenant, code)
            await raise_version(connection, caller.tenant, clock.now())
            await record(connection, caller, "event_type.deleted", subject=("event_type", code), now=clock.now())
        log.info("event_type_deleted", code=code, user_id=str(caller.id))
        return Response(status_code=204)

    return router


def make_settings_router(database: Database, catalog: Catalog, clock: Clock, callers: Callers) -> APIRouter:
    """`/settings`: what counts for all event types of a tenant."""
    router = APIRouter(prefix="/api/v1/settings", tags=["event types"], route_class=JsonRoute)
    Writer = Annotated[Caller, Depends(callers.needs(Scope.EVENT_TYPES_WRITE))]  # noqa: N806 - a type

    @router.get("", summary="The tenant's notification settings")
    async def get_settings(caller: Writer) -> SettingsOut:
        """Default locale, branding, and what becomes of unknown event types."""
        async with database.read() as connection:
            found = (await catalog.load(connection, {caller.tenant}))[caller.tenant].settings
        return SettingsOut(
            default_locale=found.default_locale,
            unknown_event_types=found.unknown_event_types,
            branding=found.branding,
            html_layout=found.html_layout,
        )

    @router.patch("", summary="Change the tenant's notification settings")
    async def change_settings(given: SettingsIn, caller: Writer) -> SettingsOut:
        """Takes effect at once, in every process."""
        changes = given.model_dump(mode="json", exclude_unset=True)
        for name in ("default_locale", "unknown_event_types"):
            if changes.get(name, "") is None:
                del changes[name]
        if changes.get("default_locale"):
            changes["default_locale"] = normalize(changes["default_locale"])
        if changes.get("html_layout") is not None:
            check_source(Source(None, None, changes["html_layout"]))
        async with database.write() as connection:
            now = clock.now()
            await raise_version(connection, caller.tenant, now, **changes)
            details, subject = {"fields": sorted(changes)}, ("settings", caller.tenant)
            await record(connection, caller, "settings.updated", subject=subject, details=details, now=now)
        log.info("settings_changed", fields=sorted(changes), user_id=str(caller.id))
        return await get_settings(caller)

    return router


def _dump(model: EventTypeIn | EventTypePatch) -> dict[str, Any]:
    """As stored: rules without what they leave out."""
    values = model.model_dump(mode="json", exclude_unset=isinstance(model, EventTypePatch))
    for name in ("throttle", "digest", "escalation"):
        if values.get(name) is not None:
            values[name] = {key: value for key, value in values[name].items() if value is not None}
    return values


async def _list(database: Database, tenant: str, after: str | None, limit: int) -> list[AnyRow]:
    columns = event_types.c
    own = select(columns.code).where(columns.tenant == tenant)
    query = (
        select(event_types)
        .where(or_(columns.tenant == tenant, (columns.tenant == EVERY_TENANT) & columns.code.not_in(own)))
        .order_by(columns.code)
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(columns.code > after)
    async with database.read() as connection:
        return list((await connection.execute(query)).all())


async def _find_own(connection: AsyncConnection, tenant: str, code: str) -> set[tuple[str, str]]:
    columns = event_types.c
    rows = await connection.execute(
        select(columns.tenant, columns.code).where(columns.tenant == tenant, columns.code == code)
    )
    return {(row.tenant, row.code) for row in rows}


async def _get(connection: AsyncConnection, tenant: str, code: str) -> AnyRow:
    found = (await find_event_types(connection, {(tenant, code)})).get((tenant, code))
    if found is None:
        raise NotFound("there is no such event type")
    return found


def _describe(row: AnyRow) -> EventTypeOut:
    return EventTypeOut.model_validate(
        {**row._mapping, "built_in": row.tenant == EVERY_TENANT}  # noqa: SLF001 - SQLAlchemy's name
    )
