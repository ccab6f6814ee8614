"""What time brings: digests close, schedules fire, escalations go on, snoozed items come back, old ones go.

Several schedulers may run: every piece of work is claimed by locking its row in the transaction that does it, and what
is to be sent is stored in the same transaction. A crash before the commit leaves it for the next turn, one after it for
the relay; neither sends twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import failpoints
from notification_service.broker.publisher import Publisher
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.planned import KeptDelivery, PlannedDelivery, Reach
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.digests import close, schedules
from notification_service.digests.escalation_rows import Waiting, claim_due, finish_steps, has_due
from notification_service.digests.weekly import open_next, wants_weekly
from notification_service.dispatch.dispatcher import Dispatched, Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.entrypoints.deciding import Deciding
from notification_service.entrypoints.forgetting import forget_old_rows
from notification_service.errors import Unavailable
from notification_service.event_types.catalog import Catalog, TenantCatalog
from notification_service.event_types.defaults import UnusableType, find_type
from notification_service.event_types.entity import PLAIN_MESSAGE
from notification_service.event_types.throttling import forget_windows
from notification_service.identity.directory import Person
from notification_service.identity.repository import find_memberships, find_people
from notification_service.mailbox import upkeep
from notification_service.mailbox.actions import Action
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.service import Inbox
from notification_service.mailbox.withdraw import find_expired, mark_items, remove_expired_broadcasts
from notification_service.notifications.entity import Notification, Sender, make_notification
from notification_service.notifications.handover import make_intake_message
from notification_service.notifications.models import notifications
from notification_service.notifications.repository import insert_accepted, to_notification
from notification_service.preferences.evaluate import Outcome, Rule, Situation
from notification_service.routing.decide import Recipient, decide_step
from notification_service.routing.recipients import is_still_meant
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel, NotificationRequest

log = structlog.get_logger(__name__)

_BATCH: Final = 200
_INTERVAL: Final = timedelta(seconds=1)
_RELAY_GRACE: Final = timedelta(seconds=10)
_WEEK: Final = timedelta(days=7)
_UPKEEP_EVERY: Final = timedelta(minutes=1)
_USERS_PER_SWEEP: Final = 500
_ROWS_PER_TURN: Final = 1_000
_SWEEP_EVERY: Final = timedelta(hours=1)

Publish = Callable[[Sequence[KeptDelivery]], Awaitable[None]]


class Timekeeper:
    """The scheduler's loop."""

    def __init__(
        self,
        *,
        database: Database,
        publisher: Publisher,
        dispatcher: Dispatcher,
        marks: DispatchMarks,
        catalog: Catalog,
        deciding: Deciding,
        inbox: Inbox,
        live: LiveBroadcasts,
        reach: Callable[[], Reach],
        publish_deliveries: Publish,
        clock: Clock,
        retention: timedelta,
        extras: Sequence[Callable[[datetime], Awaitable[Any]]] = (),
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._marks = marks
        self._catalog = catalog
        self._deciding = deciding
        self._inbox = inbox
        self._live = live
        self._reach = reach
        self._publish_deliveries = publish_deliveries
        self._clock = clock
        self._retention = retention
        self._extras = extras
        self._upkeep_at: datetime | None = None
        self._sweep_at: datetime | None = None
        self._forget_at: datetime | None = None
        self._swept_user: UUID | None = None

    async def run(self) -> None:
        """Keep time for ever."""
        while True:
            try:
                is_busy = await self.tick()
            except Unavailable:
                log.warning("timekeeping_waits")
                is_busy = False
            if not is_busy:
                await self._clock.sleep(_INTERVAL)

    async def tick(self) -> bool:
        """Do what is due now; answers whether there may be more of it."""
        now = self._clock.now()
        counts = [
            await self.close_digests(now),
            await self.fire_schedules(now),
            await self.escalate(now),
            await self.wake_snoozed(now),
            await self.expire_items(now),
        ]
        if self._upkeep_at is None or now >= self._upkeep_at:
            self._upkeep_at = now + _UPKEEP_EVERY
            for extra in self._extras:
                await extra(now)
            async with self._database.write() as connection:
                await remove_expired_broadcasts(connection, now=now, older_than=self._retention)
                await forget_windows(connection, now=now, older_than=timedelta(days=32))
        if self._sweep_at is None or now >= self._sweep_at:
            await self.sweep_old_items(now)
        if self._forget_at is None or now >= self._forget_at:
            await self.forget_old_rows(now)
        return max(counts) >= _BATCH

    # --- digests ------------------------------------------------------------------------------------------------------

    async def close_digests(self, now: datetime) -> int:
        """Close digests that are due; answers how many. Nothing is sent for one that has nothing to tell."""
        async with self._database.read() as connection:
            if not await close.has_due(connection, now=now):
                return 0
        async with self._database.write() as connection:
            due = await close.claim_due(connection, now=now, limit=_BATCH)
            summaries: list[Notification] = []
            if due:
                summaries, told = await self._summarise(connection, due, now)
                await close.mark_closed(connection, told, now=now)
                await insert_accepted(connection, summaries, relay_after=now + _RELAY_GRACE)
                await self._open_next_weeks(connection, due, now)
                failpoints.reach("before_digest_commit")
        failpoints.reach("after_digest_commit")
        await self._hand_over(summaries, now)
        return len(due)

    async def _summarise(
        self, connection: AsyncConnection, due: Sequence[AnyRow], now: datetime
    ) -> tuple[list[Notification], list[tuple[UUID, int]]]:
        entries = await self.find_entries(connection, due, now)
        told = [(digest.id, len(entries[digest.id])) for digest in due]
        summaries = [
            close.make_summary(digest, entries[digest.id], count=len(entries[digest.id]), now=now)
            for digest in due
            if entries[digest.id]
        ]
        return summaries, told

    async def find_entries(
        self, connection: AsyncConnection, digests: Sequence[AnyRow], now: datetime
    ) -> dict[UUID, list[dict[str, Any]]]:
        """What each of these digests has to tell now: what was neither read nor put away, recalled or expired."""
        items = await close.read_items(connection, [digest.id for digest in digests], now=now)
        pairs = [(digest.user_id, row.id) for digest in digests for row in items.get(digest.id, ())]
        answered = await upkeep.find_answered(connection, pairs, acked_counts=False)
        titles = await upkeep.find_titles(connection, [pair for pair in pairs if pair not in answered])
        catalogs = await self._catalog.load(connection, {digest.tenant for digest in digests})
        found: dict[UUID, list[dict[str, Any]]] = {}
        for digest in digests:
            if digest.key == close.KEY_WEEKLY:
                unread = await upkeep.list_unread(connection, digest.user_id, since=now - _WEEK, limit=1_000)
                found[digest.id] = [
                    close.describe_entry(row.notification_id, row.title, row.body, row.created_at) for row in unread
                ]
            else:
                found[digest.id] = [
                    _describe(digest, row, titles, catalogs[digest.tenant])
                    for row in items.get(digest.id, ())
                    if (digest.user_id, row.id) not in answered
                ]
        return found

    async def _open_next_weeks(self, connection: AsyncConnection, due: Sequence[AnyRow], now: datetime) -> None:
        weekly = [digest for digest in due if digest.key == close.KEY_WEEKLY]
        if not weekly:
            return
        people = await find_people(connection, {digest.user_id for digest in weekly})
        recipients = await self._find_recipients(connection, list(people.values()))
        wanted = []
        for digest in weekly:
            recipient = recipients.get(digest.user_id)
            if recipient is not None and wants_weekly(Channel(digest.channel), recipient.layers):
                situation = Situation(recipient.layers, recipient.person.timezone, now)
                wanted.append((digest.tenant, digest.user_id, digest.channel, situation))
        await open_next(connection, wanted, now=now)

    async def _find_recipients(self, connection: AsyncConnection, people: Sequence[Any]) -> dict[UUID, Recipient]:
        catalogs = await self._catalog.load(connection, {person.tenant for person in people})
        found: dict[UUID, Recipient] = {}
        for tenant, catalog in catalogs.items():
            own = [person for person in people if person.tenant == tenant and person.is_active]
            found |= await self._deciding.find_recipients(connection, own, catalog)
        return found

    # --- schedules ------------------------------------------------------------------------------------------------

    async def fire_schedules(self, now: datetime) -> int:
        """Send what is scheduled for now; answers how many."""
        async with self._database.read() as connection:
            if not await schedules.has_due(connection, now=now):
                return 0
        async with self._database.write() as connection:
            due = await schedules.claim_due(connection, now=now, limit=_BATCH)
            catalogs = await self._catalog.load(connection, {each.tenant for each in due})
            wanted = []
            for each in due:
                request = NotificationRequest.model_validate(each.request)
                found = find_type(request, catalogs[each.tenant].types)
                if isinstance(found, UnusableType):
                    log.warning("schedule_not_fired", schedule_id=str(each.id), problem=found.detail)
                else:
                    wanted.append(
                        make_notification(
                            request,
                            notification_id=schedules.firing_id(each),
                            kind=request.kind_for(None),
                            sender=Sender(each.sender_id, each.sender_name),
                            now=now,
                            defaults=found.defaults,
                        )
                    )
                await schedules.advance(connection, each, now=now)
            await insert_accepted(connection, wanted, relay_after=now + _RELAY_GRACE)
        await self._hand_over(wanted, now)
        return len(due)

    async def _hand_over(self, accepted: Sequence[Notification], now: datetime) -> None:
        # What is not confirmed is handed over by the relay.
        if accepted:
            await self._publisher.publish_all([make_intake_message(each, now) for each in accepted])

    # --- escalations ----------------------------------------------------------------------------------------------

    async def escalate(self, now: datetime) -> int:
        """Try the next channels where nobody has acknowledged in time; answers how many steps were looked at."""
        async with self._database.read() as connection:
            if not await has_due(connection, now=now):
                return 0
        async with self._database.write() as connection:
            due = await claim_due(connection, now=now, limit=_BATCH)
            if not due:
                return 0
            planned, following = await self._plan_steps(connection, due, now)
            deliveries = await keep_deliveries(connection, planned, now, reach=self._reach()) if planned else []
            await finish_steps(connection, [(row.notification_id, row.user_id) for row in due], following)
        await self._publish_deliveries(deliveries)
        return len(due)

    async def _plan_steps(
        self, connection: AsyncConnection, due: Sequence[AnyRow], now: datetime
    ) -> tuple[list[PlannedDelivery], list[Waiting]]:
        rows = await connection.execute(
            select(notifications).where(notifications.c.id.in_({row.notification_id for row in due}))
        )
        found = {row.id: row for row in rows}
        people = await find_people(connection, {row.user_id for row in due})
        recipients = await self._find_recipients(connection, list(people.values()))
        pairs = [(row.user_id, row.notification_id) for row in due]
        answered = await upkeep.find_answered(connection, pairs, acked_counts=True)
        catalogs = await self._catalog.load(connection, {row.tenant for row in found.values()})
        sent = {row_id: to_notification(row) for row_id, row in found.items() if row.recalled_at is None}
        groups = {group_id for each in sent.values() for group_id in each.recipients.groups}
        member_of = await find_memberships(connection, set(people), groups)
        planned: list[PlannedDelivery] = []
        following: list[Waiting] = []
        for row in due:
            notification, person = sent.get(row.notification_id), people.get(row.user_id)
            if notification is None or person is None:
                continue
            type_ = catalogs[notification.tenant].types.get(notification.event_type, PLAIN_MESSAGE)
            if row.step >= len(type_.steps):
                continue
            step = type_.steps[row.step]
            reason = _find_reason_to_stop(
                notification,
                person,
                member_of.get(person.id, ()),
                is_answered=(row.user_id, row.notification_id) in answered,
                now=now,
            )
            mark = Rule("escalation.step", {"number": row.step + 1, **step}, "event_type").describe()
            recipient = recipients.get(row.user_id) or Recipient(person)
            for channel, decision in decide_step(
                notification, type_, [Channel(name) for name in step["channels"]], recipient, now
            ):
                stops = reason or (decision.reason if decision.outcome is not Outcome.SEND else None)
                planned.append(
                    PlannedDelivery(
                        notification_id=notification.id,
                        user_id=row.user_id,
                        tenant=notification.tenant,
                        sender=notification.sender.key,
                        channel=str(channel),
                        status=DeliveryState.SUPPRESSED if stops else DeliveryState.PENDING,
                        reason=stops,
                        rules=[mark, *(rule.describe() for rule in decision.rules)],
                    )
                )
            if reason is None and row.step + 1 < len(type_.steps):
                wait = timedelta(seconds=type_.steps[row.step + 1]["after_seconds"])
                following.append((row.notification_id, row.user_id, row.step + 1, row.due_at + wait))
        return planned, following

    # --- the inbox ------------------------------------------------------------------------------------------------

    async def wake_snoozed(self, now: datetime) -> int:
        """Bring back items whose rest is over, as new; answers for how many users."""
        async with self._database.read() as connection:
            due = await upkeep.find_due_snoozes(connection, now=now, limit=_BATCH)
        for each in due:
            await self._inbox.change(each.user_id, each.tenant, Action.UNSNOOZE, each.notification_ids[:500])
        return len(due)

    async def expire_items(self, now: datetime) -> int:
        """Take expired items out of inboxes and counts, on every device; answers how many."""
        async with self._database.read() as connection:
            if not await find_expired(connection, now=now, limit=1):
                return 0
        async with self._database.write() as connection:
            expired = await find_expired(connection, now=now, limit=_BATCH)
            frames = await mark_items(connection, expired, "expired", live=self._live, now=now)
        self._marks.add(Dispatched(gone_queues=await self._dispatcher.dispatch_frames(frames)))
        return len(expired)

    async def sweep_old_items(self, now: datetime) -> int:
        """Delete items older than is kept, some users at a time; after the last user it rests for an hour."""
        async with self._database.write() as connection:
            deleted, self._swept_user = await upkeep.forget_old_items(
                connection, before=now - self._retention, after_user=self._swept_user, limit=_USERS_PER_SWEEP
            )
        self._sweep_at = now + _SWEEP_EVERY if self._swept_user is None else now
        return deleted

    async def forget_old_rows(self, now: datetime) -> int:
        """Delete what is beyond its time, a thousand rows of a table per turn; when there is no more, it rests."""
        async with self._database.write() as connection:
            most = await forget_old_rows(connection, now=now, retention=self._retention, limit=_ROWS_PER_TURN)
        self._forget_at = now if most >= _ROWS_PER_TURN else now + _SWEEP_EVERY
        return most


def _find_reason_to_stop(
    notification: Notification, person: Person, group_ids: Collection[UUID], *, is_answered: bool, now: datetime
) -> Reason | None:
    if not person.is_active:
        return Reason.RECIPIENT_INACTIVE
    if not is_still_meant(notification.recipients, person, group_ids):
        return Reason.UNKNOWN_RECIPIENT
    if is_answered:
        return Reason.ALREADY_READ
    if notification.expires_at is not None and notification.expires_at <= now:
        return Reason.EXPIRED
    return None


def _describe(
    digest: AnyRow, row: AnyRow, titles: dict[upkeep.Pair, tuple[str | None, str | None]], catalog: TenantCatalog
) -> dict[str, Any]:
    title, body = titles.get((digest.user_id, row.id), (row.title, row.body))
    type_ = catalog.types.get(row.event_type)
    return close.describe_entry(row.id, title or (type_.name if type_ else row.event_type), body, row.created_at)
