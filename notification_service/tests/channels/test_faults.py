"""What must hold when something goes wrong: endpoints that hang, workers that die, queues that vanish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiormq import connect
from channel_kit import Reply, Sending, http_sink, mail_sink, running_channels
from sqlalchemy import delete, insert, select, update
from waiting import until

from notification_service.channels.board import list_breakers
from notification_service.channels.models import deliveries
from notification_service.channels.planned import KeptDelivery
from notification_service.channels.ports import GO_ON, Pending, Rendered, Unrenderable, Verdict
from notification_service.channels.queueing import make_message, requeue_deliveries
from notification_service.contacts.addresses import hash_address
from notification_service.contacts.models import contacts, suppressions
from notification_service.db.engine import Database
from notification_service.dead_letters.models import dead_letters
from notification_service.identity.models import users
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.topology import DELIVERY_LIMIT

SECRET = "a secret of the receiver"


async def add_endpoints(sending: Sending, url: str, count: int) -> list[UUID]:
    """Users, each with an endpoint under a host name of its own."""
    people = []
    for number in range(count):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", url.replace("127.0.0.1", f"127.0.1.{number + 1}"), SECRET)
        people.append(user_id)
    return people


async def has_attempts(sending: Sending, notification_id: UUID) -> bool:
    return bool(await sending.attempts(notification_id))


async def has_rows(sending: Sending, notification_id: UUID, count: int) -> bool:
    return len(await sending.rows(notification_id)) == count


async def is_left_alone(sending: Sending, ids: Sequence[UUID]) -> bool:
    """Whether some attempt ended without a call."""
    found = [each.outcome for one in ids for each in await sending.attempts(one)]
    return "breaker_open" in found


async def is_held(sending: Sending, notification_id: UUID) -> bool:
    return all(row.reason is not None for row in await sending.rows(notification_id))


@pytest.mark.req("F12")
async def test_endpoints_that_hang_hold_nobody_else(database: Database, amqp_url: str) -> None:
    """Five of fifty take every call and answer none. How fast the others are is measured by `make bench`."""
    hung = {f"127.0.1.{number}" for number in range(1, 6)}
    async with http_sink(host="0.0.0.0") as sink, running_channels(database, amqp_url, only="webhook") as sending:  # noqa: S104
        sink.holds = lambda seen: seen.headers["host"].partition(":")[0] in hung
        sink.answering.clear()
        people = await add_endpoints(sending, sink.url, 50)
        ids = [await sending.deliver(*people, channel="webhook") for _ in range(4)]

        async def others_have_theirs() -> bool:
            rows = [row for each in ids for row in await sending.rows(each) if row.user_id in people[5:]]
            return len(rows) == 4 * 45 and all(row.status == "sent" for row in rows)

        await until(others_have_theirs, within_s=60)
        # While not one call of the others was answered: a call is given up after 10 s at the earliest.
        assert {seen.headers["host"].partition(":")[0] for seen in sink.seen if sink.holds(seen)} == hung
        assert sink.answered == 4 * 45
        sink.answering.set()


async def test_an_endpoint_that_is_down_is_left_alone_and_asked_again(database: Database, amqp_url: str) -> None:
    is_down = True
    async with (
        http_sink(lambda _: Reply(500 if is_down else 200)) as sink,
        running_channels(
            database,
            amqp_url,
            breaker_threshold=3,
            breaker_open_seconds=timedelta(seconds=1),
            retry_delays_seconds=(timedelta(seconds=0.3),) * 12,
            only="webhook",
        ) as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        ids = [await sending.deliver(user_id, channel="webhook") for _ in range(6)]
        worker = next(each for each in sending.parts.workers if each.channel.name == "webhook")
        await until(lambda: "opened" in worker.breakers.states().values())

        async def is_shown() -> bool:
            async with database.read() as connection:
                shown = await list_breakers(connection, now=datetime.now(UTC))
            return [(each.channel, each.state) for each in shown] == [("webhook", "opened")]

        # Also where everybody can see it, and of what it left alone.
        await until(is_shown)
        await until(lambda: is_left_alone(sending, ids))
        is_down = False
        for notification_id in ids:
            await sending.wait_for(notification_id, "sent")
        await until(lambda: not worker.breakers.not_closed(datetime.now(UTC)))

        async def is_gone() -> bool:
            async with database.read() as connection:
                return not await list_breakers(connection, now=datetime.now(UTC))

        await until(is_gone)


class Recheck:
    """A gate that changes its mind."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    async def check(self, connection: Any, wanted: Sequence[Pending], now: datetime) -> Sequence[Verdict]:  # noqa: ARG002
        return [self.verdict] * len(wanted)


@pytest.mark.req("F14")
async def test_a_preference_that_changed_since(database: Database, amqp_url: str) -> None:
    rules = [{"rule": "channel", "value": False, "source": "user"}]
    gate = Recheck(Verdict(DeliveryState.SUPPRESSED, Reason.CHANNEL_OFF, None, rules))
    async with http_sink() as sink, running_channels(database, amqp_url, gate=gate, only="webhook") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        (row,) = await sending.wait_for(await sending.deliver(user_id, channel="webhook"), "suppressed")
        assert (row.reason, row.rules, row.attempts) == (Reason.CHANNEL_OFF, rules, 0)
        later = datetime.now(UTC) + timedelta(hours=8)
        gate.verdict = Verdict(DeliveryState.PENDING, Reason.QUIET_HOURS, later)
        held = await sending.deliver(user_id, channel="webhook")
        await until(lambda: is_held(sending, held))
        (row,) = await sending.rows(held)
        assert (row.status, row.reason, row.not_before) == (DeliveryState.PENDING, Reason.QUIET_HOURS, later)
        gate.verdict = GO_ON
        async with database.write() as connection:
            earlier = {"not_before": datetime.now(UTC), "next_attempt_at": datetime.now(UTC)}
            await connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(**earlier))
        await sending.wait_for(held, "sent")
        assert len(sink.seen) == 1


@pytest.mark.req("F14")
async def test_an_address_that_is_gone_since(database: Database, amqp_url: str) -> None:
    async with http_sink() as sink:
        async with running_channels(database, amqp_url, start=False) as sending:
            people = [await sending.make_user() for _ in range(4)]
            ids = [await sending.add_contact(each, "webhook", sink.url, SECRET) for each in people]
            sent = [await sending.deliver(each, channel="webhook") for each in people]
        async with database.write() as connection:
            # There was no queue yet: the scheduler need not wait to try again.
            await connection.execute(update(deliveries).values(next_attempt_at=datetime.now(UTC)))
            await connection.execute(delete(contacts).where(contacts.c.id == ids[0]))
            await connection.execute(
                update(contacts).where(contacts.c.id == ids[1]).values(disabled_at=datetime.now(UTC))
            )
            await connection.execute(update(users).where(users.c.id == people[2]).values(is_active=False))
        async with running_channels(database, amqp_url, only="webhook") as sending:
            expected = [Reason.NO_ADDRESS, Reason.ADDRESS_DISABLED, Reason.RECIPIENT_INACTIVE]
            for notification_id, reason in zip(sent, expected, strict=False):
                (row,) = await sending.wait_for(notification_id, "suppressed")
                assert row.reason == reason
            await sending.wait_for(sent[3], "sent")
            assert len(sink.seen) == 1
            async with database.write() as connection:
                await connection.execute(
                    insert(suppressions).values(
                        tenant="default",
                        channel="webhook",
                        address_hash=hash_address("webhook", sink.url),
                        hint="",
                        reason="complaint",
                        created_at=datetime.now(UTC),
                    )
                )
            (row,) = await sending.wait_for(await sending.deliver(people[3], channel="webhook"), "suppressed")
            assert row.reason == Reason.ADDRESS_DISABLED


@pytest.mark.req("F03")
async def test_what_cannot_be_rendered_is_not_tried_again(database: Database, amqp_url: str) -> None:
    class Broken:
        async def render(self, wanted: Sequence[Pending]) -> Sequence[Rendered | Unrenderable]:
            return [Unrenderable(Reason.MISSING_VARIABLE, "data.order_id is missing")] * len(wanted)

    async with http_sink() as sink, running_channels(database, amqp_url, renderer=Broken(), only="webhook") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        (row,) = await sending.wait_for(await sending.deliver(user_id, channel="webhook"), "failed")
        assert (row.reason, row.error) == (Reason.MISSING_VARIABLE, "data.order_id is missing")
        assert sink.seen == []


@pytest.mark.req("F05")
@pytest.mark.req("F06")
@pytest.mark.req("F04")
async def test_what_text_can_do_to_a_mail(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        title = "Hello"

        async def render(self, wanted: Sequence[Pending]) -> Sequence[Rendered | Unrenderable]:
            body = 'Hi\r\n.\r\nMAIL FROM:<evil@example.org>\r\n<script>alert(1)</script><a href="javascript:x">'
            return [Rendered(self.title, body)] * len(wanted)

    renderer = Hostile()
    async with mail_sink() as sink:
        environment = {"NOTIFY_SMTP_URL": sink.url, "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>"}
        async with running_channels(
            database, amqp_url, monkeypatch, environment=environment, renderer=renderer, only="email"
        ) as sending:
            user_id = await sending.make_user(email="ada@example.org")
            actions = [{"id": "a", "label": "<b>go</b>", "url": "https://shop.example/?a=1&b=2"}]
            await sending.wait_for(await sending.deliver(user_id, channel="email", actions=actions), "sent")
            renderer.title = "Hello\r\nBcc: eve@example.org"
            (row,) = await sending.wait_for(await sending.deliver(user_id, channel="email"), "failed")
            assert row.reason == Reason.TEMPLATE_ERROR
            odd = await sending.make_user(email="ada@example.org,eve@example.org")
            (row,) = await sending.wait_for(await sending.deliver(odd, channel="email"), "failed")
            assert row.reason == Reason.TEMPLATE_ERROR
    (mail,) = sink.mails
    assert mail.rcpt_tos == ["ada@example.org"]
    assert isinstance(mail.content, bytes)
    html = mail.content.decode().rpartition("text/html")[2]
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "MAIL FROM" in html


@pytest.mark.req("I18")
async def test_nothing_is_lost_without_the_dead_letter_queue(database: Database, amqp_url: str) -> None:
    async with http_sink(lambda _: Reply(400)) as sink, running_channels(database, amqp_url, only="webhook") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        connection = await connect(amqp_url)
        channel = await connection.channel()
        await channel.queue_delete("notifications.dead")
        notification_id = await sending.deliver(user_id, channel="webhook")
        await sending.wait_for(notification_id, "failed")
        async with database.read() as read:
            (letter,) = (await read.execute(select(dead_letters))).all()
        assert (letter.reason, letter.message_id) == (Reason.PROVIDER_REJECTED, str(notification_id))
        await connection.close()


@pytest.mark.req("I18")
async def test_nothing_is_lost_when_the_queues_are_deleted(database: Database, amqp_url: str) -> None:
    """The table remembers what the broker forgot: the scheduler publishes it again."""
    is_down = True
    delays = (timedelta(seconds=1), timedelta(seconds=1))
    async with (
        http_sink(lambda _: Reply(503 if is_down else 200)) as sink,
        running_channels(database, amqp_url, retry_delays_seconds=delays, only="webhook") as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook")
        await until(lambda: has_attempts(sending, notification_id))
        connection = await connect(amqp_url)
        channel = await connection.channel()
        await channel.queue_delete("channel.webhook.retry.1000")
        await connection.close()
        is_down = False
        async with database.write() as write:
            # The scheduler would look after 16 s.
            await write.execute(update(deliveries).values(next_attempt_at=datetime.now(UTC)))
        (row,) = await sending.wait_for(notification_id, "sent")
        assert (row.attempts, len(sink.seen)) == (2, 2)


@pytest.mark.req("I19")
async def test_a_short_wait_is_not_held_behind_a_long_one(database: Database, amqp_url: str) -> None:
    """Deliveries at different steps at once: each comes back after its own step."""
    delays = (timedelta(seconds=3), timedelta(seconds=0.3))
    async with (
        http_sink(lambda _: Reply(503)) as sink,
        running_channels(database, amqp_url, retry_delays_seconds=delays, only="webhook") as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        first = await sending.deliver(user_id, channel="webhook")
        await until(lambda: has_attempts(sending, first))
        # Stands at the second step while the first one waits its three seconds.
        second = await sending.deliver(user_id, channel="webhook")
        await until(lambda: has_attempts(sending, second))
        (row,) = await sending.rows(second)
        started = time.monotonic()
        await sending.publisher.publish(make_message(KeptDelivery(row.id, user_id, "webhook"), attempt=2))
        (ended,) = await sending.wait_for(second, "failed")
        assert time.monotonic() - started < 1.5
        assert ended.attempts == 3
        (row,) = await sending.rows(first)
        assert row.settled_attempts == 1


@pytest.mark.req("F11")
async def test_a_given_up_delivery_is_replayed_once(database: Database, amqp_url: str) -> None:
    is_down = True
    async with (
        http_sink(lambda _: Reply(400 if is_down else 200)) as sink,
        running_channels(database, amqp_url, only="webhook") as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook")
        (row,) = await sending.wait_for(notification_id, "failed")
        is_down = False

        async def requeue() -> set[UUID]:
            async with database.write() as connection:
                return await requeue_deliveries(connection, [(user_id, row.id)], datetime.now(UTC))

        found = await asyncio.gather(requeue(), requeue(), requeue())
        assert sorted(map(len, found)) == [0, 0, 1]
        (again,) = await sending.wait_for(notification_id, "sent")
        assert (again.attempts, again.earlier_attempts, again.replays) == (1, 1, 1)
        assert len({seen.headers["x-herald-delivery"] for seen in sink.seen}) == 1
        assert [each.number for each in await sending.attempts(notification_id)] == [1, 2]


async def test_the_next_channel_takes_over(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_sink() as mails, http_sink(lambda _: Reply(410)) as sink:
        environment = {"NOTIFY_SMTP_URL": mails.url, "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>"}
        async with running_channels(
            database, amqp_url, monkeypatch, environment=environment, only="email slack webhook"
        ) as sending:
            user_id = await sending.make_user(email="ada@example.org")
            await sending.add_contact(user_id, "webhook", sink.url, SECRET)
            notification_id = await sending.deliver(user_id, channel="webhook", fallback=("slack", "email"))
            await until(lambda: has_rows(sending, notification_id, 3))
            rows = {row.channel: row for row in await sending.wait_for(notification_id, "sent", "failed", "suppressed")}
    assert (rows["webhook"].status, rows["slack"].reason, rows["email"].status) == (
        DeliveryState.FAILED,
        Reason.NO_ADDRESS,
        DeliveryState.SENT,
    )


async def test_the_second_smtp_server_takes_over(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mail_sink() as first, mail_sink() as second:
        first.refuse_recipient = lambda _: "451 try again later"
        environment = {
            "NOTIFY_SMTP_URL": first.url,
            "NOTIFY_SMTP_FALLBACK_URL": second.url,
            "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
        }
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="email") as sending:
            user_id = await sending.make_user(email="ada@example.org")
            notification_id = await sending.deliver(user_id, channel="email")
            await sending.wait_for(notification_id, "sent")
            outcomes = [(each.number, each.outcome) for each in await sending.attempts(notification_id)]
    assert outcomes == [(1, "temporary"), (1, "sent")]
    assert (len(first.mails), len(second.mails)) == (0, 1)


@pytest.mark.parametrize(
    ("refusal", "status", "reason"),
    [
        ("550 5.1.1 no such user", "failed", Reason.PROVIDER_REJECTED),
        ("552 5.2.2 mailbox full", "failed", Reason.PROVIDER_REJECTED),
        ("450 4.2.1 busy", "failed", Reason.ATTEMPTS_EXHAUSTED),
    ],
)
async def test_what_an_smtp_server_says(
    refusal: str, status: str, reason: Reason, database: Database, amqp_url: str, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mail_sink() as sink:
        sink.refuse_recipient = lambda _: refusal
        environment = {"NOTIFY_SMTP_URL": sink.url, "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>"}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="email") as sending:
            user_id = await sending.make_user(email="ada@example.org")
            (row,) = await sending.wait_for(await sending.deliver(user_id, channel="email"), status)
            assert row.reason == reason
            assert row.attempts == (3 if reason is Reason.ATTEMPTS_EXHAUSTED else 1)


async def test_a_rate_limit_spreads_deliveries(database: Database, amqp_url: str) -> None:
    async with (
        http_sink() as sink,
        running_channels(database, amqp_url, rate_limits="webhook=5/s", only="webhook") as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        ids = [await sending.deliver(user_id, channel="webhook") for _ in range(15)]
        for notification_id in ids:
            await sending.wait_for(notification_id, "sent")
        took = sink.seen[-1].at - sink.seen[0].at
        # Five at once, ten more at five a second: never faster, however slow this machine is.
        assert took >= 1.5, took


@pytest.mark.req("I03")
async def test_a_delivery_that_kills_its_workers_ends(database: Database, amqp_url: str) -> None:
    """The broker counts returns: after the limit a worker ends the delivery and writes a dead letter."""
    async with http_sink() as sink:
        async with running_channels(database, amqp_url, start=False) as sending:
            connection = await connect(amqp_url)
            channel = await connection.channel()
            user_id = await sending.make_user()
            await sending.add_contact(user_id, "webhook", sink.url, SECRET)
            async with running_channels(database, amqp_url, only="webhook"):
                pass  # declares the queues
            notification_id = await sending.deliver(user_id, channel="webhook")
            for _ in range(DELIVERY_LIMIT + 5):
                got = await channel.basic_get("channel.webhook", timeout=5)
                if got.delivery_tag is None:
                    break
                await channel.basic_reject(got.delivery_tag, requeue=True)
                await asyncio.sleep(0.05)
            await connection.close()
        async with running_channels(database, amqp_url, only="webhook") as sending:
            (row,) = await sending.wait_for(notification_id, "failed")
            assert row.reason == Reason.ATTEMPTS_EXHAUSTED
            assert sink.seen == []
