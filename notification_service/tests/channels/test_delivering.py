"""From the work queue to the provider and back, with a real broker, both databases, and real counterparts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from channel_kit import Reply, Seen, http_sink, mail_sink, running_channels

from notification_service.channels.webhook.signature import is_genuine
from notification_service.db.engine import Database
from shared_contracts.error_codes import Reason

SECRET = "a secret of the receiver"


@pytest.mark.req("F09")
async def test_a_signed_webhook(database: Database, amqp_url: str) -> None:
    async with http_sink() as sink, running_channels(database, amqp_url, only="webhook") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url + "/hook", SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook", data={"order_id": "1042"})
        (row,) = await sending.wait_for(notification_id, "sent")
        (seen,) = sink.seen
        assert is_genuine(seen.headers["x-herald-signature"], seen.body, SECRET, datetime.now(UTC))
        assert not is_genuine(seen.headers["x-herald-signature"], seen.body + b" ", SECRET, datetime.now(UTC))
        body = json.loads(seen.body)
        assert (body["id"], body["data"]) == (str(row.id), {"order_id": "1042"})
        assert (row.attempts, row.settled_attempts, row.next_attempt_at, row.error) == (1, 1, None, None)
        assert row.sent_at is not None
        (attempt,) = await sending.attempts(notification_id)
        assert (attempt.number, attempt.outcome, attempt.route) == (1, "sent", f"webhook:{sink.url[7:]}")


async def test_a_mail(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mail_sink() as sink:
        environment = {"NOTIFY_SMTP_URL": sink.url, "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>"}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="email") as sending:
            user_id = await sending.make_user(email="ada@example.org")
            notification_id = await sending.deliver(user_id, channel="email")
            (row,) = await sending.wait_for(notification_id, "sent")
        (mail,) = sink.mails
        assert mail.rcpt_tos == ["ada@example.org"]
        assert row.provider_message_id == f"<{row.id}@example.com>"
        assert isinstance(mail.content, bytes)
        assert row.provider_message_id.encode() in mail.content


@pytest.mark.req("F11")
@pytest.mark.req("I02")
@pytest.mark.req("I20")
async def test_the_ladder_then_a_dead_letter(database: Database, amqp_url: str) -> None:
    delays = (0.5, 1.0, 0.5, 0.5)
    async with (
        http_sink(lambda _: Reply(500)) as sink,
        running_channels(
            database, amqp_url, retry_delays_seconds=tuple(timedelta(seconds=each) for each in delays), only="webhook"
        ) as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook")
        (row,) = await sending.wait_for(notification_id, "failed")
        assert (row.reason, row.attempts) == (Reason.ATTEMPTS_EXHAUSTED, 5)
        gaps = [after.at - before.at for before, after in zip(sink.seen, sink.seen[1:], strict=False)]
        # Each step may take 10 % less; how much more is planned is tested without a clock: this machine may be busy.
        assert all(0.9 * delay <= gap for gap, delay in zip(gaps, delays, strict=True)), gaps
        # The same body every time: the receiver knows a repeat by its id.
        assert len({seen.body for seen in sink.seen}) == 1
        assert [each.outcome for each in await sending.attempts(notification_id)] == ["unknown"] * 5
        assert len(sink.seen) == 5


@pytest.mark.req("F10")
@pytest.mark.parametrize(
    ("status", "is_retried"),
    [
        *[(status, False) for status in (200, 204, 301, 400, 404, 410)],
        *[(status, True) for status in (408, 425, 429, 500, 502, 503)],
    ],
)
async def test_what_a_status_leads_to(status: int, is_retried: bool, database: Database, amqp_url: str) -> None:
    statuses = iter([status])

    def answer(_: Seen) -> Reply:
        return Reply(next(statuses, 200), headers={"Location": "http://127.0.0.1:1/"} if status == 301 else {})

    async with http_sink(answer) as sink, running_channels(database, amqp_url, only="webhook") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook")
        (row,) = await sending.wait_for(notification_id, "sent", "failed")
        assert len(sink.seen) == (2 if is_retried else 1)
        assert row.status == ("sent" if is_retried or status < 300 else "failed")
        if row.status == "failed":
            assert row.reason == Reason.PROVIDER_REJECTED
            again = await sending.deliver(user_id, channel="webhook")
            (row,) = await sending.wait_for(again, "sent", "suppressed")
            assert (row.status, row.reason) == (
                ("suppressed", Reason.ADDRESS_DISABLED) if status == 410 else ("sent", None)
            )


@pytest.mark.req("F10")
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(status: int, database: Database, amqp_url: str) -> None:
    replies = iter([Reply(status, {"Retry-After": "2"})])
    async with (
        http_sink(lambda _: next(replies, Reply())) as sink,
        running_channels(database, amqp_url, only="webhook") as sending,
    ):
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "webhook", sink.url, SECRET)
        notification_id = await sending.deliver(user_id, channel="webhook")
        await sending.wait_for(notification_id, "pending")
        (row,) = await sending.wait_for(notification_id, "sent")
        assert row.attempts == 2
        assert sink.seen[1].at - sink.seen[0].at >= 2.0
