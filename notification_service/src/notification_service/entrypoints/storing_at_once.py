"""The common batch in two round trips: one statement looks everybody up, one stores everything and commits.

For notifications to single users that become items of their mailboxes and nothing else. Whatever is more than that is
left to the pipeline's transaction. PostgreSQL only: SQLite's statements cannot change several tables, nor does it have
round trips to save (docs/decisions/0079). Three packages' tables, so the statement stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Executable, FromClause, Integer, String, Uuid, func, insert, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.base import UtcDateTime
from notification_service.db.engine import Database
from notification_service.db.rows import RowTypes, TablesStatement
from notification_service.entrypoints.arriving import (
    Stored,
    addressing,
    find_usable_type,
    leave_out_known,
    make_arrived,
    names_only_users,
)
from notification_service.entrypoints.deciding import Addressed, Deciding, Decisions
from notification_service.entrypoints.looking_up import Known, look_up_users
from notification_service.event_types.catalog import Catalog, TenantCatalog
from notification_service.event_types.defaults import UnusableType
from notification_service.event_types.entity import PLAIN_MESSAGE
from notification_service.intake.receive import Arrival
from notification_service.mailbox.keep import Numbered, build_raise_tops, describe_kept
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.models import items
from notification_service.notifications.entity import Notification
from notification_service.notifications.kept import KeptItem
from notification_service.notifications.repository import (
    ROW_TYPES,
    Routed,
    build_upsert_routed,
    make_routed_records,
)
from notification_service.routing.plan import Plan, make_plan
from shared_contracts.requests import Channel, NotificationRequest

_ASKED, _WANTED = "asked", "wanted"
_WANTED_TYPES: Final[RowTypes] = {
    "user_id": Uuid(),
    "tenant": String(),
    "notification_id": Uuid(),
    "created_at": UtcDateTime(),
    "expires_at": UtcDateTime(),
    "place": Integer(),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What need not be done again in the transaction.

    Attributes:
        known: The people, as far as the mirror knows them; the pipeline asks for the others.
        decisions: Of all of them; None: nothing is decided yet, because that itself changes something, or because
            somebody is not known.
    """

    known: Known
    decisions: Decisions | None = None


class StoringAtOnce:
    """See the module."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        deciding: Deciding,
        live: LiveBroadcasts,
        clock: Clock,
        relay_grace: timedelta,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._deciding = deciding
        self._live = live
        self._clock = clock
        self._relay_grace = relay_grace

    async def store(self, arrivals: Sequence[Arrival]) -> Stored | Prepared | None:
        """Store a batch. Otherwise it is not as simple as that, and nothing was stored: what was found out on the way.

        A notification that was routed before, even a moment ago by another worker, is left out by the statement itself.

        Raises:
            Unavailable: The database does not answer. The batch is stored whole or not at all.
        """
        wanted = [addressing(arrival) for arrival in arrivals]
        if not names_only_users(wanted) or not all(_may_be_plain(arrival.checked.request) for arrival in arrivals):
            return None
        async with self._database.single() as connection:
            known = await look_up_users(connection, wanted)
            now = self._clock.now()
            fresh = await leave_out_known(connection, arrivals, asks_all=False)
            found = await self._decide(connection, fresh, known, now) if fresh else None
            if found is None:
                return Prepared(known)
            plans, decisions = found
            if not decisions.is_plain:
                return Prepared(known, decisions)
            kept = await self._keep(connection, plans, decisions, now)
        kept_ids = {each.notification.id for each in kept}
        routed = [plan.notification for plan in plans if plan.notification.id in kept_ids]
        return Stored(now, routed=routed, kept=kept, suppressed=len(arrivals) - len(routed))

    async def _decide(
        self, connection: AsyncConnection, fresh: Sequence[Arrival], known: Known, now: datetime
    ) -> tuple[list[Plan], Decisions] | None:
        tenants = {each.checked.request.tenant for each in fresh}
        if tenants - known.versions.keys():
            return None
        catalogs = await self._catalog.load_at(connection, {each: known.versions[each] for each in tenants})
        plans = [_make_plan(each, known, catalogs, now) for each in fresh]
        if None in plans:
            return None
        usable = [plan for plan in plans if plan is not None]
        people = known.directory.people
        decisions = await self._deciding.decide_untouched(
            connection,
            [
                Addressed(each.notification, each.type, [people[user_id] for user_id in each.user_ids])
                for each in usable
            ],
            catalogs,
            now,
            documents=known.documents,
        )
        return None if decisions is None else (usable, decisions)

    async def _keep(
        self, connection: AsyncConnection, plans: Sequence[Plan], decisions: Decisions, now: datetime
    ) -> list[KeptItem]:
        outcomes = [(decisions.bases[plan.notification.id], Routed(plan.recipients_count, [])) for plan in plans]
        asked = make_routed_records(outcomes, now=now, relay_after=now + self._relay_grace)
        shown = [(user_id, notification) for notification, user_ids in decisions.items for user_id in user_ids]
        rows = await _STORE.execute(connection, {_ASKED: asked, _WANTED: _make_wanted(shown)})
        numbers = {(row.user_id, row.notification_id): row.seq for row in rows}
        numbered: list[Numbered] = [
            (user_id, numbers[user_id, notification.id], notification)
            for user_id, notification in shown
            if (user_id, notification.id) in numbers
        ]
        tops = {row.user_id: row for row in rows}
        return decisions.quieten(await describe_kept(connection, numbered, tops, live=self._live, now=now))


def _may_be_plain(request: NotificationRequest) -> bool:
    """Whether the request itself asks for nothing that needs more: cheap, so that others lose no time here."""
    return (
        not request.recipients.all
        and request.deliver_at is None
        and request.collapse_key is None
        and (request.channels is None or all(channel is Channel.IN_APP for channel in request.channels))
    )


def _make_plan(arrival: Arrival, known: Known, catalogs: Mapping[str, TenantCatalog], now: datetime) -> Plan | None:
    request = arrival.checked.request
    code = request.event_type
    if code is not None and code != PLAIN_MESSAGE.code and code not in catalogs[request.tenant].types:
        return None  # refused, or created, in the transaction
    found = find_usable_type(arrival, catalogs)
    if isinstance(found, UnusableType):
        return None
    notification = make_arrived(arrival, found, now)
    if notification.collapse_key is not None or notification.deliver_at is not None:
        return None
    plan = make_plan(notification, known.directory, audience_size=0, type_=found.type)
    return None if plan.problems else plan


def _make_wanted(shown: Sequence[tuple[UUID, Notification]]) -> list[tuple[Any, ...]]:
    return [
        (user_id, each.tenant, each.id, each.created_at, each.expires_at, place)
        for place, (user_id, each) in enumerate(shown)
    ]


def _build_store(dialect_name: str, tables: Mapping[str, FromClause]) -> Executable:
    routed = build_upsert_routed(dialect_name, tables[_ASKED]).cte("routed")
    wanted = tables[_WANTED]
    # A user's last item has the new top for its number, the one before that less one, and so on.
    later = func.row_number().over(partition_by=wanted.c.user_id, order_by=wanted.c.place.desc()) - literal_column("1")
    new = (
        select(*wanted.c, later.label("later")).join(routed, routed.c.id == wanted.c.notification_id).cte("fresh_items")
    )
    counted = (
        select(new.c.user_id, new.c.tenant, func.count().label("number"))
        .group_by(new.c.user_id, new.c.tenant)
        .cte("counted")
    )
    tops = build_raise_tops(dialect_name, counted).cte("tops")
    seq = (tops.c.top_seq - new.c.later).label("seq")
    kept = (
        insert(items)
        .from_select(
            ["user_id", "seq", "notification_id", "created_at", "expires_at", "changed_seq"],
            select(
                new.c.user_id, seq, new.c.notification_id, new.c.created_at, new.c.expires_at, seq.label("changed_seq")
            ).join(tops, tops.c.user_id == new.c.user_id),
        )
        .returning(items.c.user_id, items.c.seq, items.c.notification_id)
        .cte("kept")
    )
    statement: Executable = select(
        kept.c.seq, kept.c.notification_id, *(each for each in tops.c if each.name != "tenant")
    ).join(tops, tops.c.user_id == kept.c.user_id)
    return statement


_STORE: Final = TablesStatement({_ASKED: ROW_TYPES, _WANTED: _WANTED_TYPES}, _build_store)
