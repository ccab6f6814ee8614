"""What a sender sees of, and does to, what was sent: the list, and changes to the stored notification."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, String, Text, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.db.base import AnyRow
from notification_service.db.rows import make_rows
from notification_service.notifications.entity import RENDERED_BODY, RENDERED_TITLE
from notification_service.notifications.models import notification_contents, notifications
from notification_service.notifications.search import as_stored, where_text
from notification_service.words import find_words


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which notifications. `sender_id` None: everybody's of the tenant.

    Attributes:
        condition: A further one, made by whoever knows other tables.
    """

    tenant: str
    sender_id: UUID | None = None
    with_nameless: bool = False
    event_type: str | None = None
    status: str | None = None
    channel: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    condition: ColumnElement[bool] | None = None


async def list_history(
    connection: AsyncConnection, wanted: HistoryFilter, *, before: tuple[datetime, UUID] | None, limit: int
) -> list[AnyRow]:
    """A page, the newest first."""
    columns = notifications.c
    query = select(notifications).order_by(columns.created_at.desc(), columns.id.desc()).limit(limit)
    query = query.where(columns.tenant == wanted.tenant, *_conditions(wanted))
    if wanted.text is not None:
        query = where_text(connection, query, text=wanted.text)
    if before is not None:
        moment, last = before
        query = query.where(or_(columns.created_at < moment, (columns.created_at == moment) & (columns.id < last)))
    return list((await connection.execute(query)).all())


def _conditions(wanted: HistoryFilter) -> list[ColumnElement[bool]]:
    columns = notifications.c
    conditions: list[ColumnElement[bool]] = []
    if wanted.sender_id is not None:
        own = columns.sender_id == wanted.sender_id
        # What came over AMQP has no authenticated sender; the tenant's own backends may follow it.
        conditions.append(or_(own, columns.sender_id.is_(None)) if wanted.with_nameless else own)
    if wanted.event_type is not None:
        conditions.append(columns.event_type == wanted.event_type)
    if wanted.since is not None:
        conditions.append(columns.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(columns.created_at < wanted.until)
    if wanted.status is not None:
        conditions.append(_stage_condition(wanted.status))
    if wanted.condition is not None:
        conditions.append(wanted.condition)
    return conditions


def _stage_condition(status: str) -> ColumnElement[bool]:
    columns = notifications.c
    going_on = columns.recalled_at.is_(None)
    match status:
        case "recalled":
            return columns.recalled_at.is_not(None)
        case "dispatched":
            return going_on & columns.dispatched_at.is_not(None)
        case "processing":
            return going_on & columns.dispatched_at.is_(None) & columns.routed_at.is_not(None)
        case "scheduled":
            return going_on & columns.routed_at.is_(None) & columns.deliver_at.is_not(None)
    return going_on & columns.routed_at.is_(None) & columns.deliver_at.is_(None)


async def lock(connection: AsyncConnection, notification_id: UUID) -> AnyRow | None:
    """One notification, locked until the transaction ends."""
    return (
        await connection.execute(select(notifications).where(notifications.c.id == notification_id).with_for_update())
    ).one_or_none()


async def recall(connection: AsyncConnection, row: AnyRow, now: datetime) -> None:
    """Mark as recalled; one that was not routed yet never will be."""
    values: dict[str, Any] = {"recalled_at": now, "updated_at": now, "version": row.version + 1}
    if row.routed_at is None:
        values |= {"routed_at": now, "dispatched_at": now, "recipients_count": 0}
    await connection.execute(update(notifications).where(notifications.c.id == row.id).values(**values))


async def change(connection: AsyncConnection, row: AnyRow, changes: dict[str, Any], now: datetime) -> None:
    """Change what recipients see. Texts that are given replace rendered ones, in every language."""
    rendered = row.rendered
    if "title" in changes:
        rendered &= ~RENDERED_TITLE
    if "body" in changes:
        rendered &= ~RENDERED_BODY
    texts: dict[str, Any] = {name: changes[name] for name in ("title", "body") if name in changes}
    values: dict[str, Any] = {**changes, "rendered": rendered, "version": row.version + 1, "updated_at": now}
    if texts:
        words = find_words(*(changes.get(name, row._mapping[name]) for name in ("title", "body")))  # noqa: SLF001
        values["search"] = as_stored(connection.dialect.name, literal(words, Text()))
    await connection.execute(update(notifications).where(notifications.c.id == row.id).values(**values))
    if texts:
        await _change_variants(connection, row.id, texts)


async def _change_variants(connection: AsyncConnection, notification_id: UUID, texts: dict[str, Any]) -> None:
    columns = notification_contents.c
    rows = await connection.execute(
        select(columns.variant, columns.title, columns.body).where(columns.notification_id == notification_id)
    )
    records = [
        (row.variant, find_words(texts.get("title", row.title), texts.get("body", row.body))) for row in rows.all()
    ]
    if not records:
        return
    source = make_rows(connection, {"variant": String(), "search": Text()}, records)
    words = as_stored(connection.dialect.name, source.c.search)
    await connection.execute(
        update(notification_contents)
        .where(columns.notification_id == notification_id, columns.variant == source.c.variant)
        .values(**texts, search=words)
    )


async def has_variants(connection: AsyncConnection, notification_id: UUID) -> bool:
    """Whether its recipients read different texts."""
    found = await connection.execute(
        select(notification_contents.c.variant)
        .where(notification_contents.c.notification_id == notification_id)
        .limit(1)
    )
    return found.first() is not None
