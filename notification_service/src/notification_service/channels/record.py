"""Writing down what became of deliveries: claims before an attempt, outcomes after it, many in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import (
    Boolean,
    Executable,
    FromClause,
    Integer,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.channels.interface import Report
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.load import Loaded
from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.channels.outcome import MAX_DETAIL_LENGTH, Outcome
from notification_service.channels.planned import KeptDelivery, PlannedDelivery, Reach
from notification_service.channels.queueing import LOOK_AGAIN
from notification_service.contacts.models import contacts
from notification_service.contacts.suppressions import Suppression, suppress_addresses
from notification_service.db.base import Json, UtcDateTime
from notification_service.db.rows import RowsStatement, RowTypes, make_rows
from notification_service.dead_letters.repository import DeadLetter, insert_dead_letters
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.ids import new_id
from shared_contracts.topology import channel_queue

_WAITING: Final = (DeliveryState.PENDING, DeliveryState.QUEUED)
_SENT: Final = (DeliveryState.SENT, DeliveryState.DELIVERED)

_OUTCOME_TYPES: Final[RowTypes] = {
    "user_id": Uuid(),
    "id": Uuid(),
    "status": String(),
    "reason": String(),
    "error": Text(),
    "attempt": Integer(),
    "provider_message_id": String(),
    "not_before": UtcDateTime(),
    "next_attempt_at": UtcDateTime(),
    "is_sent": Boolean(),
    "rules": Json,
    "share": String(),
    "can_withdraw": Boolean(),
}
_ATTEMPT_TYPES: Final[RowTypes] = {column.name: column.type for column in delivery_attempts.columns}


@dataclass(slots=True)
class Recorded:
    """What one transaction wrote.

    Attributes:
        applied: Outcomes that were written; the others were overtaken (recalled, or ended by somebody else).
        letters: Dead letters that were stored, with their ids.
        kept: Deliveries over the next channels, to be published.
    """

    applied: list[Outcome] = field(default_factory=list)
    letters: list[tuple[DeadLetter, UUID]] = field(default_factory=list)
    kept: list[KeptDelivery] = field(default_factory=list)


async def claim_attempts(
    connection: AsyncConnection, wanted: Sequence[tuple[UUID, UUID, int, int]], *, now: datetime
) -> set[UUID]:
    """Note that attempts begin now; answers the deliveries that are this worker's.

    Args:
        wanted: (user, delivery, attempt, attempts begun as it was read); whoever read an older number comes too late.
    """
    if not wanted:
        return set()
    # Sorted: two workers lock rows in the same order.
    claimed = await _CLAIM_ATTEMPTS.execute(connection, sorted(wanted), now=now, look_again=now + LOOK_AGAIN)
    return {row.id for row in claimed}


def _build_claim_attempts(_dialect_name: str, rows: FromClause) -> Executable:
    columns = deliveries.c
    return (
        update(deliveries)
        .where(
            columns.user_id == rows.c.user_id,
            columns.id == rows.c.id,
            columns.attempts == rows.c.before,
            columns.settled_attempts == rows.c.attempt - 1,
            columns.status.in_(_WAITING),
        )
        .values(
            attempts=rows.c.attempt,
            status=DeliveryState.QUEUED,
            reason=None,
            not_before=None,
            last_attempt_at=bindparam("now", type_=UtcDateTime()),
            next_attempt_at=bindparam("look_again", type_=UtcDateTime()),
            share=None,
            held_share=None,
        )
        .returning(columns.id)
    )


_CLAIM_ATTEMPTS = RowsStatement(
    {"user_id": Uuid(), "id": Uuid(), "attempt": Integer(), "before": Integer()}, _build_claim_attempts
)


async def record_outcomes(
    connection: AsyncConnection, outcomes: Sequence[Outcome], *, now: datetime, reach: Reach
) -> Recorded:
    """Write outcomes down, with their attempts, dead letters, disabled contacts and fallbacks.

    Args:
        connection: In a write transaction.
        outcomes: At most one per delivery.
        now: When.
        reach: For fallbacks.
    """
    await _insert_attempts(connection, outcomes)
    applied_ids = await _update_deliveries(connection, outcomes, now, reach)
    return await _follow(connection, [each for each in outcomes if each.delivery_id in applied_ids], now, reach)


async def record_report(
    connection: AsyncConnection, loaded: Loaded, report: Report, *, now: datetime, reach: Reach
) -> Recorded:
    """Write down what a provider says later. A state that was reached is never taken back by an older one.

    Args:
        connection: In a write transaction.
        loaded: The delivery the report is about.
        report: What it says.
        now: When.
        reach: For fallbacks.
    """
    columns = deliveries.c
    # A provider may be faster than the worker that waits for its answer, and may know what no worker ever learned.
    is_unknown = (columns.status == DeliveryState.FAILED) & (columns.reason == Reason.PROVIDER_UNAVAILABLE)
    is_open = columns.status.in_(_WAITING) & (columns.attempts > 0)
    allowed = {
        DeliveryState.SENT: is_open | is_unknown,
        DeliveryState.DELIVERED: is_open | is_unknown | (columns.status == DeliveryState.SENT),
        DeliveryState.FAILED: is_open | (columns.status == DeliveryState.SENT),
    }[report.status]
    is_failed = report.status is DeliveryState.FAILED
    outcome = Outcome(
        loaded,
        report.status,
        reason=Reason.PROVIDER_REJECTED if is_failed else None,
        error=report.detail,
        provider_message_id=report.provider_message_id,
        disables_contact=report.disables_address,
    )
    changed = await connection.execute(
        update(deliveries)
        .where(columns.user_id == report.user_id, columns.id == report.delivery_id, allowed)
        .values(
            status=str(report.status),
            reason=str(outcome.reason) if outcome.reason else None,
            error=report.detail[:MAX_DETAIL_LENGTH] if report.detail else None,
            settled_attempts=columns.attempts,
            provider_message_id=func.coalesce(columns.provider_message_id, report.provider_message_id),
            next_attempt_at=None,
            sent_at=columns.sent_at if is_failed else func.coalesce(columns.sent_at, now),
            delivered_at=now if report.status is DeliveryState.DELIVERED else columns.delivered_at,
        )
    )
    return await _follow(connection, [outcome] if changed.rowcount else [], now, reach)


async def _follow(connection: AsyncConnection, applied: Sequence[Outcome], now: datetime, reach: Reach) -> Recorded:
    """What follows from outcomes that were written: disabled addresses, dead letters, the next channels."""
    recorded = Recorded(list(applied))
    await _disable_addresses(connection, recorded.applied, now)
    letters = [_make_letter(each) for each in recorded.applied if each.status is DeliveryState.FAILED]
    recorded.letters = list(zip(letters, await insert_dead_letters(connection, letters, now=now), strict=True))
    planned = [plan for each in recorded.applied if (plan := _plan_fallback(each)) is not None]
    if planned:
        recorded.kept = await keep_deliveries(connection, planned, now, reach=reach)
    for each in recorded.applied:
        if each.status not in _WAITING:
            metrics.deliveries.labels(each.loaded.delivery.channel, each.status).inc()
    return recorded


async def _insert_attempts(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> None:
    records = [
        (
            each.user_id,
            new_id(),
            each.delivery_id,
            made.number + each.loaded.delivery.earlier_attempts,
            made.route[:255],
            made.started_at,
            made.latency_ms,
            made.outcome,
            str(made.reason) if made.reason else None,
            made.detail[:MAX_DETAIL_LENGTH] if made.detail else None,
            made.provider_message_id,
        )
        for each in outcomes
        for made in each.attempts
    ]
    if records:
        await _INSERT_ATTEMPTS.execute(connection, records)


_INSERT_ATTEMPTS = RowsStatement(
    _ATTEMPT_TYPES,
    lambda _, rows: insert(delivery_attempts).from_select(list(_ATTEMPT_TYPES), select(*rows.c)),
)


async def _update_deliveries(
    connection: AsyncConnection, outcomes: Sequence[Outcome], now: datetime, reach: Reach
) -> set[UUID]:
    records = sorted((*_make_record(each), each.loaded.delivery.channel in reach.withdrawing) for each in outcomes)
    return {row.id for row in await _UPDATE_DELIVERIES.execute(connection, records, now=now)}


def _build_update_deliveries(_dialect_name: str, rows: FromClause) -> Executable:
    columns, new = deliveries.c, rows.c
    now = bindparam("now", type_=UtcDateTime())
    # Recalled while it was being sent: it went out all the same, and is taken back where that can be done.
    was_recalled = (columns.status == DeliveryState.RECALLED) & new.is_sent
    withdrawn = was_recalled & new.can_withdraw
    return (
        update(deliveries)
        .where(
            columns.user_id == new.user_id,
            columns.id == new.id,
            or_(
                columns.status.in_(_WAITING),
                was_recalled,
                # Ended as unknown by another worker while this one was still waiting for the provider's answer.
                (columns.status == DeliveryState.FAILED)
                & (columns.reason == Reason.PROVIDER_UNAVAILABLE)
                & (columns.attempts == new.attempt)
                & new.is_sent,
            ),
        )
        .values(
            status=new.status,
            reason=new.reason,
            error=new.error,
            rules=func.coalesce(new.rules, columns.rules),
            settled_attempts=func.coalesce(new.attempt, columns.settled_attempts),
            provider_message_id=func.coalesce(new.provider_message_id, columns.provider_message_id),
            not_before=new.not_before,
            next_attempt_at=new.next_attempt_at,
            follow_up=case((withdrawn, "withdraw"), else_=columns.follow_up),
            follow_up_at=case((withdrawn, now), else_=columns.follow_up_at),
            share=new.share,
            sent_at=case((new.is_sent, now), else_=columns.sent_at),
            delivered_at=case((new.status == DeliveryState.DELIVERED, now), else_=columns.delivered_at),
        )
        .returning(columns.id)
    )


_UPDATE_DELIVERIES = RowsStatement(_OUTCOME_TYPES, _build_update_deliveries)


def _make_record(each: Outcome) -> tuple[Any, ...]:
    return (
        each.user_id,
        each.delivery_id,
        str(each.status),
        str(each.reason) if each.reason else None,
        each.error[:MAX_DETAIL_LENGTH] if each.error else None,
        each.attempt,
        each.provider_message_id[:255] if each.provider_message_id else None,
        each.not_before,
        each.retry_at,
        each.status in _SENT,
        each.rules or None,
        each.share,
    )


async def _disable_addresses(connection: AsyncConnection, outcomes: Sequence[Outcome], now: datetime) -> None:
    """Disable contacts that are gone, and suppress accounts' own addresses, which are not this service's to change."""
    gone = {
        (each.user_id, each.loaded.contact.id, (each.error or "the provider says it is gone")[:255])
        for each in outcomes
        if each.disables_contact and each.loaded.contact is not None
    }
    own = [each for each in outcomes if each.disables_contact and each.loaded.contact is None]
    await suppress_addresses(
        connection,
        [
            Suppression(
                each.loaded.delivery.tenant,
                each.loaded.delivery.channel,
                each.loaded.address,
                str(each.reason or Reason.PROVIDER_REJECTED),
                each.user_id,
            )
            for each in own
            if each.loaded.address is not None
        ],
        now=now,
    )
    if not gone:
        return
    rows = make_rows(connection, {"user_id": Uuid(), "id": Uuid(), "reason": String()}, sorted(gone))
    columns = contacts.c
    await connection.execute(
        update(contacts)
        .where(columns.user_id == rows.c.user_id, columns.id == rows.c.id, columns.disabled_at.is_(None))
        .values(disabled_at=now, disabled_reason=rows.c.reason)
    )


def _make_letter(each: Outcome) -> DeadLetter:
    delivery = each.loaded.delivery
    payload = {
        "delivery_id": str(delivery.id),
        "user_id": str(delivery.user_id),
        "notification_id": str(delivery.notification_id),
        "channel": delivery.channel,
    }
    return DeadLetter(
        reason=each.reason or Reason.ATTEMPTS_EXHAUSTED,
        detail=each.error or "",
        payload=orjson.dumps(payload),
        exchange="",
        routing_key=channel_queue(delivery.channel).name,
        message_id=str(delivery.notification_id),
        source=each.loaded.notification.sender.name if each.loaded.notification is not None else None,
        tenant=delivery.tenant,
        attempts=(each.attempt or delivery.settled_attempts) + delivery.earlier_attempts,
    )


def _plan_fallback(each: Outcome) -> PlannedDelivery | None:
    delivery = each.loaded.delivery
    if not (each.is_end_without_success and delivery.fallback):
        return None
    return PlannedDelivery(
        notification_id=delivery.notification_id,
        user_id=delivery.user_id,
        tenant=delivery.tenant,
        sender=each.loaded.notification.sender.key if each.loaded.notification is not None else "",
        channel=delivery.fallback[0],
        fallback=tuple(delivery.fallback[1:]),
        rules=[{"rule": "fallback", "value": delivery.channel, "source": "system"}],
    )
