"""Lines of the audit log: written with what they tell of, handed over in the end, each once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from auth_site import INTERNAL_KEY, AuthSite
from clocks import SetClock
from sqlalchemy import func, select
from waiting import until

from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.identity import audit
from notification_service.identity.access import Caller
from notification_service.identity.models import audit_outbox

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_caller(*, is_service: bool = False) -> Caller:
    return Caller(
        id=uuid4(),
        session_id=uuid4(),
        tenant="acme",
        roles=(),
        scopes=frozenset(),
        expires_at=NOW,
        is_service=is_service,
    )


async def write(database: Database, action: str = "thing.done", count: int = 1) -> None:
    async with database.write() as connection:
        for number in range(count):
            await audit.record(connection, audit.SYSTEM, action, now=NOW, subject=("thing", str(number)))


async def waiting(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(audit_outbox))).scalar_one()


@contextlib.asynccontextmanager
async def relay_to(auth: AuthSite, database: Database, clock: SetClock) -> AsyncIterator[audit.AuditRelay]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield audit.AuditRelay(database, auth.url, key=INTERNAL_KEY, client=client, clock=clock)


@pytest.mark.req("G06")
async def test_a_line_says_who_did_what_to_what_when_and_from_where(
    database: Database, auth: AuthSite, clock: SetClock
) -> None:
    caller, shop = make_caller(), make_caller(is_service=True)
    origin = audit.make_origin("192.0.2.7", "Browser\x1b[31m 1.0\x80 " + "x" * 400, "c" * 32)
    token = audit.request_origin.set(origin)
    try:
        async with database.write() as connection:
            await audit.record(
                connection, caller, "dead_letter.replayed", now=NOW, subject=("dead_letter", "7"), details={"a": 1}
            )
            await audit.record(connection, shop, "template.updated", now=NOW, tenant="other")
            await audit.record(connection, audit.SYSTEM, "user.data_erased", now=NOW)
    finally:
        audit.request_origin.reset(token)
    async with relay_to(auth, database, clock) as relay:
        assert await relay.relay_some() == 3
        assert await relay.relay_some() == 0
    by_user, by_service, by_system = sorted(auth.audit_lines, key=lambda line: line["id"])
    assert by_user == {
        "id": by_user["id"],
        "occurred_at": "2026-03-01T12:00:00.000Z",
        "action": "dead_letter.replayed",
        "actor_type": "user",
        "actor_id": str(caller.id),
        "subject_type": "dead_letter",
        "subject_id": "7",
        "tenant": "acme",
        "ip": "192.0.2.7",
        "user_agent": origin.user_agent,
        "correlation_id": "c" * 32,
        "details": {"a": 1},
    }
    assert len(origin.user_agent) == 300
    assert origin.user_agent.startswith("Browser[31m 1.0 x")
    assert (by_service["actor_type"], by_service["tenant"]) == ("service", "other")
    assert (by_system["actor_type"], by_system["actor_id"], by_system["ip"]) == ("system", None, None)
    assert auth.internal_keys_seen == {INTERNAL_KEY}


async def test_what_is_rolled_back_leaves_no_line(database: Database) -> None:
    with contextlib.suppress(KeyError):
        async with database.write() as connection:
            await audit.record(connection, audit.SYSTEM, "thing.done", now=NOW)
            raise KeyError
    assert await waiting(database) == 0


@pytest.mark.req("G06")
async def test_lines_wait_for_an_auth_service_that_is_away_and_come_once(
    database: Database, auth: AuthSite, clock: SetClock
) -> None:
    auth.is_down = True
    await write(database, count=450)
    async with relay_to(auth, database, clock) as relay:
        with pytest.raises(Unavailable):
            await relay.relay_some()
        assert await waiting(database) == 450
        running = asyncio.create_task(relay.run())
        await until(lambda: sum(clock.pauses_s) > 5)
        auth.is_down = False
        await until(lambda: _is_empty(database))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(auth.audit_lines) == 450
    # It asks less and less often while there is no answer.
    assert max(clock.pauses_s) >= 4
    assert len({line["id"] for line in auth.audit_lines}) == 450


async def _is_empty(database: Database) -> bool:
    return await waiting(database) == 0


async def test_two_relays_and_a_crash_write_nothing_twice(database: Database, auth: AuthSite, clock: SetClock) -> None:
    await write(database, count=100)
    async with relay_to(auth, database, clock) as one, relay_to(auth, database, clock) as two:
        await asyncio.gather(one.relay_some(), two.relay_some())
    assert len(auth.audit_lines) == 100


async def test_a_line_that_is_refused_does_not_hold_up_the_others(
    database: Database, auth: AuthSite, clock: SetClock
) -> None:
    await write(database, count=2)
    await write(database, "poison.pill")
    await write(database, count=2)
    auth.refused_actions = {"poison.pill"}
    async with relay_to(auth, database, clock) as relay:
        assert await relay.relay_some() == 5
    assert [line["action"] for line in auth.audit_lines] == ["thing.done"] * 4
    assert await waiting(database) == 0


async def test_an_auth_service_that_is_gone(database: Database, clock: SetClock) -> None:
    await write(database)
    async with httpx.AsyncClient(trust_env=False) as client:
        relay = audit.AuditRelay(database, "http://127.0.0.1:1", key="k", client=client, clock=clock)
        with pytest.raises(Unavailable):
            await relay.relay_some()
    assert await waiting(database) == 1
