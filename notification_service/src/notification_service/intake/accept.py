"""Accepting requests over REST and from clients: checked, stored, and answered; handed to the intake afterwards.

Once stored, a notification is never lost: if the hand-over fails or the process dies, the relay does it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.background import spawn
from notification_service.broker.publisher import Publisher
from notification_service.clock import Clock
from notification_service.db.dialects import insert_into
from notification_service.db.engine import Database
from notification_service.db.rows import make_rows
from notification_service.errors import (
    IdempotencyKeyReused,
    InvalidSchema,
    PermissionDenied,
    ServiceError,
)
from notification_service.event_types.defaults import UnusableType, defaults_of
from notification_service.event_types.repository import find_event_types
from notification_service.identity.access import Caller
from notification_service.intake.check import find_missing_recipients
from notification_service.intake.models import idempotency_keys
from notification_service.notifications.entity import Notification, Sender, hash_request, make_notification
from notification_service.notifications.handover import make_intake_message
from notification_service.notifications.repository import find_stages, insert_accepted
from shared_contracts.error_codes import ErrorCode
from shared_contracts.ids import new_id
from shared_contracts.problems import FieldError
from shared_contracts.requests import NotificationRequest, Recipients
from shared_contracts.scopes import Scope
from shared_contracts.ws.frames import Send


class UnknownEventType(InvalidSchema):
    """The event type does not exist, or is switched off."""

    code = ErrorCode.UNKNOWN_EVENT_TYPE

    def __init__(self, detail: str) -> None:
        super().__init__([FieldError(field="event_type", message=detail)])


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


class Acceptor:
    """Takes requests of authenticated callers."""

    def __init__(self, *, database: Database, publisher: Publisher, clock: Clock, relay_grace: timedelta) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._relay_grace = relay_grace

    async def accept_message(self, sender: Caller, frame: Send) -> UUID:
        """Take a message from a client: to a user, a group, or, with the right, to everyone.

        Raises:
            ServiceError: It may not be sent, or cannot be stored now.
        """
        if Scope.MESSAGES_SEND not in sender.scopes:
            raise PermissionDenied(f"this needs the scope {Scope.MESSAGES_SEND}")
        target = frame.to
        recipients = Recipients(
            users=(str(target.user),) if target.user else (),
            groups=(target.group,) if target.group else (),
            all=bool(target.all),
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
        now = self._clock.now()
        checked = [_check(sender, each, needed) for each in wanted]
        async with self._database.write() as connection:
            named = {
                (each.request.tenant, each.request.event_type)
                for each in checked
                if isinstance(each, Wanted) and each.request.event_type is not None
            }
            types = await find_event_types(connection, {(tenant, code or "") for tenant, code in named})
            outcomes: list[Outcome | None] = []
            fresh: list[tuple[int, Wanted, Notification]] = []
            known = await self._find_known(connection, sender, checked)
            for index, each in enumerate(checked):
                outcome = each if isinstance(each, ServiceError) else _find_earlier(each, known)
                outcomes.append(outcome)
                if outcome is not None or not isinstance(each, Wanted):
                    continue
                defaults = defaults_of(each.request, types)
                if isinstance(defaults, UnusableType):
                    outcomes[index] = UnknownEventType(defaults.detail)
                    continue
                notification = make_notification(
                    each.request,
                    notification_id=_choose_id(each),
                    kind=each.request.kind_for(None),
                    sender=Sender(sender.id, sender.name),
                    now=now,
                    defaults=defaults,
                )
                fresh.append((index, each, notification))
            stored = await self._store(connection, sender, fresh, now)
        for index, outcome in stored.items():
            outcomes[index] = outcome
        taken = [
            notification
            for index, _, notification in fresh
            if isinstance(outcomes[index], Accepted) and notification.deliver_at is None
        ]
        self._hand_over(taken, now)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _find_known(
        self, connection: AsyncConnection, sender: Caller, checked: Sequence[Wanted | ServiceError]
    ) -> dict[str, tuple[str, UUID]]:
        keys = {each.key for each in checked if isinstance(each, Wanted) and each.key is not None}
        if not keys:
            return {}
        columns = idempotency_keys.c
        rows = await connection.execute(
            select(columns.key, columns.request_hash, columns.notification_id).where(
                and_(columns.caller_id == sender.id, columns.key.in_(keys))
            )
        )
        return {row.key: (row.request_hash, row.notification_id) for row in rows}

    async def _store(
        self,
        connection: AsyncConnection,
        sender: Caller,
        fresh: Sequence[tuple[int, Wanted, Notification]],
        now: datetime,
    ) -> dict[int, Outcome]:
        """Store what is new; answers an outcome for each index.

        A key that is a UUID is the notification's id, as `message_id` is over AMQP: the same id by both ways is one
        notification. When the id is taken by another caller's notification, this one gets an id of its own.
        """
        relay_after = now + self._relay_grace
        outcomes: dict[int, Outcome] = {}
        new = await insert_accepted(connection, _first_of_each([each for _, _, each in fresh]), relay_after=relay_after)
        taken = [each for each in fresh if each[2].id not in new]
        stages = await find_stages(connection, {each.id for _, _, each in taken}) if taken else {}
        seen: set[UUID] = set()
        for index, wanted, notification in fresh:
            stage = stages.get(notification.id)
            is_first = notification.id in new and notification.id not in seen
            seen.add(notification.id)
            if is_first or stage is None:
                outcomes[index] = _accepted(notification)
            elif stage.sender_id not in (None, sender.id):
                again = _with_new_id(notification)
                await insert_accepted(connection, [again], relay_after=relay_after)
                outcomes[index] = _accepted(again)
            elif stage.request_hash != hash_request(wanted.request):
                outcomes[index] = IdempotencyKeyReused()
            else:
                metrics.duplicates_suppressed.inc()
                outcomes[index] = _accepted(notification)
        records = [
            (sender.id, wanted.key, hash_request(wanted.request), outcome.id, now)
            for index, wanted, _ in fresh
            if wanted.key is not None and isinstance(outcome := outcomes[index], Accepted)
        ]
        await _remember_keys(connection, records)
        return outcomes

    def _hand_over(self, taken: Sequence[Notification], now: datetime) -> None:
        if taken:
            messages = [make_intake_message(each, now) for each in taken]
            # Nobody waits: what is not confirmed is handed over by the relay.
            spawn(self._publisher.publish_all(messages), name="hand-over")


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


def _find_earlier(wanted: Wanted, known: dict[str, tuple[str, UUID]]) -> Outcome | None:
    earlier = known.get(wanted.key) if wanted.key is not None else None
    if earlier is None:
        return None
    request_hash, notification_id = earlier
    if request_hash != hash_request(wanted.request):
        return IdempotencyKeyReused()
    return Accepted(notification_id, is_scheduled=False)


def _choose_id(wanted: Wanted) -> UUID:
    try:
        return UUID(wanted.key) if wanted.key else new_id()
    except ValueError:
        return new_id()


def _with_new_id(notification: Notification) -> Notification:
    return replace(notification, id=new_id())


def _accepted(notification: Notification) -> Accepted:
    return Accepted(notification.id, is_scheduled=notification.deliver_at is not None)


def _first_of_each(notifications: Sequence[Notification]) -> list[Notification]:
    found: dict[UUID, Notification] = {}
    for each in notifications:
        found.setdefault(each.id, each)
    return list(found.values())


async def _remember_keys(connection: AsyncConnection, records: Sequence[tuple[object, ...]]) -> None:
    if not records:
        return
    types = {column.name: column.type for column in idempotency_keys.columns}
    unique = list({record[1]: record for record in records}.values())
    rows = make_rows(connection, types, unique)
    insertion = insert_into(connection, idempotency_keys).from_select(list(types), select(*rows.c).where(true()))
    await connection.execute(insertion.on_conflict_do_nothing())
