"""The fast path for small text frames reads exactly what the library reads."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from notification_service.gateway.fast_frames import take_texts, wire_size

MASK = b"\x11\x22\x33\x44"


def encode(payload: bytes, *, first: int = 0x81, mask: bytes = MASK, masked: bool = True) -> bytes:
    length = len(payload)
    flag = 0x80 if masked else 0
    if length < 126:
        head = bytes((first, flag | length))
    elif length < 65_536:
        head = bytes((first, flag | 126)) + struct.pack("!H", length)
    else:
        head = bytes((first, flag | 127)) + struct.pack("!Q", length)
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def read_with_library(data: bytes) -> list[tuple[Opcode, bool, bytes]]:
    """Frames the library finds in data that begins where a frame begins."""
    protocol = ServerProtocol(max_size=64 * 1024)
    protocol.state = protocol.state.__class__.OPEN
    protocol.parser = super(ServerProtocol, protocol).parse()
    next(protocol.parser)
    protocol.receive_data(data)
    return [(e.opcode, e.fin, bytes(e.data)) for e in protocol.events_received() if isinstance(e, Frame)]


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 64, 125])
def test_small_text_frames_are_taken(length: int) -> None:
    payload = bytes(range(65, 65 + 26)) * 5
    data = encode(payload[:length])
    assert take_texts(data) == ([payload[:length]], len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        encode(b"a" * 126),
        encode(b"a", masked=False),
        encode(b"a", first=0x82),
        encode(b"a", first=0x01),
        encode(b"a", first=0xC1),
        encode(b"", first=0x89),
        encode(b"\x03\xe8", first=0x88),
        encode(b"abc")[:-1],
        encode(b"abc")[:5],
    ],
)
def test_everything_else_is_left(data: bytes) -> None:
    assert take_texts(data) == ([], 0)
    assert take_texts(encode(b"x") + data) == ([b"x"], 7)


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_the_size_on_the_wire(length: int) -> None:
    assert wire_size(length) == len(encode(b"a" * length))


frames = st.builds(
    encode,
    st.one_of(st.binary(max_size=140), st.sampled_from([126, 65_535, 65_536]).map(bytes)),
    first=st.sampled_from([0x81, 0x81, 0x81, 0x82, 0x01, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x83]),
    mask=st.binary(min_size=4, max_size=4),
    masked=st.sampled_from([True, True, True, True, False]),
)


@pytest.mark.req("D11")
@settings(max_examples=300, deadline=None)
@given(st.lists(frames, max_size=6), st.binary(max_size=20), st.integers(0, 20))
def test_both_ways_of_reading_agree(parts: list[bytes], noise: bytes, cut: int) -> None:
    data = b"".join(parts) + noise
    data = data[: len(data) - cut]
    texts, taken = take_texts(data)
    by_library = read_with_library(data)
    assert by_library[: len(texts)] == [(Opcode.TEXT, True, text) for text in texts]
    # And the rest, read from where the fast path stopped, is what the library makes of it in one go.
    assert by_library[len(texts) :] == read_with_library(data[taken:])
