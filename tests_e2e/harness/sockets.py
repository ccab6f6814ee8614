"""A WebSocket client that writes and reads literal JSON: the wire is what is tested."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

Frame = dict[str, Any]


class Socket:
    """One device's connection; keeps everything it received, and acknowledges when told to."""

    def __init__(self, connection: ClientConnection, *, acks: bool) -> None:
        self._connection = connection
        self._acks = acks
        self._arrived: asyncio.Queue[Frame | None] = asyncio.Queue()
        self.frames: list[Frame] = []
        self.position: str | None = None
        self._synced = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @property
    def close_code(self) -> int | None:
        """Why it ended; None while it is open."""
        return self._connection.close_code

    @property
    def notifications(self) -> list[Frame]:
        """Every `notification` frame so far."""
        return [frame for frame in self.frames if frame["type"] == "notification"]

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self._connection.send(json.dumps(frame))

    async def send_raw(self, data: str | bytes) -> None:
        """Send something that may be no frame at all."""
        await self._connection.send(data)

    async def ack(self, frame: Frame) -> None:
        """Acknowledge up to this frame."""
        await self.send(type="ack", position=frame["position"])

    async def next(self, type_: str | None = None, *, within_s: float = 10.0) -> Frame:
        """The next frame, or the next one of a type; others are passed over but kept."""
        async with asyncio.timeout(within_s):
            while True:
                frame = await self._arrived.get()
                if frame is None:
                    raise AssertionError(f"closed with {self.close_code} while waiting for {type_ or 'a frame'}")
                if type_ is None or frame["type"] == type_:
                    return frame

    async def synced(self, *, within_s: float = 10.0) -> Frame:
        """The `synced` frame, which may have come already."""
        async with asyncio.timeout(within_s):
            await self._synced.wait()
        return next(frame for frame in self.frames if frame["type"] == "synced")

    async def take(self, count: int, *, within_s: float = 30.0) -> list[Frame]:
        """The next `count` notifications."""
        async with asyncio.timeout(within_s):
            return [await self.next("notification", within_s=within_s) for _ in range(count)]

    async def expect_nothing(self, type_: str = "notification", *, for_s: float = 0.5) -> None:
        """Fail if a frame of this type comes."""
        with contextlib.suppress(TimeoutError):
            frame = await self.next(type_, within_s=for_s)
            raise AssertionError(f"unexpected frame {frame}")

    async def wait_closed(self, within_s: float = 15.0) -> int | None:
        """The close code, once it is closed."""
        async with asyncio.timeout(within_s):
            await self._reader
        return self.close_code

    async def close(self) -> None:
        """Close in order."""
        await self._connection.close()
        await self._reader

    async def drop(self) -> None:
        """Vanish without a word, as a phone in a tunnel does."""
        self._connection.transport.abort()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for text in self._connection:
                frame = json.loads(text)
                self.frames.append(frame)
                if frame["type"] == "synced":
                    self._synced.set()
                if "position" in frame:
                    self.position = frame["position"]
                if self._acks and frame["type"] == "notification" and "position" in frame:
                    with contextlib.suppress(websockets.ConnectionClosed):
                        await self.ack(frame)
                self._arrived.put_nowait(frame)
        except websockets.ConnectionClosed:
            pass
        finally:
            self._arrived.put_nowait(None)


@contextlib.asynccontextmanager
async def connected(
    url: str,
    token: str,
    *,
    device_id: str | None = None,
    position: str | None = None,
    acks: bool = True,
    ack_mode: str = "client",
    welcome: bool = True,
) -> AsyncIterator[Socket]:
    """An authenticated socket, by the Authorization header; closed with the block.

    Args:
        url: Of the node, `http://...`.
        acks: Whether every notification is acknowledged as it arrives.
        welcome: Whether to take `welcome` off the frames waited for.
    """
    socket = await connect(url, token, device_id=device_id, position=position, acks=acks, ack_mode=ack_mode)
    try:
        if welcome:
            await socket.next("welcome")
        yield socket
    finally:
        await socket.close()


async def connect(
    url: str,
    token: str,
    *,
    device_id: str | None = None,
    position: str | None = None,
    acks: bool = True,
    ack_mode: str = "client",
) -> Socket:
    """The same without closing."""
    parameters = {"device_id": device_id, "position": position, "ack": ack_mode}
    query = "&".join(f"{name}={value}" for name, value in parameters.items() if value is not None)
    connection = await websockets.connect(
        f"{url.replace('http', 'ws', 1)}/ws?{query}",
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_queue=None,
        open_timeout=20,
    )
    return Socket(connection, acks=acks)
