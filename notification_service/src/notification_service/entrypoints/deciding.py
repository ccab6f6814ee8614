"""Decide and keep: from notifications and their recipients to mailbox items, deliveries, digests and escalations, in
the transaction of the caller and in a number of statements that does not grow with the recipients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.planned import KeptDelivery, PlannedDelivery, Reach
from notification_service.clock import Clock
from notification_service.digests.collect import Addition, add_to_digests
from notification_service.digests.escalation_rows import Waiting, begin_escalations
from notification_service.event_types.catalog import TenantCatalog
from notification_service.event_types.entity import EventType
from notification_service.event_types.throttling import count_throttled
from notification_service.identity.directory import Person
from notification_service.mailbox.keep import keep_items
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.withdraw import find_replaced, mark_items
from notification_service.notifications.decisions import insert_contents, keep_decisions
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import KeptItem
from notification_service.notifications.pages import StreamFrame
from notification_service.preferences.repository import Defaults, DefaultsStore, find_documents, make_layers
from notification_service.routing.content import Renderer, RenderProblem, make_contents
from notification_service.routing.decide import Decided, Recipient, can_be_throttled, decide
from notification_service.templates.store import TemplateStore
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.requests import Channel, Priority


@dataclass(frozen=True, slots=True)
class Addressed:
    """One notification and some of the people it is for, each once."""

    notification: Notification
    type: EventType
    people: Sequence[Person]
    # Records of the pieces before; None: these are all recipients.
    records: Sequence[list[dict[str, Any]]] | None = None


@dataclass(slots=True)
class Routed:
    """What one transaction decided and kept.

    Attributes:
        bases: The notifications with their own title and body, by id.
        kept: New items, to be published.
        frames: What became of older items, to be published before.
        deliveries: To be published to the channels' queues.
        problems: Texts that could not be rendered, by notification.
    """

    bases: dict[UUID, Notification] = field(default_factory=dict)
    kept: list[KeptItem] = field(default_factory=list)
    frames: list[StreamFrame] = field(default_factory=list)
    deliveries: list[KeptDelivery] = field(default_factory=list)
    problems: dict[UUID, list[RenderProblem]] = field(default_factory=dict)


@dataclass(slots=True)
class Decisions:
    """What was decided for some notifications, before any of it is kept.

    Attributes:
        bases: The notifications with their own title and body, by id.
        problems: Texts that could not be rendered, by notification.
        items: Notifications as they are shown, each with the users whose mailboxes get it.
        planned, additions, waiting: Deliveries over other channels, what digests take, escalations that begin.
        records: What is kept of how it was decided, by notification.
        silent: Which items shall not disturb whom.
        muted: Devices that their users have muted.
    """

    bases: dict[UUID, Notification] = field(default_factory=dict)
    problems: dict[UUID, list[RenderProblem]] = field(default_factory=dict)
    items: list[tuple[Notification, list[UUID]]] = field(default_factory=list)
    planned: list[PlannedDelivery] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    records: list[tuple[UUID, list[list[dict[str, Any]]], dict[UUID, int]]] = field(default_factory=list)
    silent: set[tuple[UUID, UUID]] = field(default_factory=set)
    muted: dict[UUID, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether every notification becomes items, and nothing but items."""
        return not (
            self.planned
            or self.additions
            or self.waiting
            or self.problems
            or any(records for _, records, _ in self.records)
            or any(shown.variant is not None for shown, _ in self.items)
            or self.bases.keys() != {shown.id for shown, user_ids in self.items if user_ids}
        )

    def quieten(self, kept: list[KeptItem]) -> list[KeptItem]:
        """Say with each item whom it shall not disturb; the critical disturbs everywhere."""
        if not self.silent and not self.muted:
            return kept
        return [
            replace(
                each,
                is_silent=(each.notification.id, each.user_id) in self.silent,
                muted_devices=(
                    self.muted.get(each.user_id, ()) if each.notification.priority is not Priority.CRITICAL else ()
                ),
            )
            for each in kept
        ]


class Deciding:
    """See the module; one object per process, for what it remembers."""

    def __init__(
        self,
        *,
        templates: TemplateStore,
        defaults: DefaultsStore,
        live: LiveBroadcasts,
        reach: Callable[[], Reach],
        clock: Clock,
    ) -> None:
        self._templates = templates
        self._defaults = defaults
        self._live = live
        self._reach = reach
        self._clock = clock

    async def route(
        self,
        connection: AsyncConnection,
        addressed: Sequence[Addressed],
        catalogs: Mapping[str, TenantCatalog],
        now: datetime,
        *,
        documents: Mapping[UUID, dict[str, Any] | None] = MappingProxyType({}),
        decided: Decisions | None = None,
    ) -> Routed:
        """Decide for everybody and keep it.

        Args:
            connection: In a write transaction; nothing is published before it commits.
            addressed: In the order the notifications came.
            catalogs: Of every tenant concerned.
            documents: Own preferences known already; None: this person has none.
            decided: What `decide_untouched` said a moment ago; it counts when it is of the same notifications.
        """
        if decided is not None and decided.bases.keys() == {each.notification.id for each in addressed}:
            return await self._keep(connection, decided, now)
        excess = await count_throttled(
            connection,
            [
                (each.type, person.id)
                for each in addressed
                if can_be_throttled(each.notification, each.type)
                for person in each.people
            ],
            now=now,
        )
        found = await self._decide(connection, addressed, catalogs, now, documents=documents, excess=excess)
        return await self._keep(connection, found, now)

    async def decide_untouched(
        self,
        connection: AsyncConnection,
        addressed: Sequence[Addressed],
        catalogs: Mapping[str, TenantCatalog],
        now: datetime,
        *,
        documents: Mapping[UUID, dict[str, Any] | None] = MappingProxyType({}),
    ) -> Decisions | None:
        """Decide as `route` does and keep nothing. None: deciding itself changes something, as counting for a throttle.

        Args:
            connection: Is only read from.
            addressed: As for `route`, as the others.
        """
        if any(can_be_throttled(each.notification, each.type) for each in addressed):
            return None
        return await self._decide(connection, addressed, catalogs, now, documents=documents, excess={})

    async def _decide(
        self,
        connection: AsyncConnection,
        addressed: Sequence[Addressed],
        catalogs: Mapping[str, TenantCatalog],
        now: datetime,
        *,
        documents: Mapping[UUID, dict[str, Any] | None],
        excess: dict[tuple[EventType, UUID], int],
    ) -> Decisions:
        people = {person.id for each in addressed for person in each.people}
        own = await find_documents(connection, people - documents.keys())
        own |= {each: document for each in people if (document := documents.get(each)) is not None}
        tenants = {each.notification.tenant for each in addressed}
        defaults = {
            tenant: await self._defaults.load(connection, tenant, catalogs[tenant].version) for tenant in tenants
        }
        found = Decisions(muted=_find_muted(own))
        for each in _last_first(addressed) if excess else addressed:
            recipients = _make_recipients(each, own, defaults[each.notification.tenant])
            throttled = _take_excess(each, excess)
            decided = decide(
                each.notification, each.type, recipients, throttled=throttled, now=now, records=each.records
            )
            renderer = await self._make_renderer(connection, catalogs[each.notification.tenant])
            is_whole = each.records is None
            contents = make_contents(each.notification, each.type, decided.in_app, renderer, is_whole=is_whole)
            found.bases[each.notification.id] = contents.base
            if contents.problems:
                found.problems[each.notification.id] = contents.problems
            found.items += contents.groups
            _plan(each, decided, found)
            found.silent.update((each.notification.id, user_id) for user_id in decided.silent)
            found.records.append((each.notification.id, decided.records, decided.record_of))
        if excess:
            found.items.sort(key=_order_of(addressed))
        return found

    async def _keep(self, connection: AsyncConnection, found: Decisions, now: datetime) -> Routed:
        routed = Routed(bases=found.bases, problems=found.problems)
        await insert_contents(connection, [shown for shown, _ in found.items])
        replaced = await find_replaced(connection, found.items)
        routed.frames = await mark_items(connection, replaced, "collapsed", live=self._live, now=now)
        routed.kept = found.quieten(await keep_items(connection, found.items, live=self._live, now=now))
        if found.planned:
            routed.deliveries = await keep_deliveries(connection, found.planned, now, reach=self._reach())
        await add_to_digests(connection, found.additions, now=now)
        await begin_escalations(connection, found.waiting)
        await keep_decisions(connection, found.records)
        return routed

    async def find_recipients(
        self, connection: AsyncConnection, people: Sequence[Person], catalog: TenantCatalog
    ) -> dict[UUID, Recipient]:
        """People of one tenant with the preferences that count for them now."""
        documents = await find_documents(connection, {person.id for person in people})
        defaults = await self._defaults.load(connection, catalog.tenant, catalog.version)
        return {
            person.id: Recipient(person, make_layers(documents.get(person.id), defaults.layers_for(person.roles)))
            for person in people
        }

    async def make_broadcast_renderer(self, connection: AsyncConnection, catalog: TenantCatalog) -> Renderer:
        """What a broadcast's text is rendered with."""
        return await self._make_renderer(connection, catalog)

    async def _make_renderer(self, connection: AsyncConnection, catalog: TenantCatalog) -> Renderer:
        return Renderer(
            await self._templates.load(connection, catalog),
            catalog.settings,
            self._clock.cpu_time,
            metrics.template_fallbacks.labels(str(Channel.IN_APP)).inc,
        )


def _make_recipients(each: Addressed, documents: Mapping[UUID, dict[str, Any]], defaults: Defaults) -> list[Recipient]:
    below: dict[tuple[str, ...], Any] = {}
    recipients = []
    for person in each.people:
        layers = below.get(person.roles)
        if layers is None:
            layers = below[person.roles] = defaults.layers_for(person.roles)
        recipients.append(Recipient(person, make_layers(documents.get(person.id), layers)))
    return recipients


def _find_muted(documents: Mapping[UUID, dict[str, Any]]) -> dict[UUID, tuple[str, ...]]:
    """Devices that their users have muted."""
    return {
        user_id: muted
        for user_id, document in documents.items()
        if (muted := tuple(name for name, device in document.get("devices", {}).items() if device.get("muted")))
    }


def _take_excess(each: Addressed, excess: dict[tuple[EventType, UUID], int]) -> set[UUID]:
    """Whose notification this is is one too many; the last of a batch are, so this is asked from the last on."""
    found = set()
    for person in each.people if can_be_throttled(each.notification, each.type) else ():
        left = excess.get((each.type, person.id), 0)
        if left > 0:
            excess[each.type, person.id] = left - 1
            found.add(person.id)
    return found


def _last_first(addressed: Sequence[Addressed]) -> list[Addressed]:
    return list(reversed(addressed))


def _order_of(addressed: Sequence[Addressed]) -> Any:
    places = {each.notification.id: place for place, each in enumerate(addressed)}
    return lambda item: places[item[0].id]


def _plan(each: Addressed, decided: Decided, found: Decisions) -> None:
    notification = each.notification
    found.planned += [
        PlannedDelivery(
            notification_id=notification.id,
            user_id=delivery.user_id,
            tenant=notification.tenant,
            sender=notification.sender.key,
            channel=str(delivery.channel),
            status=DeliveryState.SUPPRESSED if delivery.reason else DeliveryState.PENDING,
            reason=delivery.reason,
        )
        for delivery in decided.outgoing
    ]
    found.additions += [
        Addition(
            tenant=notification.tenant,
            user_id=collected.user_id,
            channel=str(collected.channel),
            key=collected.key,
            due_at=collected.due_at,
            notification_id=notification.id,
        )
        for collected in decided.collected
    ]
    if decided.escalating:
        first = notification.created_at + timedelta(seconds=each.type.steps[0]["after_seconds"])
        found.waiting += [(notification.id, user_id, 0, first) for user_id in decided.escalating]
