"""Broadcasts to the sockets of a node: what waits goes together, and every device gets what it would get one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from builders import EPOCH, position
from hypothesis import given
from hypothesis import strategies as st
from waiting import until
from websockets.frames import Frame, Opcode
from wires import Node, Wire, connect

from notification_service.clock import SystemClock
from notification_service.gateway import broadcast_feed
from notification_service.gateway.broadcast_feed import BroadcastFeed
from notification_service.gateway.connection import Connection
from notification_service.gateway.effects import Fetch
from notification_service.gateway.session import Limits
from notification_service.notifications.pages import FrameType
from shared_contracts.ws.frames import AckMode


class Site:
    """A feed and its devices, each with what it was written."""

    def __init__(self, *devices: tuple[Connection, Wire], tenants: Sequence[str] = ("default",)) -> None:
        self.devices = devices
        connections = [connection for connection, _ in devices]
        self.feed = BroadcastFeed(lambda tenant: connections if tenant in tenants else (), SystemClock())
        for _, wire in devices:
            wire.pieces.clear()

    def publish(self, *numbers: int, tenant: str = "default") -> None:
        for number in numbers:
            self.feed.on_message(tenant, number, body(number))

    async def settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        assert not self.feed._is_running


def body(number: int, text: str = "hello") -> bytes:
    return json.dumps({"id": f"n{number}", "title": text}).encode()


def read(wire: Wire) -> list[tuple[str, str]]:
    """Id and position of each frame."""
    data, found = wire.written, []
    while data:
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        frame = json.loads(data[start : start + length])
        assert frame["redelivered"] is False
        found.append((frame["id"], frame["position"]))
        data = data[start + length :]
    return found


async def test_what_arrives_together_is_one_write_to_each_socket() -> None:
    node = Node()
    site = Site(connect(node, ack=AckMode.AUTO), connect(node, ack=AckMode.AUTO, top_seq=7, acked_seq=7))
    site.publish(1, 2, 3)
    await site.settle()
    for (_, wire), seq in zip(site.devices, (0, 7), strict=True):
        assert read(wire) == [(f"n{number}", position(seq, number)) for number in (1, 2, 3)]
        assert len(wire.pieces) == 1


async def test_what_comes_while_others_are_written_waits_and_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast_feed, "_CHUNK", 1)
    node = Node()
    site = Site(*(connect(node, ack=AckMode.AUTO) for _ in range(3)))
    site.publish(1)
    await until(lambda: bool(site.devices[0][1].pieces))
    site.publish(2, 3)
    await site.settle()
    for _, wire in site.devices:
        assert [id_ for id_, _ in read(wire)] == ["n1", "n2", "n3"]
        assert len(wire.pieces) == 2


async def test_a_hole_another_tenant_and_size_end_what_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast_feed, "_RUN_FRAMES", 3)
    monkeypatch.setattr(broadcast_feed, "_RUN_BYTES", 3_000)
    node = Node()
    device = connect(node, ack=AckMode.AUTO)
    site = Site(device, tenants=("default", "other"))
    connection, wire = device
    site.publish(1, 2, 3, 4)
    await site.settle()
    assert [piece.count(b'"id"') for piece in wire.pieces] == [3, 1]

    wire.pieces.clear()
    for number in (5, 6):
        site.feed.on_message("default", number, body(number, "x" * 2_000))
    await site.settle()
    assert [piece.count(b'"id"') for piece in wire.pieces] == [1, 1]

    # 7 never comes: what is behind the hole is read from the mailbox by the devices, a moment later.
    wire.pieces.clear()
    site.publish(8, 9)
    await until(lambda: any(isinstance(effect, Fetch) for effect in node.effects))
    await site.settle()
    assert wire.pieces == []
    assert not connection.session.follower.is_live


async def test_a_device_without_room_for_all_gets_those_it_has_room_for() -> None:
    node = Node(Limits(max_unacked=2))
    site = Site(connect(node), connect(node, ack=AckMode.AUTO))
    (narrow, narrow_wire), (_, wide_wire) = site.devices
    site.publish(1, 2, 3)
    await site.settle()
    assert [id_ for id_, _ in read(narrow_wire)] == ["n1", "n2"]
    assert [id_ for id_, _ in read(wide_wire)] == ["n1", "n2", "n3"]
    narrow.run(narrow.session.follower.settle(0, 2, 0.0))
    assert node.effects[-1] == Fetch(0, 2, 2)


async def test_what_became_of_a_broadcast_is_told_in_its_turn() -> None:
    site = Site(connect(Node(), ack=AckMode.AUTO))
    site.publish(1)
    site.feed.on_message("default", 2, b'{"ids":["n1"]}', FrameType.RECALLED)
    await site.settle()
    wire = site.devices[0][1]
    assert len(wire.pieces) == 1
    assert b'{"type":"recalled","position":"%b","ids":["n1"]}' % position(0, 2).encode() in wire.written
    assert EPOCH.encode() in wire.written


@given(
    cuts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    windows=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    acked_after=st.sets(st.integers(0, 11)),
)
async def test_together_or_one_by_one_devices_get_the_same(
    cuts: list[int], windows: list[int], acked_after: set[int]
) -> None:
    written = []
    for one_by_one in (False, True):
        devices = [connect(Node(Limits(max_unacked=window))) for window in windows]
        site = Site(*devices)
        number = 0
        for turn, size in enumerate(cuts):
            for _ in range(size):
                number += 1
                site.publish(number)
                if one_by_one:
                    await site.settle()
            await site.settle()
            if turn in acked_after:
                for connection, _ in devices:
                    follower = connection.session.follower
                    connection.run(follower.settle(follower.sent_seq, follower.sent_broadcast, 0.0))
        written.append([wire.written for _, wire in devices])
    assert written[0] == written[1]


def test_a_frame_is_what_the_library_would_write() -> None:
    payload = b'{"type":"notification","position":"%b","redelivered":false,%b' % (position(5, 1).encode(), body(1)[1:])
    pieces = broadcast_feed._prepare(
        [broadcast_feed._Frame("default", 1, b"notification", b'","redelivered":false,%b' % body(1)[1:])],
        EPOCH.encode(),
    )
    assert (b"%012x" % 5).join(pieces) == Frame(Opcode.TEXT, payload).serialize(mask=False)
