"""Real counterparts on loopback, and the channels of one process around a real broker and database."""
# ruff: noqa: ARG002 - the SMTP server hands its callbacks more than they need

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import insert, select

from notification_service.broker.publisher import Publisher
from notification_service.channels.interface import Message
from notification_service.channels.keep import keep_deliveries
from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.channels.planned import KeptDelivery, PlannedDelivery
from notification_service.clock import SystemClock
from notification_service.contacts.addresses import hash_address
from notification_service.contacts.models import contacts
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.entrypoints.channel_parts import ChannelParts
from notification_service.errors import Unavailable
from notification_service.identity.mirror_rows import upsert_users
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.notifications.repository import Routed, upsert_routed
from notification_service.settings import Settings
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.requests import Kind, NotificationRequest, Recipients


@dataclass
class Seen:
    """One request an HTTP sink got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass
class Reply:
    """What a sink answers. `seconds` before it answers; `endless` and `drip` bodies never end."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    seconds: float = 0.0
    endless: bool = False
    drip: bool = False


Script = Callable[[Seen], Reply]


class HttpSink:
    """An HTTP/1.1 server that does what its script says, with connections kept open."""

    def __init__(self, script: Script | None = None, host: str = "127.0.0.1") -> None:
        self.script: Script = script or (lambda _: Reply())
        self.host = host
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.connections = 0
        self.answered = 0
        # Cleared: requests are taken, and answered when it is set again; those it does not hold, at once.
        self.answering = asyncio.Event()
        self.answering.set()
        self.holds: Callable[[Seen], bool] = lambda _: True
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    def begin_anew(self) -> None:
        """For the next test: as it was made."""
        self.script = lambda _: Reply()
        self.holds = lambda _: True
        self.seen.clear()
        self.answering.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, value in (line.split(":", 1) for line in lines if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(method, path, headers, body, time.monotonic())
                self.seen.append(seen)
                if self.holds(seen):
                    await self.answering.wait()
                await self._answer(self.script(seen), writer)
        writer.close()

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(reply.seconds)
        if reply.status == 204:  # has no body, and no length of one (RFC 9110, section 15.3.5)
            writer.write(b"HTTP/1.1 204 X\r\n\r\n")
            await writer.drain()
            self.answered += 1
            return
        length = 10**9 if reply.endless or reply.drip else len(reply.body)
        extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\nContent-Length: {length}\r\n{extra}\r\n".encode())
        while reply.endless or reply.drip:
            chunk = b"x" if reply.drip else b"x" * 4096
            writer.write(chunk)
            self.sent_bytes += len(chunk)
            await writer.drain()
            await asyncio.sleep(0.2 if reply.drip else 0)
        writer.write(reply.body)
        await writer.drain()
        self.answered += 1


@contextlib.asynccontextmanager
async def http_sink(script: Script | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[HttpSink]:
    sink = HttpSink(script, host)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


@dataclass
class MailSink:
    """An SMTP server that keeps what it gets, and refuses what it is told to."""

    mails: list[Envelope] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    refuse_recipient: Callable[[str], str | None] = lambda _: None
    refuse_data: Callable[[Envelope], str | None] = lambda _: None
    port: int = 0
    sessions: int = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    answered: int = 0
    takes_groups: bool = True
    """Whether it says that commands may come before the last one is answered (RFC 2920)."""

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.sessions += 1
        session.host_name = hostname
        return ["250-PIPELINING", *responses] if self.takes_groups else responses

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.refuse_recipient(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if refusal := self.refuse_data(envelope):
            return refusal
        self.mails.append(envelope)
        self.at.append(time.monotonic())
        await self.answering.wait()
        self.answered += 1
        return "250 OK"

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def to(self, address: str) -> list[bytes]:
        """The mails to this address."""
        return [mail.content for mail in self.mails if mail.rcpt_tos == [address] and isinstance(mail.content, bytes)]


@contextlib.asynccontextmanager
async def mail_sink(**options: Any) -> AsyncIterator[MailSink]:
    sink = MailSink()
    sink.answering.set()

    def make_session() -> SMTP:
        return SMTP(sink, hostname="sink.example", enable_SMTPUTF8=True, **options)

    server = await asyncio.get_running_loop().create_server(make_session, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()


class Sending:
    """The channels of one process, with everything real around them."""

    def __init__(self, database: Database, parts: ChannelParts, publisher: Publisher) -> None:
        self.database = database
        self.parts = parts
        self.publisher = publisher
        self.clock = SystemClock()

    async def make_user(self, **fields: Any) -> UUID:
        user_id = uuid4()
        values = {
            "username": user_id.hex,
            "tenant": "default",
            "created_at": self.clock.now(),
            "email_verified": True,
            "email": f"{user_id.hex[:12]}@example.org",
            "locale": "en",
        }
        async with self.database.write() as connection:
            await upsert_users(connection, [UserSnapshot(id=user_id, **{**values, **fields})])
        return user_id

    async def add_contact(
        self, user_id: UUID, channel: str, address: str, secret: str | None = None, **fields: Any
    ) -> UUID:
        contact_id = uuid4()
        box = self.parts.box
        async with self.database.write() as connection:
            await connection.execute(
                insert(contacts).values(
                    user_id=user_id,
                    id=contact_id,
                    tenant="default",
                    channel=channel,
                    address=box.seal(address),
                    address_hash=hash_address(channel, address),
                    hint=channel,
                    secret=box.seal(secret) if secret is not None else None,
                    label="",
                    created_at=self.clock.now(),
                    **fields,
                )
            )
        return contact_id

    async def deliver(self, *user_ids: UUID, channel: str, fallback: tuple[str, ...] = (), **fields: Any) -> UUID:
        """Store one notification with a delivery for each user, and publish; answers the notification's id."""
        request = NotificationRequest(
            **{
                "title": "Your order is on its way",
                "body": "Order 1042 left the warehouse.",
                "recipients": Recipients(users=tuple(str(each) for each in user_ids)),
                **fields,
            }
        )
        now = self.clock.now()
        notification = make_notification(
            request,
            notification_id=uuid4(),
            kind=Kind.PRIVATE,
            sender=Sender(None, "shop"),
            now=now,
            defaults=EventTypeDefaults(),
        )
        planned = [
            PlannedDelivery(
                notification_id=notification.id,
                user_id=each,
                tenant=request.tenant,
                sender=notification.sender.key,
                channel=channel,
                fallback=fallback,
            )
            for each in user_ids
        ]
        kept = await self._store(notification, planned)
        while kept is None:
            # SQLite has one writer, and no queue for it. The intake tries again too.
            await asyncio.sleep(0.05)
            kept = await self._store(notification, planned)
        await self.parts.queueing.publish(kept)
        return notification.id

    async def _store(self, notification: Notification, planned: list[PlannedDelivery]) -> list[KeptDelivery] | None:
        now = notification.created_at
        try:
            async with self.database.write() as connection:
                routed = [(notification, Routed(len(planned), []))]
                await upsert_routed(connection, routed, now=now, relay_after=now)
                return await keep_deliveries(connection, planned, now, reach=self.parts.reach)
        except Unavailable:
            return None

    async def rows(self, notification_id: UUID) -> list[AnyRow]:
        async with self.database.read() as connection:
            statement = select(deliveries).where(deliveries.c.notification_id == notification_id)
            return list((await connection.execute(statement.order_by(deliveries.c.created_at))).all())

    async def attempts(self, notification_id: UUID) -> list[AnyRow]:
        ids = [row.id for row in await self.rows(notification_id)]
        async with self.database.read() as connection:
            statement = select(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(ids))
            return list((await connection.execute(statement.order_by(delivery_attempts.c.started_at))).all())

    async def wait_for(self, notification_id: UUID, *statuses: str, within_s: float = 20) -> list[AnyRow]:
        """Return when every delivery of the notification has one of these states."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self.rows(notification_id)
            if rows and all(row.status in statuses for row in rows):
                return rows
            assert time.monotonic() < deadline, [(row.channel, row.status, row.reason, row.error) for row in rows]
            await asyncio.sleep(0.02)


DEFAULTS: dict[str, Any] = {
    "allow_private_targets": True,
    "retry_delays_seconds": (timedelta(seconds=0.2), timedelta(seconds=0.4)),
    "rate_limits": "",
}


@contextlib.asynccontextmanager
async def running_channels(
    database: Database,
    amqp_url: str,
    monkeypatch: pytest.MonkeyPatch | None = None,
    *,
    environment: dict[str, str] | None = None,
    renderer: Any = None,
    gate: Any = None,
    start: bool = True,
    only: str = "",
    **settings: Any,
) -> AsyncIterator[Sending]:
    """Channels that are running until the block ends.

    Args:
        environment: The channels' own settings.
        only: Channels this process sends over, with spaces between; left out: all. Each has five quorum queues, made
            anew for every test.
    """
    for name, value in (environment or {}).items():
        assert monkeypatch is not None
        monkeypatch.setenv(name, value)
    clock = SystemClock()
    publisher = Publisher(amqp_url, name="test", clock=clock)
    parts = ChannelParts(
        Settings(amqp_url=amqp_url, **{**DEFAULTS, **settings}),
        database=database,
        publisher=publisher,
        clock=clock,
        node_id="test",
        renderer=renderer,
        gate=gate,
    )
    if only:
        parts.workers = [each for each in parts.workers if each.channel.name in only.split()]
        assert {each.channel.name for each in parts.workers} == set(only.split()), "they are not all configured"
    publisher.start()
    sweeping: asyncio.Task[None] | None = None
    if start:
        parts.start()
        await parts.consumers.link.wait_ready(timedelta(seconds=15))
        sweeping = asyncio.create_task(parts.queueing.run())
    await publisher.link.wait_ready(timedelta(seconds=15))
    try:
        yield Sending(database, parts, publisher)
    finally:
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await parts.stop()
        await parts.receipts.stop()
        await parts.close()
        await publisher.close()


def make_message(**fields: Any) -> Message:
    """A message as channels get it."""
    values: dict[str, Any] = {
        "delivery_id": UUID("018f0000-0000-7000-8000-00000000dddd"),
        "notification_id": UUID("018f0000-0000-7000-8000-00000000aaaa"),
        "user_id": UUID("018f0000-0000-7000-8000-000000000001"),
        "tenant": "default",
        "event_type": "order.shipped",
        "title": "Your order is on its way",
        "body": "Order 1042 left the warehouse.",
        "html": None,
        "locale": "en",
        "data": {},
        "actions": [],
        "priority": "normal",
        "category": "orders",
        "tags": [],
        "collapse_key": None,
        "created_at": SystemClock().now(),
        "expires_at": None,
    }
    return Message(**{**values, **fields})
