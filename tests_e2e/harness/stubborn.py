"""A backend that publishes until it has the confirm, and a device that comes back until it has everything."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Protocol

import aio_pika
import httpx
import websockets
from aiormq.exceptions import AMQPError

from harness.people import Person, Tenancy
from harness.sockets import Frame, Socket, connect
from harness.stack import Stack

_TRY_LIMIT_S = 10.0
# The close codes after which a device stays away: none of them may come while faults strike.
_TERMINAL = range(4500, 5000)


class Publisher(Protocol):
    """Whoever publishes."""

    tenancy: Tenancy

    async def publish(self, message_id: str, person: Person | None, title: str) -> None:
        """One notification, to everybody when `person` is None; returns once it is acknowledged."""

    async def close(self) -> None:
        """End."""


def _request(tenancy: Tenancy, person: Person | None, title: str) -> dict[str, object]:
    recipients: dict[str, object] = {"users": [person.id]} if person else {"all": True}
    return {"title": title, "body": "b", "recipients": recipients, "tenant": tenancy.slug}


class AmqpPublisher:
    """Publishes with confirms, and again with the same message id, whatever happens to the broker."""

    def __init__(self, stack: Stack, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self._stack = stack
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._channel: aio_pika.abc.AbstractChannel | None = None

    async def publish(self, message_id: str, person: Person | None, title: str) -> None:
        """See `Publisher`."""
        message = aio_pika.Message(
            json.dumps(_request(self.tenancy, person, title)).encode(),
            message_id=message_id,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            app_id="ledger",
        )
        exchange, key = ("notifications.direct", "private") if person else ("notifications.fanout", "")
        await self._publish(message, exchange, key)

    async def publish_poison(self) -> None:
        """Something nobody can read; returns once it is acknowledged."""
        await self._publish(aio_pika.Message(b"no JSON", message_id="poison"), "notifications.direct", "private")

    async def _publish(self, message: aio_pika.Message, exchange: str, key: str) -> None:
        while True:
            try:
                async with asyncio.timeout(_TRY_LIMIT_S):
                    channel = await self._open()
                    await (await channel.get_exchange(exchange, ensure=False)).publish(message, key)
            except (AMQPError, OSError, RuntimeError, TimeoutError, asyncio.CancelledError) as error:
                # aiormq cancels what waits for a confirm when its connection breaks.
                if isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                self._channel = None
                await asyncio.sleep(0.2)
            else:
                return

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> aio_pika.abc.AbstractChannel:
        if self._channel is None or self._connection is None or self._connection.is_closed:
            self._connection = await aio_pika.connect(self._stack.node.url, timeout=5)
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._channel


class RestPublisher:
    """Posts with an idempotency key, and again with the same one, to whichever process answers."""

    def __init__(self, stack: Stack, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self._stack = stack
        self._client = httpx.AsyncClient(trust_env=False, timeout=_TRY_LIMIT_S)
        self._node = 0

    async def publish(self, message_id: str, person: Person | None, title: str) -> None:
        """See `Publisher`."""
        body = _request(self.tenancy, person, title)
        headers = {"Authorization": f"Bearer {self.tenancy.service_token}", "Idempotency-Key": message_id}
        urls = self._stack.system.notify_urls
        while True:
            url = f"{urls[self._node % len(urls)]}/api/v1/notifications/send"
            try:
                answer = await self._client.post(url, json=body, headers=headers)
            except httpx.HTTPError:
                pass
            else:
                if answer.status_code == 202:
                    assert answer.json()["id"] == message_id
                    return
                # In flight on the process that died a moment ago, or a dependency is down: both ask for another try.
                assert answer.status_code in (409, 503), answer.text
            self._node += 1
            await asyncio.sleep(0.3)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class StubbornDevice:
    """Reconnects to any node, goes on from its position, acknowledges, and writes down what it gets.

    Attributes:
        seen: Copies by id, in the order of the first ones.
        titles: Of what it shows: everything but ids it has.
    """

    def __init__(self, stack: Stack, person: Person, device_id: str, *, first_node: int) -> None:
        self.person = person
        self.seen: Counter[str] = Counter()
        self.titles: list[str] = []
        self.order_faults: list[str] = []
        self.ready = asyncio.Event()
        self.reconnects = -1
        self._stack = stack
        self.name = f"{device_id} of {person.username}"
        self._device_id = device_id
        self._node = first_node
        self._position: str | None = None
        self._socket: Socket | None = None
        self._task = asyncio.create_task(self._run())

    def check_alive(self) -> None:
        """Fail if it was told to stay away."""
        if self._task.done():
            self._task.result()

    async def drop(self) -> None:
        """Lose the connection without a word; it comes back."""
        if self._socket is not None:
            await self._socket.drop()

    async def stop(self) -> None:
        """Disconnect."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            urls = self._stack.system.notify_urls
            try:
                socket = await connect(
                    urls[self._node % len(urls)],
                    self.person.access,
                    device_id=self._device_id,
                    position=self._position,
                )
            except (OSError, TimeoutError, websockets.WebSocketException):
                # Refused, full, or not there: any other node, after a random pause.
                pass
            else:
                self.reconnects += 1
                self._socket = socket
                try:
                    await self._follow(socket)
                finally:
                    await socket.drop()
            self._node += 1
            await asyncio.sleep(random.uniform(0.1, 1.0))

    async def _follow(self, socket: Socket) -> None:
        last_seq = 0
        while (frame := await self._next(socket)) is not None:
            if frame["type"] == "synced":
                self.ready.set()
            if frame["type"] != "notification":
                continue
            if "seq" in frame:
                if frame["seq"] <= last_seq and not frame["redelivered"]:
                    self.order_faults.append(f"{last_seq} then {frame['seq']}")
                last_seq = frame["seq"]
            if frame["id"] not in self.seen:
                self.titles.append(frame["title"])
            self.seen[frame["id"]] += 1
            self._position = frame["position"]

    async def _next(self, socket: Socket) -> Frame | None:
        try:
            return await socket.next(within_s=3600)
        except AssertionError:
            if socket.close_code in _TERMINAL:
                raise
            return None
