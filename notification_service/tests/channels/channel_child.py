"""A process that sends over every channel, to be killed: `python channel_child.py <database> <broker>`.

The channels' own settings come from the environment, as in production. It says `ready` when it consumes.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from channel_kit import running_channels

from notification_service.db.engine import Database


async def main(database_url: str, amqp_url: str) -> None:
    # The database is locked for a while on purpose.
    database = Database(database_url, timeout=timedelta(seconds=30))
    async with running_channels(database, amqp_url, retry_delays_seconds=(timedelta(seconds=0.2),) * 3):
        print("ready", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
