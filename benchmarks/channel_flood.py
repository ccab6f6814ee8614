"""What one tenant's 10,000 SMS cost another tenant's, over the same provider account (X-18): the 95th percentile of the
time from publishing to the provider's answer, alone and beside the flood; and that to its call, which is what is ours.

python -m benchmarks.channel_flood [flood] [sqlite|postgresql]; the target is at most twice as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from typing import Final
from urllib.parse import parse_qs
from uuid import UUID

import uvloop

from benchmarks.channel_setup import Installation, installed, services

TARGET: Final = 2.0
MESSAGES: Final = 150
PER_S: Final = 10
ANSWER_AFTER_S: Final = 0.05
"""A provider's usual time: with 32 calls at a time it takes 640 SMS a second."""


class _Provider:
    """Twilio's part; notes when it was called for whom, and when it has answered."""

    def __init__(self) -> None:
        self.url = ""
        self.called_at: dict[str, float] = {}
        self.answered_at: dict[str, float] = {}
        self.calls = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                form = parse_qs((await reader.readexactly(length)).decode())
                self.called_at[form["To"][0]] = time.monotonic()
                self.calls += 1
                await asyncio.sleep(ANSWER_AFTER_S)
                body = b'{"sid":"SM1"}'
                writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
                self.answered_at[form["To"][0]] = time.monotonic()
        writer.close()


async def measure(flood: int, kind: str) -> float:
    """How many times as long it takes beside the flood."""
    provider = _Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    twilio = {
        "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
        "NOTIFY_TWILIO_AUTH_TOKEN": "t0ken",
        "NOTIFY_TWILIO_FROM": "+15005550006",
        "NOTIFY_TWILIO_API_URL": provider.url,
    }
    async with installed(kind, lambda: twilio, allow_private_targets=True) as running:
        calm = await running.add_people(MESSAGES, tenant="calm", number_from=10_000_000)
        crowd = await running.add_people(flood, tenant="flood", number_from=20_000_000)
        alone = await _send_one_by_one(running, calm, provider)
        provider.calls = 0
        kept = await running.store(crowd, "sms", tenant="flood")
        started = time.monotonic()
        for begin in range(0, flood, 500):
            await running.parts.queueing.publish(kept[begin : begin + 500])
        beside = await _send_one_by_one(running, calm, provider)
        took, calls = time.monotonic() - started, provider.calls
        server.close()
    called, answered = (after / before for before, after in zip(alone, beside, strict=True))
    print(
        f"{kind}: p95 until the answer {alone[1] * 1000:.0f} ms alone, {beside[1] * 1000:.0f} ms beside {flood:,} of "
        f"another tenant, of which {calls - MESSAGES:,} were sent in these {took:.0f} s: {answered:.2f} times as long; "
        f"until the call {alone[0] * 1000:.0f} and {beside[0] * 1000:.0f} ms, {called:.2f} times"
    )
    return answered


async def _send_one_by_one(running: Installation, people: list[UUID], provider: _Provider) -> tuple[float, float]:
    """Ten a second; answers the 95th percentiles until the call and until the answer, in seconds."""
    began: dict[str, float] = {}
    provider.called_at.clear()
    provider.answered_at.clear()
    for number, user_id in enumerate(people):
        kept = await running.store([user_id], "sms", tenant="calm")
        began[f"+49151{10_000_000 + number}"] = time.monotonic()
        await running.parts.queueing.publish(kept)
        await asyncio.sleep(1 / PER_S)
    async with asyncio.timeout(120):
        while not began.keys() <= provider.answered_at.keys():  # noqa: ASYNC110 - over when all are there
            await asyncio.sleep(0.05)
    called, answered = (
        statistics.quantiles([moments[each] - at for each, at in began.items()], n=20)[18]
        for moments in (provider.called_at, provider.answered_at)
    )
    return called, answered


def main() -> None:
    """The exit code is 1 when the target was missed."""
    flood = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with services():
        found = [uvloop.run(measure(flood, kind)) for kind in sys.argv[2:] or ("sqlite", "postgresql")]
    sys.exit(max(found) > TARGET)


if __name__ == "__main__":
    main()
