"""Databases with all tables, of both kinds; each test has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from amqp import Bystander, bystander
from auth_site import AuthSite, auth_site
from clocks import SetClock

from notification_service.db.engine import Database
from notification_service.db.migrate import migrate


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/notify.sqlite3"
    url: str = request.getfixturevalue("postgres_database")
    return url.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(database_url)
    await migrate(database.engine)
    yield database
    await database.close()


@pytest.fixture
def clock() -> SetClock:
    """The machine's clock, ten times as fast where it is slept by."""
    return SetClock(pace=0.1)


@pytest.fixture
async def outside(amqp_url: str) -> AsyncIterator[Bystander]:
    """A plain client of this test's virtual host."""
    async with bystander(amqp_url) as connected:
        yield connected


@pytest.fixture
async def auth() -> AsyncIterator[AuthSite]:
    """The auth service, as far as this service talks to it."""
    async with auth_site() as site:
        yield site
