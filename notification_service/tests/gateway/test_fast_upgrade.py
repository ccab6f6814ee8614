"""The fast path for upgrade requests takes nothing the library would refuse, and answers what the library answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from notification_service.gateway.fast_upgrade import read_plain_upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
USUAL = {
    "host": "herald.example",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def write(*headers: tuple[str, str], line: str = "GET /ws?device_id=a HTTP/1.1") -> bytes:
    return "".join([f"{line}\r\n", *(f"{name}: {value}\r\n" for name, value in headers), "\r\n"]).encode("latin-1")


def read_with_library(data: bytes) -> Response | None:
    """What the library answers to a request; None: it takes it for none."""
    protocol = ServerProtocol(select_subprotocol=lambda _, offered: offered[0] if offered else None)
    protocol.receive_data(data)
    for event in protocol.events_received():
        if isinstance(event, Request):
            return protocol.accept(event)
    return None


def test_the_example_of_the_rfc() -> None:
    plain = read_plain_upgrade(write(*USUAL.items(), ("sec-websocket-protocol", "herald.v1, other")))
    assert plain is not None
    assert (plain.target, list(plain.offered_subprotocols)) == ("/ws?device_id=a", ["herald.v1", "other"])
    answer = plain.make_response("herald.v1")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"\r\nSec-WebSocket-Protocol: herald.v1\r\n" in answer
    assert b"Protocol:" not in plain.make_response(None)


@pytest.mark.parametrize("name", sorted(USUAL.keys() - {"host"}))
def test_what_is_missing_or_comes_twice_is_left_to_the_library(name: str) -> None:
    others = [(each, value) for each, value in USUAL.items() if each != name]
    assert read_plain_upgrade(write(*others)) is None
    assert read_plain_upgrade(write(*USUAL.items(), (name, USUAL[name]))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /ws HTTP/1.1\r\n",
        write(*USUAL.items(), line="POST /ws HTTP/1.1"),
        write(*USUAL.items(), line="GET /ws HTTP/1.0"),
        write(*USUAL.items(), line="GET /w s HTTP/1.1"),
        write(*USUAL.items(), line="GET /ws"),
        write(*USUAL.items()) + b"\x81\x80abcd",
        write(*USUAL.items(), ("x-name", "caf\xe9")),
        write(*USUAL.items()).replace(b"host: ", b"host :"),
        write(*USUAL.items()).replace(b"host: herald", b"host: \x00herald"),
        write(*{**USUAL, "sec-websocket-version": "12"}.items()),
        write(*{**USUAL, "sec-websocket-key": "short"}.items()),
        write(*{**USUAL, "sec-websocket-key": KEY[:21] + "R=="}.items()),
        write(*{**USUAL, "upgrade": "websocket, h2c"}.items()),
        write(*{**USUAL, "connection": "close"}.items()),
        write(*USUAL.items(), ("sec-websocket-protocol", "a b")),
        write(*USUAL.items(), ("content-length", "0")),
        write(*USUAL.items(), ("Transfer-Encoding", "chunked")),
        write(*USUAL.items(), ("x-name", "x" * 8_192)),
        write(*USUAL.items(), *[("x-name", "x")] * 64),
    ],
)
def test_what_is_unusual_is_left_to_the_library(data: bytes) -> None:
    assert read_plain_upgrade(data) is None


VALUES = st.sampled_from(
    ["websocket", "WebSocket", "Upgrade", "keep-alive, Upgrade", "13", "8", KEY, KEY[:-4], "a, b", "a,b", ",", "", "é"]
)
NAMES = st.sampled_from([*USUAL, "sec-websocket-protocol", "origin", "sec-websocket-extensions", "X-Other", "Upgrade"])


@settings(max_examples=300)
@given(
    st.dictionaries(NAMES, VALUES | st.text(st.characters(max_codepoint=255), max_size=8), max_size=3),
    st.lists(st.tuples(NAMES, VALUES), max_size=2),
    st.sampled_from(["GET /ws HTTP/1.1", "GET  /ws HTTP/1.1", "GET /ws?a=%20b HTTP/1.1", "HEAD /ws HTTP/1.1"]),
)
def test_what_it_takes_the_library_would_take_with_the_same_answer(
    changed: dict[str, str], more: list[tuple[str, str]], line: str
) -> None:
    data = write(*{**USUAL, **changed}.items(), *more, line=line)
    plain = read_plain_upgrade(data)
    if plain is None:
        return
    answer = read_with_library(data)
    assert answer is not None
    assert answer.status_code == 101
    offered = list(plain.offered_subprotocols)
    chosen = offered[0] if offered else None
    assert answer.headers.get("Sec-WebSocket-Protocol") == chosen
    own = plain.make_response(chosen).decode()
    assert f"\r\nSec-WebSocket-Accept: {answer.headers['Sec-WebSocket-Accept']}\r\n" in own
