"""Databases with all tables, of both kinds; each test has its own."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: migrating one for every test would take longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "notify.sqlite3"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database to copy."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        address = postgres_url.rpartition("/")[0].replace("postgresql://", "postgresql+asyncpg://")
        asyncio.run(_migrate(f"{address}/{name}"))
        yield name
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def _migrate(url: str) -> None:
    database = Database(url)
    await migrate(database.engine)
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with all tables, of this test's own."""
    if request.param == "sqlite":
        path = tmp_path / "migrated.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    maintenance: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{request.getfixturevalue("postgres_template")}"')
        yield maintenance.rpartition("/")[0].replace("postgresql://", "postgresql+asyncpg://") + f"/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    database = Database(migrated_url)
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
