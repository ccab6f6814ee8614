"""The shell around the session, called as the event loop calls it: bytes in, bytes out."""

from __future__ import annotations

import struct

import pytest
from websockets.frames import Frame, Opcode
from wires import REQUEST, Node, Wire, connect

from notification_service.gateway.effects import Acked, ChangeItems, Effect
from notification_service.notifications.pages import FrameType
from shared_contracts.ws.frames import AckMode


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


def closing(wire: Wire) -> tuple[int, str]:
    """The close frame at the end of what was written."""
    start = wire.written.rindex(b"\x88")
    payload = wire.written[start + 2 :]
    return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


async def test_the_upgrade_is_answered_and_the_request_forgotten() -> None:
    connection, wire = connect(Node())
    assert wire.written.startswith(b"HTTP/1.1 101")
    assert b'"type":"welcome"' in wire.written
    assert connection._decision is None


async def test_frames_in_one_segment_and_in_many_are_the_same() -> None:
    pings = [frame(b'{"type":"ping","ref":"%d"}' % number) for number in range(5)]
    long = frame(b'{"type":"ping","ref":"long","x":"%b"}' % (b"y" * 300))
    pieces = frame(b'{"type":"ping",', fin=False) + frame(b'"ref":"pieces"}', Opcode.CONT)
    data = b"".join([*pings[:2], long, pings[2], pieces, pings[3], frame(b"p", Opcode.PING), pings[4]])
    wanted = ["0", "1", "long", "2", "pieces", "3", "4"]
    for step in (1, 2, 7, 100, len(data)):
        connection, wire = connect(Node())
        before = len(wire.written)
        for start in range(0, len(data), step):
            connection.data_received(data[start : start + step])
        answered = wire.written[before:]
        positions = [answered.index(b'"ref":"%b"' % ref.encode()) for ref in wanted]
        assert positions == sorted(positions), step
        assert answered.count(b'"pong"') == 7
        assert b"\x8a\x01p" in answered


async def test_frames_that_come_with_the_request_are_read() -> None:
    request = REQUEST % b"client"
    first = frame(b'{"type":"ping"}')
    connection, wire = connect(Node(), request=request + first[:3])
    connection.data_received(first[3:] + frame(b'{"type":"ping","ref":"2"}'))
    assert wire.written.count(b'"pong"') == 2


@pytest.mark.req("D12")
async def test_a_fault_while_serving_says_so_with_an_id() -> None:
    node = Node()
    connection, wire = connect(node)

    def fail(effect: Effect) -> None:
        if isinstance(effect, ChangeItems):
            raise KeyError("a bug")

    node.on_effect = fail
    connection.data_received(frame(b'{"type":"read","all":true}'))
    code, reason = closing(wire)
    assert (code, reason) == (1011, f"server fault {connection.id}")


async def test_devices_that_do_not_acknowledge_have_what_the_kernel_has() -> None:
    node = Node()
    connection, wire = connect(node, ack=AckMode.AUTO)
    now = node.clock.monotonic()
    wire.waiting = 10
    connection.run(connection.session.on_item(1, FrameType.NOTIFICATION, b'{"seq":1}', is_repeat=False, now=now))
    assert Acked(1, 0) not in node.effects
    wire.waiting = 0
    connection.tick()
    assert Acked(1, 0) in node.effects
    connection.run(connection.session.on_item(2, FrameType.NOTIFICATION, b'{"seq":2}', is_repeat=False, now=now))
    connection.data_received(frame(struct.pack("!H", 1000), Opcode.CLOSE))
    assert Acked(2, 0) in node.effects
    assert wire.is_closed


@pytest.mark.req("D15")
async def test_a_slow_peer_is_paused_and_one_that_never_reads_is_cut() -> None:
    node = Node()
    connection, wire = connect(node)
    now = node.clock.monotonic()
    connection.pause_writing()
    before = len(wire.written)
    connection.run(connection.session.on_item(1, FrameType.NOTIFICATION, b'{"seq":1}', is_repeat=False, now=now))
    assert len(wire.written) == before
    connection.resume_writing()
    assert any(type(effect).__name__ == "Fetch" for effect in node.effects)
    connection.pause_writing()
    wire.waiting = node.settings.max_send_buffer_bytes + 1
    connection.data_received(frame(b'{"type":"ping"}'))
    assert wire.is_aborted
    assert not connection.session.is_open


@pytest.mark.req("D13", "D15")
@pytest.mark.parametrize(("opcode", "fin"), [(Opcode.PING, True), (Opcode.CONT, False)])
async def test_frames_that_say_nothing_are_counted_too(opcode: Opcode, *, fin: bool) -> None:
    connection, wire = connect(Node())
    if not fin:
        connection.data_received(frame(b"", fin=False))
    for _ in range(200):
        connection.data_received(frame(b"", opcode, fin=fin))
    assert not connection.session.is_open
    assert struct.pack("!H", 4429) in wire.written


@pytest.mark.req("D11")
async def test_a_peer_that_broke_the_protocol_is_told_and_need_not_wait() -> None:
    connection, wire = connect(Node())
    connection.data_received(frame(b"\xff"))
    assert closing(wire)[0] == 1007
    connection, wire = connect(Node())
    connection.data_received(Frame(Opcode.TEXT, b"unmasked").serialize(mask=False))
    assert closing(wire)[0] == 1002
    assert (wire.has_ended, wire.is_closed, wire.is_aborted) == (True, False, False)
    # What it still sends is dropped.
    before = len(wire.written)
    connection.data_received(frame(b'{"type":"ping"}') + frame(b"p", Opcode.PING))
    assert len(wire.written) == before


@pytest.mark.req("D15")
async def test_a_peer_that_pings_and_reads_no_pong_is_cut() -> None:
    node = Node()
    connection, wire = connect(node)
    wire.waiting = node.settings.max_send_buffer_bytes + 1
    connection.data_received(frame(b"p", Opcode.PING))
    assert wire.is_aborted


async def test_a_peer_whose_buffer_never_empties_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    connection, wire = connect(node)
    moment = node.clock.monotonic()
    monkeypatch.setattr(node.clock, "monotonic", lambda: moment)
    wire.waiting = 1
    connection.tick()
    moment += 15
    connection.session.on_heard(moment)
    connection.tick()
    assert not wire.is_aborted
    moment += 16
    connection.tick()
    assert wire.is_aborted


async def test_a_lost_connection_is_reported_once() -> None:
    node = Node()
    connection, _ = connect(node)
    connection.connection_lost(None)
    assert node.closed == [connection]
    connection.tick()
    connection.send_text(b"{}")
    assert not connection.is_writable
