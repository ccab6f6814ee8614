"""What was sent, across the stages: the notification, inboxes, digests, escalations and outgoing deliveries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, cast, exists, func, or_, select, update
from sqlalchemy import Text as SqlText
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.follow_ups import FollowUp, ask_for_follow_ups
from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.channels.planned import Reach
from notification_service.clock import Clock, format_time
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.digests.collect import drop_notifications
from notification_service.digests.escalation_rows import stop_escalations
from notification_service.dispatch.dispatcher import Dispatched, Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.errors import Conflict, NotFound, PermissionDenied
from notification_service.event_types.catalog import Catalog
from notification_service.event_types.entity import PLAIN_MESSAGE
from notification_service.identity.access import Caller
from notification_service.identity.models import memberships, users
from notification_service.identity.repository import find_people
from notification_service.mailbox.deliveries import find_delivery
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import items
from notification_service.mailbox.withdraw import MAX_AT_ONCE, find_holders, mark_broadcast, mark_items
from notification_service.notifications import fanouts, sender_view
from notification_service.notifications.decisions import find_record
from notification_service.notifications.endpoints import (
    ChangeIn,
    ChangeOut,
    HistoryQuery,
    SentOut,
    TraceChannelOut,
    TraceOut,
)
from notification_service.notifications.entity import Sender, describe_sender
from notification_service.notifications.models import notifications
from notification_service.notifications.pages import UPDATED_LABEL
from notification_service.notifications.repository import to_notification
from notification_service.notifications.sender_view import HistoryFilter
from notification_service.notifications.stages import describe_stage
from notification_service.routing.decide import Recipient as RoutingRecipient
from notification_service.routing.decide import decide, describe_decisions
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope

_WAITING: Final = (DeliveryState.PENDING, DeliveryState.QUEUED)
_GONE_OUT: Final = (DeliveryState.SENT, DeliveryState.DELIVERED, DeliveryState.ACKED)


class SentNotifications:
    """`notifications.endpoints.Sent`."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        dispatcher: Dispatcher,
        marks: DispatchMarks,
        live: LiveBroadcasts,
        reach: Callable[[], Reach],
        clock: Clock,
    ) -> None:
        self._database = database
        self._reach = reach
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._marks = marks
        self._live = live
        self._clock = clock

    async def list_history(
        self, caller: Caller, query: HistoryQuery, *, before: tuple[datetime, UUID] | None
    ) -> list[SentOut]:
        """A page and one more; the caller's own, or everybody's for who may read deliveries."""
        sees_all = Scope.DELIVERIES_READ in caller.scopes
        if not sees_all and Scope.NOTIFICATIONS_SEND not in caller.scopes and Scope.MESSAGES_SEND not in caller.scopes:
            raise PermissionDenied(f"this needs the scope {Scope.NOTIFICATIONS_SEND}")
        wanted = HistoryFilter(
            tenant=caller.tenant,
            sender_id=None if sees_all else caller.id,
            with_nameless=caller.is_service,
            event_type=query.event_type,
            status=query.status,
            since=query.since,
            until=query.until,
            text=query.text,
            condition=_reach_condition(query),
        )
        async with self._database.read() as connection:
            rows = await sender_view.list_history(connection, wanted, before=before, limit=query.limit + 1)
        return [_describe(row) for row in rows]

    # --- changing what was sent -------------------------------------------------------------------------------------

    async def change(self, caller: Caller, notification_id: UUID, given: ChangeIn) -> ChangeOut:
        """Change what recipients see; a version that is not the present one is a conflict."""
        now = self._clock.now()
        changes = given.model_dump(mode="json", exclude_unset=True, exclude={"version"})
        for name in ("data", "actions", "tags", "priority"):
            if changes.get(name, "") is None:
                del changes[name]
        async with self._database.write() as connection:
            row = await self._lock(connection, caller, notification_id)
            if given.version is not None and given.version != row.version:
                raise Conflict(f"the notification is at version {row.version}")
            if row.recalled_at is not None:
                raise Conflict("the notification was recalled")
            await sender_view.change(connection, row, changes, now)
            editing = self._reach().editing
            await ask_for_follow_ups(connection, notification_id, FollowUp.EDIT, editing, now=now)
            row = await self._lock(connection, caller, notification_id)
            content = None
            if not await sender_view.has_variants(connection, notification_id):
                content = to_notification(row).content()
        told = await self._tell(row, UPDATED_LABEL, now, content)
        return ChangeOut(
            id=row.id, status=describe_stage(row), version=row.version, items=told, cancelled=0, not_recallable=0
        )

    async def recall(self, caller: Caller, notification_id: UUID) -> ChangeOut:
        """Take it back. A second time changes nothing."""
        now = self._clock.now()
        async with self._database.write() as connection:
            row = await self._lock(connection, caller, notification_id)
            cancelled = 0
            if row.recalled_at is None:
                await sender_view.recall(connection, row, now)
                await drop_notifications(connection, [row.id])
                await stop_escalations(connection, row.id)
                await fanouts.finish(connection, row.id)
                cancelled = await _cancel_deliveries(connection, row.id)
                withdrawing = self._reach().withdrawing
                await ask_for_follow_ups(connection, row.id, FollowUp.WITHDRAW, withdrawing, now=now)
                row = await self._lock(connection, caller, notification_id)
            sent = await connection.execute(
                select(func.count())
                .select_from(deliveries)
                .where(
                    deliveries.c.notification_id == row.id,
                    deliveries.c.status.in_(_GONE_OUT),
                    # The others are being taken back from their providers.
                    deliveries.c.follow_up.is_(None),
                )
            )
            not_recallable = sent.scalar_one()
        told = await self._tell(row, "recalled", now, None)
        return ChangeOut(
            id=row.id,
            status=describe_stage(row),
            version=row.version,
            items=told,
            cancelled=cancelled,
            not_recallable=not_recallable,
        )

    async def _lock(self, connection: AsyncConnection, caller: Caller, notification_id: UUID) -> AnyRow:
        row = await sender_view.lock(connection, notification_id)
        if row is None or row.tenant != caller.tenant or not _may_change(caller, row):
            raise NotFound("there is no such notification")
        return row

    async def _tell(self, row: AnyRow, label: str, now: datetime, content: dict[str, Any] | None) -> int:
        """Mark every inbox item and tell every device; answers how many items."""
        if row.recipients["all"]:
            async with self._database.write() as connection:
                frame = await mark_broadcast(connection, row.id, label, now=now, content=content)
            if frame is None:
                return 0
            await self._dispatcher.dispatch_log_frame(
                tenant=frame.tenant, seq=frame.seq, type_=frame.type, body=frame.body
            )
            return 1
        told = 0
        after: UUID | None = None
        while True:
            async with self._database.write() as connection:
                holders = await find_holders(connection, row.id, after=after)
                frames = await mark_items(
                    connection, [(each, row.id) for each in holders], label, live=self._live, now=now, content=content
                )
            told += len(frames)
            self._marks.add(Dispatched(gone_queues=await self._dispatcher.dispatch_frames(frames)))
            if len(holders) < MAX_AT_ONCE:
                return told
            after = holders[-1]

    # --- why ----------------------------------------------------------------------------------------------------------

    async def trace(self, caller: Caller, notification_id: UUID, user_id: UUID) -> TraceOut:
        """Every rule and every attempt for one user."""
        now = self._clock.now()
        async with self._database.read() as connection:
            row = (
                await connection.execute(select(notifications).where(notifications.c.id == notification_id))
            ).one_or_none()
            if row is None or row.tenant != caller.tenant or not (_may_see(caller, row) or caller.id == user_id):
                raise NotFound("there is no such notification")
            record = await self._find_record(connection, row, user_id)
            in_app = await find_delivery(connection, row, user_id, now=now)
            others = await _find_deliveries(connection, notification_id, user_id)
            channels = _join(record, in_app, others)
            has_delivery = in_app is not None or bool(others)
            outcome, reason = await _find_outcome(connection, row, user_id, channels, has_delivery=has_delivery)
        return TraceOut(
            notification_id=notification_id, user_id=user_id, outcome=outcome, reason=reason, channels=channels
        )

    async def _find_record(self, connection: AsyncConnection, row: AnyRow, user_id: UUID) -> list[dict[str, Any]]:
        record = await find_record(connection, row.id, user_id)
        if record is not None:
            return record
        # Nothing was kept, because nothing but the ordinary was decided: say it as it was.
        catalogs = await self._catalog.load(connection, {row.tenant})
        type_ = catalogs[row.tenant].types.get(row.event_type, PLAIN_MESSAGE)
        people = await find_people(connection, [user_id])
        if user_id not in people or row.routed_at is None:
            return []
        plain = decide(
            to_notification(row),
            type_,
            [RoutingRecipient(people[user_id])],
            throttled=(),
            now=row.routed_at,
            records=(),
        )
        return plain.records[0] if plain.records else describe_decisions([])


def _may_see(caller: Caller, row: AnyRow) -> bool:
    if Scope.DELIVERIES_READ in caller.scopes or row.sender_id == caller.id:
        return True
    # What came over AMQP has no authenticated sender; the tenant's own backends may follow it.
    return row.sender_id is None and caller.is_service and Scope.NOTIFICATIONS_SEND in caller.scopes


def _may_change(caller: Caller, row: AnyRow) -> bool:
    if row.sender_id == caller.id or Scope.EVENT_TYPES_WRITE in caller.scopes:
        return True
    return row.sender_id is None and caller.is_service and Scope.NOTIFICATIONS_SEND in caller.scopes


async def _cancel_deliveries(connection: AsyncConnection, notification_id: UUID) -> int:
    """End what has not been sent; a worker that is about to send asks once more."""
    columns = deliveries.c
    done = await connection.execute(
        update(deliveries)
        .where(columns.notification_id == notification_id, columns.status.in_(_WAITING))
        .values(status=str(DeliveryState.RECALLED), reason=str(Reason.RECALLED), next_attempt_at=None, share=None)
    )
    return done.rowcount


def _reach_condition(query: HistoryQuery) -> ColumnElement[bool] | None:
    """Conditions on whom it reached and over which channel."""
    columns = notifications.c
    conditions: list[ColumnElement[bool]] = []
    if query.channel is not None:
        over = exists().where(deliveries.c.notification_id == columns.id, deliveries.c.channel == str(query.channel))
        named = cast(columns.channels, SqlText).contains(f'"{query.channel}"', autoescape=True)
        conditions.append(
            or_(over, named, columns.channels.is_(None)) if query.channel is Channel.IN_APP else or_(over, named)
        )
    if query.user_id is not None:
        conditions.append(
            or_(
                exists().where(items.c.notification_id == columns.id, items.c.user_id == query.user_id),
                exists().where(deliveries.c.notification_id == columns.id, deliveries.c.user_id == query.user_id),
                cast(columns.recipients, SqlText).contains(str(query.user_id), autoescape=True),
            )
        )
    if not conditions:
        return None
    first, *others = conditions
    for each in others:
        first &= each
    return first


def _describe(row: AnyRow) -> SentOut:
    return SentOut.model_validate(
        {
            **row._mapping,  # noqa: SLF001 - SQLAlchemy's public name
            "status": describe_stage(row),
            "sender": describe_sender(Sender(row.sender_id, row.sender_name)),
        }
    )


async def _find_deliveries(connection: AsyncConnection, notification_id: UUID, user_id: UUID) -> list[dict[str, Any]]:
    columns = deliveries.c
    rows = (
        await connection.execute(
            select(deliveries)
            .where(columns.notification_id == notification_id, columns.user_id == user_id)
            .order_by(columns.created_at, columns.id)
        )
    ).all()
    tries = await connection.execute(
        select(delivery_attempts)
        .where(delivery_attempts.c.user_id == user_id, delivery_attempts.c.delivery_id.in_([row.id for row in rows]))
        .order_by(delivery_attempts.c.number)
    )
    attempts: dict[UUID, list[dict[str, Any]]] = {}
    for row in tries:
        attempts.setdefault(row.delivery_id, []).append(
            {
                "number": row.number,
                "started_at": format_time(row.started_at),
                "latency_ms": row.latency_ms,
                "outcome": row.outcome,
                "reason": row.reason,
                "provider_message_id": row.provider_message_id,
            }
        )
    return [
        {
            "channel": row.channel,
            "outcome": row.status,
            "reason": row.reason,
            "rules": row.rules or [],
            "attempts": attempts.get(row.id, []),
        }
        for row in rows
    ]


def _join(
    record: Sequence[dict[str, Any]], in_app: dict[str, Any] | None, others: Sequence[dict[str, Any]]
) -> list[TraceChannelOut]:
    """What was decided, with what became of it."""
    left = list(others)
    joined = []
    for entry in record:
        channel = entry["channel"]
        became = [each for each in left if each["channel"] == channel]
        left = [each for each in left if each["channel"] != channel]
        base: dict[str, Any] = {**entry, "attempts": []}
        if channel == Channel.IN_APP and in_app is not None:
            tries = [{"number": 1, "outcome": in_app["status"]}] if in_app["attempts"] else []
            joined.append({**base, "outcome": in_app["status"], "reason": in_app["reason"], "attempts": tries})
        elif became:
            joined += [
                {
                    **base,
                    "outcome": each["outcome"],
                    "reason": each["reason"] or entry.get("reason"),
                    "rules": [*entry["rules"], *each["rules"]],
                    "attempts": each["attempts"],
                }
                for each in became
            ]
        else:
            joined.append(base)
    joined += left
    return [TraceChannelOut.model_validate(each) for each in joined]


async def _find_outcome(
    connection: AsyncConnection, row: AnyRow, user_id: UUID, channels: list[TraceChannelOut], *, has_delivery: bool
) -> tuple[str, str | None]:
    """The whole in a word: `sent`, `suppressed`, `failed`, or why the user was none of its recipients.

    `has_delivery`: something is stored for this user; `channels` alone may be what would have been decided.
    """
    for problem in row.problems or ():
        if problem["recipient"] == str(user_id):
            return "failed", problem["reason"]
    if row.recalled_at is not None:
        return "recalled", str(Reason.RECALLED)
    if row.routed_at is None:
        return "pending", None
    person = (await find_people(connection, [user_id])).get(user_id)
    if person is None or person.tenant != row.tenant:
        channels.clear()
        return "not_sent", str(Reason.UNKNOWN_RECIPIENT)
    if not has_delivery and not await _is_named(connection, row, user_id, person.roles):
        channels.clear()
        reason = Reason.RECIPIENT_INACTIVE if not person.is_active else Reason.UNKNOWN_RECIPIENT
        return "not_sent", str(reason)
    outcomes = [each for each in channels if each.outcome != DeliveryState.SUPPRESSED]
    if outcomes:
        best = min(outcomes, key=lambda each: each.outcome in (DeliveryState.FAILED, DeliveryState.EXPIRED))
        return best.outcome, best.reason
    return ("suppressed", channels[0].reason) if channels else ("pending", None)


async def _is_named(connection: AsyncConnection, row: AnyRow, user_id: UUID, roles: Collection[str]) -> bool:
    """Whether the request names the user, as groups and roles are now."""
    recipients = row.recipients
    if recipients.get("all") or str(user_id) in recipients.get("users", ()):
        return True
    if not set(roles).isdisjoint(recipients.get("roles", ())):
        return True
    groups = [UUID(each) for each in recipients.get("groups", ())]
    member = await connection.execute(
        select(memberships.c.group_id).where(memberships.c.user_id == user_id, memberships.c.group_id.in_(groups))
    )
    external = await connection.execute(select(users.c.external_id).where(users.c.id == user_id))
    return member.first() is not None or f"ext:{external.scalar_one_or_none()}" in recipients.get("users", ())
