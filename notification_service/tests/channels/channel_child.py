"""A process that sends over every channel, to be killed: `python channel_child.py <database> <broker>`.

The channels' own settings come from the environment, as in production. It says `ready` when it consumes.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from channel_kit import Sending, running_channels

from notification_service.channels import worker
from notification_service.channels.apprise import channel as apprise
from notification_service.channels.email import smtp
from notification_service.channels.http import client as http_client
from notification_service.db.engine import Database

PATIENCE = timedelta(minutes=5)
"""The providers of the test answer late on purpose, and the machine may be busy: here nothing is given up in time."""


def be_patient(sending: Sending) -> None:
    """Every limit on how long a provider may take, as long as a test."""
    worker.ATTEMPT_LIMIT = PATIENCE  # type: ignore[misc]  # final elsewhere
    smtp._STEP_LIMIT = PATIENCE  # type: ignore[misc]
    apprise._READ_LIMIT_S = PATIENCE.total_seconds()  # type: ignore[misc]
    sending.parts.http._limit_s = PATIENCE.total_seconds()
    http_client._POOL_LIMIT_S = PATIENCE.total_seconds()  # type: ignore[misc]


async def main(database_url: str, amqp_url: str) -> None:
    # The database is locked for a while on purpose.
    database = Database(database_url, timeout=PATIENCE)
    async with running_channels(database, amqp_url, retry_delays_seconds=(timedelta(seconds=0.2),) * 3) as sending:
        be_patient(sending)
        print("ready", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
