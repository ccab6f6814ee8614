"""Frames of tapped channels go to their taps, all others to the library, however the bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat
from typing_extensions import override

from notification_service.broker.deliveries import Incoming, TappedReader

MINE, OTHER = 1, 2


class Noting:
    """A tap that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
        self.seen.append(("delivery", consumer_tag, message.delivery_tag, message.is_redelivered, message.body))

    def on_return(self, message: Incoming) -> None:
        self.seen.append(("return", message.message_id, message.routing_key, message.body))

    def on_confirm(self, tag: int, *, is_multiple: bool, is_ack: bool) -> None:
        self.seen.append(("confirm", tag, is_multiple, is_ack))


def content(channel: int, payload: bytes, message_id: str, cut: int) -> list[bytes]:
    """Header and bodies of a message, the bodies at most so long."""
    properties = commands.Basic.Properties(message_id=message_id, headers={"x": 1})
    pieces = [payload[start : start + cut] for start in range(0, len(payload), cut)]
    head = frame.marshal(header.ContentHeader(0, len(payload), properties), channel)
    return [head, *(frame.marshal(body.ContentBody(each), channel) for each in pieces)]


def delivery(channel: int, tag: int, payload: bytes, *, is_redelivered: bool, cut: int) -> list[bytes]:
    method = commands.Basic.Deliver("ctag", tag, is_redelivered, "an.exchange", "a.key")
    return [frame.marshal(method, channel), *content(channel, payload, str(tag), cut)]


def returned(channel: int, message_id: str, payload: bytes, *, cut: int) -> list[bytes]:
    method = commands.Basic.Return(312, "NO_ROUTE", "an.exchange", "a.key")
    return [frame.marshal(method, channel), *content(channel, payload, message_id, cut)]


_BODIES, _CUTS, _TAGS = st.binary(max_size=300), st.integers(1, 200), st.integers(0, 2**63 - 1)
_MINE = st.one_of(
    st.tuples(st.just("delivery"), _TAGS, st.booleans(), _BODIES, _CUTS),
    st.tuples(st.just("return"), st.text(min_size=1, max_size=20), _BODIES, _CUTS),
    st.tuples(st.just("confirm"), _TAGS, st.booleans(), st.booleans()),
)
_OTHERS = st.sampled_from(
    [
        frame.marshal(commands.Basic.ConsumeOk("ctag"), MINE),
        frame.marshal(commands.Basic.Cancel("ctag"), MINE),
        frame.marshal(heartbeat.Heartbeat(), 0),
        frame.marshal(commands.Basic.Ack(3), OTHER),
        b"".join(delivery(OTHER, 5, b"of another", is_redelivered=False, cut=4)),
    ]
)


def write(step: tuple[Any, ...]) -> tuple[list[bytes], tuple[Any, ...]]:
    """The frames of a step, and what the tap should say of it."""
    match step:
        case ("delivery", tag, is_redelivered, payload, cut):
            frames = delivery(MINE, tag, payload, is_redelivered=is_redelivered, cut=cut)
            return frames, ("delivery", "ctag", tag, is_redelivered, payload)
        case ("return", message_id, payload, cut):
            return returned(MINE, message_id, payload, cut=cut), ("return", message_id, "a.key", payload)
        case (_, tag, is_multiple, is_ack):
            method = (commands.Basic.Ack if is_ack else commands.Basic.Nack)(tag, multiple=is_multiple)
            return [frame.marshal(method, MINE)], ("confirm", tag, is_multiple, is_ack)
    raise AssertionError(step)


def feed(pieces: Sequence[bytes]) -> tuple[Noting, bytes]:
    """What the tap is given, and what is left for the library."""
    loop = asyncio.new_event_loop()
    try:
        reader, tap = TappedReader(loop), Noting()
        reader.tap(MINE, tap)
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        return tap, loop.run_until_complete(reader.read())
    finally:
        loop.close()


@given(st.lists(_MINE | _OTHERS, max_size=8), st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 3))
def test_nothing_is_lost_or_swapped_however_the_bytes_are_cut(
    steps: list[tuple[Any, ...] | bytes], cuts: list[int], between: int
) -> None:
    wire: list[bytes] = []
    expected, passed = [], b""
    for step in steps:
        if isinstance(step, bytes):
            wire.append(step)
            passed += step
            continue
        frames, said = write(step)
        # Another channel may speak between the frames of one message.
        heart = frame.marshal(heartbeat.Heartbeat(), 0)
        place = min(between, len(frames))
        wire += [*frames[:place], heart, *frames[place:]]
        passed += heart
        expected.append(said)
    data = b"".join(wire)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    tap, rest = feed([data[start:end] for start, end in itertools.pairwise(edges)])
    assert tap.seen == expected
    assert rest == passed


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"AMQP\x00\x00\x09\x01", id="another version of the protocol"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="no broker"),
        pytest.param(b"\x01\x00\x01\x00\x00\x00\x01x\x00", id="a frame without its end"),
        pytest.param(b"\x08\x00", id="less than a frame"),
    ],
)
def test_what_is_no_frame_is_for_the_library(wire: bytes) -> None:
    tap, rest = feed([wire])
    assert not tap.seen
    assert rest == wire


def test_the_library_sees_signs_of_life_while_everything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "time", lambda: now)
    try:
        reader = TappedReader(loop)
        reader.tap(MINE, Noting())
        confirm = frame.marshal(commands.Basic.Ack(1), MINE)
        reader.feed_data(confirm)
        now = 102.0
        reader.feed_data(confirm * 2)
        reader.feed_data(confirm)
        reader.feed_eof()
        assert loop.run_until_complete(reader.read()) == frame.marshal(heartbeat.Heartbeat(), 0)
    finally:
        loop.close()


def test_a_tap_that_fails_takes_nobody_with_it() -> None:
    class Failing(Noting):
        @override
        def on_delivery(self, consumer_tag: str, message: Incoming) -> None:
            raise ValueError(consumer_tag, message)

        @override
        def on_confirm(self, tag: int, *, is_multiple: bool, is_ack: bool) -> None:
            raise ValueError(tag, is_multiple, is_ack)

    loop = asyncio.new_event_loop()
    try:
        reader, failing, good = TappedReader(loop), Failing(), Noting()
        reader.tap(MINE, failing)
        reader.tap(OTHER, good)
        reader.feed_data(
            b"".join(
                [
                    *delivery(MINE, 1, b"x", is_redelivered=False, cut=9),
                    frame.marshal(commands.Basic.Ack(1), MINE),
                    *delivery(OTHER, 1, b"y", is_redelivered=False, cut=9),
                ]
            )
        )
        assert [each[0] for each in good.seen] == ["delivery"]
        reader.untap(OTHER)
        reader.feed_data(frame.marshal(commands.Basic.Ack(1), OTHER))
        assert len(good.seen) == 1
    finally:
        loop.close()
