"""Providers report later what became of a delivery: only with their signature, and never backwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from channel_kit import HttpSink, MailSink, Reply, Sending, http_sink, mail_sink, running_channels
from fastapi import FastAPI
from sqlalchemy import select, update
from waiting import until
from web import serving

from notification_service.channels.http.client import HttpClient
from notification_service.channels.http.guard import Policy
from notification_service.channels.interface import Tools
from notification_service.channels.models import deliveries
from notification_service.channels.report_endpoints import make_report_router
from notification_service.channels.sms.channel import SmsChannel, sign_call
from notification_service.clock import SystemClock
from notification_service.contacts.models import contacts, suppressions
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.dead_letters.models import dead_letters
from notification_service.rest.problems import install_problem_handlers
from notification_service.settings import Settings

TOKEN = "t0ken"
PUBLIC = "https://herald.example"


class Twilio:
    """Calls back as Twilio does, at the address it was given."""

    def __init__(self, url: str, sink: HttpSink) -> None:
        self.url = url
        self.sink = sink
        self.token = TOKEN

    @property
    def callback(self) -> str:
        """What the last message was sent with."""
        found = httpx.QueryParams(self.sink.seen[-1].body.decode())["StatusCallback"]
        assert found.startswith(f"{PUBLIC}/api/v1/channels/sms/status?")
        return found

    async def report(self, status: str, callback: str, **fields: str) -> int:
        form = {"MessageSid": "SM42", "MessageStatus": status, "To": "+4915112345678", **fields}
        headers = {
            "X-Twilio-Signature": sign_call(self.token, callback, form),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                callback.replace(PUBLIC, self.url), content=urlencode(form).encode(), headers=headers
            )
        return answer.status_code


@pytest.fixture
async def mails() -> AsyncIterator[MailSink]:
    async with mail_sink() as sink:
        yield sink


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    async with http_sink(lambda _: Reply(201, body=b'{"sid":"SM42"}')) as running:
        yield running


@pytest.fixture
async def sending(
    database: Database, amqp_url: str, sink: HttpSink, mails: MailSink, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sending]:
    environment = {
        "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
        "NOTIFY_TWILIO_AUTH_TOKEN": TOKEN,
        "NOTIFY_TWILIO_FROM": "+15005550006",
        "NOTIFY_TWILIO_API_URL": sink.url,
        "NOTIFY_SMTP_URL": mails.url,
        "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
    }
    async with running_channels(
        database, amqp_url, monkeypatch, environment=environment, only="sms email", public_url=PUBLIC
    ) as running:
        yield running


@pytest.fixture
async def twilio(sending: Sending, sink: HttpSink) -> AsyncIterator[Twilio]:
    app = FastAPI()
    app.include_router(make_report_router(sending.parts.registry, PUBLIC, sending.parts.reporting))
    install_problem_handlers(app)
    async with serving(app) as url:
        yield Twilio(url, sink)


async def send(sending: Sending, **options: Any) -> AnyRow:
    user_id = await sending.make_user(phone="+4915112345678", email="ada@example.org")
    (row,) = await sending.wait_for(await sending.deliver(user_id, channel="sms", **options), "sent")
    return row


async def read(sending: Sending, row: AnyRow) -> AnyRow:
    (found,) = [each for each in await sending.rows(row.notification_id) if each.id == row.id]
    return found


async def test_delivered_and_nothing_older_after_it(sending: Sending, twilio: Twilio) -> None:
    row = await send(sending)
    callback = twilio.callback
    for status in ("sent", "delivered", "sent", "undelivered", "no such status"):
        assert await twilio.report(status, callback) == 204
    row = await read(sending, row)
    assert (row.status, row.reason, row.provider_message_id) == ("delivered", None, "SM42")
    assert row.delivered_at is not None


async def test_not_delivered(sending: Sending, twilio: Twilio, mails: MailSink) -> None:
    """It ends with a dead letter, the next channel takes over, and a number that is none is used no more."""
    row = await send(sending, fallback=("email",))
    assert await twilio.report("undelivered", twilio.callback, ErrorCode="30005") == 204
    row = await read(sending, row)
    assert (row.status, row.reason) == ("failed", "provider_rejected")
    assert "30005" in row.error
    await until(lambda: len(mails.mails) == 1)
    async with sending.database.read() as connection:
        (letter,) = (await connection.execute(select(dead_letters))).all()
        (suppressed,) = (await connection.execute(select(suppressions))).all()
    assert (letter.routing_key, letter.message_id) == ("channel.sms", str(row.notification_id))
    assert (suppressed.channel, suppressed.user_id, suppressed.hint) == ("sms", row.user_id, "…5678")
    again = await sending.deliver(row.user_id, channel="sms")
    (row,) = await sending.wait_for(again, "suppressed")
    assert row.reason == "address_disabled"


async def test_a_contact_is_disabled_by_a_report(sending: Sending, twilio: Twilio) -> None:
    user_id = await sending.make_user()
    await sending.add_contact(user_id, "sms", "+4915112345679")
    await sending.wait_for(await sending.deliver(user_id, channel="sms"), "sent")
    assert await twilio.report("failed", twilio.callback, ErrorCode="30006") == 204
    async with sending.database.read() as connection:
        (contact,) = (await connection.execute(select(contacts))).all()
    assert contact.disabled_at is not None


async def test_a_report_ends_what_nobody_knew(sending: Sending, sink: HttpSink, twilio: Twilio) -> None:
    """The answer was lost, and the delivery given up: the provider knows better."""
    sink.script = lambda _: Reply(500)
    user_id = await sending.make_user(phone="+4915112345678")
    (row,) = await sending.wait_for(await sending.deliver(user_id, channel="sms"), "failed")
    assert row.reason == "provider_unavailable"
    assert await twilio.report("delivered", twilio.callback) == 204
    row = await read(sending, row)
    assert (row.status, row.reason, row.provider_message_id) == ("delivered", None, "SM42")


async def test_a_report_that_is_faster_than_the_answer(sending: Sending, sink: HttpSink, twilio: Twilio) -> None:
    sink.answering.clear()
    user_id = await sending.make_user(phone="+4915112345678")
    notification_id = await sending.deliver(user_id, channel="sms")
    await until(lambda: len(sink.seen) == 1)
    assert await twilio.report("delivered", twilio.callback) == 204
    sink.answering.set()
    (row,) = await sending.wait_for(notification_id, "delivered")
    await until(lambda: sink.answered == 1)
    await sending.parts.workers[0].drain()
    assert (await read(sending, row)).status == "delivered"


async def test_what_is_not_the_providers(sending: Sending, twilio: Twilio) -> None:
    row = await send(sending)
    callback = twilio.callback
    twilio.token = "another"
    assert await twilio.report("delivered", callback) == 401
    twilio.token = TOKEN
    # Signed for another address, and for a channel whose provider does not report.
    other = callback.replace(str(row.id), str(row.user_id))
    async with httpx.AsyncClient(trust_env=False) as client:
        form = {"MessageSid": "SM42", "MessageStatus": "delivered"}
        headers = {"X-Twilio-Signature": sign_call(TOKEN, other, form)}
        answer = await client.post(callback.replace(PUBLIC, twilio.url), data=form, headers=headers)
        assert answer.status_code == 401
        for channel in ("email", "slack", "nothing"):
            url = f"{twilio.url}/api/v1/channels/{channel}/status"
            assert (await client.post(url, data=form)).status_code == 401
    assert await twilio.report("delivered", other) == 204  # of no delivery: nothing happens
    assert (await read(sending, row)).status == "sent"


async def test_a_replayed_delivery_is_not_ended_by_an_old_report(sending: Sending, twilio: Twilio) -> None:
    row = await send(sending)
    async with sending.database.write() as connection:
        values = {"status": "pending", "attempts": 0, "settled_attempts": 0, "next_attempt_at": None}
        await connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(**values))
    assert await twilio.report("undelivered", twilio.callback) == 204
    assert (await read(sending, row)).status == "pending"


def test_twilios_own_example_of_a_signature() -> None:
    """From its documentation: the signature of a call with these fields, by the token 12345."""
    form = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert sign_call("12345", url, form) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@pytest.mark.parametrize(
    ("public_url", "wanted", "expected"),
    [("http://127.0.0.1:8001", None, False), (PUBLIC, None, True), (PUBLIC, "0", False), ("http://x", "1", True)],
)
async def test_when_reports_are_asked_for(
    public_url: str,
    wanted: str | None,
    *,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if wanted is not None:
        monkeypatch.setenv("NOTIFY_TWILIO_STATUS_CALLBACKS", wanted)
    http = HttpClient(Policy())
    settings = Settings(_env_file=None, run_dir=tmp_path, public_url=public_url)
    assert SmsChannel(Tools(settings, http, SystemClock())).asks_for_reports is expected
    await http.close()
