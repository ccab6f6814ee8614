"""Accepting requests over REST and from clients: checked, stored, and answered; handed to the intake afterwards.

Once stored, a notification is never lost: if the hand-over fails or the process dies, the relay does it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.clock import Clock
from notification_service.db.dialects import insert_into
from notification_service.db.engine import Database
from notification_service.db.rows import make_rows
from notification_service.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidSchema,
    PermissionDenied,
    ServiceError,
)
from notification_service.event_types.catalog import Catalog
from notification_service.event_types.creation import load_catalogs
from notification_service.event_types.defaults import UnusableType, find_type
from notification_service.identity.access import Caller
from notification_service.intake.check import find_missing_recipients
from notification_service.intake.handing_over import HandingOver
from notification_service.intake.models import idempotency_keys
from notification_service.intake.under_way import KeysUnderWay, lock_keys
from notification_service.notifications.entity import Notification, Sender, hash_request, make_notification
from notification_service.notifications.handover import make_intake_message
from notification_service.notifications.repository import Stage, find_stages, insert_accepted
from shared_contracts.error_codes import ErrorCode, Reason
from shared_contracts.ids import new_id
from shared_contracts.problems import FieldError
from shared_contracts.requests import NotificationRequest, Recipients
from shared_contracts.scopes import Scope
from shared_contracts.ws.frames import Send


class UnknownEventType(InvalidSchema):
    """The event type does not exist."""

    code = ErrorCode.UNKNOWN_EVENT_TYPE

    def __init__(self, detail: str) -> None:
        super().__init__([FieldError(field="event_type", message=detail)])


class EventTypeInactive(UnknownEventType):
    """The event type is switched off."""

    code = ErrorCode.EVENT_TYPE_INACTIVE


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request of a caller, with the caller's own key for it."""

    request: NotificationRequest
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that was taken, now or earlier under the same key."""

    id: UUID
    is_scheduled: bool


Outcome = Accepted | ServiceError


class _RacedByAnother(Exception):
    """An id was taken in between; nothing of this transaction stays, and the second try finds it."""


class Acceptor:
    """Takes requests of authenticated callers."""

    def __init__(
        self, *, database: Database, catalog: Catalog, handing_over: HandingOver, clock: Clock, relay_grace: timedelta
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._handing_over = handing_over
        self._clock = clock
        self._relay_grace = relay_grace
        self._under_way = KeysUnderWay()

    async def accept_message(self, sender: Caller, frame: Send) -> UUID:
        """Take a message from a client: to a user, a group, or, with the right, to everyone.

        Raises:
            ServiceError: It may not be sent, or cannot be stored now.
        """
        if Scope.MESSAGES_SEND not in sender.scopes:
            raise PermissionDenied(f"this needs the scope {Scope.MESSAGES_SEND}")
        target = frame.to
        echoed = (str(sender.id),) if frame.echo and not target.all else ()
        recipients = Recipients(
            users=(*((str(target.user),) if target.user else ()), *echoed),
            groups=(target.group,) if target.group else (),
            all=bool(target.all),
            exclude=(sender.id,) if frame.echo is False and target.group else (),
        )
        request = NotificationRequest(
            title=frame.title or sender.name or "Message",
            body=frame.body,
            data=frame.data,
            recipients=recipients,
            tenant=sender.tenant,
        )
        outcome = (await self._accept(sender, [Wanted(request)], needed=None))[0]
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome.id

    async def accept(self, sender: Caller, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Take many requests in one transaction; an outcome for each, in order. One refusal does not hurt the others.

        Raises:
            Unavailable: The database does not answer. Nothing was taken.
        """
        return await self._accept(sender, wanted, needed=Scope.NOTIFICATIONS_SEND)

    async def _accept(self, sender: Caller, wanted: Sequence[Wanted], *, needed: Scope | None) -> list[Outcome]:
        with self._under_way.hold(sender.id, {each.key for each in wanted if each.key is not None}) as busy:
            try:
                return await self._accept_once(sender, wanted, needed, busy)
            except _RacedByAnother:
                return await self._accept_once(sender, wanted, needed, busy)

    async def _accept_once(
        self, sender: Caller, wanted: Sequence[Wanted], needed: Scope | None, busy: Collection[str]
    ) -> list[Outcome]:
        now = self._clock.now()
        outcomes: list[Outcome | None] = []
        waiting: dict[int, Wanted] = {}
        for index, each in enumerate(wanted):
            checked = _check(sender, each, needed) if each.key not in busy else IdempotencyKeyInUse()
            outcomes.append(checked if isinstance(checked, ServiceError) else None)
            if isinstance(checked, Wanted):
                waiting[index] = checked
        if not waiting:
            return [outcome for outcome in outcomes if outcome is not None]
        async with self._database.write() as connection:
            fresh = await self._make_notifications(connection, sender, waiting, outcomes, now)
            await self._claim_keys(connection, sender, waiting, fresh, outcomes)
            taken = [notification for index, notification in fresh.items() if outcomes[index] is None]
            new = await insert_accepted(connection, taken, relay_after=now + self._relay_grace)
            if len(new) != len(taken):
                raise _RacedByAnother
        for index, notification in fresh.items():
            if outcomes[index] is None:
                outcomes[index] = Accepted(notification.id, is_scheduled=notification.deliver_at is not None)
        self._handing_over.add([make_intake_message(each, now) for each in taken if each.deliver_at is None])
        return [outcome for outcome in outcomes if outcome is not None]

    async def _make_notifications(
        self,
        connection: AsyncConnection,
        sender: Caller,
        waiting: dict[int, Wanted],
        outcomes: list[Outcome | None],
        now: datetime,
    ) -> dict[int, Notification]:
        """What is to be stored, by index. Requests known by their key or their id get their outcome instead."""
        catalogs = await load_catalogs(connection, self._catalog, [each.request for each in waiting.values()], now)
        known = await _find_keys(connection, sender, waiting.values())
        ids = {index: _choose_id(each) for index, each in waiting.items()}
        stages = await find_stages(connection, set(ids.values())) if ids else {}
        fresh: dict[int, Notification] = {}
        for index, each in waiting.items():
            outcome = _find_earlier(each, known) or _find_stored(each, stages.get(ids[index]), sender)
            found = find_type(each.request, catalogs[each.request.tenant].types)
            if outcome is None and isinstance(found, UnusableType):
                outcome = _describe_unusable(found)
            if outcome is not None or isinstance(found, UnusableType):
                outcomes[index] = outcome
                continue
            fresh[index] = make_notification(
                each.request,
                # An id that is taken is another caller's: this notification gets one of its own.
                notification_id=new_id() if ids[index] in stages else ids[index],
                kind=each.request.kind_for(None),
                sender=Sender(sender.id, sender.name),
                now=now,
                defaults=found.defaults,
            )
        return fresh

    async def _claim_keys(
        self,
        connection: AsyncConnection,
        sender: Caller,
        waiting: dict[int, Wanted],
        fresh: dict[int, Notification],
        outcomes: list[Outcome | None],
    ) -> None:
        """Tie keys to notifications. Whoever was faster in between answers for both, once its transaction has ended."""
        first: dict[str, int] = {}
        for index in fresh:
            key = waiting[index].key
            if key is not None:
                first.setdefault(key, index)
        if first and len(free := await lock_keys(connection, sender.id, first.keys())) < len(first):
            for index in fresh:
                if (key := waiting[index].key) is not None and key not in free:
                    outcomes[index] = IdempotencyKeyInUse()
            first = {key: index for key, index in first.items() if key in free}
        records = [
            (sender.id, key, fresh[index].request_hash, fresh[index].id, fresh[index].created_at)
            for key, index in sorted(first.items())
        ]
        claimed = await _insert_keys(connection, records) if records else set()
        lost = [
            index
            for index in fresh
            if outcomes[index] is None
            and (key := waiting[index].key) is not None
            and (first[key] != index or key not in claimed)
        ]
        if lost:
            known = await _find_keys(connection, sender, [waiting[index] for index in lost])
            for index in lost:
                outcomes[index] = _find_earlier(waiting[index], known)


def _describe_unusable(found: UnusableType) -> ServiceError:
    if found.errors:
        return InvalidSchema([FieldError(field=field, message=message) for field, message in found.errors])
    if found.reason is Reason.EVENT_TYPE_INACTIVE:
        return EventTypeInactive(found.detail)
    return UnknownEventType(found.detail)


def _check(sender: Caller, wanted: Wanted, needed: Scope | None) -> Wanted | ServiceError:
    request = wanted.request
    if needed is not None and needed not in sender.scopes:
        return PermissionDenied(f"this needs the scope {needed}")
    if request.recipients.all and Scope.NOTIFICATIONS_BROADCAST not in sender.scopes:
        return PermissionDenied(f"a broadcast needs the scope {Scope.NOTIFICATIONS_BROADCAST}")
    if "tenant" not in request.model_fields_set:
        request = request.model_copy(update={"tenant": sender.tenant})
    elif request.tenant != sender.tenant:
        return PermissionDenied("the notification belongs to another tenant")
    if problem := find_missing_recipients(request.recipients, None):
        return InvalidSchema([problem])
    return Wanted(request, wanted.key)


async def _find_keys(
    connection: AsyncConnection, sender: Caller, wanted: Iterable[Wanted]
) -> dict[str, tuple[str, UUID]]:
    keys = {each.key for each in wanted if each.key is not None}
    if not keys:
        return {}
    columns = idempotency_keys.c
    rows = await connection.execute(
        select(columns.key, columns.request_hash, columns.notification_id).where(
            and_(columns.caller_id == sender.id, columns.key.in_(keys))
        )
    )
    return {row.key: (row.request_hash, row.notification_id) for row in rows}


async def _insert_keys(connection: AsyncConnection, records: Sequence[tuple[object, ...]]) -> set[str]:
    types = {column.name: column.type for column in idempotency_keys.columns}
    rows = make_rows(connection, types, records)
    insertion = insert_into(connection, idempotency_keys).from_select(list(types), select(*rows.c).where(true()))
    statement = insertion.on_conflict_do_nothing().returning(idempotency_keys.c.key)
    return set((await connection.execute(statement)).scalars())


def _find_earlier(wanted: Wanted, known: dict[str, tuple[str, UUID]]) -> Outcome | None:
    earlier = known.get(wanted.key) if wanted.key is not None else None
    if earlier is None:
        return None
    request_hash, notification_id = earlier
    if request_hash != hash_request(wanted.request):
        return IdempotencyKeyReused()
    metrics.duplicates_suppressed.inc()
    return Accepted(notification_id, is_scheduled=False)


def _find_stored(wanted: Wanted, stage: Stage | None, sender: Caller) -> Outcome | None:
    """A key that is a UUID is the notification's id, like `message_id` over AMQP: by both ways it is one."""
    if stage is None or stage.sender_id not in (None, sender.id):
        return None
    if stage.request_hash != hash_request(wanted.request):
        return IdempotencyKeyReused()
    metrics.duplicates_suppressed.inc()
    return Accepted(stage.id, is_scheduled=False)


def _choose_id(wanted: Wanted) -> UUID:
    try:
        return UUID(wanted.key) if wanted.key else new_id()
    except ValueError:
        return new_id()
