"""Two installations for the whole run, one on SQLite and one on PostgreSQL, each with two gateways and two workers."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psycopg
import pytest

from harness.broker import Backend, backend_of
from harness.people import Rest
from harness.stack import Stack, running_stack

DATABASES = os.environ.get("HERALD_E2E_DATABASES", "sqlite,postgresql").split(",")

# Short where a test would only wait: the values in production are longer, the rules the same.
SETTINGS = {
    "NOTIFY_AUTHENTICATION_TIMEOUT": "4",
    "NOTIFY_ACK_TIMEOUT": "6",
    "NOTIFY_HEARTBEAT_INTERVAL": "5",
    "NOTIFY_PRESENCE_GRACE": "4",
    "NOTIFY_RELAY_GRACE": "5",
    "NOTIFY_RELAY_HOLD": "5",
    # Two whole installations may share two processors: a slow answer is no fault of the database there.
    "NOTIFY_DATABASE_TIMEOUT": "15",
    # Logins by the hundred: what a hash costs is tested where it is made.
    "AUTH_ARGON2_MEMORY_KIB": "64",
    "AUTH_ARGON2_TIME_COST": "1",
}


@pytest.fixture(scope="session", params=DATABASES)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The installation tests of this database share."""
    folder = tmp_path_factory.mktemp(f"herald-{request.param}")
    with make_stack(request, request.param, folder) as running:
        yield running


def make_stack(
    request: pytest.FixtureRequest, database: str, folder: Path, **options: int
) -> AbstractContextManager[Stack]:
    databases: tuple[str | None, str | None] = (None, None)
    if database == "postgresql":
        databases = _make_databases(request.getfixturevalue("postgres_url"))
    return running_stack(folder, databases=databases, settings=SETTINGS, **options)


def _make_databases(postgres_url: str) -> tuple[str, str]:
    suffix = uuid.uuid4().hex[:10]
    base = postgres_url.rsplit("/", 1)[0]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("auth", "notify"):
            connection.execute(f'CREATE DATABASE "{name}_{suffix}"')
    return f"{base}/auth_{suffix}", f"{base}/notify_{suffix}"


@pytest.fixture
async def rest(stack: Stack) -> AsyncIterator[Rest]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        yield Rest(stack, client)


@pytest.fixture
async def backend(stack: Stack) -> AsyncIterator[Backend]:
    async with backend_of(stack) as connected:
        yield connected
