"""Bringing the database's tables up to date. Two starters at once: one migrates, the other waits and finds it done."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

# Any number that no other program on the same database uses.
_LOCK_ID: Final = 0x48E7A1D
HEAD: Final = "head"
BASE: Final = "base"


async def migrate(engine: AsyncEngine, revision: str = HEAD) -> None:
    """Migrate to a revision, up or down, in one transaction: it happens whole or not at all."""
    async with engine.connect() as connection:
        # SQLite: the write lock, from the start and for the whole migration.
        connection = await connection.execution_options(herald_write=True)  # noqa: PLW2901 - the same object
        async with connection.begin():
            if engine.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            await connection.run_sync(_run, revision)


def _run(connection: Connection, revision: str) -> None:
    config = make_config()
    config.attributes["connection"] = connection
    if revision == BASE or revision.startswith("-"):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def make_config() -> Config:
    """Alembic's configuration; there is no file for it."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
