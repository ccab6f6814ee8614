"""`herald-notify`: starts one process of this service, or migrates its database."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from notification_service.db.engine import Database
from notification_service.entrypoints.all_in_one import make_all_in_one
from notification_service.entrypoints.api import make_api
from notification_service.entrypoints.first_bytes import FirstBytes
from notification_service.entrypoints.gateway import make_gateway
from notification_service.entrypoints.http_server import KEEP_ALIVE_S, DrainingServer
from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.scheduler import make_scheduler
from notification_service.entrypoints.worker import make_worker
from notification_service.gateway.connection import make_protocol_class
from notification_service.settings import Settings
from shared_contracts.requests import describe_errors
from shared_contracts.service_log import configure_logging

PROCESSES: dict[str, Callable[[Parts], FastAPI]] = {
    "all-in-one": make_all_in_one,
    "api": make_api,
    "gateway": make_gateway,
    "worker": make_worker,
    "scheduler": make_scheduler,
}
_WITH_SOCKETS = frozenset({"all-in-one", "gateway"})
_STOP_LIMIT_S = 15


def main() -> None:
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(prog="herald-notify", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in PROCESSES:
        command = commands.add_parser(name, help=f"run the {name} process")
        command.add_argument("--host", default="127.0.0.1")
        command.add_argument("--port", type=int, default=0, help="0: any free one")
    command = commands.add_parser("migrate", help="bring the database's tables up to date")
    command.add_argument("revision", nargs="?", default="head")
    options = parser.parse_args()
    settings = load_settings()
    configure_logging(os.environ.get("HERALD_PROCESS", options.command), level=settings.log_level)
    if options.command == "migrate":
        asyncio.run(_migrate(settings, options.revision))
    else:
        serve(options.command, settings, host=options.host, port=options.port)


def load_settings() -> Settings:
    """The settings; ends the process with a sentence that names what is wrong, and never its value."""
    try:
        return Settings()
    except ValidationError as error:
        described = describe_errors(error.errors(include_url=False, include_input=False, include_context=False))
        problems = "; ".join(
            f"{Settings.variable_of(field)}: {message}" if field else message for field, message in described
        )
        sys.exit(f"herald-notify: {problems}")


def serve(process: str, settings: Settings, *, host: str, port: int) -> None:
    """Run one process until SIGTERM or SIGINT."""
    parts = Parts(settings, process=process)
    app = PROCESSES[process](parts)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=FirstBytes,
        ws=make_protocol_class(parts.gateway) if process in _WITH_SOCKETS else "none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_LIMIT_S,
        lifespan="on",
    )
    _tune_collector()
    server = DrainingServer(config, parts.gateway.drain if process in _WITH_SOCKETS else None)
    # After its orderly stop uvicorn raises the signal again, for the handler that was there before: with this one the
    # process ends with 0, and a supervisor can tell a stop from a crash. It comes last, because nobody hears a signal
    # that comes before uvicorn takes over.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()


def _tune_collector() -> None:
    """Let the garbage collector look less often, and never at what was there from the start.

    With 20,000 sessions a full collection stops the loop for a quarter of a second, and by default one comes with every
    few hundred accepted connections; a worker spends a quarter of its time on walking batches that are still in hand.
    Nothing on the hot path makes cycles (docs/decisions/0062).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


async def _migrate(settings: Settings, revision: str) -> None:
    # Here, because Alembic takes a fifth of the time any other process needs to start, and only this one uses it.
    from notification_service.db.migrate import migrate  # noqa: PLC0415

    settings.run_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, timeout=settings.database_timeout)
    await migrate(database.engine, revision)
    await database.close()
