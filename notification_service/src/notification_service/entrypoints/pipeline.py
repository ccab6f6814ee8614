"""One batch of the intake through the stages: read → decide → keep, in one transaction; then → publish.

This is the whole way of a notification on the worker, in order; each step's package has the details.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import failpoints, metrics
from notification_service.broker.publisher import Publisher
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters
from notification_service.dead_letters.repository import DeadLetter, insert_dead_letters
from notification_service.dispatch.dispatcher import Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.errors import Unavailable
from notification_service.event_types.defaults import UnusableType, defaults_of
from notification_service.event_types.repository import find_event_types
from notification_service.identity.directory import Directory
from notification_service.identity.lookup import Addressing, count_audiences, find_unknown, look_up
from notification_service.identity.mirror import Mirror
from notification_service.intake.check import Refused
from notification_service.intake.receive import Arrival, make_dead_letter
from notification_service.mailbox.keep import keep_broadcasts, keep_items
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.notifications.entity import make_notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem
from notification_service.notifications.repository import Routed, find_stages, upsert_routed
from notification_service.routing.plan import Plan, make_plan
from notification_service.routing.recipients import group_by_reason
from shared_contracts.error_codes import Reason

log = structlog.get_logger(__name__)


class _RacedByAnother(Exception):
    """Another worker routed a notification of this batch in between; nothing of this transaction stays."""


@dataclass(slots=True)
class _Stored:
    """What one transaction stored, for the steps after it."""

    kept: list[KeptItem] = field(default_factory=list)
    broadcasts: list[KeptBroadcast] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    letter_ids: list[UUID] = field(default_factory=list)
    without_items: set[UUID] = field(default_factory=set)


class Pipeline:
    """Handles batches of checked requests."""

    def __init__(
        self,
        *,
        database: Database,
        publisher: Publisher,
        dispatcher: Dispatcher,
        marks: DispatchMarks,
        mirror: Mirror,
        live: LiveBroadcasts,
        clock: Clock,
        relay_grace: timedelta,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._marks = marks
        self._mirror = mirror
        self._live = live
        self._clock = clock
        self._relay_grace = relay_grace

    async def handle(self, arrivals: Sequence[Arrival], letters: Sequence[DeadLetter]) -> Awaitable[None]:
        """Store a batch; answers the rest, which publishes what was stored.

        Raises:
            Unavailable: The database does not answer. Nothing was stored.
        """
        try:
            stored = await self._store(arrivals, letters)
        except _RacedByAnother:
            stored = await self._store(arrivals, letters)
        return self._publish(stored)

    async def _store(self, arrivals: Sequence[Arrival], letters: Sequence[DeadLetter]) -> _Stored:
        now = self._clock.now()
        stored = _Stored(letters=list(letters))
        directory = await self._find_everyone(arrivals)
        async with self._database.write() as connection:
            fresh = await self._leave_out_known(connection, arrivals)
            plans = await self._make_plans(connection, fresh, directory, stored, now)
            addressed = [(plan.notification, plan.user_ids) for plan in plans if plan.user_ids]
            stored.kept = await keep_items(connection, addressed, live=self._live, now=now)
            stored.broadcasts = await keep_broadcasts(
                connection, [plan.notification for plan in plans if plan.notification.is_broadcast]
            )
            stored.letter_ids = await insert_dead_letters(connection, stored.letters, now=now)
            await self._mark_routed(connection, plans, now)
        stored.without_items = {
            plan.notification.id for plan in plans if not plan.user_ids and not plan.notification.is_broadcast
        }
        for plan in plans:
            metrics.notifications_accepted.labels(plan.notification.kind).inc()
        return stored

    async def _find_everyone(self, arrivals: Sequence[Arrival]) -> Directory:
        wanted = [_addressing(arrival) for arrival in arrivals]
        if any(recipients.groups or recipients.roles for _, recipients in wanted):
            await self._mirror.catch_up()
        async with self._database.read() as connection:
            directory = await look_up(connection, wanted)
        ids, external, group_ids = find_unknown(wanted, directory)
        if not (ids or external or group_ids):
            return directory
        try:
            # Users the mirror has not heard of yet: created a moment ago, or nobody.
            found = bool(await self._mirror.fetch_users(ids, external)) if ids or external else False
            found = (await self._mirror.fetch_groups(group_ids) if group_ids else False) or found
        except Unavailable:
            log.warning("recipients_not_looked_up", users=len(ids) + len(external), groups=len(group_ids))
            return directory
        if not found:
            return directory
        async with self._database.read() as connection:
            return await look_up(connection, wanted)

    async def _leave_out_known(self, connection: AsyncConnection, arrivals: Sequence[Arrival]) -> list[Arrival]:
        stages = await find_stages(connection, {arrival.checked.id for arrival in arrivals}) if arrivals else {}
        fresh: dict[UUID, Arrival] = {}
        for arrival in arrivals:
            stage = stages.get(arrival.checked.id)
            if arrival.checked.id in fresh or (stage is not None and stage.is_routed):
                metrics.duplicates_suppressed.inc()
            else:
                fresh[arrival.checked.id] = arrival
        return list(fresh.values())

    async def _make_plans(
        self,
        connection: AsyncConnection,
        arrivals: Sequence[Arrival],
        directory: Directory,
        stored: _Stored,
        now: datetime,
    ) -> list[Plan]:
        wanted = {(each.checked.request.tenant, each.checked.request.event_type) for each in arrivals}
        types = await find_event_types(connection, {(tenant, code) for tenant, code in wanted if code is not None})
        broadcast_tenants = {each.checked.request.tenant for each in arrivals if each.checked.request.recipients.all}
        sizes = await count_audiences(connection, broadcast_tenants)
        plans = []
        for arrival in arrivals:
            request = arrival.checked.request
            defaults = defaults_of(request, types)
            if isinstance(defaults, UnusableType):
                refused = Refused(defaults.reason, defaults.detail)
                stored.letters.append(make_dead_letter(arrival.message, refused, tenant=request.tenant))
                continue
            notification = make_notification(
                request,
                notification_id=arrival.checked.id,
                kind=arrival.checked.kind,
                sender=arrival.checked.sender,
                now=arrival.checked.accepted_at or now,
                defaults=defaults,
            )
            plan = make_plan(notification, directory, audience_size=sizes.get(request.tenant, 0))
            plans.append(plan)
            stored.letters += _letters_of(plan, arrival)
        return plans

    async def _mark_routed(self, connection: AsyncConnection, plans: Sequence[Plan], now: datetime) -> None:
        if not plans:
            return
        outcomes = [
            (
                plan.notification,
                Routed(
                    plan.recipients_count,
                    [{"recipient": problem.recipient, "reason": str(problem.reason)} for problem in plan.problems],
                ),
            )
            for plan in plans
        ]
        routed = await upsert_routed(connection, outcomes, now=now, relay_after=now + self._relay_grace)
        if len(routed) != len(plans):
            raise _RacedByAnother

    async def _publish(self, stored: _Stored) -> None:
        failpoints.reach("after_db_commit")
        result = await self._dispatcher.dispatch(stored.kept, stored.broadcasts)
        result.done |= stored.without_items
        self._marks.add(result)
        if stored.letters:
            await announce_dead_letters(self._publisher, stored.letters, stored.letter_ids)


def _addressing(arrival: Arrival) -> Addressing:
    return arrival.checked.request.tenant, arrival.checked.request.recipients


def _letters_of(plan: Plan, arrival: Arrival) -> list[DeadLetter]:
    """One dead letter per notification and reason for recipients that do not exist; the others get theirs."""
    return [
        make_dead_letter(
            arrival.message,
            Refused(reason, f"no such recipient: {', '.join(recipients[:50])}"),
            tenant=plan.notification.tenant,
        )
        for reason, recipients in group_by_reason(plan.problems)
        if reason is Reason.UNKNOWN_RECIPIENT
    ]
