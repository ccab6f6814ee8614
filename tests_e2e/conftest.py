"""Two installations for the whole run, one on SQLite and one on PostgreSQL, each with two gateways and two workers.

A test whose outcome the database has no part in is marked `only_on("sqlite")` or `only_on("postgresql")` and runs once;
which of the two it is only spreads the work. The long form (`HERALD_THOROUGH=1`) runs everything on both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.broker import Backend, backend_of
from harness.people import Rest
from harness.rounds import IS_THOROUGH
from harness.stack import Stack, running_stack
from herald_local.postgresql import PostgresCluster

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to the other database."""
    if IS_THOROUGH:
        return
    kept, left_out = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        (left_out if _belongs_elsewhere(item) else kept).append(item)
    if left_out:
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


def _belongs_elsewhere(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("only_on")
    if mark is None:
        return False
    callspec = getattr(item, "callspec", None)
    own = callspec.params.get("stack") if callspec is not None else None
    # A test with an installation of its own has no parameter: it runs where its database does.
    return own != mark.args[0] if own is not None else mark.args[0] not in DATABASES


@pytest.fixture(scope="session", params=DATABASES)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The installation tests of this database share."""
    folder = tmp_path_factory.mktemp(f"herald-{request.param}")
    with make_stack(request.param, folder) as running:
        yield running


@contextlib.contextmanager
def make_stack(database: str, folder: Path, **options: Any) -> Iterator[Stack]:
    """An installation on SQLite, or on a PostgreSQL cluster of its own, which tests may stop."""
    with contextlib.ExitStack() as ending:
        cluster = ending.enter_context(_running_cluster()) if database == "postgresql" else None
        yield ending.enter_context(running_stack(folder, cluster=cluster, settings=SETTINGS, **options))


@contextlib.contextmanager
def _running_cluster() -> Iterator[PostgresCluster]:
    folder = Path(tempfile.mkdtemp(prefix="herald-e2e-"))
    folder.chmod(0o755)  # PostgreSQL's own user must get through
    # Durability against power loss is not what tests need; against kill -9 nothing changes.
    cluster = PostgresCluster(folder / "postgresql", settings={"fsync": "off", "full_page_writes": "off"})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def rest(stack: Stack) -> AsyncIterator[Rest]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        yield Rest(stack, client)


@pytest.fixture
async def backend(stack: Stack) -> AsyncIterator[Backend]:
    async with backend_of(stack) as connected:
        yield connected
