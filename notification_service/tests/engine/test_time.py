"""What time brings, with a clock that tests set: digests, schedules, the weekly summary, escalations (X-10, X-11, X-7).

Two schedulers turn at once in every test. What they hand over is counted where it is stored: one row is one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from service import make_settings
from sqlalchemy import delete, func, insert, select, update
from typing_extensions import override

from notification_service.channels.models import deliveries
from notification_service.clock import SystemClock
from notification_service.db.engine import Database
from notification_service.digests.collect import Addition, add_to_digests
from notification_service.digests.models import digests, escalations, schedules
from notification_service.digests.schedules import insert_schedule
from notification_service.entrypoints.parts import Parts
from notification_service.event_types.catalog import raise_version
from notification_service.event_types.models import event_types
from notification_service.identity.mirror_rows import upsert_users
from notification_service.identity.models import groups, memberships, users
from notification_service.intake.check import CheckedRequest
from notification_service.intake.models import idempotency_keys
from notification_service.intake.receive import Arrival
from notification_service.mailbox.models import device_cursors, items, streams
from notification_service.mailbox.resume import write_cursors
from notification_service.notifications.entity import Sender
from notification_service.notifications.frames import encode_content, encode_new_item
from notification_service.notifications.kept import KeptItem
from notification_service.notifications.models import decision_records, notifications
from notification_service.notifications.pages import Cursor
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients


class WallClock(SystemClock):
    """Stands where it is put."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    @override
    def now(self) -> datetime:
        return self.at


class Site:
    """Two schedulers and a pipeline over one database."""

    def __init__(self, parts: list[Parts], clock: WallClock) -> None:
        self.parts, self.clock = parts, clock
        self.database: Database = parts[0].database

    async def add_user(self, timezone: str = "UTC", *, roles: tuple[str, ...] = (), **preferences: Any) -> UUID:
        user_id = uuid4()
        snapshot = UserSnapshot(
            id=user_id,
            username=user_id.hex,
            tenant="default",
            created_at=self.clock.at,
            timezone=timezone,
            email="a@example.org",
            roles=roles,
        )
        async with self.database.write() as connection:
            await upsert_users(connection, [snapshot])
        if preferences:
            await self.parts[0].preferences.patch(user_id, "default", preferences)
        return user_id

    async def add_type(self, code: str = "news", **fields: Any) -> None:
        values = {"name": "News", "description": "", "default_enabled": True, "mandatory": False, "priority": "normal"}
        values |= {"is_active": True, "version": 1, "created_at": self.clock.at, "updated_at": self.clock.at}
        async with self.database.write() as connection:
            await connection.execute(
                insert(event_types).values(**{"tenant": "default", "code": code, **values, **fields})
            )
            await raise_version(connection, "default", self.clock.at)

    async def send(self, *user_ids: UUID, count: int = 1, **fields: Any) -> list[UUID]:
        ids = [uuid4() for _ in range(count)]
        rest = await self.parts[0].pipeline.handle([self._arrival(each, user_ids, fields) for each in ids], [])
        await rest
        return ids

    async def keep(self, *user_ids: UUID, **fields: Any) -> list[KeptItem]:
        """Store one notification to them, and answer what would be published."""
        kept: list[KeptItem] = []
        dispatch = self.parts[0].dispatcher.dispatch

        async def note(items: Any, broadcasts: Any = ()) -> Any:
            kept.extend(items)
            return await dispatch(items, broadcasts)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.parts[0].dispatcher, "dispatch", note)
            await self.send(*user_ids, **fields)
        return kept

    def _arrival(self, notification_id: UUID, user_ids: tuple[UUID, ...], fields: dict[str, Any]) -> Arrival:
        recipients = Recipients(users=tuple(str(each) for each in user_ids))
        request = NotificationRequest(**{"event_type": "news", "recipients": recipients, "title": "T", **fields})
        checked = CheckedRequest(notification_id, request, Kind.EVENT, Sender(None, "test"))
        return Arrival(checked, None)  # type: ignore[arg-type]  # only dead letters look at the message

    async def tick(self) -> None:
        await asyncio.gather(*(each.timekeeper.tick() for each in self.parts))

    async def go_to(self, moment: datetime) -> None:
        """Let time pass: the schedulers turn a second before whatever is due next, and when it is."""
        while (due := await self._next_due()) is not None and due <= moment:
            for at in (due - timedelta(seconds=1), due):
                if at > self.clock.at:
                    self.clock.at = at
                    await self.tick()
            if await self._next_due() == due:
                await self.tick()
        self.clock.at = moment
        await self.tick()

    async def _next_due(self) -> datetime | None:
        moments = []
        async with self.database.read() as connection:
            for column, open_ in (
                (digests.c.due_at, digests.c.closed_at.is_(None)),
                (schedules.c.next_at, schedules.c.next_at.is_not(None)),
                (escalations.c.due_at, escalations.c.due_at.is_not(None)),
            ):
                moments.append((await connection.execute(select(func.min(column)).where(open_))).scalar_one())
        return min((each for each in moments if each is not None), default=None)

    async def summaries(self, event_type: str = "digest.summary") -> list[Any]:
        async with self.database.read() as connection:
            rows = await connection.execute(
                select(notifications)
                .where(notifications.c.event_type == event_type)
                .order_by(notifications.c.created_at)
            )
            return list(rows.all())

    async def devices_of(self, user_id: UUID) -> set[str]:
        async with self.database.read() as connection:
            columns = device_cursors.c
            return set(
                (await connection.execute(select(columns.device_id).where(columns.user_id == user_id))).scalars()
            )

    async def read(self, user_id: UUID, ids: list[UUID]) -> None:
        await self.parts[0].inbox.change(user_id, "default", "read", ids)  # type: ignore[arg-type]  # a StrEnum's value


@pytest.fixture
async def site(migrated_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    clock = WallClock(datetime(2026, 3, 2, 12, tzinfo=UTC))
    # 20 s: the machine that runs tests may be busy.
    settings = make_settings("http://127.0.0.1:1", amqp_url, migrated_url, tmp_path, database_timeout=20)
    parts = [Parts(settings, process="scheduler") for _ in range(2)]
    for each in parts:
        each.clock = clock
        each.publisher.start()
        await each.publisher.link.wait_ready(timedelta(seconds=20))
        # Counting for the summary goes by the hour, and these hours pass in a moment.
        each.timekeeper._extras = ()
    yield Site(parts, clock)
    for each in parts:
        await each.close()


@pytest.mark.req("X-10")
async def test_what_quiet_hours_hold_comes_as_one_summary_and_the_critical_at_once(site: Site) -> None:
    site.clock.at = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)
    # The night to the 29th of March is an hour shorter in Berlin.
    quiet = {"enabled": True, "start": "23:00", "end": "08:00"}
    ada = await site.add_user("Europe/Berlin", quiet_hours=quiet)
    await site.add_type(channels=["in_app", "email"])
    held = []
    for _ in range(7):
        held += await site.send(ada)
        site.clock.at += timedelta(minutes=20)
    await site.send(ada, priority="critical")
    await site.read(ada, [held[3]])
    await site.go_to(datetime(2026, 3, 29, 5, 59, tzinfo=UTC))
    assert await site.summaries() == []
    await site.go_to(datetime(2026, 3, 29, 6, 0, tzinfo=UTC))
    (summary,) = await site.summaries()
    assert (summary.data["count"], summary.channels) == (6, ["email"])
    assert [each["notification_id"] for each in summary.data["entries"]] == [
        str(each) for each in held if each != held[3]
    ]
    async with site.database.read() as connection:
        rows = await connection.execute(select(deliveries.c.reason, func.count()).group_by(deliveries.c.reason))
        reasons = {reason: count for reason, count in rows}  # noqa: C416 - rows, not pairs
    assert reasons == {"quiet_hours": 7, "channel_not_configured": 1}
    await site.go_to(datetime(2026, 3, 31, tzinfo=UTC))
    assert len(await site.summaries()) == 1


@pytest.mark.req("X-11")
async def test_two_hundred_triggers_at_once_into_one_digest(site: Site) -> None:
    ada = await site.add_user(digest={"email": "hourly"})
    await site.add_type(channels=["email"])
    await asyncio.gather(*(site.send(ada, count=10) for _ in range(20)))
    async with site.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(digests))).scalar_one() == 1
    await site.go_to(datetime(2026, 3, 2, 14, tzinfo=UTC))
    (summary,) = await site.summaries()
    assert (summary.data["count"], summary.data["left"], len(summary.data["entries"])) == (200, 180, 20)


@pytest.mark.req("X-11")
async def test_adding_while_it_closes_goes_into_this_one_or_the_next(site: Site) -> None:
    ada = await site.add_user(digest={"email": "hourly"})
    await site.add_type(channels=["email"])
    await site.send(ada, count=5)
    site.clock.at = datetime(2026, 3, 2, 13, 0, 1, tzinfo=UTC)
    await asyncio.gather(site.tick(), *(site.send(ada, count=3) for _ in range(10)), site.tick())
    await site.go_to(datetime(2026, 3, 2, 16, tzinfo=UTC))
    assert sum(each.data["count"] for each in await site.summaries()) == 35


@pytest.mark.req("X-11")
async def test_nothing_is_sent_when_everything_was_read(site: Site) -> None:
    ada = await site.add_user(digest={"email": "daily"})
    await site.add_type(channels=["in_app", "email"])
    sent = await site.send(ada, count=3)
    pending = await site.parts[0].schedules.list_pending(ada)
    assert [(each.count, each.key, each.channel) for each in pending] == [(3, "preference", "email")]
    await site.read(ada, sent[:2])
    assert [each.count for each in await site.parts[0].schedules.list_pending(ada)] == [1]
    await site.read(ada, sent)
    await site.go_to(datetime(2026, 3, 4, tzinfo=UTC))
    assert await site.summaries() == []
    async with site.database.read() as connection:
        assert (await connection.execute(select(digests.c.told_count))).scalars().all() == [0]


@pytest.mark.parametrize(
    ("timezone", "start", "expected"),
    [
        # Clocks go forward on 29 March 2026 in Berlin: 08:00 there is 07:00 UTC before and 06:00 UTC from then on.
        ("Europe/Berlin", datetime(2026, 3, 26, 12, tzinfo=UTC), [7, 7, 6, 6, 6, 6, 6]),
        # And back on 25 October.
        ("Europe/Berlin", datetime(2026, 10, 22, 12, tzinfo=UTC), [6, 6, 7, 7, 7, 7, 7]),
        # Half an hour, in October forwards: 08:00 is 21:30 UTC the day before, then 21:00.
        ("Australia/Lord_Howe", datetime(2026, 10, 1, 12, tzinfo=UTC), [21, 21, 21, 21, 21, 21, 21]),
    ],
)
@pytest.mark.req("X-11")
async def test_two_schedulers_over_a_week_with_the_clocks_changed(
    site: Site, timezone: str, start: datetime, expected: list[int]
) -> None:
    site.clock.at = start
    ada = await site.add_user(timezone, digest={"email": "daily"})
    await site.add_type(channels=["email"])
    for _ in range(7):
        await site.send(ada, count=2)
        await site.go_to(site.clock.at + timedelta(days=1))
    summaries = await site.summaries()
    assert [each.created_at.hour for each in summaries] == expected
    assert [each.data["count"] for each in summaries] == [2] * 7
    assert len({each.created_at.date() for each in summaries}) == 7


async def test_the_weekly_summary_comes_to_who_asked_for_it_and_is_planned_again(site: Site) -> None:
    site.clock.at = datetime(2026, 3, 3, 12, tzinfo=UTC)
    ada = await site.add_user("America/New_York", event_types={"digest.weekly": {"in_app": True}})
    await site.add_user(channels={"in_app": True})
    await site.add_type()
    await site.send(ada, count=4)
    await site.go_to(datetime(2026, 3, 25, tzinfo=UTC))
    weekly = await site.summaries("digest.weekly")
    # Mondays at 08:00 there; nothing was unread in the weeks that followed but the first summary, which it leaves out.
    assert [(each.created_at.date().isoformat(), each.data["count"]) for each in weekly] == [("2026-03-09", 4)]
    async with site.database.read() as connection:
        rows = (await connection.execute(select(digests.c.due_at).where(digests.c.closed_at.is_(None)))).scalars().all()
    assert rows == [datetime(2026, 3, 30, 12, tzinfo=UTC)]
    await site.parts[0].preferences.patch(ada, "default", {"event_types": {"digest.weekly": {"in_app": False}}})
    async with site.database.read() as connection:
        left = (await connection.execute(select(digests.c.id).where(digests.c.closed_at.is_(None)))).all()
    assert left == []


async def test_a_schedule_fires_once_at_each_of_its_times(site: Site) -> None:
    ada = await site.add_user()
    await site.add_type()
    site.clock.at = datetime(2026, 10, 23, 12, tzinfo=UTC)
    for recurrence, next_at in (
        ({"every": "day", "at": "09:00", "timezone": "Europe/Berlin"}, datetime(2026, 10, 24, 7, tzinfo=UTC)),
        (None, datetime(2026, 10, 24, 12, tzinfo=UTC)),
    ):
        async with site.database.write() as connection:
            await insert_schedule(
                connection,
                tenant="default",
                sender=Sender(ada, "ada"),
                request={"title": "S", "recipients": {"users": [str(ada)]}},
                recurrence=recurrence,
                next_at=next_at,
                now=site.clock.at,
            )
    await site.go_to(datetime(2026, 10, 27, 6, tzinfo=UTC))
    async with site.database.read() as connection:
        rows = await connection.execute(
            select(notifications.c.created_at).where(notifications.c.title == "S").order_by(notifications.c.created_at)
        )
        fired = [f"{moment:%d %H}" for moment in rows.scalars()]
    assert fired == ["24 07", "24 12", "25 08", "26 08"]


async def escalated(site: Site) -> list[tuple[str, str, str | None]]:
    async with site.database.read() as connection:
        rows = await connection.execute(
            select(deliveries.c.channel, deliveries.c.status, deliveries.c.reason).order_by(deliveries.c.created_at)
        )
        return [tuple(row) for row in rows]


PLAN = {"steps": [{"after_seconds": 60, "channels": ["email"]}, {"after_seconds": 120, "channels": ["sms"]}]}


@pytest.mark.req("X-7")
async def test_an_escalation_goes_on_while_no_device_acknowledges(site: Site) -> None:
    ada = await site.add_user(channels={"sms": False})
    await site.add_type(channels=["in_app", "email", "sms"], escalation=PLAN)
    await site.send(ada)
    assert await escalated(site) == []
    await site.go_to(site.clock.at + timedelta(seconds=59))
    assert await escalated(site) == []
    await site.go_to(site.clock.at + timedelta(seconds=1))
    assert await escalated(site) == [("email", "suppressed", "channel_not_configured")]
    await site.go_to(site.clock.at + timedelta(seconds=120))
    assert (await escalated(site))[1:] == [("sms", "suppressed", "channel_off")]
    async with site.database.read() as connection:
        assert (await connection.execute(select(escalations))).all() == []
        rules = (await connection.execute(select(deliveries.c.rules).where(deliveries.c.channel == "sms"))).scalar_one()
    assert [each["rule"] for each in rules] == ["escalation.step", "channels.sms"]


@pytest.mark.req("X-6")
@pytest.mark.req("X-7")
@pytest.mark.parametrize("answer", ["ack", "read"])
async def test_an_acknowledgement_or_a_read_stops_it(site: Site, answer: str) -> None:
    ada = await site.add_user()
    await site.add_type(channels=["in_app"], escalation=PLAN)
    (sent,) = await site.send(ada)
    if answer == "ack":
        async with site.database.write() as connection:
            await connection.execute(update(streams).where(streams.c.user_id == ada).values(acked_seq=1))
    else:
        await site.read(ada, [sent])
    await site.go_to(site.clock.at + timedelta(minutes=10))
    assert await escalated(site) == [("email", "suppressed", "already_read")]


@pytest.mark.req("X-7")
@pytest.mark.parametrize(
    ("change", "reason"),
    [("role", "unknown_recipient"), ("group", "unknown_recipient"), ("account", "recipient_inactive")],
)
async def test_an_escalation_asks_again_who_may_have_it(site: Site, change: str, reason: str) -> None:
    ada = await site.add_user(roles=("staff",))
    group = uuid4()
    async with site.database.write() as connection:
        await connection.execute(insert(groups).values(id=group, slug="g", name="G", tenant="default"))
        await connection.execute(insert(memberships).values(group_id=group, user_id=ada))
    await site.add_type(channels=["in_app"], escalation=PLAN)
    for wanted in (Recipients(roles=("staff",)), Recipients(groups=(group,))):
        await site.send(recipients=wanted)
    async with site.database.write() as connection:
        if change == "role":
            await connection.execute(update(users).where(users.c.id == ada).values(roles=[]))
        elif change == "account":
            await connection.execute(update(users).where(users.c.id == ada).values(is_active=False))
        else:
            await connection.execute(delete(memberships))
    await site.go_to(site.clock.at + timedelta(minutes=10))
    found = await escalated(site)
    stopped = [each for each in found if each[2] == reason]
    assert stopped == [("email", "suppressed", reason)] * (2 if change == "account" else 1)
    # The other one was still meant, and was tried as far as the plan goes.
    assert len(found) == (2 if change == "account" else 3)


@pytest.mark.req("X-10")
async def test_devices_are_told_whom_an_item_shall_not_disturb(site: Site) -> None:
    quiet = {"enabled": True, "start": "11:00", "end": "13:00"}
    ada = await site.add_user(quiet_hours=quiet)
    ben = await site.add_user(devices={"kitchen": {"muted": True}, "phone": {"muted": False}})
    eve = await site.add_user()
    await site.add_type()
    frames: dict[UUID, dict[str, Any]] = {}
    for priority in ("normal", "critical"):
        kept = await site.keep(ada, ben, eve, priority=priority)
        frames = {
            each.user_id: orjson.loads(
                encode_new_item(
                    encode_content(each.notification),
                    seq=each.seq,
                    counts=each.counts,
                    is_silent=each.is_silent,
                    muted_devices=each.muted_devices,
                )
            )
            for each in kept
        }
        told = [(frames[each].get("silent"), frames[each].get("muted_devices")) for each in (ada, ben, eve)]
        expected = [(True, None), (None, ["kitchen"]), (None, None)]
        assert told == (expected if priority == "normal" else [(None, None)] * 3)


async def test_a_snoozed_item_comes_back_as_new(site: Site) -> None:
    ada = await site.add_user()
    await site.add_type()
    (sent,) = await site.send(ada)
    inbox = site.parts[0].inbox
    await site.read(ada, [sent])
    await inbox.change(ada, "default", "snooze", [sent], until=site.clock.at + timedelta(hours=2))  # type: ignore[arg-type]
    counts, _ = await inbox.count(ada, "default")
    assert (counts.unread, counts.total) == (0, 0)
    await site.go_to(site.clock.at + timedelta(hours=3))
    counts, _ = await inbox.count(ada, "default")
    assert (counts.unread, counts.unseen, counts.total) == (1, 1, 1)


async def test_expired_items_leave_the_counts(site: Site) -> None:
    ada = await site.add_user()
    await site.add_type()
    await site.send(ada, ttl_seconds=60)
    await site.send(ada)
    await site.go_to(site.clock.at + timedelta(minutes=2))
    counts, _ = await site.parts[0].inbox.count(ada, "default")
    assert (counts.unread, counts.unseen, counts.total) == (1, 1, 1)


async def test_what_is_older_than_is_kept_goes_and_positions_before_it_are_refused(site: Site) -> None:
    ada = await site.add_user()
    await site.add_type()
    await site.send(ada, count=3)
    site.clock.at += timedelta(days=20)
    await site.send(ada, count=2)
    await site.go_to(site.clock.at + timedelta(days=11))
    async with site.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(items))).scalar_one() == 2
        stream = (await connection.execute(select(streams))).one()
    assert (stream.floor_seq, stream.top_seq, stream.unread, stream.total) == (3, 5, 2, 2)
    synced = await site.parts[0].inbox.sync(ada, "default", "phone", None)
    assert len(synced.frames) == 2


async def test_devices_that_are_silent_for_as_long_as_items_are_kept_are_forgotten(site: Site) -> None:
    ada = await site.add_user()
    await site.add_type()
    await site.send(ada, count=3)
    # One never acknowledged anything, one everything of that day, one an item that is still kept.
    came_to = {"unused": Cursor(0, 0, 3, 0), "gone": Cursor(3, 0, 3, 0), "behind": Cursor(4, 0, 4, 0)}
    async with site.database.write() as connection:
        await write_cursors(connection, [(ada, *each) for each in came_to.items()], now=site.clock.at)
    site.clock.at += timedelta(days=20)
    await site.send(ada, count=2)
    async with site.database.write() as connection:
        await write_cursors(connection, [(ada, "used", Cursor(5, 0, 5, 0))], now=site.clock.at)
    await site.go_to(site.clock.at + timedelta(days=9))
    await site.tick()  # the round through all users ends
    assert await site.devices_of(ada) == {"unused", "gone", "behind", "used"}
    await site.go_to(site.clock.at + timedelta(days=2))
    assert await site.devices_of(ada) == {"behind", "used"}


async def test_nothing_is_left_of_what_nobody_has_any_more(site: Site) -> None:
    ada = await site.add_user(digest={"email": "daily"}, locale="de")
    await site.add_type(channels=["in_app", "email"])
    old = await site.send(ada, count=4, title="old")
    (pinned,) = await site.send(ada, title="pinned")
    await site.parts[0].inbox.change(ada, "default", "pin", [pinned])  # type: ignore[arg-type]  # a StrEnum's value
    async with site.database.write() as connection:
        await connection.execute(update(notifications).values(dispatched_at=site.clock.at))
        values = {"caller_id": ada, "key": "k", "request_hash": "", "notification_id": old[0]}
        await connection.execute(insert(idempotency_keys).values(**values, created_at=site.clock.at))
    await site.go_to(site.clock.at + timedelta(days=29))
    (fresh,) = await site.send(ada, title="fresh")
    await site.go_to(site.clock.at + timedelta(days=3))
    async with site.database.read() as connection:
        left = await connection.execute(select(notifications.c.id).where(notifications.c.title.is_not(None)))
        assert set(left.scalars()) == {pinned, fresh}
        for table in (decision_records, deliveries):
            kept = set((await connection.execute(select(table.c.notification_id))).scalars())
            assert kept.isdisjoint(old), table
            assert fresh in kept, table
        assert (await connection.execute(select(idempotency_keys))).all() == []
        assert len((await connection.execute(select(digests))).all()) == 1
    assert (await site.parts[0].inbox.get_item(ada, "default", pinned))["title"] == "pinned"


async def test_an_empty_digest_of_nobody_is_closed_in_silence(site: Site) -> None:
    async with site.database.write() as connection:
        await add_to_digests(
            connection,
            [
                Addition(
                    tenant="default",
                    user_id=uuid4(),
                    channel="email",
                    key="preference",
                    due_at=site.clock.at,
                    notification_id=uuid4(),
                )
            ],
            now=site.clock.at,
        )
    await site.tick()
    assert await site.summaries() == []


@pytest.mark.req("X-11")
@pytest.mark.parametrize("point", ["before_digest_commit", "after_digest_commit"])
async def test_a_close_that_breaks_off_is_told_once(site: Site, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await site.add_user(digest={"email": "hourly"})
    await site.add_type(channels=["email"])
    await asyncio.gather(*(site.send(ada, count=10) for _ in range(20)))
    broken: list[str] = []

    def break_off(reached: str) -> None:
        if reached == point and not broken:
            broken.append(reached)
            raise RuntimeError("broken off")

    monkeypatch.setattr("notification_service.failpoints.reach", break_off)
    site.clock.at = datetime(2026, 3, 2, 13, 0, 1, tzinfo=UTC)
    with pytest.raises(RuntimeError, match="broken off"):
        await site.parts[0].timekeeper.tick()
    await site.go_to(datetime(2026, 3, 2, 15, tzinfo=UTC))
    assert [each.data["count"] for each in await site.summaries()] == [200]
