"""Worker processes killed between sending and settling, over every channel: at most one extra send, known by its id.

Each round is one process that has every channel's message out, and dies: in odd rounds the providers have taken the
messages and not answered yet, in even ones they have answered and nothing of it is written down, because the database
is locked. `make thorough` kills thirty.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psycopg
import pytest
from channel_kit import HttpSink, MailSink, Reply, Seen, Sending, http_sink, mail_sink, running_channels
from provider_kit import VAPID, Browser, make_account_key
from sqlalchemy import select, update
from waiting import until

from notification_service.channels.judge import IN_PROGRESS
from notification_service.channels.models import deliveries
from notification_service.db.engine import Database

pytestmark = [pytest.mark.req("F13"), pytest.mark.timeout(900)]

KNOWS_REPEATS = frozenset({"email", "webhook", "web_push", "push"})
"""Whoever gets these knows a repeat: by Message-ID, id, topic or tag."""
CHANNELS = (*sorted(KNOWS_REPEATS), "sms", "telegram", "slack", "teams", "discord", "apprise")
CHILD = Path(__file__).with_name("channel_child.py")
ROUNDS = 30 if os.environ.get("HERALD_THOROUGH") else 2


def answer(seen: Seen) -> Reply:
    if seen.path == "/token":
        return Reply(body=b'{"access_token":"ya29"}')
    if seen.path.startswith("/2010-04-01/"):
        return Reply(201, body=b'{"sid":"SM1"}')
    if seen.path.endswith("/sendMessage"):
        return Reply(body=b'{"ok":true,"result":{"message_id":7}}')
    return Reply(body=b'{"name":"projects/p/messages/1","id":"1"}')


class Counterparts:
    """Every provider, on loopback."""

    def __init__(self, web: HttpSink, mails: MailSink) -> None:
        self.web = web
        self.mails = mails

    def hold(self) -> None:
        self.web.answering.clear()
        self.mails.answering.clear()

    def let_go(self) -> None:
        self.web.answering.set()
        self.mails.answering.set()

    @property
    def answered(self) -> int:
        return self.web.answered + self.mails.answered

    def sends(self) -> list[tuple[str, str]]:
        """(channel, what the provider or recipient knows a message by) of everything that came."""
        found = [
            ("email", str(message_from_bytes(mail.content)["Message-ID"]))
            for mail in self.mails.mails
            if isinstance(mail.content, bytes)
        ]
        return found + [_identify(seen) for seen in self.web.seen if seen.path != "/token"]


def _identify(seen: Seen) -> tuple[str, str]:
    channel = seen.path.split("?")[0].split("/")[1]
    if channel == "web_push":
        return channel, seen.headers["topic"]
    if channel == "2010-04-01":
        return "sms", parse_qs(seen.body.decode())["Body"][0]
    body: Any = json.loads(seen.body)
    match channel:
        case "v1":
            return "push", body["message"]["android"]["notification"]["tag"]
        case "webhook":
            return channel, body["id"]
        case "slack":
            return channel, body["text"]
        case "teams":
            return channel, body["attachments"][0]["content"]["body"][0]["text"]
        case "discord":
            return channel, body["embeds"][0]["title"]
        case "apprise":
            return channel, body["message"]
        case _:
            return "telegram", body["text"]


def set_up(monkeypatch: pytest.MonkeyPatch, web: HttpSink, mails: MailSink, folder: Path) -> None:
    """Every channel's settings, for this process and those it starts."""
    account = folder / "fcm.json"
    found = {"project_id": "p", "client_email": "h@p.example", "private_key": make_account_key()}
    account.write_text(json.dumps({**found, "token_uri": f"{web.url}/token"}))
    for name, value in {
        "NOTIFY_SMTP_URL": mails.url,
        "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
        "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
        "NOTIFY_TWILIO_AUTH_TOKEN": "t0ken",
        "NOTIFY_TWILIO_FROM": "+15005550006",
        "NOTIFY_TWILIO_API_URL": web.url,
        "NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc",
        "NOTIFY_TELEGRAM_API_URL": web.url,
        "NOTIFY_FCM_CREDENTIALS_FILE": str(account),
        "NOTIFY_FCM_API_URL": web.url,
        **VAPID,
    }.items():
        monkeypatch.setenv(name, value)


async def add_contacts(sending: Sending, web: HttpSink) -> Any:
    user_id = await sending.make_user()
    addresses = {
        "email": ("ada@example.org", None),
        "sms": ("+4915112345678", None),
        "telegram": ("42", None),
        "push": ("a-registration-token", None),
        "webhook": (f"{web.url}/webhook", "a secret of the receiver"),
        "web_push": (f"{web.url}/web_push", Browser().keys),
        "apprise": (web.url.replace("http://", "json://") + "/apprise", None),
    }
    for channel in CHANNELS:
        address, secret = addresses.get(channel, (f"{web.url}/{channel}", None))
        await sending.add_contact(user_id, channel, address, secret)
    return user_id


@contextlib.asynccontextmanager
async def child(database_url: str, amqp_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        database_url,
        amqp_url,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHILD.parent.parent)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while b"ready" not in (line := await process.stdout.readline()):
                assert line, "the process ended before it was ready"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Nobody writes to the table of deliveries until the block ends."""
    if database_url.startswith("sqlite"):
        connection = sqlite3.connect(database_url.partition("///")[2], isolation_level=None, timeout=20)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()
        return
    with psycopg.connect(database_url.replace("postgresql+asyncpg://", "postgresql://")) as lock:
        lock.execute("LOCK TABLE deliveries IN EXCLUSIVE MODE")
        yield
        lock.rollback()


async def test_every_channel(
    database: Database,
    migrated_url: str,
    amqp_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with http_sink(answer) as web, mail_sink() as mails:
        set_up(monkeypatch, web, mails, tmp_path)
        web.holds = lambda seen: seen.path != "/token"
        others = Counterparts(web, mails)
        async with running_channels(database, amqp_url, start=False) as sending:
            user_id = await add_contacts(sending, web)
            for number in range(1, ROUNDS + 1):
                async with child(migrated_url, amqp_url) as process:
                    if number > 1:
                        await settle(sending, user_id)
                    others.hold()
                    await send_over_all(sending, user_id, number, others)
                    if number % 2:
                        process.kill()
                    else:
                        await kill_unwritten(process, migrated_url, others)
                others.let_go()
                await begin_long_ago(sending)
            async with child(migrated_url, amqp_url):
                await settle(sending, user_id)
    copies = Counter(others.sends())
    by_channel: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    for (channel, _), count in copies.items():
        by_channel[channel].append(count)
    for channel, counts in by_channel.items():
        # Every message once, with one and the same id; and once more where that does no harm.
        assert len(counts) == ROUNDS, (channel, counts)
        assert max(counts) <= (2 if channel in KNOWS_REPEATS else 1), (channel, counts)


async def send_over_all(sending: Sending, user_id: Any, number: int, others: Counterparts) -> None:
    """One message over each channel; returns when every provider has it, and has not answered."""
    before = Counter(channel for channel, _ in others.sends())
    for channel in CHANNELS:
        await sending.deliver(user_id, channel=channel, title=f"message {number}", body="")

    def missing() -> set[str]:
        now = Counter(channel for channel, _ in others.sends())
        return {channel for channel in CHANNELS if now[channel] <= before[channel]}

    deadline = time.monotonic() + 60
    while left := missing():
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)


async def kill_unwritten(process: asyncio.subprocess.Process, database_url: str, others: Counterparts) -> None:
    """Kill it when the providers have answered and the database does not take the outcomes."""
    answered = others.answered
    with locked(database_url):
        others.let_go()
        await until(lambda: others.answered >= answered + len(CHANNELS), within_s=30)
        # What was answered is read and being written: the lock holds it there, however long this takes.
        await asyncio.sleep(0.2)
        process.kill()
        await process.wait()


async def begin_long_ago(sending: Sending) -> None:
    """As if the killed attempts had begun before the time that every attempt has ended in."""
    async with sending.database.write() as connection:
        begun = sending.clock.now() - IN_PROGRESS - timedelta(seconds=1)
        await connection.execute(
            update(deliveries).where(deliveries.c.status == "queued").values(last_attempt_at=begun)
        )


async def settle(sending: Sending, user_id: Any) -> None:
    """Return when everything has ended: sent again where repeats are known, given up where they are not."""

    async def has_ended() -> bool:
        async with sending.database.read() as connection:
            rows = (await connection.execute(select(deliveries).where(deliveries.c.user_id == user_id))).all()
        waiting = [row for row in rows if row.status not in ("sent", "failed")]
        for row in rows:
            if row.status == "failed":
                assert (row.channel in KNOWS_REPEATS, row.reason) == (False, "provider_unavailable"), row
        return not waiting

    await until(has_ended, within_s=60)
