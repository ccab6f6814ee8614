"""What the load can be asked to do: hold sockets, publish, and say when everything has arrived."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlsplit

from benchmarks.compare import clients
from benchmarks.load import amqp, websocket
from benchmarks.load.bodies import broadcast_body, make_body, private_message
from benchmarks.load.results import Connected, Flow, percentiles
from benchmarks.people import Person

_ID = b'"id":"'
_ARRIVAL_LIMIT_S = 60.0
_MAX_ATTEMPTS = 5


class Agent:
    """See the module; one per load process."""

    def __init__(self, gateway_url: str, amqp_url: str) -> None:
        self._gateway_url = gateway_url
        self._amqp_url = amqp_url
        self._publisher: amqp.Publisher | None = None
        self._publish_private: Callable[[str, int], object] = self._publish_to_herald
        self._publish_broadcast: Callable[[int], object] = self._broadcast_by_herald
        self._sockets: list[websocket.Socket] = []
        self._others: list[clients.Device] = []
        self._user_ids: list[str] = []
        self._received = 0
        self._latencies_ns: list[int] = []
        self._wanted = 0
        self._seen: set[tuple[str, bytes]] = set()
        self._arrived = asyncio.Event()

    # --- sockets --------------------------------------------------------------------------------------------------

    async def open(self, people: Sequence[Person], *, ack_every: int, at_once: int, wanted: int = 0) -> Connected:
        """Connect everybody, `at_once` at a time; answers once all are caught up.

        Args:
            wanted: Notifications that wait for each; the answer comes when all of them are here.
        """
        room = asyncio.Semaphore(at_once)
        first = len(self._sockets)
        self._begin(wanted * len(people))
        self._seen.clear()

        refusals: Counter[str] = Counter()

        async def open_one(person: Person) -> bool:
            async with room:
                for attempt in range(_MAX_ATTEMPTS):
                    await asyncio.sleep(attempt * random.uniform(0.1, 1.0))
                    try:
                        socket = await websocket.connect(
                            self._gateway_url,
                            person.token,
                            device_id=person.id[-12:],
                            ack_every=ack_every,
                            on_notification=partial(self._on_waiting, person.id) if wanted else self._on_notification,
                        )
                    except OSError as error:
                        refusals[str(error)] += 1
                    else:
                        self._sockets.append(socket)
                        return True
                return False

        started = asyncio.get_running_loop().time()
        opened = sum(await asyncio.gather(*(open_one(person) for person in people)))
        await self._wait_for_arrivals()
        elapsed = asyncio.get_running_loop().time() - started
        self._user_ids += [person.id for person in people]
        took = [(socket.synced_at or started) - started for socket in self._sockets[first:]]
        return Connected(
            opened,
            len(people) - opened,
            dict(refusals),
            elapsed,
            self._received,
            percentiles([each * 1e9 for each in took]),
        )

    async def close_all(self) -> None:
        """Disconnect everybody."""
        for socket in self._sockets:
            socket.close()
        for device in self._others:
            device.close()
        self._sockets.clear()
        self._others.clear()
        self._user_ids.clear()
        self._publish_private = self._publish_to_herald
        self._publish_broadcast = self._broadcast_by_herald
        await asyncio.sleep(0.1)

    async def count_open(self) -> int:
        """Sockets that are still connected."""
        return sum(socket.closed is None for socket in self._sockets)

    async def open_others(self, *, kind: str, url: str, publish_url: str, user_ids: Sequence[str]) -> None:
        """Connect to another system, and publish to it from now on, until `close_all`."""
        room = asyncio.Semaphore(32)

        async def open_one(user_id: str) -> clients.Device:
            async with room:
                return await clients.connect(kind, url, user_id, self._on_payload)

        self._others = list(await asyncio.gather(*(open_one(user_id) for user_id in user_ids)))
        self._user_ids = list(user_ids)
        address = urlsplit(publish_url)
        if address.scheme == "amqp":
            publisher = await amqp.connect(publish_url)
            self._publish_private = lambda user_id, sent_ns: publisher.publish(
                "amq.topic", f"user.{user_id}", make_body([user_id], sent_ns)
            )
        else:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            self._publish_private = lambda user_id, sent_ns: writer.write(
                b"%b %b\n" % (user_id.encode(), make_body([user_id], sent_ns))
            )
            # To where lines go to everybody; as long as Herald's frame, whose position and ids it does not have.
            self._publish_broadcast = lambda sent_ns: writer.write(
                broadcast_body(sent_ns)[:-1].replace(b'"title"', b'"x":"%b","title"' % (b"x" * 397)) + b"}\n"
            )

    # --- publishing -----------------------------------------------------------------------------------------------

    async def publish_all(self, bodies: Sequence[bytes]) -> None:
        """Publish request bodies to `private`; returns when all are confirmed."""
        publisher = await self._connect()
        for body in bodies:
            publisher.publish("notifications.direct", "private", body)
        while publisher.unconfirmed:  # noqa: ASYNC110 - an event would cost the fast path more than it is worth here
            await asyncio.sleep(0.01)

    async def flow_private(self, *, in_flight: int, seconds: float) -> Flow:
        """Publish private messages to connected users, always `in_flight` on their way, for so long."""
        if not self._others:
            await self._connect()
        chosen = random.Random(1)
        self._begin()
        started = time.monotonic()
        sent = 0
        while time.monotonic() < started + seconds:
            for _ in range(in_flight - (sent - self._received)):
                self._publish_private(chosen.choice(self._user_ids), time.monotonic_ns())
                sent += 1
            await asyncio.sleep(0.001)
        return await self._finish(sent, sent, started)

    async def pace_private(self, *, per_s: float, seconds: float) -> Flow:
        """Publish private messages to connected users at a steady rate, whatever the system does."""
        if not self._others:
            await self._connect()
        chosen = random.Random(2)
        self._begin()
        started_ns = time.monotonic_ns()
        sent = 0
        gap_ns = int(1e9 / per_s)
        while sent < per_s * seconds:
            while (due_ns := started_ns + sent * gap_ns) <= time.monotonic_ns() and sent < per_s * seconds:
                self._publish_private(chosen.choice(self._user_ids), due_ns)
                sent += 1
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        return await self._finish(sent, sent, started_ns / 1e9)

    async def flow_broadcasts(self, *, in_flight: int, count: int) -> Flow:
        """Publish broadcasts, always `in_flight` on their way to everybody."""
        everybody = await self._begin_broadcasts()
        self._begin()
        started = time.monotonic()
        sent = 0
        while sent < count:
            if (sent - self._received // everybody) < in_flight:
                self._publish_broadcast(time.monotonic_ns())
                sent += 1
            else:
                await asyncio.sleep(0.001)
        return await self._finish(sent, sent * everybody, started)

    async def pace_broadcasts(self, *, per_s: float, count: int) -> Flow:
        """Publish broadcasts at a steady rate; latency is until the last socket has each."""
        everybody = await self._begin_broadcasts()
        last_ns: list[int] = []
        started = time.monotonic()
        sent = 0
        while sent < count:
            await asyncio.sleep(max(0.0, started + sent / per_s - time.monotonic()))
            self._begin(everybody)
            self._publish_broadcast(time.monotonic_ns())
            await self._wait_for_arrivals()
            last_ns.append(max(self._latencies_ns, default=0))
            sent += 1
        return Flow(sent, sent * self._received, time.monotonic() - started, percentiles(last_ns))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _begin(self, wanted: int = 1 << 62) -> None:
        self._received = 0
        self._wanted = wanted
        self._latencies_ns = []
        self._arrived.clear()
        gc.collect()
        gc.freeze()

    async def _begin_broadcasts(self) -> int:
        """How many sockets there are to reach."""
        if not self._others:
            await self._connect()
        return len(self._others or self._sockets)

    def _broadcast_by_herald(self, sent_ns: int) -> None:
        assert self._publisher is not None
        self._publisher.publish("notifications.fanout", "", broadcast_body(sent_ns))

    def _publish_to_herald(self, user_id: str, sent_ns: int) -> None:
        assert self._publisher is not None
        self._publisher.publish(*private_message(user_id, sent_ns))

    def _on_notification(self, _socket: websocket.Socket, payload: bytes) -> None:
        self._on_payload(payload)

    def _on_payload(self, payload: bytes) -> None:
        self._received += 1
        at = payload.find(b'"sent_ns":')
        if at >= 0:
            self._latencies_ns.append(time.monotonic_ns() - int(payload[at + 10 : payload.index(b"}", at)]))
        if self._received >= self._wanted:
            self._arrived.set()

    def _on_waiting(self, user_id: str, _socket: websocket.Socket, payload: bytes) -> None:
        # By user and id: one that comes again, after an attempt that failed, counts once.
        at = payload.index(_ID) + len(_ID)
        self._seen.add((user_id, payload[at : at + 36]))
        self._received = len(self._seen)
        if self._received >= self._wanted:
            self._arrived.set()

    async def _finish(self, sent: int, wanted: int, started: float) -> Flow:
        self._wanted = wanted
        await self._wait_for_arrivals()
        return Flow(sent, self._received, time.monotonic() - started, percentiles(self._latencies_ns))

    async def _wait_for_arrivals(self) -> None:
        if self._received >= self._wanted:
            return
        try:
            await asyncio.wait_for(self._arrived.wait(), _ARRIVAL_LIMIT_S)
        except TimeoutError:
            raise RuntimeError(f"{self._received} of {self._wanted} arrived within {_ARRIVAL_LIMIT_S} s") from None

    async def _connect(self) -> amqp.Publisher:
        if self._publisher is None:
            self._publisher = await amqp.connect(self._amqp_url)
        return self._publisher
