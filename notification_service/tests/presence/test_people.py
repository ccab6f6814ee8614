"""Who may see whom, and last seen, on both databases."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from builders import WALL_CLOCK
from sqlalchemy import insert

from notification_service.clock import SystemClock
from notification_service.db.engine import Database
from notification_service.identity.models import groups, memberships, users
from notification_service.presence.last_seen import LastSeen
from notification_service.presence.people import People, Viewer
from notification_service.presence.repository import find_acquainted, read_last_seen, write_last_seen

ADA, BEN, EVE, FAR, NOBODY = (UUID(int=number) for number in range(1, 6))
TEAM, CLUB = UUID(int=11), UUID(int=12)


@pytest.fixture
async def people(database: Database) -> People:
    """Ada and Ben share a group, Eve is alone in one, Far is of another tenant and wrongly in Ada's group."""
    async with database.write() as connection:
        for user_id, tenant in ((ADA, "default"), (BEN, "default"), (EVE, "default"), (FAR, "other")):
            await connection.execute(
                insert(users).values(
                    id=user_id,
                    tenant=tenant,
                    username=str(user_id),
                    email_verified=False,
                    locale="en",
                    timezone="UTC",
                    roles=["user"],
                    is_active=True,
                    created_at=WALL_CLOCK,
                )
            )
        for group_id, slug in ((TEAM, "team"), (CLUB, "club")):
            await connection.execute(insert(groups).values(id=group_id, tenant="default", slug=slug, name=slug))
        for group_id, user_id in ((TEAM, ADA), (TEAM, BEN), (TEAM, FAR), (CLUB, ADA), (CLUB, BEN), (CLUB, EVE)):
            if (group_id, user_id) != (CLUB, ADA):
                await connection.execute(insert(memberships).values(group_id=group_id, user_id=user_id))
    return People(database)


async def test_people_of_one_group_and_tenant_see_each_other(people: People) -> None:
    everybody = [ADA, BEN, EVE, FAR, NOBODY]
    assert set(await people.look(Viewer(ADA, "default", sees_tenant=False), everybody)) == {ADA, BEN}
    assert set(await people.look(Viewer(BEN, "default", sees_tenant=False), everybody)) == {ADA, BEN, EVE}
    assert set(await people.look(Viewer(FAR, "other", sees_tenant=False), everybody)) == {FAR}
    assert set(await people.look(Viewer(NOBODY, "default", sees_tenant=False), [ADA])) == set()


async def test_with_the_right_the_tenant_is_seen_and_no_other(people: People) -> None:
    everybody = [ADA, BEN, EVE, FAR, NOBODY]
    assert set(await people.look(Viewer(EVE, "default", sees_tenant=True), everybody)) == {ADA, BEN, EVE}
    assert set(await people.look(Viewer(FAR, "other", sees_tenant=True), everybody)) == {FAR}


async def test_last_seen_never_goes_back_and_knows_only_users(database: Database, people: People) -> None:
    later = WALL_CLOCK + timedelta(seconds=5)
    async with database.write() as connection:
        await write_last_seen(connection, [(ADA, later), (NOBODY, later)])
        await write_last_seen(connection, [(ADA, WALL_CLOCK), (BEN, WALL_CLOCK)])
        assert await read_last_seen(connection, [ADA, BEN, EVE, NOBODY]) == {ADA: later, BEN: WALL_CLOCK}
        assert await read_last_seen(connection, []) == {}
        assert await find_acquainted(connection, []) == set()
    seen = await people.look(Viewer(ADA, "default", sees_tenant=False), [ADA, BEN])
    assert seen == {ADA: later, BEN: WALL_CLOCK}


async def test_what_is_noted_is_written_at_the_latest_on_leaving(database: Database, people: People) -> None:
    writing = LastSeen(database, SystemClock())
    writing.start()
    for seconds in range(3):
        writing.note(EVE, WALL_CLOCK + timedelta(seconds=seconds))
    await writing.stop()
    async with database.read() as connection:
        assert await read_last_seen(connection, [EVE]) == {EVE: WALL_CLOCK + timedelta(seconds=2)}
