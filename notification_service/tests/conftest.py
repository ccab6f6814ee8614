"""Databases with all tables, of both kinds; each test has its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
import structlog
from amqp import Bystander, bystander
from auth_site import AuthSite, auth_site
from channel_kit import HttpSink, http_sink
from channel_site import ChannelSite, channel_site
from clocks import SetClock
from service import Service, running_service
from sqlalchemy import select

from herald_local.rabbitmq import RabbitNode
from notification_service.db.engine import Database
from notification_service.db.migrate import migrate
from notification_service.mailbox.models import broadcasts


@pytest.fixture(scope="session", autouse=True)
def _plain_log() -> None:
    """structlog's own default draws every traceback with all local variables, which takes longer than most tests."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
        ]
    )


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


@contextlib.contextmanager
def _copied(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        path = folder / "migrated.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    maintenance: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{request.getfixturevalue("postgres_template")}"')
        yield maintenance.rpartition("/")[0].replace("postgresql://", "postgresql+asyncpg://") + f"/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with all tables, of this test's own."""
    with _copied(request.param, request, tmp_path) as url:
        yield url


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


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def service_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The database of the service that tests share."""
    with _copied(request.param, request, tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(
    service_database: str,
    rabbit: RabbitNode,
    virtual_hosts: Iterator[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Service]:
    """A whole service that many tests share, each with people and tenants of its own; see `service.py`.

    Tests that use it run in its event loop: `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
    """
    amqp_url = rabbit.url.rstrip("/") + "/" + next(virtual_hosts)
    folder = tmp_path_factory.mktemp("run")
    # 20 s: what happens when the database is slow is tested elsewhere; here the machine may be busy.
    async with (
        auth_site() as site,
        running_service(
            site, amqp_url=amqp_url, database_url=service_database, run_dir=folder, database_timeout=20
        ) as running,
    ):
        yield running
        # Everybody without a tenant of their own is in `default`: a broadcast there is in their inboxes, too.
        async with running.parts["api"].database.read() as connection:
            query = select(broadcasts.c.notification_id).where(broadcasts.c.tenant == "default")
            assert (await connection.execute(query)).all() == [], (
                "a test sent a broadcast to the tenant all tests share"
            )


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def channel_databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Those of `channel_house` and `strict_house`."""
    with contextlib.ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("channels") for _ in range(2)]
        yield [stack.enter_context(_copied(request.param, request, folder)) for folder in folders]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def channel_house(
    channel_databases: list[str],
    rabbit: RabbitNode,
    virtual_hosts: Iterator[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ChannelSite]:
    """A whole service with channels that many tests share; see `channel_site.py`. They run in its event loop."""
    amqp_url = rabbit.url.rstrip("/") + "/" + next(virtual_hosts)
    folder = tmp_path_factory.mktemp("run")
    async with channel_site(database_url=channel_databases[0], amqp_url=amqp_url, run_dir=folder) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def strict_house(
    channel_databases: list[str],
    rabbit: RabbitNode,
    virtual_hosts: Iterator[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ChannelSite]:
    """As `channel_house`, where contacts must be proved."""
    amqp_url = rabbit.url.rstrip("/") + "/" + next(virtual_hosts)
    folder = tmp_path_factory.mktemp("run")
    async with channel_site(
        database_url=channel_databases[1], amqp_url=amqp_url, run_dir=folder, require_verified_contacts=True
    ) as running:
        yield running


@pytest.fixture
def site(channel_house: ChannelSite) -> Service:
    """The service with channels."""
    return channel_house.service


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint() -> AsyncIterator[HttpSink]:
    """Somebody's endpoint, for contacts of this test; beside a service that tests share."""
    async with http_sink() as sink:
        yield sink
