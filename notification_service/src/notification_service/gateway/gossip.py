"""Nodes telling each other who is where, handing on frames, and passing on acknowledgements.

Everything here may be lost without harm: a frame that did not arrive leaves a hole in the numbers, which is filled from
the mailbox; an acknowledgement that did not arrive means that a frame is settled later.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from notification_service.background import keep_running, spawn
from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.gateway.whereabouts import Whereabouts
from notification_service.notifications.pages import FrameType
from shared_contracts import headers, topology

log = structlog.get_logger(__name__)

TYPE_GOSSIP: Final = "gossip"
TYPE_FORWARD: Final = "forward"
HEADER_USER: Final = "x-herald-user"
HEADER_FRAME: Final = "x-herald-frame"

# 20 ms: a thousand users who connect together are one message.
_FLUSH: Final = timedelta(milliseconds=20)
_BEAT: Final = timedelta(seconds=5)
SILENCE_S: Final = 16.0
"""Three beats and a second: then a node counts as gone."""

_CHUNK: Final = 1_000

_attempts = itertools.count()


class Gossip:
    """This node's part in the conversation."""

    def __init__(
        self,
        *,
        node_id: str,
        publisher: Publisher,
        clock: Clock,
        own_queue: Callable[[], str | None],
        local_users: Callable[[], Iterable[UUID]],
        find_top: Callable[[UUID], int],
        on_top: Callable[[UUID, int], None],
        on_acked: Callable[[UUID, int], None],
    ) -> None:
        self.node_id = node_id
        self.whereabouts = Whereabouts(SILENCE_S)
        self._publisher = publisher
        self._clock = clock
        self._own_queue = own_queue
        self._local_users = local_users
        self._find_top = find_top
        self._on_top = on_top
        self._on_acked = on_acked
        self._joined: set[UUID] = set()
        self._left: set[UUID] = set()
        self._acked: dict[str, dict[UUID, int]] = {}
        self._has_work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to talk."""
        self._tasks = [
            keep_running(self._flush_for_ever, name="gossip"),
            keep_running(self._beat_for_ever, name="gossip-beat"),
        ]

    async def stop(self) -> None:
        """Say goodbye."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._say(bye=True)

    # --- what this node tells -------------------------------------------------------------------------------------

    def on_connected(self) -> None:
        """This node's queue is new: the others do not know it, and what they said meanwhile was missed."""
        self._joined = set(self._local_users())
        self._left.clear()
        spawn(self._say(hello=True), name="gossip-hello")
        self._has_work.set()

    def join(self, user_id: UUID) -> None:
        """The user's first device connected here."""
        self._left.discard(user_id)
        self._joined.add(user_id)
        self._has_work.set()

    def leave(self, user_id: UUID) -> None:
        """The user's last device left here."""
        self._joined.discard(user_id)
        self._left.add(user_id)
        self._has_work.set()

    def acked(self, user_id: UUID, seq: int) -> None:
        """A device here acknowledged: whoever consumes the user's queue settles it."""
        for queue in self.whereabouts.queues_of(user_id):
            self._acked.setdefault(queue, {})[user_id] = seq
            self._has_work.set()

    def forward(self, user_id: UUID, seq: int, type_: FrameType, body: bytes) -> None:
        """Hand a frame of the user's stream to the other nodes the user is connected to."""
        for queue in self.whereabouts.queues_of(user_id):
            own_headers = {HEADER_USER: str(user_id), headers.SEQ: seq, HEADER_FRAME: str(type_)}
            spawn(self._send(queue, TYPE_FORWARD, body, own_headers), name="forward")

    # --- what others tell -----------------------------------------------------------------------------------------

    def on_message(self, message: Incoming) -> None:
        """A gossip message arrived."""
        said = orjson.loads(message.body)
        node_id, queue = said["node"], said["queue"]
        if node_id == self.node_id:
            return
        if said.get("bye"):
            self.whereabouts.forget(node_id)
            return
        is_new = self.whereabouts.hear(node_id, queue, self._clock.monotonic())
        joined = [UUID(each) for each in said.get("join", ())]
        self.whereabouts.join(node_id, joined)
        self.whereabouts.leave(node_id, (UUID(each) for each in said.get("leave", ())))
        if is_new or said.get("hello"):
            spawn(self._introduce(queue), name="gossip-introduce")
        self._hint_tops(queue, joined)
        for user_id, seq in said.get("tops", {}).items():
            self._on_top(UUID(user_id), seq)
        for user_id, seq in said.get("acked", {}).items():
            self._on_acked(UUID(user_id), seq)

    def _hint_tops(self, queue: str, joined: Iterable[UUID]) -> None:
        """Tell a node how far the streams of its new users are here: what came before it said so was not forwarded."""
        tops = {str(user_id): top for user_id in joined if (top := self._find_top(user_id))}
        if tops:
            spawn(self._say_to(queue, tops=tops), name="gossip-tops")

    async def _introduce(self, queue: str) -> None:
        users = [str(user_id) for user_id in self._local_users()]
        for start in range(0, len(users) or 1, _CHUNK):
            await self._say_to(queue, join=users[start : start + _CHUNK])

    # --- sending --------------------------------------------------------------------------------------------------

    async def _flush_for_ever(self) -> None:
        while True:
            await self._has_work.wait()
            await self._clock.sleep(_FLUSH)
            self._has_work.clear()
            await self._flush()

    async def _flush(self) -> None:
        joined, self._joined = sorted(map(str, self._joined)), set()
        left, self._left = sorted(map(str, self._left)), set()
        acked, self._acked = self._acked, {}
        for start in range(0, max(len(joined), len(left)), _CHUNK):
            await self._say(join=joined[start : start + _CHUNK], leave=left[start : start + _CHUNK])
        for queue, numbers in acked.items():
            await self._say_to(queue, acked={str(user_id): seq for user_id, seq in numbers.items()})

    async def _beat_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_BEAT)
            await self._say()
            for node_id in self.whereabouts.forget_silent(self._clock.monotonic()):
                log.warning("gateway_node_silent", node=node_id)

    async def _say(self, **what: Any) -> None:
        queue = self._own_queue()
        if queue is not None:
            body = orjson.dumps({"node": self.node_id, "queue": queue, **what})
            await self._publish(topology.GATEWAY_GOSSIP.name, "", TYPE_GOSSIP, body, {})

    async def _say_to(self, queue: str, **what: Any) -> None:
        own_queue = self._own_queue()
        if own_queue is not None:
            body = orjson.dumps({"node": self.node_id, "queue": own_queue, **what})
            await self._send(queue, TYPE_GOSSIP, body, {})

    async def _send(self, queue: str, type_: str, body: bytes, own_headers: dict[str, Any]) -> None:
        await self._publish("", queue, type_, body, own_headers)

    async def _publish(self, exchange: str, key: str, type_: str, body: bytes, own_headers: dict[str, Any]) -> None:
        await self._publisher.publish(
            Outgoing(
                exchange=exchange,
                routing_key=key,
                body=body,
                message_id=f"{self.node_id}.{next(_attempts)}",
                type=type_,
                headers=own_headers,
                persistent=False,
                mandatory=False,
            )
        )
