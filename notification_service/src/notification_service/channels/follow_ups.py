"""What is done about messages after they were sent: taken back when their notification is recalled or read elsewhere,
changed when it is changed.

Asked for in the transaction of the recall, reading or change, done by any worker soon after: the row remembers, so
nothing of it is lost with a process, and a provider that is down is asked again by the delays of the retry ladder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, case, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.content import address_of, message_of, pending_of
from notification_service.channels.interface import Channel, FailureKind, SendFailed, SentMessage
from notification_service.channels.links import Links
from notification_service.channels.load import Loaded, load_deliveries
from notification_service.channels.models import deliveries
from notification_service.channels.ports import Rendered, Renderer, Unrenderable
from notification_service.channels.registry import Registry
from notification_service.clock import Clock
from notification_service.contacts.secrets import SecretBox
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.notifications.models import notifications
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

log = structlog.get_logger(__name__)

_BATCH: Final = 50
_AT_ONCE: Final = 8
_HOLD: Final = timedelta(minutes=2)
_CALL_LIMIT_S: Final = 30.0
_SENT: Final = (DeliveryState.SENT, DeliveryState.DELIVERED)


class FollowUp(StrEnum):
    """What is to be done."""

    WITHDRAW = "withdraw"
    EDIT = "edit"
    DISMISS = "dismiss"
    """Taken back because the user has dealt with it elsewhere: it was delivered, and stays so."""


async def ask_for_follow_ups(
    connection: AsyncConnection, notification_id: UUID, what: FollowUp, channels: Collection[str], *, now: datetime
) -> int:
    """Note what is to be done about everything of a notification that was sent; answers about how many deliveries.

    Args:
        connection: In a write transaction.
        notification_id: Which.
        what: To do.
        channels: Those that can do it.
        now: When.
    """
    if not channels:
        return 0
    columns = deliveries.c
    asked = await connection.execute(
        update(deliveries)
        .where(
            columns.notification_id == notification_id,
            columns.channel.in_(sorted(channels)),
            columns.status.in_(_SENT),
            columns.provider_message_id.is_not(None),
        )
        # What is being taken back is not changed any more.
        .values(
            follow_up=case((columns.follow_up == FollowUp.WITHDRAW, columns.follow_up), else_=str(what)),
            follow_up_at=now,
            follow_up_attempts=0,
        )
    )
    return asked.rowcount


async def ask_for_dismissals(
    connection: AsyncConnection,
    user_id: UUID,
    notification_ids: Sequence[UUID] | None,
    channels: Collection[str],
    *,
    now: datetime,
) -> int:
    """Note that a user has dealt with notifications (None: with all) in the inbox; answers about how many deliveries.

    What is to be taken back for good is left as it is.
    """
    if not channels or notification_ids == []:
        return 0
    columns = deliveries.c
    conditions = [
        columns.user_id == user_id,
        columns.channel.in_(sorted(channels)),
        columns.status.in_(_SENT),
        columns.provider_message_id.is_not(None),
        columns.follow_up.is_distinct_from(FollowUp.WITHDRAW),
    ]
    if notification_ids is not None:
        conditions.append(columns.notification_id.in_(notification_ids))
    asked = await connection.execute(
        update(deliveries)
        .where(*conditions)
        .values(follow_up=str(FollowUp.DISMISS), follow_up_at=now, follow_up_attempts=0)
    )
    return asked.rowcount


@dataclass(frozen=True, slots=True)
class _Done:
    row: AnyRow
    values: dict[str, Any]


class FollowUps:
    """Does what was asked for."""

    def __init__(
        self,
        *,
        database: Database,
        registry: Registry,
        renderer: Renderer,
        links: Links,
        box: SecretBox,
        clock: Clock,
        delays: Sequence[timedelta],
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._database = database
        self._registry = registry
        self._renderer = renderer
        self._links = links
        self._box = box
        self._clock = clock
        self._delays = delays
        self._interval = interval

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                done = await self.do_due()
            except Unavailable:
                log.warning("follow_ups_failed")
                done = 0
            if done < _BATCH:
                await self._clock.sleep(self._interval)

    async def do_due(self) -> int:
        """Do what is due; answers how many."""
        now = self._clock.now()
        async with self._database.read() as connection:
            due = select(deliveries.c.id).where(_is_due(now)).limit(1)
            is_any_due = (await connection.execute(due)).first() is not None
        # SQLite has one writer: an empty look must not be one.
        if not is_any_due:
            return 0
        async with self._database.write() as connection:
            rows = await _claim(connection, now)
            keys = {(row.user_id, row.id) for row in rows}
            loaded = await load_deliveries(connection, keys, self._box) if keys else {}
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def do(row: AnyRow) -> _Done:
            async with at_once:
                return _Done(row, await self._do(row, loaded.get(row.id)))

        for each in await asyncio.gather(*map(do, rows)):
            await self._write(each)
        return len(rows)

    async def _do(self, row: AnyRow, found: Loaded | None) -> dict[str, Any]:
        """Answers what to write into the row."""
        channel = self._registry.get(row.channel)
        if channel is None or not channel.is_configured or found is None or found.address is None:
            return _over("its channel or its address is gone")
        try:
            async with asyncio.timeout(_CALL_LIMIT_S):
                could = await self._call(channel, row, found)
        except SendFailed as failed:
            return _over(failed.failure.detail)
        except Exception as error:  # noqa: BLE001 - the channel says what it means
            return self._classify(channel, row, error)
        if not could:
            return _over("the provider could not do it")
        if row.follow_up == FollowUp.WITHDRAW:
            return {**_over(None), "status": str(DeliveryState.RECALLED), "reason": str(Reason.RECALLED)}
        return _over(None)

    async def _call(self, channel: Channel, row: AnyRow, found: Loaded) -> bool:
        address, sent = address_of(found), await self._describe(row, found)
        if row.follow_up in (FollowUp.WITHDRAW, FollowUp.DISMISS):
            return await channel.withdraw(sent, address)
        if found.notification is None or found.user is None:
            return False
        rendered: Rendered | Unrenderable
        (rendered,) = await self._renderer.render([pending_of(found, row.attempts)])
        prepared = channel.prepare(message_of(found, rendered, self._links), address)
        return await channel.edit(sent, prepared, address)

    async def _describe(self, row: AnyRow, found: Loaded) -> SentMessage:
        notification, delivery = found.notification, found.delivery
        key = notification.collapse_key if notification is not None else None
        is_replaced = False
        if key is not None:
            async with self._database.read() as connection:
                is_replaced = await _has_newer(connection, delivery, key)
        return SentMessage(
            provider_message_id=row.provider_message_id,
            delivery_id=delivery.id,
            notification_id=delivery.notification_id,
            tenant=delivery.tenant,
            collapse_key=key,
            expires_at=notification.expires_at if notification is not None else None,
            is_replaced=is_replaced,
        )

    def _classify(self, channel: Channel, row: AnyRow, error: Exception) -> dict[str, Any]:
        failure = channel.classify_error(error)
        # Doing it twice does no harm: a time-out is asked again too.
        if failure.kind is FailureKind.PERMANENT or row.follow_up_attempts > len(self._delays):
            return _over(failure.detail)
        wait = max(self._delays[row.follow_up_attempts - 1], failure.retry_after or timedelta())
        return {"follow_up_at": self._clock.now() + wait}

    async def _write(self, done: _Done) -> None:
        row, columns = done.row, deliveries.c
        log.info(
            "delivery_followed_up",
            delivery_id=str(row.id),
            channel=row.channel,
            what=row.follow_up,
            problem=done.values.get("error"),
            is_over="follow_up" in done.values,
        )
        async with self._database.write() as connection:
            await connection.execute(
                update(deliveries)
                # Asked for anew since, a withdrawal after an edit for example: that begins again.
                .where(
                    columns.user_id == row.user_id,
                    columns.id == row.id,
                    columns.follow_up == row.follow_up,
                    columns.follow_up_attempts == row.follow_up_attempts,
                )
                .values(**done.values)
            )


def _is_due(now: datetime) -> ColumnElement[bool]:
    return deliveries.c.follow_up_at.is_not(None) & (deliveries.c.follow_up_at <= now)


async def _claim(connection: AsyncConnection, now: datetime) -> list[AnyRow]:
    """What is due, each for one worker."""
    columns = deliveries.c
    due = (
        select(columns.user_id, columns.id)
        .where(_is_due(now))
        .order_by(columns.follow_up_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
    claimed = await connection.execute(
        update(deliveries)
        .where(tuple_(columns.user_id, columns.id).in_(due))
        .values(follow_up_at=now + _HOLD, follow_up_attempts=columns.follow_up_attempts + 1)
        .returning(
            columns.user_id,
            columns.id,
            columns.channel,
            columns.provider_message_id,
            columns.attempts,
            columns.follow_up,
            columns.follow_up_attempts,
        )
    )
    return list(claimed.all())


async def _has_newer(connection: AsyncConnection, delivery: AnyRow, collapse_key: str) -> bool:
    """Whether a newer message with this key went to the same user over the same channel, or is about to."""
    columns = deliveries.c
    newer = (
        select(columns.id)
        .join(notifications, notifications.c.id == columns.notification_id)
        .where(
            columns.user_id == delivery.user_id,
            columns.channel == delivery.channel,
            columns.id != delivery.id,
            columns.status.in_((*_SENT, DeliveryState.PENDING, DeliveryState.QUEUED)),
            notifications.c.tenant == delivery.tenant,
            notifications.c.collapse_key == collapse_key,
            notifications.c.recalled_at.is_(None),
            columns.created_at > delivery.created_at,
        )
    )
    return (await connection.execute(newer.limit(1))).first() is not None


def _over(problem: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {"follow_up": None, "follow_up_at": None}
    if problem is not None:
        values["error"] = f"it could not be changed or taken back: {problem}"[:1000]
    return values
