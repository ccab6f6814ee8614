"""Storing deliveries: one row per user, channel and address, each once, in a fixed number of statements."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.channels.admission import make_share
from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery, PlannedDelivery, Reach, make_delivery_id
from notification_service.contacts.addresses import Reachable, find_targets
from notification_service.db.dialects import insert_into
from notification_service.db.rows import RowTypes, make_rows
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

GRACE: Final = timedelta(seconds=10)
"""How long publishing right after the commit may take before the scheduler does it."""

_NAMES: Final = (
    "user_id",
    "id",
    "notification_id",
    "tenant",
    "channel",
    "contact_id",
    "status",
    "reason",
    "rules",
    "fallback",
    "attempts",
    "settled_attempts",
    "created_at",
    "not_before",
    "next_attempt_at",
)
_TYPES: Final[RowTypes] = {name: deliveries.c[name].type for name in _NAMES}


async def keep_deliveries(
    connection: AsyncConnection, planned: Sequence[PlannedDelivery], now: datetime, *, reach: Reach
) -> list[KeptDelivery]:
    """Store deliveries; answers those that are new and to be published now.

    A user with two addresses on a channel gets two deliveries. A channel that is not configured, or a user without an
    address there, ends as suppressed with its reason, and the next channel of its fallback is planned in its place.

    Args:
        connection: In a write transaction.
        planned: Whatever routing decided; `in_app` is not among them.
        now: When.
        reach: What this installation can send over.
    """
    records: list[tuple[Any, ...]] = []
    waiting = list(planned)
    while waiting:
        wanted = {
            (each.user_id, each.channel)
            for each in waiting
            if each.status is DeliveryState.PENDING and each.channel in reach.configured
        }
        reachable = await find_targets(connection, wanted, require_verified=reach.require_verified)
        others: list[PlannedDelivery] = []
        for each in waiting:
            records += _make_records(each, reachable, others, now)
        waiting = others
    shares = {each.notification_id: make_share(each.tenant, each.sender) for each in planned}
    return await _insert(connection, records, shares, now)


def _make_records(
    planned: PlannedDelivery,
    reachable: dict[tuple[UUID, str], Reachable],
    others: list[PlannedDelivery],
    now: datetime,
) -> list[tuple[Any, ...]]:
    """Rows of one planned delivery; what it falls back to at once goes to `others`."""
    if planned.status is DeliveryState.SUPPRESSED:
        return [_make_record(planned, None, planned.status, planned.reason, now)]
    found = reachable.get((planned.user_id, planned.channel))
    if found is not None and found.targets:
        return [
            _make_record(planned, target.contact_id, planned.status, planned.reason, now) for target in found.targets
        ]
    if planned.fallback:
        others.append(dataclasses.replace(planned, channel=planned.fallback[0], fallback=planned.fallback[1:]))
    reason = found.reason if found is not None else Reason.CHANNEL_NOT_CONFIGURED
    return [_make_record(planned, None, DeliveryState.SUPPRESSED, reason, now)]


def _make_record(
    planned: PlannedDelivery, contact_id: UUID | None, status: DeliveryState, reason: Reason | None, now: datetime
) -> tuple[Any, ...]:
    is_pending = status is DeliveryState.PENDING
    return (
        planned.user_id,
        make_delivery_id(planned.notification_id, planned.user_id, planned.channel, contact_id),
        planned.notification_id,
        planned.tenant,
        planned.channel,
        contact_id,
        str(status),
        str(reason) if reason else None,
        planned.rules or None,
        list(planned.fallback) or None,
        0,
        0,
        now,
        planned.not_before,
        max(planned.not_before or now, now + GRACE) if is_pending else None,
    )


async def _insert(
    connection: AsyncConnection, records: Sequence[tuple[Any, ...]], shares: Mapping[UUID, str], now: datetime
) -> list[KeptDelivery]:
    if not records:
        return []
    # One row each: two plans of one batch may fall back to the same channel.
    unique = {record[1]: record for record in records}
    rows = make_rows(connection, _TYPES, list(unique.values()))
    columns = deliveries.c
    statement = (
        insert_into(connection, deliveries)
        .from_select(list(_NAMES), select(*rows.c).where(true()))
        .on_conflict_do_nothing(index_elements=[columns.user_id, columns.id])
        .returning(
            columns.id, columns.user_id, columns.channel, columns.notification_id, columns.status, columns.not_before
        )
    )
    kept = []
    for row in await connection.execute(statement):
        if row.status == DeliveryState.SUPPRESSED:
            metrics.deliveries.labels(row.channel, row.status).inc()
        elif row.not_before is None or row.not_before <= now:
            kept.append(KeptDelivery(row.id, row.user_id, row.channel, shares[row.notification_id]))
    return kept
