"""Nodes telling each other who is where, handing on frames, passing on acknowledgements, asking each other.

Everything here may be lost without harm: a frame that did not arrive leaves a hole in the numbers, which is filled from
the mailbox; an acknowledgement that did not arrive means that a frame is settled later; who is where is told again by
whoever introduces itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from notification_service.background import end_tasks, keep_running, spawn
from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.notifications.pages import FrameType
from notification_service.presence.board import Attendance, Attendances, Board
from shared_contracts import headers, topology

log = structlog.get_logger(__name__)

TYPE_GOSSIP: Final = "gossip"
TYPE_FORWARD: Final = "forward"
HEADER_USER: Final = "x-herald-user"
HEADER_FRAME: Final = "x-herald-frame"
FRAME_LIVE: Final = "live"

# 20 ms: a thousand users who connect together are one message.
_FLUSH: Final = timedelta(milliseconds=20)
_BEAT: Final = timedelta(seconds=5)
SILENCE_S: Final = 16.0
"""Three beats and a second: then a node counts as gone."""

_CHUNK: Final = 1_000
_ANSWER_LIMIT_S: Final = 2.0

_attempts = itertools.count()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What this process does with what the others say. A process without sockets keeps the defaults.

    Attributes:
        own_queue: This process's queue; None while there is none.
        local_users: Users connected here.
        find_attendances: Their connections.
        find_top: How far a user's stream has come here; 0: not known.
        on_top, on_acked: Another node said how far it has come, or been acknowledged.
        on_device_acked: A device acknowledged over REST.
        on_moved: Another node said something about where these users are.
        answer: A question of another process.
    """

    own_queue: Callable[[], str | None]
    local_users: Callable[[], Iterable[UUID]] = tuple
    find_attendances: Callable[[UUID], Attendances] = lambda _user_id: ()
    find_top: Callable[[UUID], int] = lambda _user_id: 0
    on_top: Callable[[UUID, int], None] = lambda _user_id, _seq: None
    on_acked: Callable[[UUID, int], None] = lambda _user_id, _seq: None
    on_device_acked: Callable[[UUID, str, str], None] = lambda _user_id, _device_id, _position: None
    on_moved: Callable[[Iterable[UUID]], None] = lambda _user_ids: None
    on_lost: Callable[[Iterable[UUID]], None] = lambda _user_ids: None
    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _question: None


class Gossip:
    """This process's part in the conversation."""

    def __init__(
        self, *, node_id: str, publisher: Publisher, clock: Clock, board: Board, has_sockets: bool, hooks: Hooks
    ) -> None:
        self.node_id = node_id
        self.board = board
        self._publisher = publisher
        self._clock = clock
        self._has_sockets = has_sockets
        self._hooks = hooks
        self._moved: set[UUID] = set()
        self._acked: dict[str, dict[UUID, int]] = {}
        self._has_work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._questions: dict[int, _Question] = {}

    def start(self) -> None:
        """Begin to talk."""
        self._tasks = [
            keep_running(self._flush_for_ever, name="gossip"),
            keep_running(self._beat_for_ever, name="gossip-beat"),
        ]

    async def stop(self) -> None:
        """Say goodbye."""
        await end_tasks(*self._tasks)
        await self._say(bye=True)

    # --- what this process tells ----------------------------------------------------------------------------------

    def on_connected(self) -> None:
        """This process's queue is new: the others do not know it, and what they said meanwhile was missed."""
        self._moved = set(self._hooks.local_users())
        spawn(self._say(hello=True), name="gossip-hello")
        self._has_work.set()

    def move(self, user_id: UUID) -> None:
        """The user's connections here changed: one came, went, or says something else of itself."""
        attendances = self._hooks.find_attendances(user_id)
        self.board.put(self.node_id, user_id, attendances, now=self._clock.monotonic(), moment=self._clock.now())
        self._moved.add(user_id)
        self._has_work.set()

    def acked(self, user_id: UUID, seq: int) -> None:
        """A device here acknowledged: whoever consumes the user's queue settles it."""
        for queue in self.board.queues_of(user_id):
            numbers = self._acked.setdefault(queue, {})
            # Several devices acknowledge within one turn: the furthest counts.
            numbers[user_id] = max(seq, numbers.get(user_id, 0))
            self._has_work.set()

    def forward(self, user_id: UUID, seq: int, type_: FrameType, body: bytes) -> None:
        """Hand a frame of the user's stream to the other nodes the user is connected to."""
        for queue in self.board.queues_of(user_id):
            own_headers = {HEADER_USER: str(user_id), headers.SEQ: seq, HEADER_FRAME: str(type_)}
            spawn(self._send(queue, TYPE_FORWARD, body, own_headers), name="forward")

    def forward_live(self, user_id: UUID, text: bytes) -> None:
        """The same with a ready frame that belongs to no stream."""
        for queue in self.board.queues_of(user_id):
            own_headers = {HEADER_USER: str(user_id), HEADER_FRAME: FRAME_LIVE}
            spawn(self._send(queue, TYPE_FORWARD, text, own_headers), name="forward")

    def tell_device_acked(self, user_id: UUID, device_id: str, position: str) -> None:
        """A device acknowledged over REST: tell the nodes it may be connected to."""
        for queue in self.board.queues_of(user_id):
            said = {"device_acked": [str(user_id), device_id, position]}
            spawn(self._say_to(queue, **said), name="gossip-device-acked")

    async def ask(self, question: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        """Ask every node with sockets; answers what they said within 2 s, and how many did not."""
        expected = len(self.board.socket_queues)
        answers = [own] if (own := self._hooks.answer(question)) is not None else []
        if not expected:
            return answers, 0
        number = next(_attempts)
        waiting = self._questions[number] = _Question(expected)
        try:
            await self._say(ask={"number": number, **question})
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                await waiting.is_complete.wait()
        except TimeoutError:
            log.warning("nodes_did_not_answer", missing=expected - len(waiting.answers))
        finally:
            del self._questions[number]
        return [*answers, *waiting.answers], max(0, expected - len(waiting.answers))

    # --- what others tell -----------------------------------------------------------------------------------------

    def on_message(self, message: Incoming) -> None:
        """A gossip message arrived."""
        said = orjson.loads(message.body)
        node_id, queue = said["node"], said["queue"]
        if node_id == self.node_id:
            return
        now, moment = self._clock.monotonic(), self._clock.now()
        if said.get("bye"):
            self.board.forget(node_id, now=now, moment=moment)
            return
        is_new = self.board.hear(node_id, queue, has_sockets=said.get("sockets", True), now=now, moment=moment)
        moved: dict[str, list[list[Any]]] = said.get("users", {})
        here = []
        for user, connections in moved.items():
            user_id = UUID(user)
            here += [user_id] if connections else []
            self.board.put(node_id, user_id, _read_attendances(connections), now=now, moment=moment)
        if is_new or said.get("hello"):
            spawn(self._introduce(queue), name="gossip-introduce")
        self._hint_tops(queue, here)
        self._hooks.on_moved(here)
        self._on_rest(said, queue)

    def _on_rest(self, said: dict[str, Any], queue: str) -> None:
        for user_id, seq in said.get("tops", {}).items():
            self._hooks.on_top(UUID(user_id), seq)
        for user_id, seq in said.get("acked", {}).items():
            self._hooks.on_acked(UUID(user_id), seq)
        if (device_acked := said.get("device_acked")) is not None:
            user_id, device_id, position = device_acked
            self._hooks.on_device_acked(UUID(user_id), device_id, position)
        if (question := said.get("ask")) is not None and self._has_sockets:
            answer = {"number": question["number"], "said": self._hooks.answer(question)}
            spawn(self._say_to(queue, answer=answer), name="gossip-answer")
        if (answered := said.get("answer")) is not None:
            waiting = self._questions.get(answered["number"])
            if waiting is not None:
                waiting.take(answered["said"])

    def _hint_tops(self, queue: str, joined: Iterable[UUID]) -> None:
        """Tell a node how far the streams of its users are here: what came before it said so was not forwarded."""
        tops = {str(user_id): top for user_id in joined if (top := self._hooks.find_top(user_id))}
        if tops:
            spawn(self._say_to(queue, tops=tops), name="gossip-tops")

    async def _introduce(self, queue: str) -> None:
        users = list(self._hooks.local_users())
        for start in range(0, len(users) or 1, _CHUNK):
            await self._say_to(queue, users=self._describe(users[start : start + _CHUNK]))

    # --- sending --------------------------------------------------------------------------------------------------

    async def _flush_for_ever(self) -> None:
        while True:
            await self._has_work.wait()
            await self._clock.sleep(_FLUSH)
            self._has_work.clear()
            await self._flush()

    async def _flush(self) -> None:
        moved, self._moved = list(self._moved), set()
        acked, self._acked = self._acked, {}
        for start in range(0, len(moved), _CHUNK):
            await self._say(users=self._describe(moved[start : start + _CHUNK]))
        for queue, numbers in acked.items():
            await self._say_to(queue, acked={str(user_id): seq for user_id, seq in numbers.items()})

    def _describe(self, user_ids: Iterable[UUID]) -> dict[str, list[list[Any]]]:
        return {
            str(user_id): [
                [str(each.connection_id), each.device_id, int(each.is_away)]
                for each in self._hooks.find_attendances(user_id)
            ]
            for user_id in user_ids
        }

    async def _beat_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_BEAT)
            await self._say()
            now = self._clock.monotonic()
            for node_id in self.board.find_silent(now):
                log.warning("gateway_node_silent", node=node_id)
                lost = self.board.forget(node_id, now=now, moment=self._clock.now())
                # One of the others writes down for it when its users were last seen: the one with the smallest name.
                others = [name for name, peer in self.board.peers.items() if peer.has_sockets]
                if self._has_sockets and self.node_id <= min(others, default=self.node_id):
                    self._hooks.on_lost(lost)

    async def _say(self, **what: Any) -> None:
        queue = self._own_queue()
        if queue is not None:
            await self._publish(topology.GATEWAY_GOSSIP.name, "", TYPE_GOSSIP, self._encode(queue, what), {})

    async def _say_to(self, queue: str, **what: Any) -> None:
        own_queue = self._own_queue()
        if own_queue is not None:
            await self._send(queue, TYPE_GOSSIP, self._encode(own_queue, what), {})

    def _own_queue(self) -> str | None:
        return self._hooks.own_queue()

    def _encode(self, queue: str, what: dict[str, Any]) -> bytes:
        return orjson.dumps({"node": self.node_id, "queue": queue, "sockets": self._has_sockets, **what})

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


class _Question:
    def __init__(self, expected: int) -> None:
        self._expected = expected
        self.answers: list[dict[str, Any]] = []
        self.is_complete = asyncio.Event()

    def take(self, said: dict[str, Any] | None) -> None:
        self.answers.append(said or {})
        if len(self.answers) >= self._expected:
            self.is_complete.set()


def _read_attendances(connections: list[list[Any]]) -> Attendances:
    return tuple(
        Attendance(UUID(connection_id), device_id, bool(is_away)) for connection_id, device_id, is_away in connections
    )
