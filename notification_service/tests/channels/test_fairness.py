"""Rate limits: exact, shared between workers, and shared out fairly between those who send."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import pytest
from channel_kit import Reply, http_sink, running_channels
from clocks import SetClock
from hypothesis import given
from hypothesis import strategies as some
from sqlalchemy import select, update
from waiting import until

from herald_local.packages import SystemPackage, get_program
from notification_service.channels.fairness import Waiting, exchange, exchange_turns
from notification_service.channels.models import deliveries
from notification_service.channels.rates import Asking, MemoryTurns, RateLimits, RedisTurns, Turn
from notification_service.db.engine import Database
from notification_service.rates import Rate, parse_rates


def find_redis() -> Path | None:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


REDIS = SystemPackage(
    name="Redis",
    find=find_redis,
    apt=("redis-server",),
    brew="redis",
    otherwise="Install Redis 6 or newer, or Valkey, so that redis-server is on PATH.",
)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NONE = timedelta()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def waiting(share: str, seconds: float) -> Waiting:
    return Waiting(uuid4(), uuid4(), share, at(seconds))


def asking(tenant: str = "a", sender: str = "shop", route: str = "email:mx") -> Asking:
    return Asking("email", route, tenant, sender)


# --- turns ------------------------------------------------------------------------------------------------------------


async def reserve(rates: str, *each: Asking) -> list[Turn]:
    return await RateLimits(parse_rates(rates), MemoryTurns(SetClock())).reserve(each)


async def test_only_what_the_channels_own_limit_holds_may_change_places() -> None:
    first, second = await reserve("email=1/s", asking(), asking())
    assert (first, second.share) == (Turn(NONE), "a:shop")
    assert second.wait > NONE
    for scope in ("tenant", "sender", "provider"):
        first, second = await reserve(f"email=1000/s,email.{scope}=1/m", asking(), asking())
        assert first == Turn(NONE)
        assert (second.wait > timedelta(seconds=50), second.share) == (True, None)


async def test_each_tenant_sender_and_provider_has_a_limit_of_its_own() -> None:
    limits = "email.tenant=1/m,email.sender=1/m,email.provider=1/m"
    turns = await reserve(limits, asking(), asking("b", "x", "email:other"), asking("b", "y", "email:third"))
    assert [turn.wait > NONE for turn in turns] == [False, False, True]
    turns = await reserve("email.provider=1/m", asking(), asking("b", "x"), asking(route="email:other"))
    assert [turn.wait > NONE for turn in turns] == [False, True, False]


async def test_without_limits_nobody_waits() -> None:
    assert await reserve("sms=1/m", asking(), asking()) == [Turn(NONE)] * 2


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_who_comes_late_gets_one_of_the_turns_that_are_due() -> None:
    flood = [waiting("a", number) for number in range(4)]
    single = waiting("b", 100)
    assert exchange(flood, [*flood[:2], single]) == [(single, flood[3].at), (flood[3], single.at)]


@given(some.lists(some.tuples(some.sampled_from("abc"), some.floats(-50, 50)), max_size=60))
def test_turns_are_given_in_equal_parts_and_stay_the_same_times(given_turns: list[tuple[str, float]]) -> None:
    everybody = [waiting(share, seconds) for share, seconds in given_turns]
    due = sorted((each for each in everybody if each.at <= NOW), key=lambda each: each.at)
    shares = {each.share for each in everybody}
    part = -(-len(due) // max(1, len(shares)))
    first = [
        each
        for share in shares
        for each in sorted((one for one in everybody if one.share == share), key=lambda one: one.at)[:part]
    ]
    moves = exchange(due, first)
    new = {each.id: moment for each, moment in moves}
    assert len(new) == len(moves)
    after = [new.get(each.id, each.at) for each in everybody]
    assert sorted(after) == sorted(each.at for each in everybody)
    # Whoever waits has got an equal part, or had no more.
    got = Counter(each.share for each in everybody if new.get(each.id, each.at) <= NOW)
    has = Counter(each.share for each in everybody)
    for share in shares:
        assert got[share] >= min(has[share], len(due) // len(shares))


async def test_one_flood_does_not_hold_the_others(database: Database, amqp_url: str) -> None:
    """A hundred of one sender are in front of three of others; nobody waits for all of them."""
    async with (
        http_sink() as sink,
        running_channels(database, amqp_url, start=False, rate_limits="webhook=10/s") as sending,
    ):
        people = {}
        for sender in ("flood", "b", "c"):
            people[sender] = await sending.make_user()
            await sending.add_contact(people[sender], "webhook", sink.url, "a secret of the receiver")
        turn = 0
        for sender, count in (("flood", 100), ("b", 2), ("c", 1)):
            for _ in range(count):
                turn += 1
                await _hold(database, people[sender], sender, at(turn / 10))
        async with database.write() as connection:
            # A second has passed: ten turns are due.
            assert await exchange_turns(connection, now=at(1)) == 6
            columns = deliveries.c
            rows = await connection.execute(select(columns.share).where(columns.next_attempt_at <= at(1)))
            assert Counter(rows.scalars()) == {"default:flood": 7, "default:b": 2, "default:c": 1}
            times = (await connection.execute(select(columns.next_attempt_at))).scalars().all()
            assert len(set(times)) == 103
            # All of theirs are sent; the flood goes on at the whole rate, and nothing changes hands.
            await connection.execute(update(deliveries).where(columns.next_attempt_at <= at(1)).values(share=None))
            assert await exchange_turns(connection, now=at(2)) == 0


CALM = "+4915199999999"


@pytest.mark.req("X-18")
async def test_a_tenants_flood_over_one_account_does_not_hold_another_tenant(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any limit: a hundred of one are there first, and the other's one is sent when a place is free."""
    async with http_sink(lambda _: Reply(201, body=b'{"sid":"SM1"}')) as sink:
        environment = {
            "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
            "NOTIFY_TWILIO_AUTH_TOKEN": "t0ken",
            "NOTIFY_TWILIO_FROM": "+15005550006",
            "NOTIFY_TWILIO_API_URL": sink.url,
        }
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="sms") as sending:
            flooded = [await sending.make_user(tenant="flood", phone=f"+491511234{number:04}") for number in range(120)]
            other = await sending.make_user(tenant="calm", phone=CALM)
            sink.answering.clear()
            flood = await sending.deliver(*flooded, channel="sms", tenant="flood")
            await until(lambda: len(sink.seen) == 32)
            calm = await sending.deliver(other, channel="sms", tenant="calm")

            async def is_in_line() -> bool:
                (row,) = await sending.rows(calm)
                return bool(row.attempts == 1)

            await until(is_in_line)
            sink.answering.set()
            await sending.wait_for(calm, "sent")
            await sending.wait_for(flood, "sent", within_s=60)
    sent = [parse_qs(seen.body.decode())["To"][0] for seen in sink.seen]
    # Thirty-two were being sent; of those in line at most one of the flood was before it.
    assert sent.index(CALM) <= 33
    assert len(sent) == 121


async def _hold(database: Database, user_id: UUID, sender: str, moment: datetime) -> None:
    async with database.write() as connection:
        await connection.execute(
            deliveries.insert().values(
                user_id=user_id,
                id=uuid4(),
                notification_id=uuid4(),
                tenant="default",
                channel="webhook",
                status="pending",
                reason="throttled",
                attempts=0,
                settled_attempts=0,
                created_at=NOW,
                not_before=moment,
                next_attempt_at=moment,
                share=f"default:{sender}",
            )
        )


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    """A Redis of this test's own."""
    program = await asyncio.to_thread(get_program, REDIS)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program,
        *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
    )

    async def answers() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    try:
        await until(answers)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        await process.wait()


async def test_two_workers_share_a_limit_in_redis(redis_url: str) -> None:
    """Together they get as many turns as one alone, each turn once."""
    rate = Rate(10, 1.0)
    workers = [RedisTurns(redis_url, SetClock()) for _ in range(2)]
    waits = sorted(
        wait
        for taken in await asyncio.gather(*(each.take([("email", rate), ("other", rate)] * 50) for each in workers))
        for wait in taken[::2]
    )
    # A burst of one second's worth at once, then ten a second; Redis's clock runs on meanwhile.
    assert sum(1 for wait in waits if not wait) >= 10
    assert 8.0 <= waits[-1] <= 9.1
    for worker in workers:
        await worker.close()


async def test_without_redis_each_worker_counts_for_itself() -> None:
    turns = RedisTurns("redis://127.0.0.1:1/0", SetClock())
    waits = await turns.take([("email", Rate(1, 60.0))] * 2)
    assert waits[0] == 0
    assert waits[1] > 50
    await turns.close()
