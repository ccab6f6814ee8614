"""Outgoing channels of a whole installation: delivered, shown, and at most once more when a worker dies (F13)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from typing import Any

import aio_pika
import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from harness.broker import Backend
from harness.people import Person, Rest
from harness.rounds import rounds
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually
from notification_service.failpoints import VARIABLE as FAIL_POINT

pytestmark = pytest.mark.timeout(600)


class Mails:
    """An SMTP server that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[Envelope] = []
        self.port = 0

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.got.append(envelope)
        return "250 OK"

    def ids(self) -> list[str]:
        return [
            str(message_from_bytes(each.content)["Message-ID"]) for each in self.got if isinstance(each.content, bytes)
        ]


class Hooks:
    """An HTTP server that keeps the ids of what it gets."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                self.got.append(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def counterparts() -> Iterator[tuple[Mails, Hooks]]:
    """Both servers, in a thread with a loop of its own: they outlive the tests, each of which has its own loop."""
    mails, hooks = Mails(), Hooks()
    loop = asyncio.new_event_loop()

    async def serve() -> tuple[asyncio.AbstractServer, asyncio.AbstractServer]:
        smtp = await loop.create_server(lambda: SMTP(mails, hostname="sink.example"), "127.0.0.1", 0)
        http = await asyncio.start_server(hooks.serve, "127.0.0.1", 0)
        mails.port = smtp.sockets[0].getsockname()[1]
        hooks.port = http.sockets[0].getsockname()[1]
        return smtp, http

    async def leave() -> None:
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        servers = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
        yield mails, hooks
        for server in servers:
            loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(leave(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def settings_for(mails: Mails) -> dict[str, str]:
    return {
        "NOTIFY_SMTP_URL": f"smtp://127.0.0.1:{mails.port}",
        "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
        "NOTIFY_ALLOW_PRIVATE_TARGETS": "1",
        "NOTIFY_RETRY_DELAYS_SECONDS": "0.3,0.3",
    }


@dataclass
class Channels:
    """The shared installation with channels: one worker and one API that have them, in the place of its own workers."""

    mails: Mails
    hooks: Hooks
    worker: str
    api: str


@pytest.fixture(scope="module")
def running_channels(stack: Stack) -> Iterator[Channels]:
    with counterparts() as (mails, hooks):
        settings = settings_for(mails)
        names = [*stack.add("worker", 1, settings), *stack.add("api", 1, settings)]
        for name in stack.worker_names:
            if stack.is_running(name):
                stack.stop(name)
        stack.start(*names)
        try:
            yield Channels(mails, hooks, *names)
        finally:
            stack.remove(*names)
            stack.start(*stack.worker_names)


@pytest.fixture
def channels(running_channels: Channels) -> Channels:
    running_channels.mails.got.clear()
    running_channels.hooks.got.clear()
    return running_channels


async def add_webhook(stack: Stack, api: str, person: Person, hooks: Hooks) -> None:
    body = {"channel": "webhook", "address": f"http://127.0.0.1:{hooks.port}/hook", "secret": "a secret of the hook"}
    headers = {"Authorization": f"Bearer {person.access}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{stack.url_of(api)}/api/v1/contacts", headers=headers, json=body)
    assert answer.status_code == 201, answer.text


async def test_every_channel_in_status_and_deliveries(
    stack: Stack, rest: Rest, backend: Backend, channels: Channels
) -> None:
    (person,) = await rest.make_people(1)
    staff = await rest.log_in("admin")
    mails, hooks, api = channels.mails, channels.hooks, channels.api
    await add_webhook(stack, api, person, hooks)
    sent = await backend.send_to(person.id, "hello", channels=["in_app", "email", "webhook", "sms"])

    async def read() -> dict[str, str]:
        answer = await rest.notify("GET", f"/api/v1/deliveries?notification_id={sent}", token=staff.access)
        assert answer.status_code == 200, answer.text
        return {item["channel"]: item["status"] for item in answer.json()["items"]}

    found = await eventually(read, is_good=lambda states: states.get("email") == states.get("webhook") == "sent")
    assert found["sms"] == "suppressed"
    assert "in_app" in found
    status = (await rest.notify("GET", f"/api/v1/notifications/status/{sent}", token=staff.access)).json()
    assert status["counts_by_channel_and_state"]["email"] == {"sent": 1}
    assert {item["channel"] for item in status["deliveries"]["items"]} == {"in_app", "email", "webhook", "sms"}
    reasons = {item["channel"]: item["reason"] for item in status["deliveries"]["items"]}
    assert reasons["sms"] == "channel_not_configured"
    assert len(mails.got) == len(hooks.got) == 1
    assert hooks.got[0]["title"] == "hello"


@pytest.mark.req("F13")
@pytest.mark.parametrize(
    "channel",
    [
        pytest.param("email", marks=pytest.mark.only_on("sqlite")),
        pytest.param("webhook", marks=pytest.mark.only_on("postgresql")),
    ],
)
async def test_a_worker_killed_between_sending_and_settling(
    stack: Stack, rest: Rest, backend: Backend, channels: Channels, channel: str
) -> None:
    (person,) = await rest.make_people(1)
    staff = await rest.log_in("admin")
    mails, hooks, worker, api = channels.mails, channels.hooks, channels.worker, channels.api
    if channel == "webhook":
        await add_webhook(stack, api, person, hooks)
    sent = []
    for _ in range(rounds(30, 2)):
        await asyncio.to_thread(stack.restart, worker, settings={FAIL_POINT: "after_channel_send_before_ack"})
        sent.append(await backend.send_to(person.id, "hello", channels=[channel]))
        await asyncio.to_thread(stack.wait_for_end, worker, 30)
        await asyncio.to_thread(stack.start, worker)
        # Settled before the next one is killed: what is counted is one crash for each delivery.
        await eventually(
            lambda: _read_states(rest, staff, sent[-1]), is_good=lambda states: states == ["sent"], within_s=60
        )
    await asyncio.sleep(1)
    ids = mails.ids() if channel == "email" else [each["id"] for each in hooks.got]
    copies = Counter(ids)
    assert len(copies) == len(sent)
    assert max(copies.values()) <= 2, copies


async def _read_states(rest: Rest, staff: Person, notification_id: str) -> list[str]:
    path = f"/api/v1/deliveries?notification_id={notification_id}"
    answer = await rest.notify("GET", path, token=staff.access)
    return [item["status"] for item in answer.json()["items"]]


async def test_receipts_follow_a_notification(stack: Stack, rest: Rest, backend: Backend, channels: Channels) -> None:
    (person,) = await rest.make_people(1)
    seen: set[tuple[str, str, str | None]] = set()
    hooks, api = channels.hooks, channels.api
    async with await aio_pika.connect(stack.node.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for key in ("accepted", "delivered", "acked", "read", "failed", "dead_lettered"):
            await queue.bind("notifications.events", key)

        async def receive(message: Any) -> None:
            for item in json.loads(message.body)["items"]:
                seen.add((item["message_id"], message.routing_key, item["channel"]))

        await queue.consume(receive, no_ack=True)
        await add_webhook(stack, api, person, hooks)
        sent = await backend.send_to(person.id, "hello", channels=["in_app", "webhook"])

        async def read() -> set[tuple[str, str, str | None]]:
            return {each for each in seen if each[0] == sent}

        await eventually(
            read, is_good=lambda found: {(sent, "accepted", None), (sent, "delivered", "webhook")} <= found
        )
        async with connected(stack.system.notify_urls[0], person.access, ack_mode="auto") as device:
            await device.take(1)
            await eventually(read, is_good=lambda found: (sent, "acked", "in_app") in found)
        await rest.notify("PATCH", f"/api/v1/inbox/{sent}", token=person.access, json={"read": True})
        await eventually(read, is_good=lambda found: (sent, "read", "in_app") in found)
