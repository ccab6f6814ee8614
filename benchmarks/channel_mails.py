"""How many mails a second one worker process sends: real RabbitMQ, real database, an SMTP sink in another process.

python -m benchmarks.channel_mails [mails] [sqlite|postgresql]; the target is 500 a second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from typing import Any, Final

import uvloop
from aiosmtpd.smtp import SMTP

from benchmarks.channel_setup import installed, services

TARGET: Final = 500


class _Sink:
    """Takes commands in groups, as the common mail servers do (RFC 2920)."""

    async def handle_EHLO(  # noqa: N802
        self, _server: Any, session: Any, _envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return ["250-PIPELINING", *responses]

    async def handle_DATA(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802
        return "250 OK"


def serve_sink(port: Any) -> None:
    """An SMTP server that forgets what it gets; in a process of its own, because its time is not the worker's."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(_Sink(), hostname="sink.example"), "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await asyncio.Event().wait()

    asyncio.run(serve())


async def measure(count: int, kind: str, smtp_port: int) -> float:
    """Mails a second."""
    mail = {"NOTIFY_SMTP_URL": f"smtp://127.0.0.1:{smtp_port}", "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>"}
    async with installed(kind, lambda: mail) as running:
        kept = await running.store(await running.add_people(count), "email")
        started, cpu = time.monotonic(), time.process_time()
        await running.parts.queueing.publish(kept)
        while await running.count_waiting():  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.05)
        took, used = time.monotonic() - started, time.process_time() - cpu
    print(f"{kind}: {count} mails in {took:.2f} s, {count / took:.0f}/s, {used / count * 1000:.2f} ms CPU each")
    return count / took


def main() -> None:
    """The exit code is 1 when the target was missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    port = multiprocessing.Value("i", 0)
    sink = multiprocessing.Process(target=serve_sink, args=(port,), daemon=True)
    sink.start()
    while not port.value:
        time.sleep(0.05)
    with services():
        reached = [uvloop.run(measure(count, kind, port.value)) for kind in sys.argv[2:] or ("sqlite", "postgresql")]
    sink.terminate()
    sys.exit(min(reached) < TARGET)


if __name__ == "__main__":
    main()
