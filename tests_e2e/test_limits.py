"""The edge under hostile or broken clients: each limit holds, says why, and hurts nobody else (group D)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from harness.broker import Backend
from harness.people import Rest
from harness.sockets import Socket, connect, connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("sqlite")

MASK = b"\x01\x02\x03\x04"


class Raw:
    """A WebSocket made of bytes, for what no library would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, url: str, token: str | None, *, extra: str = "", receive_buffer: int | None = None) -> Raw:
        """Upgrade; the answer's head is left in `head`."""
        host, port = url.removeprefix("http://").split(":")
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=raw, limit=2**20)
        key = base64.b64encode(os.urandom(16)).decode()
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(
            f"GET /ws?ack=auto HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{authorization}{extra}\r\n".encode()
        )
        opened = cls(reader, writer)
        opened.head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return opened

    head = ""

    def send(self, first: int, payload: bytes, *, masked: bool = True, length: int | None = None) -> None:
        """One frame; `length` lies about the payload's."""
        size = len(payload) if length is None else length
        flag = 0x80 if masked else 0
        if size < 126:
            head = bytes((first, flag | size))
        elif size < 65_536:
            head = bytes((first, flag | 126)) + struct.pack("!H", size)
        else:
            head = bytes((first, flag | 127)) + struct.pack("!Q", size)
        mixed = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload)) if masked else payload
        self.writer.write(head + (MASK if masked else b"") + mixed)

    async def read_close(self, within_s: float = 10.0) -> int | None:
        """The code of the close frame; None when the connection ended without one."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    first, length = await self.reader.readexactly(2)
                    if length == 126:
                        length = struct.unpack("!H", await self.reader.readexactly(2))[0]
                    elif length == 127:
                        length = struct.unpack("!Q", await self.reader.readexactly(8))[0]
                    payload = await self.reader.readexactly(length)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return None
                if first == 0x88:
                    return int(struct.unpack("!H", payload[:2])[0])

    def close(self) -> None:
        """Vanish."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_socket(url: str, token: str) -> AsyncIterator[Raw]:
    opened = await Raw.open(url, token)
    assert opened.head.startswith("HTTP/1.1 101")
    try:
        yield opened
    finally:
        opened.close()


@contextlib.asynccontextmanager
async def other_settings(stack: Stack, settings: dict[str, str]) -> AsyncIterator[str]:
    """One more node, with other settings; answers its address."""
    (name,) = stack.add("all-in-one", 1, settings)
    await asyncio.to_thread(stack.start, name)
    try:
        yield stack.url_of(name)
    finally:
        await asyncio.to_thread(stack.remove, name)


def memory_of(stack: Stack, name: str) -> int:
    """Resident bytes of a process."""
    pages = Path(f"/proc/{stack.pid_of(name)}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def files_of(stack: Stack, name: str) -> Iterator[Path]:
    """Open files of a process, sockets among them."""
    return Path(f"/proc/{stack.pid_of(name)}/fd").iterdir()


def deep(depth: int) -> bytes:
    return b'{"type":"ping","x":' + b"[" * depth + b"]" * depth + b"}"


# --- what is no WebSocket, no text, or no JSON ---------------------------------------------------------------------


BROKEN: list[tuple[int, bytes, int]] = [
    (0x82, b"\x00\x01", 1003),
    (0x81, b'{"type":"ping","x":"\xff\xfe"}', 1007),
    (0x81, b"\xed\xa0\x80", 1007),
    (0x81, b"a" * 200 + b"\xc3", 1007),
    (0x83, b"", 1002),
    (0x8B, b"", 1002),
    (0xC1, b'{"type":"ping"}', 1002),
    (0xF1, b'{"type":"ping"}', 1002),
    (0x80, b"continues nothing", 1002),
    (0x09, b"a ping in pieces", 1002),
    (0x89, b"x" * 126, 1002),
    (0x88, b"\x03", 1002),
    (0x88, struct.pack("!H", 1005), 1002),
    (0x88, struct.pack("!H", 999), 1002),
    (0x88, struct.pack("!H", 1000) + b"\xff", 1007),
    (0x88, struct.pack("!H", 3333) + b"bye", 3333),
]


async def test_a_connection_that_was_idle_takes_the_next_request(stack: Stack) -> None:
    """Clients keep theirs for 5 s and longer: a server that closes at the same moment loses a request now and then."""

    async def ask_twice(name: str) -> None:
        host, port = stack.url_of(name).removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for pause_s in (6, 0):
            writer.write(f"GET /health/live HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
            assert head.startswith("http/1.1 200"), (name, head)
            await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
            await asyncio.sleep(pause_s)
        writer.close()

    await asyncio.gather(ask_twice("auth"), ask_twice(stack.notify_names[0]))


@pytest.mark.req("D11")
async def test_broken_frames_end_with_the_right_code(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    found = []
    for first, payload, _ in BROKEN:
        async with raw_socket(stack.system.notify_urls[0], alice.access) as raw:
            raw.send(first, payload)
            found.append((first, payload, await raw.read_close()))
    assert found == BROKEN


@pytest.mark.req("D11")
async def test_frames_that_lie_end_with_the_right_code(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    async with raw_socket(stack.system.notify_urls[0], alice.access) as raw:
        raw.send(0x81, b'{"type":"ping"}', masked=False)
        assert await raw.read_close() == 1002
    for length in (2**62, 2**63):
        async with raw_socket(stack.system.notify_urls[0], alice.access) as raw:
            raw.send(0x81, b"", length=length)
            assert await raw.read_close() == 1009


@pytest.mark.req("D11")
async def test_fragments_end_with_the_right_code_too(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    url = stack.system.notify_urls[0]
    cases: list[tuple[list[tuple[int, bytes]], int | None]] = [
        ([(0x01, b'{"type":'), (0x81, b'"ping"}')], 1002),
        ([(0x02, b"\x00"), (0x80, b"\x01")], 1003),
        ([(0x01, b'{"type":"ping","x":"\xe2'), (0x80, b'\x28"}')], 1007),
    ]
    for frames, code in cases:
        async with raw_socket(url, alice.access) as raw:
            for first, payload in frames:
                raw.send(first, payload)
            assert await raw.read_close() == code
    # And a text in pieces, a ping between them, and split in the middle of a character, is good.
    async with raw_socket(url, alice.access) as raw:
        for first, payload in ((0x01, b'{"type":"ping","ref":"\xc3'), (0x89, b"p"), (0x80, b'\xa4"}')):
            raw.send(first, payload)
        raw.send(0x88, struct.pack("!H", 1000))
        received = await raw.reader.read()
        assert b'"type":"pong"' in received
        assert "ä".encode() in received


@pytest.mark.req("D11")
@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"type":5}',
        b'{"type":"fly"}',
        b'{"type":"ack"}',
        b'{"type":"ack","position":7}',
        b'{"type":"read","ids":[]}',
        b'{"type":"ping","x":NaN}',
        b'{"type":"ping","x":1' + b"0" * 5_000 + b"}x",
        b'{"type":"ping","ref":"\\ud800"}',
        deep(20_000),
    ],
)
@pytest.mark.req("CP-1", "CP-3")
async def test_text_that_is_no_frame_is_answered_four_times_and_ended_the_fifth(
    stack: Stack, rest: Rest, text: bytes
) -> None:
    alice = await rest.log_in("alice")
    device = await connect(stack.system.notify_urls[0], alice.access)
    await device.next("welcome")
    for _ in range(5):
        await device.send_raw(text.decode())
        assert (await device.next("error"))["code"] in ("invalid_json", "invalid_frame", "unknown_frame_type")
    assert await device.wait_closed() == 4500


@pytest.mark.req("D21")
async def test_an_unknown_protocol_version(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    url = stack.system.notify_urls[0].replace("http", "ws", 1) + "/ws"
    device = Socket(await websockets.connect(url, compression=None), acks=True)
    await device.send(type="hello", token=alice.access, protocol=9)
    assert (await device.next("error"))["code"] == "unsupported_protocol"
    assert await device.wait_closed() == 4500


@pytest.mark.req("D10")
async def test_compression_is_not_negotiated(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    raw = await Raw.open(stack.system.notify_urls[0], alice.access, extra=offer)
    assert raw.head.startswith("HTTP/1.1 101")
    assert "extensions" not in raw.head.lower()
    raw.close()


# --- too much ------------------------------------------------------------------------------------------------------


@pytest.mark.req("D09")
@pytest.mark.req("CP-7")
async def test_frames_beyond_64_kib(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    url = stack.system.notify_urls[0]
    async with raw_socket(url, alice.access) as raw:
        raw.send(0x81, b'{"type":"ping","x":"' + b"a" * (64 * 1024 - 22) + b'"}')
        raw.send(0x81, b"a" * (64 * 1024 + 1))
        assert await raw.read_close() == 1009
    before = memory_of(stack, "notify-1")
    chunk = os.urandom(1024) * 60
    for whole in (True, False):
        async with raw_socket(url, alice.access) as raw:
            with contextlib.suppress(ConnectionError):
                if whole:
                    raw.writer.write(b"\x81\xff" + struct.pack("!Q", 10_000_000) + MASK + chunk)
                    await raw.writer.drain()
                else:
                    raw.send(0x01, chunk)
                    for _ in range(160):
                        raw.send(0x00, chunk)
                        await raw.writer.drain()
            assert await raw.read_close() == 1009
    assert memory_of(stack, "notify-1") - before < 20_000_000


@pytest.mark.req("D07")
@pytest.mark.req("CP-10")
async def test_the_oldest_over_all_nodes_gives_way(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    urls = stack.system.notify_urls
    devices = []
    for number in range(12):
        devices.append(await connect(urls[number % 2], person.access, device_id=f"d{number}"))
        await devices[-1].next("welcome")
        # Nodes tell each other within 20 ms; who connects on both within that time may be one too many for a moment.
        await asyncio.sleep(0.1)
    assert [await device.wait_closed() for device in devices[:2]] == [4504, 4504]
    for device in devices[2:]:
        assert device.close_code is None
        await device.close()


@pytest.mark.req("D07")
@pytest.mark.req("CP-9")
async def test_beyond_the_total_503_before_the_upgrade(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    async with other_settings(stack, {"NOTIFY_MAX_CONNECTIONS": "3"}) as url:
        devices = [await connect(url, person.access) for _ in range(3)]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(url, person.access)
        response = refused.value.response
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert json.loads(response.body or b"")["code"] == "unavailable"
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/sse", headers={"Authorization": f"Bearer {person.access}"})
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        await devices[0].close()
        await (await connect(url, person.access)).close()
        for device in devices[1:]:
            await device.close()


@pytest.mark.req("D08")
@pytest.mark.req("CP-9", "X-12")
async def test_a_storm_of_handshakes_is_admitted_at_the_rate(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(60)
    async with other_settings(stack, {"NOTIFY_MAX_HANDSHAKES_PER_SECOND": "10"}) as url:
        opened: list[Socket] = []
        statuses: list[int] = []

        async def storm(token: str) -> None:
            try:
                opened.append(await connect(url, token))
            except websockets.InvalidStatus as refused:
                statuses.append(refused.response.status_code if "Retry-After" in refused.response.headers else 0)

        await asyncio.gather(*(storm(person.access) for person in people))
        # A burst of two seconds' worth, and what the time it took added.
        assert 20 <= len(opened) <= 45
        assert set(statuses) == {503}
        assert len(opened) + len(statuses) == 60
        await asyncio.gather(*(device.next("welcome") for device in opened))
        await asyncio.gather(*(device.close() for device in opened))


@pytest.mark.req("D20")
@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ("".join(f"X-{number}: y\r\n" for number in range(130)), "431"),
        (f"X-Long: {'y' * 9_000}\r\n", "431"),
    ],
)
async def test_heads_are_bounded(stack: Stack, rest: Rest, extra: str, status: str) -> None:
    alice = await rest.log_in("alice")
    raw = await Raw.open(stack.system.notify_urls[0], alice.access, extra=extra)
    assert raw.head.split(" ")[1] == status
    raw.close()


@pytest.mark.req("D20")
async def test_the_request_line_is_bounded(stack: Stack) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{stack.system.notify_urls[0]}/ws?x={'y' * 9_000}")
    assert answer.status_code == 414


@pytest.mark.req("D17")
async def test_a_dripped_head_is_cut(stack: Stack) -> None:
    host, port = stack.system.notify_urls[0].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    started = time.monotonic()
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    while time.monotonic() - started < 20:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                if await reader.read(1) == b"":
                    break
        with contextlib.suppress(ConnectionError):
            writer.write(b"X: y\r\n")
    assert 10 < time.monotonic() - started < 18
    writer.close()


# --- clients that do not listen ------------------------------------------------------------------------------------


@pytest.mark.req("D14")
@pytest.mark.req("D15")
@pytest.mark.req("CP-8")
async def test_clients_that_never_read_are_cut_and_cost_little(stack: Stack, rest: Rest, backend: Backend) -> None:
    sleepers = await rest.make_people(20)
    url = stack.system.notify_urls[0]
    files_before = len(list(files_of(stack, "notify-1")))
    quiet = [await Raw.open(url, person.access, receive_buffer=4096) for person in sleepers]
    before = memory_of(stack, "notify-1")
    (reader_person,) = await rest.make_people(1)
    body = "x" * 60_000
    async with connected(url, reader_person.access, ack_mode="auto", acks=False) as reader:
        await reader.synced()
        # 60 KB each: a window of acknowledged frames would stop them, so these acknowledge by themselves.
        for number in range(40):
            await backend.publish({"title": f"n{number}", "body": body}, exchange="notifications.fanout", key="")
        frames = await reader.take(40, within_s=60)
        assert len(frames) == 40
        # 20 peers with at most 1 MiB each, and the allocator's own.
        assert memory_of(stack, "notify-1") - before < 20 * 1_100_000 + 30_000_000

    async def look() -> int:
        admin = await rest.log_in("admin")
        listed = await rest.notify("GET", "/api/v1/connections?limit=200", token=admin.access)
        ids = {person.id for person in sleepers}
        return sum(row["user_id"] in ids for row in listed.json()["items"])

    assert await eventually(look, is_good=lambda count: count == 0, within_s=60) == 0

    async def files() -> int:
        return len(list(files_of(stack, "notify-1")))

    # The sockets are gone, not only their sessions; a few of the broker's and the database's come and go.
    await eventually(files, is_good=lambda count: count < files_before + 10, within_s=30)
    metrics = (await rest.notify("GET", "/metrics")).text
    (closed,) = [line for line in metrics.splitlines() if line.startswith('ws_closed_total{code="4412"}')]
    assert float(closed.split()[-1]) >= 20
    for raw in quiet:
        raw.close()


@pytest.mark.req("D16")
@pytest.mark.req("CP-2")
async def test_a_half_open_peer_is_noticed_and_keeps_its_frames(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    host, port = stack.system.notify_urls[0].removeprefix("http://").split(":")
    forwarding = asyncio.Event()
    forwarding.set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await forwarding.wait()
                writer.write(data)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    pipes: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        pipes.extend((asyncio.create_task(pipe(reader, there_writer)), asyncio.create_task(pipe(there_reader, writer))))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        device = await connect(address, person.access, device_id="phone")
        await device.synced()
        forwarding.clear()
        sent = await backend.send_to(person.id, "into the dark")
        admin = await rest.log_in("admin")

        async def look() -> int:
            path = f"/api/v1/connections?user_id={person.id}"
            return len((await rest.notify("GET", path, token=admin.access)).json()["items"])

        started = time.monotonic()
        await eventually(look, is_good=lambda count: count == 0, within_s=25)
        # Heartbeat 5 s here: two of them, and a tick.
        assert time.monotonic() - started < 2 * 5 + 5
        async with connected(stack.system.notify_urls[1], person.access, device_id="phone") as again:
            assert (await again.next("notification"))["id"] == sent
        await device.drop()
    finally:
        for task in pipes:
            task.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        proxy.close()


@pytest.mark.req("D02")
async def test_a_cookie_is_no_authentication(stack: Stack) -> None:
    raw = await Raw.open(stack.system.notify_urls[0], None, extra="Cookie: sessionid=abc; access=def\r\n")
    assert raw.head.startswith("HTTP/1.1 101")
    assert await raw.read_close() == 4408
    raw.close()
