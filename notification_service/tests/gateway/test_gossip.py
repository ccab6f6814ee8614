"""Several nodes talking: who is where, snapshots, death, forwarding, acknowledgements, questions.

The exchange and the queues between them are played; what is said is the bytes that would cross RabbitMQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import pytest
from builders import OTHER, USER
from clocks import SetClock
from waiting import until

from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.gateway.gossip import (
    FRAME_LIVE,
    HEADER_FRAME,
    HEADER_USER,
    SILENCE_S,
    TYPE_FORWARD,
    Gossip,
    Hooks,
)
from notification_service.notifications.pages import FrameType
from notification_service.presence.board import Attendance, Attendances, Board
from shared_contracts import headers
from shared_contracts.ws.frames import PresenceStatus


class Wires:
    """One fanout exchange, and a queue for each process. What a dead process is sent is dropped."""

    def __init__(self) -> None:
        self.clock = SetClock(pace=0.01)
        self.nodes: dict[str, Node] = {}
        self.lost: set[str] = set()

    async def publish(self, message: Outgoing) -> Outcome:
        targets = list(self.nodes.values()) if message.exchange else [self.nodes.get(message.routing_key)]
        for node in targets:
            if node is not None and message.type not in self.lost:
                node.receive(message)
        return Outcome.OK


class Node:
    """A gateway node as far as gossip knows it."""

    def __init__(self, wires: Wires, name: str, *, has_sockets: bool = True) -> None:
        self.name, self._wires = name, wires
        self.queue = f"node.{name}.1"
        self.here: dict[UUID, Attendances] = {}
        self.tops: dict[UUID, int] = {}
        self.said: list[tuple[str, object]] = []
        self.forwarded: list[tuple[UUID, dict[str, Any], bytes]] = []
        self.board = Board(silence_s=SILENCE_S, grace_s=10.0)
        self.gossip = Gossip(
            node_id=name,
            publisher=cast("Publisher", wires),
            clock=wires.clock,
            board=self.board,
            has_sockets=has_sockets,
            hooks=Hooks(
                own_queue=lambda: self.queue,
                local_users=lambda: self.here,
                find_attendances=lambda user_id: self.here.get(user_id, ()),
                find_top=lambda user_id: self.tops.get(user_id, 0),
                on_top=lambda user_id, seq: self.said.append(("top", (user_id, seq))),
                on_acked=lambda user_id, seq: self.said.append(("acked", (user_id, seq))),
                on_device_acked=lambda *given: self.said.append(("device", given)),
                on_lost=self._note_lost,
                answer=lambda question: {"node": name, "asked": question["what"]} if has_sockets else None,
            ),
        )

    def _note_lost(self, user_ids: Iterable[UUID]) -> None:
        self.said.append(("lost", set(user_ids)))

    def receive(self, message: Outgoing) -> None:
        if message.type == TYPE_FORWARD:
            self.forwarded.append((UUID(message.headers[HEADER_USER]), dict(message.headers), message.body))
            return
        self.gossip.on_message(
            Incoming(
                body=message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                message_id=message.message_id,
                content_type=None,
                app_id=None,
                type=message.type,
                headers={},
                is_redelivered=False,
                delivery_tag=1,
            )
        )

    def come(self, user_id: UUID, *numbers: int, is_away: bool = False) -> None:
        """These are the user's connections here; none: the last one went."""
        self.here[user_id] = tuple(Attendance(UUID(int=number), f"d{number}", is_away) for number in numbers)
        if not numbers:
            del self.here[user_id]
        self.gossip.move(user_id)

    def sees(self, user_id: UUID) -> set[str]:
        """Connections anywhere, by device."""
        return {attendance.device_id for _, attendance in self.board.find(user_id)}


@asynccontextmanager
async def talking(wires: Wires, *names: str, **options: bool) -> AsyncIterator[list[Node]]:
    nodes = []
    for name in names:
        node = Node(wires, name, **options)
        wires.nodes[node.queue] = node
        node.gossip.start()
        node.gossip.on_connected()
        nodes.append(node)
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.gossip.stop()


async def test_who_is_where_is_known_everywhere_and_forgotten_everywhere() -> None:
    wires = Wires()
    async with talking(wires, "a", "b", "c") as (a, b, c):
        a.come(USER, 1, 2)
        b.come(USER, 3, is_away=True)
        for node in (a, b, c):
            await until(lambda node=node: node.sees(USER) == {"d1", "d2", "d3"})
        assert c.board.status_of(USER) is PresenceStatus.ONLINE
        a.come(USER)
        await until(lambda: c.sees(USER) == {"d3"})
        assert c.board.status_of(USER) is PresenceStatus.AWAY
        assert sorted(c.board.queues_of(USER)) == [b.queue]


async def test_a_node_that_joins_gets_everybodys_list_in_pieces() -> None:
    wires = Wires()
    users = [UUID(int=number) for number in range(1, 2_501)]
    async with talking(wires, "a") as (a,):
        for user_id in users:
            a.here[user_id] = (Attendance(user_id, "phone"),)
        async with talking(wires, "b") as (b,):
            await until(lambda: all(b.sees(user_id) for user_id in users))
            assert b.board.peers["a"].users == set(users)
        # It said goodbye: nothing of it is left, and nobody waits for its silence.
        await until(lambda: "b" not in a.board.peers)


async def test_a_node_that_is_silent_is_dead_and_one_of_the_others_writes_down_who_was_there() -> None:
    wires = Wires()
    async with talking(wires, "a", "b", "c") as (a, b, c):
        c.come(USER, 1)
        c.come(OTHER, 2)
        a.come(OTHER, 3)
        await until(lambda: b.sees(USER) == {"d1"} and b.sees(OTHER) == {"d2", "d3"} == a.sees(OTHER))
        # `kill -9`: no goodbye, and no beat any more.
        del wires.nodes[c.queue]
        for task in c.gossip._tasks:
            task.cancel()
        for _ in range(4):
            assert b.sees(USER) == {"d1"}
            wires.clock.advance(SILENCE_S / 4 + 0.1)
            # The living are heard of within every step.
            heard = wires.clock.monotonic()
            await until(lambda: min(a.board.peers["b"].last_heard, b.board.peers["a"].last_heard) >= heard)  # noqa: B023 - at once
        await until(lambda: "c" not in a.board.peers and "c" not in b.board.peers)
        assert (a.sees(USER), a.sees(OTHER)) == (set(), {"d3"})
        # Presence outlives it by the grace period, as for any short drop.
        assert a.board.status_of(USER) is PresenceStatus.ONLINE
        assert [user_id for user_id, _ in a.board.on_tick(wires.clock.monotonic() + 11)] == [USER]
        lost = [what for node in (a, b) for what in node.said if what[0] == "lost"]
        assert lost == [("lost", {USER})]
        c.gossip._tasks = []


async def test_a_node_with_a_new_queue_begins_anew() -> None:
    wires = Wires()
    async with talking(wires, "a", "b") as (a, b):
        b.come(USER, 1)
        await until(lambda: a.sees(USER) == {"d1"})
        # Its broker connection was lost: while it was away a connection went and another came.
        del wires.nodes[b.queue]
        b.queue = "node.b.2"
        wires.nodes[b.queue] = b
        b.here = {OTHER: (Attendance(UUID(int=2), "d2"),)}
        b.gossip.on_connected()
        await until(lambda: (a.sees(USER), a.sees(OTHER)) == (set(), {"d2"}))
        assert a.board.queues_of(OTHER) == ["node.b.2"]


async def test_frames_go_to_the_nodes_a_user_is_on_and_no_others() -> None:
    wires = Wires()
    async with talking(wires, "a", "b", "c") as (a, b, c):
        a.come(USER, 1)
        b.come(USER, 2)
        await until(lambda: a.sees(USER) == {"d1", "d2"})
        a.gossip.forward(USER, 7, FrameType.NOTIFICATION, b"{}")
        a.gossip.forward_live(USER, b"live")
        await until(lambda: len(b.forwarded) == 2)
        (first, live) = b.forwarded
        assert (first[0], first[1][headers.SEQ], first[1][HEADER_FRAME]) == (USER, 7, "notification")
        assert (live[1][HEADER_FRAME], live[2]) == (FRAME_LIVE, b"live")
        assert (a.forwarded, c.forwarded) == ([], [])


async def test_of_several_acknowledgements_within_one_turn_the_furthest_is_told() -> None:
    wires = Wires()
    async with talking(wires, "a", "b") as (a, b):
        b.come(USER, 2)
        a.come(USER, 1)
        await until(lambda: a.sees(USER) == {"d1", "d2"} == b.sees(USER))
        # Two devices of one user on one node: the one that lags must not take back what the other has.
        a.gossip.acked(USER, 10)
        a.gossip.acked(USER, 5)
        await until(lambda: any(what == "acked" for what, _ in b.said))
        assert [given for what, given in b.said if what == "acked"] == [(USER, 10)]
        a.gossip.tell_device_acked(USER, "tv", "position")
        await until(lambda: ("device", (USER, "tv", "position")) in b.said)


async def test_who_comes_to_another_node_is_told_how_far_the_stream_is() -> None:
    wires = Wires()
    async with talking(wires, "a", "b") as (a, b):
        a.tops[USER] = 12
        a.come(USER, 1)
        b.come(USER, 2)
        await until(lambda: ("top", (USER, 12)) in b.said)


async def test_every_node_with_sockets_answers_a_question_and_who_does_not_is_counted() -> None:
    wires = Wires()
    async with (
        talking(wires, "a", "b") as (a, b),
        talking(wires, "api", has_sockets=False) as (api,),
    ):
        await until(lambda: len(api.board.socket_queues) == 2)
        answers, missing = await api.gossip.ask({"what": "list"})
        assert ({answer["node"] for answer in answers}, missing) == ({"a", "b"}, 0)
        answers, missing = await a.gossip.ask({"what": "list"})
        assert ({answer["node"] for answer in answers}, missing) == ({"a", "b"}, 0)
        del wires.nodes[b.queue]
        answers, missing = await a.gossip.ask({"what": "list"})
        assert ({answer["node"] for answer in answers}, missing) == ({"a"}, 1)


async def test_without_a_queue_of_its_own_a_process_says_nothing_and_says_all_when_it_has_one() -> None:
    wires = Wires()
    async with talking(wires, "a") as (a,):
        b = Node(wires, "b")
        b.queue = cast("str", None)
        b.gossip.start()
        b.come(USER, 1)
        await asyncio.sleep(0.02)
        assert a.board.peers == {}
        b.queue = "node.b.1"
        wires.nodes[b.queue] = b
        b.gossip.on_connected()
        await until(lambda: a.sees(USER) == {"d1"})
        await b.gossip.stop()


@pytest.mark.parametrize("lost", ["gossip"])
async def test_what_is_lost_on_the_way_is_made_good_by_the_next_introduction(lost: str) -> None:
    wires = Wires()
    async with talking(wires, "a", "b") as (a, b):
        await until(lambda: "b" in a.board.peers)
        wires.lost.add(lost)
        b.come(USER, 1)
        await asyncio.sleep(0.02)
        wires.lost.clear()
        assert a.sees(USER) == set()
        a.gossip.on_connected()
        await until(lambda: a.sees(USER) == {"d1"})
