"""A new connection goes to the gateway or to HTTP by its first bytes: real sockets, uvicorn as the processes run it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import uvicorn
from web import running_server
from wires import REQUEST, Node

from notification_service.entrypoints import first_bytes
from notification_service.entrypoints.http_server import LimitedHttp
from notification_service.gateway.connection import make_protocol_class
from notification_service.gateway.node import GatewayNode

USUAL = REQUEST % b"client"
PLAIN_GET = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"


async def app(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@dataclass
class Site:
    """A server, and who reads its connections now."""

    server: uvicorn.Server
    port: int

    @property
    def readers(self) -> list[str]:
        """By their classes."""
        return sorted(type(each).__name__ for each in self.server.server_state.connections)

    async def send(self, *pieces: bytes) -> bytes:
        """The first line of the answer to these, each in a segment of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
            return (await asyncio.wait_for(reader.readline(), 5)).rstrip()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(node: Node | None) -> AsyncIterator[Site]:
    ws = "none" if node is None else make_protocol_class(cast("GatewayNode", node))
    async with running_server(app, lifespan="off", ws=ws) as (server, port):
        yield Site(server, port)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[LimitedHttp]:
    """Every connection that went to HTTP."""
    made: list[LimitedHttp] = []

    class Noted(LimitedHttp):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(first_bytes, "LimitedHttp", Noted)
    return made


async def test_a_usual_upgrade_never_sees_http(made: list[LimitedHttp]) -> None:
    async with serving(Node()) as site:
        assert await site.send(USUAL) == b"HTTP/1.1 101 Switching Protocols"
    assert made == []


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((USUAL[:40], USUAL[40:]), id="two-segments"),
        pytest.param((USUAL.replace(b"\r\nUpgrade: ", b"\r\nupgrade:"),), id="no-space"),
        pytest.param((USUAL.replace(b"Host: h", b"Host: h\r\nX-Name: caf\xc3\xa9"),), id="not-ascii"),
        pytest.param((USUAL.replace(b"Host: h", b"Host: h\r\nX-Long: " + b"x" * 8_100),), id="long"),
        pytest.param((USUAL.replace(b"Host: h", b"Host: h" + b"\r\nX-Y: z" * 70),), id="many-headers"),
    ],
)
async def test_an_unusual_upgrade_goes_by_http(made: list[LimitedHttp], pieces: tuple[bytes, ...]) -> None:
    async with serving(Node()) as site:
        assert await site.send(*pieces) == b"HTTP/1.1 101 Switching Protocols"
    assert len(made) == 1


async def test_an_upgrade_that_announces_a_body_is_left_to_http(made: list[LimitedHttp]) -> None:
    async with serving(Node()) as site:
        for header in (b"Content-Length: 3", b"Transfer-Encoding: chunked"):
            with contextlib.suppress(TimeoutError):
                await site.send(USUAL.replace(b"Host: h", b"Host: h\r\n" + header))
    assert len(made) == 2


async def test_a_usual_upgrade_that_is_refused_gets_its_problem(made: list[LimitedHttp]) -> None:
    async with serving(Node()) as site:
        assert await site.send(USUAL.replace(b"GET /ws", b"GET /elsewhere")) == b"HTTP/1.1 404 Not Found"
    assert made == []


async def test_requests_go_to_the_application() -> None:
    async with serving(Node()) as site:
        assert await site.send(PLAIN_GET) == b"HTTP/1.1 204 No Content"
        assert await site.send(b"nonsense\r\n\r\n") == b"HTTP/1.1 400 Bad Request"


async def test_a_process_without_sockets_upgrades_nothing(made: list[LimitedHttp]) -> None:
    async with serving(None) as site:
        with contextlib.suppress(TimeoutError):
            assert not (await site.send(USUAL)).startswith(b"HTTP/1.1 101")
    assert len(made) == 1


@pytest.mark.req("D17")
async def test_a_peer_that_says_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_bytes, "HEAD_LIMIT_S", 0.3)
    async with serving(Node()) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        await asyncio.sleep(0.05)
        assert site.readers == ["FirstBytes"]
        assert await asyncio.wait_for(reader.read(), 5) == b""
        await asyncio.sleep(0.05)
        assert site.readers == []
        writer.close()


async def test_who_reads_is_known_to_the_server_and_left_with_the_peer() -> None:
    async with serving(Node()) as site:
        quiet = await asyncio.open_connection("127.0.0.1", site.port)
        upgraded = await asyncio.open_connection("127.0.0.1", site.port)
        plain = await asyncio.open_connection("127.0.0.1", site.port)
        upgraded[1].write(USUAL)
        plain[1].write(PLAIN_GET)
        await upgraded[0].readline()
        await plain[0].readline()
        assert site.readers == ["FirstBytes", "GatewayConnection", "LimitedHttp"]
        for _, writer in (quiet, upgraded, plain):
            writer.close()
        await asyncio.sleep(0.1)
        assert site.readers == []


async def test_a_server_that_stops_ends_silent_peers_too() -> None:
    async with serving(Node()) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
