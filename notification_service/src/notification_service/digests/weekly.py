"""The weekly summary: an open digest waits for everybody who asked for it, until they ask no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.digests.close import KEY_WEEKLY, WEEKLY_TYPE
from notification_service.digests.collect import Addition, add_to_digests
from notification_service.digests.models import digests
from notification_service.identity.directory import Person
from notification_service.preferences.evaluate import Layer, Situation, TypeRules, evaluate_switch, next_due
from shared_contracts.requests import Channel

RULES = TypeRules(code=WEEKLY_TYPE, category="digests", default_enabled=False)


async def plan_weekly_summary(
    connection: AsyncConnection, person: Person, layers: Sequence[Layer], now: datetime
) -> None:
    """After preferences changed: open what was asked for, drop what is not wanted any more."""
    wanted = [channel for channel in Channel if wants_weekly(channel, layers)]
    columns = digests.c
    await connection.execute(
        delete(digests).where(
            columns.user_id == person.id,
            columns.key == KEY_WEEKLY,
            columns.closed_at.is_(None),
            columns.channel.not_in([str(channel) for channel in wanted]),
        )
    )
    await open_next(
        connection,
        [(person.tenant, person.id, str(channel), Situation(layers, person.timezone, now)) for channel in wanted],
        now=now,
    )


def wants_weekly(channel: Channel, layers: Sequence[Layer]) -> bool:
    """Whether somebody asked for it on this channel; a channel that is on in general asks for nothing."""
    switch = evaluate_switch(channel, RULES, layers)
    return switch.is_on and not switch.rules[0].rule.startswith("channels.")


async def open_next(
    connection: AsyncConnection, wanted: Sequence[tuple[str, UUID, str, Situation]], *, now: datetime
) -> None:
    """Open the next one for these, due at their own local time."""
    await add_to_digests(
        connection,
        [
            Addition(
                tenant=tenant,
                user_id=user_id,
                channel=channel,
                key=KEY_WEEKLY,
                due_at=next_due("weekly", situation),
                notification_id=None,
            )
            for tenant, user_id, channel, situation in wanted
        ],
        now=now,
    )
