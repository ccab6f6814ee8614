"""One batch of the intake through the stages: read → decide → keep, in one transaction; then → publish.

This is the whole way of a notification on the worker, in order; each step's package has the details.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import failpoints, metrics
from notification_service.broker.publisher import Publisher
from notification_service.channels.receipts import Receipts
from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters
from notification_service.dead_letters.repository import DeadLetter, insert_dead_letters
from notification_service.dispatch.dispatcher import Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.entrypoints.arriving import (
    Stored,
    addressing,
    find_usable_type,
    leave_out_known,
    make_arrived,
    names_only_users,
)
from notification_service.entrypoints.deciding import Addressed, Deciding, Decisions
from notification_service.entrypoints.fanning_out import PublishDeliveries
from notification_service.entrypoints.looking_up import Known, look_up_users
from notification_service.entrypoints.receipt_sources import accepted, given_up
from notification_service.entrypoints.storing_at_once import Prepared, StoringAtOnce
from notification_service.errors import Unavailable
from notification_service.event_types.catalog import Catalog, TenantCatalog
from notification_service.event_types.creation import load_catalogs
from notification_service.event_types.defaults import UnusableType
from notification_service.identity.directory import Directory
from notification_service.identity.lookup import (
    count_audiences,
    find_unknown,
    look_up,
    measure_audiences,
)
from notification_service.identity.mirror import Mirror
from notification_service.identity.repository import count_audience
from notification_service.intake.check import Refused
from notification_service.intake.receive import Arrival, make_dead_letter
from notification_service.mailbox.keep import keep_broadcasts
from notification_service.notifications.entity import Notification
from notification_service.notifications.fanouts import begin_fanouts
from notification_service.notifications.repository import Routed, insert_accepted, upsert_routed
from notification_service.routing.content import RenderProblem, make_broadcast_content
from notification_service.routing.plan import Plan, make_plan
from notification_service.routing.recipients import group_by_reason
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel, Recipients

log = structlog.get_logger(__name__)


class _Known(Exception):
    """A notification of this batch is routed already; nothing of this transaction stays."""


# Far beyond the longest: what is served in pieces is not the relay's.
_FANOUT_LIMIT: Final = timedelta(days=7)
_MAX_PROBLEMS: Final = 100


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
        catalog: Catalog,
        deciding: Deciding,
        publish_deliveries: PublishDeliveries,
        receipts: Receipts,
        clock: Clock,
        relay_grace: timedelta,
        fanout_at: int,
        at_once: StoringAtOnce | None,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._marks = marks
        self._mirror = mirror
        self._catalog = catalog
        self._deciding = deciding
        self._publish_deliveries = publish_deliveries
        self._receipts = receipts
        self._clock = clock
        self._relay_grace = relay_grace
        self._fanout_at = fanout_at
        self._at_once = at_once

    async def handle(self, arrivals: Sequence[Arrival], letters: Sequence[DeadLetter]) -> Awaitable[None]:
        """Store a batch; answers the rest, which publishes what was stored.

        Raises:
            Unavailable: The database does not answer. Nothing was stored.
        """
        try:
            # Nearly nothing comes twice: what does is found where it is stored, and costs a second try.
            stored = await self._store(arrivals, letters, asks_first=False)
        except (_Known, IntegrityError):
            stored = await self._store(arrivals, letters, asks_first=True)
        return self._publish(stored)

    async def _store(self, arrivals: Sequence[Arrival], letters: Sequence[DeadLetter], *, asks_first: bool) -> Stored:
        tried: Stored | Prepared | None = None
        if self._at_once is not None and not letters and not asks_first:
            tried = await self._at_once.store(arrivals)
        stored = (
            tried
            if isinstance(tried, Stored)
            else await self._store_for_users(arrivals, letters, asks_first=asks_first, prepared=tried)
        )
        if stored is None:
            directory, large = await self._find_everyone(arrivals)
            async with self._database.write() as connection:
                stored = await self._store_in(
                    connection, arrivals, letters, known=Known(directory), large=large, asks_first=asks_first
                )
        now = stored.now
        for notification in stored.routed:
            metrics.notifications_accepted.labels(notification.kind).inc()
        metrics.duplicates_suppressed.inc(stored.suppressed)
        self._receipts.add([*accepted(stored.routed, now), *given_up(stored.letters, now)])
        return stored

    async def _store_for_users(
        self,
        arrivals: Sequence[Arrival],
        letters: Sequence[DeadLetter],
        *,
        asks_first: bool,
        prepared: Prepared | None,
    ) -> Stored | None:
        """Store what is for single users the mirror knows, which is nearly everything: looked up in the transaction
        that stores. None: nothing was stored, because somebody must be asked for first.
        """
        wanted = [addressing(arrival) for arrival in arrivals]
        if not names_only_users(wanted):
            return None
        async with self._database.write() as connection:
            known = prepared.known if prepared else await look_up_users(connection, wanted)
            if any(find_unknown(wanted, known.directory)):
                return None
            return await self._store_in(
                connection,
                arrivals,
                letters,
                known=known,
                large=set(),
                asks_first=asks_first,
                decisions=prepared.decisions if prepared else None,
            )

    async def _store_in(
        self,
        connection: AsyncConnection,
        arrivals: Sequence[Arrival],
        letters: Sequence[DeadLetter],
        *,
        known: Known,
        large: set[UUID],
        asks_first: bool,
        decisions: Decisions | None = None,
    ) -> Stored:
        now = self._clock.now()
        stored = Stored(now, letters=list(letters))
        fresh = await leave_out_known(connection, arrivals, asks_all=asks_first)
        stored.suppressed = len(arrivals) - len(fresh)
        requests = [each.checked.request for each in fresh]
        catalogs = await load_catalogs(connection, self._catalog, requests, now, versions=known.versions)
        plans = await self._make_plans(
            connection, fresh, directory=known.directory, large=large, catalogs=catalogs, stored=stored, now=now
        )
        stored.routed = [plan.notification for plan in plans]
        arrived = {each.checked.id: each for each in fresh}
        await self._keep(
            connection,
            plans,
            known=known,
            catalogs=catalogs,
            arrived=arrived,
            decisions=decisions,
            stored=stored,
            now=now,
        )
        stored.letter_ids = await insert_dead_letters(connection, stored.letters, now=now)
        return stored

    async def _keep(
        self,
        connection: AsyncConnection,
        plans: Sequence[Plan],
        *,
        known: Known,
        catalogs: dict[str, TenantCatalog],
        arrived: dict[UUID, Arrival],
        decisions: Decisions | None,
        stored: Stored,
        now: datetime,
    ) -> None:
        """Keep what was planned: items and deliveries, the broadcast log, and audiences that are served in pieces."""
        addressed = [
            Addressed(plan.notification, plan.type, [known.directory.people[user_id] for user_id in plan.user_ids])
            for plan in plans
            if plan.user_ids
        ]
        routed = await self._deciding.route(
            connection, addressed, catalogs, now, documents=known.documents, decided=decisions
        )
        stored.frames, stored.kept, stored.deliveries = routed.frames, routed.kept, routed.deliveries
        bases = routed.bases
        for plan in plans:
            if plan.notification.is_broadcast or plan.in_pieces:
                await self._render_shared(connection, plan, catalogs, bases, routed.problems)
        shared = [
            bases[plan.notification.id]
            for plan in plans
            if plan.notification.is_broadcast
            and plan.notification.wants_in_app
            and plan.notification.id not in routed.problems
        ]
        stored.broadcasts = await keep_broadcasts(connection, shared)
        in_pieces = [plan.notification for plan in plans if plan.in_pieces or _has_other_channels(plan.notification)]
        await begin_fanouts(connection, in_pieces, now)
        for plan in plans:
            problems = routed.problems.get(plan.notification.id, [])
            message = arrived[plan.notification.id].message
            stored.letters += [
                make_dead_letter(message, Refused(each.reason, each.detail), tenant=plan.notification.tenant)
                for each in problems
            ]
        waiting = {each.id for each in in_pieces}
        kept_ids = {each.notification.id for each in stored.kept} | {each.notification.id for each in stored.broadcasts}
        stored.without_items = {plan.notification.id for plan in plans} - kept_ids - waiting
        await self._mark_routed(connection, plans, bases=bases, problems=routed.problems, waiting=waiting, now=now)

    async def _render_shared(
        self,
        connection: AsyncConnection,
        plan: Plan,
        catalogs: dict[str, TenantCatalog],
        bases: dict[UUID, Notification],
        problems: dict[UUID, list[RenderProblem]],
    ) -> None:
        notification = plan.notification
        renderer = await self._deciding.make_broadcast_renderer(connection, catalogs[notification.tenant])
        content = make_broadcast_content(notification, plan.type, renderer)
        if isinstance(content, Notification):
            bases[notification.id] = content
        elif notification.is_broadcast:
            problems[notification.id] = [content]

    async def _find_everyone(self, arrivals: Sequence[Arrival]) -> tuple[Directory, set[UUID]]:
        """The directory, and the ids of requests whose audiences are too large to be in it."""
        wanted = [addressing(arrival) for arrival in arrivals]
        large: set[UUID] = set()
        if any(recipients.groups or recipients.roles for _, recipients in wanted):
            await self._mirror.catch_up()
            async with self._database.read() as connection:
                sizes = await measure_audiences(connection, wanted)
            for index, size in enumerate(sizes):
                if size > self._fanout_at:
                    tenant, recipients = wanted[index]
                    wanted[index] = tenant, Recipients(users=recipients.users)
                    large.add(arrivals[index].checked.id)
        async with self._database.read() as connection:
            directory = await look_up(connection, wanted)
        ids, external, group_ids = find_unknown(wanted, directory)
        if not (ids or external or group_ids):
            return directory, large
        try:
            # Users the mirror has not heard of yet: created a moment ago, or nobody.
            found = bool(await self._mirror.fetch_users(ids, external)) if ids or external else False
            found = (await self._mirror.fetch_groups(group_ids) if group_ids else False) or found
        except Unavailable:
            log.warning("recipients_not_looked_up", users=len(ids) + len(external), groups=len(group_ids))
            return directory, large
        if not found:
            return directory, large
        async with self._database.read() as connection:
            return await look_up(connection, wanted), large

    async def _make_plans(
        self,
        connection: AsyncConnection,
        arrivals: Sequence[Arrival],
        *,
        directory: Directory,
        large: set[UUID],
        catalogs: dict[str, TenantCatalog],
        stored: Stored,
        now: datetime,
    ) -> list[Plan]:
        broadcast_tenants = {each.checked.request.tenant for each in arrivals if each.checked.request.recipients.all}
        sizes = await count_audiences(connection, broadcast_tenants)
        plans = []
        scheduled = []
        for arrival in arrivals:
            request = arrival.checked.request
            found = find_usable_type(arrival, catalogs)
            if isinstance(found, UnusableType):
                refused = Refused(found.reason, found.detail)
                stored.letters.append(make_dead_letter(arrival.message, refused, tenant=request.tenant))
                continue
            notification = make_arrived(arrival, found, now)
            if request.deliver_at is not None and request.deliver_at > now:
                scheduled.append(notification)
                continue
            size = sizes.get(request.tenant, 0)
            in_pieces = notification.id in large
            if in_pieces:
                size = await count_audience(connection, request.tenant, request.recipients)
                known = dict.fromkeys(request.recipients.groups, request.tenant)
                directory.group_tenants.update({**known, **directory.group_tenants})
            plan = make_plan(notification, directory, audience_size=size, type_=found.type, in_pieces=in_pieces)
            plans.append(plan)
            stored.letters += _letters_of(plan, arrival)
        # Handed over again by the relay when their time comes.
        await insert_accepted(connection, scheduled, relay_after=now)
        return plans

    async def _mark_routed(
        self,
        connection: AsyncConnection,
        plans: Sequence[Plan],
        *,
        bases: dict[UUID, Notification],
        problems: dict[UUID, list[RenderProblem]],
        waiting: set[UUID],
        now: datetime,
    ) -> None:
        for is_waiting, relay_after in ((False, now + self._relay_grace), (True, now + _FANOUT_LIMIT)):
            outcomes = [
                (
                    bases.get(plan.notification.id, plan.notification),
                    Routed(plan.recipients_count, _describe_problems(plan, problems.get(plan.notification.id, []))),
                )
                for plan in plans
                if (plan.notification.id in waiting) == is_waiting
            ]
            if not outcomes:
                continue
            routed = await upsert_routed(connection, outcomes, now=now, relay_after=relay_after)
            if len(routed) != len(outcomes):
                raise _Known

    async def _publish(self, stored: Stored) -> None:
        failpoints.reach("after_db_commit")
        gone = await self._dispatcher.dispatch_frames(stored.frames)
        result = await self._dispatcher.dispatch(stored.kept, stored.broadcasts)
        result.gone_queues |= gone
        result.done |= stored.without_items
        self._marks.add(result)
        if stored.deliveries:
            await self._publish_deliveries(stored.deliveries)
        if stored.letters:
            await announce_dead_letters(self._publisher, stored.letters, stored.letter_ids)


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


def _has_other_channels(notification: Notification) -> bool:
    """Whether a broadcast goes out beyond the inbox, too: to everybody, in pieces."""
    return (
        notification.is_broadcast
        and notification.channels is not None
        and any(channel is not Channel.IN_APP for channel in notification.channels)
    )


def _describe_problems(plan: Plan, unreadable: Sequence[RenderProblem]) -> list[dict[str, str]]:
    described = [{"recipient": each.recipient, "reason": str(each.reason)} for each in plan.problems]
    for each in unreadable:
        described += [{"recipient": str(user_id), "reason": str(each.reason)} for user_id in each.user_ids]
    return described[:_MAX_PROBLEMS]
