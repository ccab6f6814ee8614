"""What one endpoint of fifty that hangs costs the others: the 95th percentile of their webhooks, before and beside it.

python -m benchmarks.channel_hang [rounds] [sqlite|postgresql]; the target is less than twice as long (requirement F12).

Every round sends four messages to each endpoint at once. The one that hangs takes every call and never answers, so it
has eight calls at a time, each for ten seconds, and a growing backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from typing import Final
from uuid import UUID, uuid4

import uvloop
from sqlalchemy import insert

from benchmarks.channel_setup import Installation, installed, services
from notification_service.contacts.addresses import hash_address
from notification_service.contacts.models import contacts

TARGET: Final = 2.0
ENDPOINTS: Final = 50
MESSAGES: Final = 4
_HUNG: Final = b"127.0.1.1:"


class _Endpoints:
    """Fifty endpoints under addresses of their own, all here."""

    def __init__(self) -> None:
        self.is_hanging = False
        self.port = 0
        self.times: list[float] = []
        self.others_are_called = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                if _HUNG in head:
                    if self.is_hanging:
                        await asyncio.sleep(60)
                else:
                    self.times.append(time.monotonic())
                    if len(self.times) == MESSAGES * (ENDPOINTS - 1):
                        self.others_are_called.set()
                await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()


async def measure(rounds: int, kind: str) -> float:
    """How many times as long it takes with one that hangs."""
    endpoints = _Endpoints()
    server = await asyncio.start_server(endpoints.serve, "0.0.0.0", 0)  # noqa: S104 - 127.0.1.1 to 127.0.1.50
    endpoints.port = server.sockets[0].getsockname()[1]
    async with installed(kind, dict, allow_private_targets=True) as running:
        people = await running.add_people(ENDPOINTS)
        await _add_contacts(running, people, endpoints.port)
        await _send(running, people, endpoints)
        normal = [await _send(running, people, endpoints) for _ in range(rounds)]
        endpoints.is_hanging = True
        hanging = [await _send(running, people, endpoints) for _ in range(rounds)]
        server.close()
    before, after = statistics.median(normal), statistics.median(hanging)
    print(
        f"{kind}: p95 of {ENDPOINTS - 1} endpoints {before * 1000:.0f} ms, "
        f"{after * 1000:.0f} ms beside one that hangs: {after / before:.2f} times as long (medians of {rounds} rounds)"
    )
    return after / before


async def _send(running: Installation, people: list[UUID], endpoints: _Endpoints) -> float:
    """Four to everybody; answers the 95th percentile, in seconds, until the others were called."""
    kept = [each for _ in range(MESSAGES) for each in await running.store(people, "webhook")]
    endpoints.times.clear()
    endpoints.others_are_called.clear()
    started = time.monotonic()
    await running.parts.queueing.publish(kept)
    await asyncio.wait_for(endpoints.others_are_called.wait(), 60)
    # Until what the worker writes is written.
    await asyncio.sleep(0.3)
    return statistics.quantiles([each - started for each in endpoints.times], n=20)[18]


async def _add_contacts(running: Installation, people: list[UUID], port: int) -> None:
    box = running.parts.box
    rows = []
    for number, user_id in enumerate(people, 1):
        address = f"http://127.0.1.{number}:{port}/hook"
        rows.append(
            {
                "user_id": user_id,
                "id": uuid4(),
                "tenant": "default",
                "channel": "webhook",
                "address": box.seal(address),
                "address_hash": hash_address("webhook", address),
                "hint": "",
                "secret": box.seal("a secret of the receiver"),
                "label": "",
                "created_at": running.clock.now(),
            }
        )
    async with running.database.write() as connection:
        await connection.execute(insert(contacts), rows)


def main() -> None:
    """The exit code is 1 when the target was missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with services():
        found = [uvloop.run(measure(rounds, kind)) for kind in sys.argv[2:] or ("sqlite", "postgresql")]
    sys.exit(max(found) >= TARGET)


if __name__ == "__main__":
    main()
