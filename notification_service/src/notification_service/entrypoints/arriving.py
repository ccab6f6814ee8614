"""What both ways of storing a batch do first: leave out what is known, and make notifications of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.planned import KeptDelivery
from notification_service.dead_letters.repository import DeadLetter
from notification_service.event_types.catalog import TenantCatalog
from notification_service.event_types.defaults import UnusableType, UsableType, find_type
from notification_service.identity.lookup import Addressing
from notification_service.intake.receive import Arrival
from notification_service.notifications.entity import Notification, make_notification
from notification_service.notifications.kept import KeptBroadcast, KeptItem
from notification_service.notifications.pages import StreamFrame
from notification_service.notifications.repository import find_stages


@dataclass(slots=True)
class Stored:
    """What one transaction stored, for the steps after it."""

    now: datetime
    routed: list[Notification] = field(default_factory=list)
    frames: list[StreamFrame] = field(default_factory=list)
    kept: list[KeptItem] = field(default_factory=list)
    deliveries: list[KeptDelivery] = field(default_factory=list)
    broadcasts: list[KeptBroadcast] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    letter_ids: list[UUID] = field(default_factory=list)
    without_items: set[UUID] = field(default_factory=set)
    suppressed: int = 0


def addressing(arrival: Arrival) -> Addressing:
    """Whom it names, and in which tenant."""
    return arrival.checked.request.tenant, arrival.checked.request.recipients


def names_only_users(wanted: Sequence[Addressing]) -> bool:
    """Whether nobody has to be found by group or role."""
    return not any(recipients.groups or recipients.roles for _, recipients in wanted)


async def leave_out_known(connection: AsyncConnection, arrivals: Sequence[Arrival], *, asks_all: bool) -> list[Arrival]:
    """Those that are not routed yet. What says that the REST API has accepted it is always asked for."""
    asked = {each.checked.id for each in arrivals if asks_all or each.checked.accepted_at is not None}
    stages = await find_stages(connection, asked)
    fresh: dict[UUID, Arrival] = {}
    for arrival in arrivals:
        stage = stages.get(arrival.checked.id)
        if arrival.checked.id not in fresh and (stage is None or not stage.is_routed):
            arrival.was_accepted = stage is not None
            fresh[arrival.checked.id] = arrival
    return list(fresh.values())


def find_usable_type(arrival: Arrival, catalogs: Mapping[str, TenantCatalog]) -> UsableType | UnusableType:
    """Its event type. What was accepted over REST was checked then, against the schema of then."""
    request = arrival.checked.request
    return find_type(request, catalogs[request.tenant].types, check_data=not arrival.was_accepted)


def make_arrived(arrival: Arrival, found: UsableType, now: datetime) -> Notification:
    """The notification it becomes."""
    return make_notification(
        arrival.checked.request,
        notification_id=arrival.checked.id,
        kind=arrival.checked.kind,
        sender=arrival.checked.sender,
        now=arrival.checked.accepted_at or now,
        defaults=found.defaults,
    )
