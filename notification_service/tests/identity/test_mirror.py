"""The mirror on both databases: events in order, holes found and filled, old events harmless, tenants apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from auth_site import INTERNAL_KEY, START, AuthSite, make_group, make_user
from clocks import SetClock
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.broker.consumer import Incoming
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.identity import repository
from notification_service.identity.mirror import AuthListings, Mirror
from notification_service.identity.mirror_rows import Event
from notification_service.identity.models import groups, memberships, progress, users


def event(revision: int, type_: str, data: dict[str, Any], tenant: str = "default") -> Incoming:
    body = {
        "event_id": str(uuid4()),
        "revision": revision,
        "type": type_,
        "occurred_at": START.isoformat(),
        "tenant": tenant,
        "data": data,
    }
    return incoming(json.dumps(body).encode())


def incoming(body: bytes) -> Incoming:
    return Incoming(
        body=body,
        exchange="identity.events",
        routing_key="",
        message_id=None,
        content_type=None,
        app_id=None,
        type=None,
        headers={},
        is_redelivered=False,
        delivery_tag=1,
    )


class Mirrored:
    """A mirror that is filled, what it holds, and whom it told."""

    def __init__(self, database: Database, site: AuthSite, client: httpx.AsyncClient) -> None:
        self.database = database
        self.told: list[list[int]] = []
        self.erased: list[tuple[UUID, str]] = []
        self.clock = SetClock(pace=0.1)
        listings = AuthListings(site.url, key=INTERNAL_KEY, client=client)
        self.mirror = Mirror(database, listings, self.clock, on_erased=self._note, followers=[self._follow])

    async def _note(self, _connection: AsyncConnection, user_id: UUID, tenant: str) -> None:
        self.erased.append((user_id, tenant))

    async def _follow(self, events: Sequence[Event]) -> None:
        self.told.append([each.revision for each in events])

    async def take(self, *batch: Incoming) -> None:
        rest = await self.mirror(batch)
        await rest

    async def revision(self) -> int | None:
        async with self.database.read() as connection:
            return (await connection.execute(select(progress.c.revision))).scalar_one_or_none()

    async def names(self) -> dict[UUID, str]:
        async with self.database.read() as connection:
            return {row.id: row.username for row in await connection.execute(select(users.c.id, users.c.username))}

    async def groups(self) -> dict[UUID, str]:
        async with self.database.read() as connection:
            return {row.id: row.name for row in await connection.execute(select(groups.c.id, groups.c.name))}

    async def members(self) -> set[tuple[UUID, UUID]]:
        async with self.database.read() as connection:
            rows = await connection.execute(select(memberships.c.group_id, memberships.c.user_id))
            return {(row.group_id, row.user_id) for row in rows}


@pytest.fixture
async def mirrored(database: Database, auth: AuthSite) -> AsyncIterator[Mirrored]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield Mirrored(database, auth, client)


@contextlib.asynccontextmanager
async def filled(mirrored: Mirrored, site: AuthSite) -> AsyncIterator[int]:
    await mirrored.mirror.ensure_filled()
    yield site.revision


async def test_it_is_filled_once_from_all_pages(mirrored: Mirrored, auth: AuthSite) -> None:
    auth.page_size = 7
    people = [auth.add_user(username=f"u{number}") for number in range(30)]
    team = auth.add_group(*people[:20])
    await mirrored.mirror.ensure_filled()
    assert await mirrored.names() == {user_id: f"u{number}" for number, user_id in enumerate(people)}
    assert await mirrored.members() == {(team, user_id) for user_id in people[:20]}
    assert await mirrored.revision() == auth.revision == 31
    asked = auth.asked.total()
    await mirrored.mirror.ensure_filled()
    assert auth.asked.total() == asked


async def test_users_change_by_events(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user(username="ada")
    async with filled(mirrored, auth) as at:
        bob = make_user(username="bob")
        await mirrored.take(
            event(at + 1, "user.created", bob),
            event(at + 2, "user.updated", make_user(id=ada, username="ada lovelace")),
            event(at + 3, "user.deactivated", {**bob, "is_active": False}),
        )
        assert await mirrored.names() == {ada: "ada lovelace", UUID(bob["id"]): "bob"}
        async with mirrored.database.read() as connection:
            found = await repository.find_people(connection, [ada, UUID(bob["id"]), uuid4()])
        assert {each.id: each.is_active for each in found.values()} == {ada: True, UUID(bob["id"]): False}
        await mirrored.take(event(at + 4, "user.deleted", {"id": bob["id"]}, tenant="acme"))
        assert await mirrored.names() == {ada: "ada lovelace"}
        assert mirrored.erased == [(UUID(bob["id"]), "acme")]
        assert await mirrored.revision() == at + 4
        assert auth.asked["/internal/v1/users"] == 1
    assert mirrored.told == [[at + 1, at + 2, at + 3], [at + 4]]


async def test_a_hundred_new_users_cost_one_statement_and_keep_their_last_state(
    mirrored: Mirrored, auth: AuthSite
) -> None:
    auth.add_user(username="first")
    insertions: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO identity_users"):
            insertions.append(statement)

    async with filled(mirrored, auth) as at:
        people = [make_user(username=f"u{number}") for number in range(100)]
        created = [event(at + number, "user.created", person) for number, person in enumerate(people, 1)]
        renamed = [event(at + 101, "user.updated", {**people[7], "username": "seven"})]
        gone = [event(at + 102, "user.deleted", {"id": people[8]["id"]})]
        back = [event(at + 103, "user.updated", {**people[9], "username": "nine"})]
        engine = mirrored.database.engine.sync_engine
        sqlalchemy_event.listen(engine, "before_cursor_execute", note)
        await mirrored.take(*created, *renamed, *gone, *back)
        sqlalchemy_event.remove(engine, "before_cursor_execute", note)
    names = await mirrored.names()
    assert len(names) == 100
    assert (names[UUID(people[7]["id"])], names[UUID(people[9]["id"])]) == ("seven", "nine")
    assert UUID(people[8]["id"]) not in names
    # PostgreSQL's driver is asked directly from a transaction's second statement on, past this listener.
    assert len(insertions) == (2 if mirrored.database.engine.dialect.name == "sqlite" else 0)


async def test_groups_and_members_change_by_events(mirrored: Mirrored, auth: AuthSite) -> None:
    ada, bob = auth.add_user(), auth.add_user()
    old = auth.add_group(ada, bob, name="Old")
    async with filled(mirrored, auth) as at:
        team = make_group(name="New")
        team_id = UUID(team["id"])
        await mirrored.take(
            event(at + 1, "group.created", team),
            event(at + 2, "group.members_changed", {"group_id": team["id"], "added": [str(ada), str(bob)]}),
            event(at + 3, "group.updated", {**team, "name": "Newer"}),
            event(at + 4, "group.members_changed", {"group_id": team["id"], "removed": [str(bob)]}),
        )
        assert await mirrored.groups() == {old: "Old", team_id: "Newer"}
        assert await mirrored.members() == {(old, ada), (old, bob), (team_id, ada)}
        await mirrored.take(event(at + 5, "group.deleted", {"id": str(old)}))
        assert await mirrored.groups() == {team_id: "Newer"}
        await mirrored.take(event(at + 6, "user.deleted", {"id": str(ada)}))
        assert await mirrored.members() == set()


async def test_a_thousand_who_leave_a_group_at_once_cost_one_statement(mirrored: Mirrored, auth: AuthSite) -> None:
    people = [auth.add_user() for _ in range(1_001)]
    team, other = auth.add_group(*people), auth.add_group(*people[:2])
    deletions: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM identity_memberships"):
            deletions.append(statement)

    async with filled(mirrored, auth) as at:
        engine = mirrored.database.engine.sync_engine
        sqlalchemy_event.listen(engine, "before_cursor_execute", note)
        leaving = [str(each) for each in people[1:]]
        await mirrored.take(
            event(at + 1, "group.members_changed", {"group_id": str(team), "removed": leaving}),
            event(at + 2, "group.members_changed", {"group_id": str(team), "added": leaving[:1]}),
        )
        sqlalchemy_event.remove(engine, "before_cursor_execute", note)
    assert len(deletions) == 1
    assert await mirrored.members() == {(team, people[0]), (team, people[1]), *((other, each) for each in people[:2])}


async def test_events_that_come_again_change_nothing_and_are_told_again(mirrored: Mirrored, auth: AuthSite) -> None:
    auth.add_user()
    async with filled(mirrored, auth) as at:
        ada = make_user(username="ada")
        created = event(at + 1, "user.created", ada)
        renamed = event(at + 2, "user.updated", {**ada, "username": "ada l."})
        await mirrored.take(created, renamed)
        # A replay out of order: the old name must not come back.
        await mirrored.take(renamed, created)
        await mirrored.take(created)
        assert (await mirrored.names())[UUID(ada["id"])] == "ada l."
        assert await mirrored.revision() == at + 2
        assert auth.asked["/internal/v1/users"] == 1
    assert mirrored.told == [[at + 1, at + 2], [at + 1, at + 2], [at + 1]]


async def test_a_batch_in_the_wrong_order_is_put_right(mirrored: Mirrored, auth: AuthSite) -> None:
    auth.add_user()
    async with filled(mirrored, auth) as at:
        ada = make_user(username="first")
        await mirrored.take(
            event(at + 2, "user.updated", {**ada, "username": "second"}), event(at + 1, "user.created", ada)
        )
        assert (await mirrored.names())[UUID(ada["id"])] == "second"
        assert auth.asked["/internal/v1/users"] == 1


async def test_a_hole_makes_it_read_everything_again(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user(username="ada")
    gone = auth.add_user(username="gone")
    async with filled(mirrored, auth) as at:
        # Missed meanwhile: a user came, one was erased, one left without being erased.
        carl = auth.add_user(username="carl")
        auth.users = [user for user in auth.users if user["id"] != str(gone)]
        auth.erased[str(gone)] = "default"
        auth.revision = at + 3
        await mirrored.take(event(at + 3, "user.updated", make_user(id=ada, username="stale")))
        assert await mirrored.names() == {ada: "ada", carl: "carl"}
        assert await mirrored.revision() == at + 3
        assert mirrored.erased == [(gone, "default")]
        assert auth.asked["/internal/v1/users"] == 2
        # And goes on from there by events.
        await mirrored.take(event(at + 4, "user.updated", make_user(id=ada, username="fresh")))
        assert (await mirrored.names())[ada] == "fresh"
        assert auth.asked["/internal/v1/users"] == 2


async def test_an_event_that_cannot_be_read_is_a_hole(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user(username="ada")
    async with filled(mirrored, auth) as at:
        auth.users[0]["username"] = "renamed"
        auth.revision = at + 2
        await mirrored.take(incoming(b"not json"), event(at + 2, "key.rotated", {"kid": "k"}))
        assert await mirrored.names() == {ada: "renamed"}
        assert await mirrored.revision() == at + 2


async def test_events_that_do_not_concern_it_move_its_revision(mirrored: Mirrored, auth: AuthSite) -> None:
    auth.add_user()
    async with filled(mirrored, auth) as at:
        await mirrored.take(
            event(at + 1, "session.revoked", {"user_id": str(uuid4()), "reason": "logout"}),
            event(at + 2, "something.new", {"a": 1}),
            event(at + 3, "key.rotated", {"kid": "k"}),
        )
        assert await mirrored.revision() == at + 3
        assert auth.asked["/internal/v1/users"] == 1


async def test_while_the_auth_service_is_down_a_hole_waits_and_nothing_changes(
    mirrored: Mirrored, auth: AuthSite
) -> None:
    ada = auth.add_user(username="ada")
    async with filled(mirrored, auth) as at:
        auth.is_down = True
        late = event(at + 2, "user.updated", make_user(id=ada, username="late"))
        with pytest.raises(Unavailable):
            await mirrored.take(late)
        assert await mirrored.names() == {ada: "ada"}
        assert await mirrored.revision() == at
        auth.is_down = False
        auth.users[0]["username"] = "late"
        auth.revision = at + 2
        await mirrored.take(late)
        assert await mirrored.names() == {ada: "late"}


async def test_users_nobody_has_told_of_yet_are_asked_for(mirrored: Mirrored, auth: AuthSite) -> None:
    auth.add_user()
    async with filled(mirrored, auth) as at:
        new = [auth.add_user(external_id=f"crm {number}&x=ü", tenant="acme") for number in range(250)]
        foreign = auth.add_user(external_id="crm 0&x=ü", tenant="default")
        found = await mirrored.mirror.fetch_users({*new[:120], uuid4()}, {("acme", "crm 249&x=ü"), ("acme", "none")})
        assert {each.id for each in found} == {*new[:120], new[249]}
        # Nothing is kept that could be older than an event on its way.
        assert await mirrored.revision() == at
        async with mirrored.database.read() as connection:
            by_external_id = await repository.find_by_external_id(
                connection, [("acme", "crm 249&x=ü"), ("default", "crm 249&x=ü"), ("acme", "none")]
            )
            known = await repository.find_people(connection, [*new, foreign])
        assert {key: person.id for key, person in by_external_id.items()} == {("acme", "crm 249&x=ü"): new[249]}
        assert set(known) == {*new[:120], new[249]}


async def test_groups_nobody_has_told_of_yet_come_with_their_members(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user()
    async with filled(mirrored, auth):
        team, other = auth.add_group(ada, name="Team"), auth.add_group(ada)
        assert not await mirrored.mirror.fetch_groups({uuid4()})
        assert await mirrored.mirror.fetch_groups({team, uuid4()})
        assert await mirrored.groups() == {team: "Team"}
        assert await mirrored.members() == {(team, ada)}
        assert other not in await mirrored.groups()


async def test_catching_up_waits_for_what_the_auth_service_has_now(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user()
    async with filled(mirrored, auth) as at:
        auth.revision = at + 1
        waiting = [asyncio.create_task(mirrored.mirror.catch_up()) for _ in range(50)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        await mirrored.take(event(at + 1, "user.updated", make_user(id=ada)))
        await asyncio.gather(*waiting)
        assert auth.asked["/internal/v1/groups"] <= 3  # one to fill it, one or two for all fifty
        # It waits for a moment at most, and not at all while nobody can be asked.
        auth.revision = at + 5
        await asyncio.wait_for(mirrored.mirror.catch_up(), 20)
        assert sum(mirrored.clock.pauses_s[-80:]) == pytest.approx(2)
        auth.is_down = True
        pauses = len(mirrored.clock.pauses_s)
        await mirrored.mirror.catch_up()
        assert len(mirrored.clock.pauses_s) == pauses


async def test_looking_up_keeps_tenants_apart(mirrored: Mirrored, auth: AuthSite) -> None:
    ada = auth.add_user(tenant="acme", roles=["user", "staff"], external_id="1")
    auth.add_user(tenant="acme", roles=["user"], is_active=False)
    bob = auth.add_user(tenant="default", roles=["user"], external_id="1")
    eve = auth.add_user(tenant="default", roles=["staffing"])
    team = auth.add_group(ada, tenant="acme")
    await mirrored.mirror.ensure_filled()
    async with mirrored.database.read() as connection:
        assert await repository.count_active(connection, "acme") == 1
        assert await repository.count_active(connection, "default") == 2
        assert await repository.find_groups(connection, [team, uuid4()]) == {team: "acme"}
        members, people = await repository.find_members(connection, [team])
        assert (members, set(people)) == ({team: [ada]}, {ada})
        wanted = [("acme", "staff"), ("acme", "user"), ("default", "user"), ("default", "staff"), ("default", "st_ff")]
        by_role, _ = await repository.find_by_role(connection, wanted)
        assert by_role == {("acme", "staff"): [ada], ("acme", "user"): [ada], ("default", "user"): [bob]}
        assert eve not in {each for found in by_role.values() for each in found}
        found = await repository.find_by_external_id(connection, [("acme", "1"), ("default", "1"), ("other", "1")])
        assert {key: person.id for key, person in found.items()} == {("acme", "1"): ada, ("default", "1"): bob}
        assert await repository.find_groups_of(connection, [ada, bob]) == {ada: {team}}
        # Nothing asked, nothing answered.
        assert await repository.find_people(connection, []) == {}
        assert await repository.find_by_external_id(connection, []) == {}
        assert await repository.find_groups(connection, []) == {}
        assert await repository.find_members(connection, []) == ({}, {})
        assert await repository.find_by_role(connection, []) == ({}, {})
        assert await repository.find_groups_of(connection, []) == {}


async def test_many_users_are_written_in_pages(mirrored: Mirrored, auth: AuthSite) -> None:
    people = [auth.add_user() for _ in range(2_300)]
    team = auth.add_group(*people)
    await mirrored.mirror.ensure_filled()
    assert len(await mirrored.names()) == 2_300
    async with mirrored.database.read() as connection:
        members, _ = await repository.find_members(connection, [team])
    assert members[team] == sorted(people)
    auth.users = auth.users[:5]
    auth.memberships = auth.memberships[:5]
    await mirrored.mirror.read_again()
    assert len(await mirrored.names()) == 5
