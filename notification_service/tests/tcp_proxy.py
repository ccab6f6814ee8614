"""A TCP proxy that fails on demand: between the service and its broker or its database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit


class TcpProxy:
    """Passes bytes on, until told to freeze (sockets stay open, nothing moves), to cut, or to refuse.

    Attributes:
        accepted: How many connections came in.
    """

    def __init__(self, host: str, port: int) -> None:
        self.accepted = 0
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._moving = asyncio.Event()
        self._moving.set()
        self._delay_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    def through(self, url: str) -> str:
        """The address with this proxy in the place of the server."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    async def listen(self) -> None:
        """Take connections (again), at the same port every time."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut every connection and take no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            transport: Any = writer.transport
            transport.abort()

    def freeze(self) -> None:
        """Stop reading from both sides."""
        self._moving.clear()

    def thaw(self) -> None:
        """Pass on again, what has waited first."""
        self._moving.set()

    def slow_down(self, delay_s: float) -> None:
        """Let every piece of an answer wait."""
        self._delay_s = delay_s

    async def close(self) -> None:
        self.thaw()
        await self.refuse()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        for source, sink, delays in ((reader, far_writer, False), (far_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, delays=delays))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, delays: bool) -> None:
        self._writers.add(sink)
        try:
            while True:
                await self._moving.wait()
                piece = await source.read(65536)
                await self._moving.wait()
                if not piece:
                    break
                if delays and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                sink.write(piece)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            with contextlib.suppress(OSError, RuntimeError):
                sink.close()


@contextlib.asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[TcpProxy]:
    """A listening proxy in front of the server of this address."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = TcpProxy(parts.hostname, parts.port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()
