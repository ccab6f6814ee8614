from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from notification_site import NotificationSite

RUN_DIR = Path(tempfile.mkdtemp(prefix="herald-auth-tests-"))
NOTIFICATION_SITE = NotificationSite()
os.environ.update(
    AUTH_NOTIFICATION_URL=NOTIFICATION_SITE.url,
    DJANGO_SETTINGS_MODULE="auth_service.config.settings",
    HERALD_ENV="development",
    HERALD_RUN_DIR=str(RUN_DIR),
    # Hashing that costs nothing: only tests may have that.
    AUTH_ARGON2_MEMORY_KIB="8",
    AUTH_ARGON2_TIME_COST="1",
    AUTH_WORKERS="1",
    AUTH_LOG_LEVEL="WARNING",
)

import django  # noqa: E402 - the environment comes first

django.setup()

import psycopg  # noqa: E402
from auth_kit import NOON, Api, Device, log_in, make_admin, make_user  # noqa: E402
from auth_server import Server, running  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import TransactionTestCase  # noqa: E402

from auth_service import clock  # noqa: E402
from auth_service.accounts.models import User  # noqa: E402
from auth_service.audit import triggers  # noqa: E402
from auth_service.tenants.models import Tenant  # noqa: E402
from auth_service.tokens.access_tokens import key_folder  # noqa: E402
from herald_local.rabbitmq import RabbitNode, RabbitSettings  # noqa: E402
from herald_local.testing import POSTGRES_URL, RABBIT_FOLDER  # noqa: E402

if connection.vendor == "sqlite":
    # A file, not memory: threads and other processes must see the same database.
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(RUN_DIR / "test.sqlite3")

IS_THOROUGH = bool(os.environ.get("HERALD_THOROUGH"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `only_on` the other database, unless this is the long form (`HERALD_THOROUGH=1`).

    So is marked whatever looks at no table, or is slow and has nothing to do with what tells the two apart.
    """
    marks = {item: item.get_closest_marker("only_on") for item in items}
    left_out = [item for item, mark in marks.items() if mark is not None and mark.args[0] != connection.vendor]
    if left_out and not IS_THOROUGH:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


_flush = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]


def _flush_and_restore(self: TransactionTestCase) -> None:
    """Django empties all tables after a test that commits: the audit log refuses that, and the default tenant goes."""
    vendor = connection.vendor
    lifted = triggers.drop_statements(vendor) if vendor == "sqlite" else triggers.drop_truncate_statements(vendor)
    put_back = triggers.create_statements(vendor) if vendor == "sqlite" else triggers.create_truncate_statements(vendor)
    with connection.cursor() as cursor:
        for statement in lifted:
            cursor.execute(statement)
        _flush(self)
        for statement in put_back:
            cursor.execute(statement)
    Tenant.objects.get_or_create(slug="default", defaults={"name": "Default"})


TransactionTestCase._fixture_teardown = _flush_and_restore  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def run_folder() -> Iterator[Path]:
    """Where this run keeps its keys and its database."""
    with clock.frozen(datetime(2020, 1, 1, tzinfo=UTC)):  # old enough to sign whatever time a test makes it
        key_folder().ensure("RS256")
    yield RUN_DIR
    NOTIFICATION_SITE.close()
    shutil.rmtree(RUN_DIR, ignore_errors=True)


@pytest.fixture(autouse=True)
def notification_site() -> Iterator[NotificationSite]:
    """The other service, as far as this one talks to it."""
    yield NOTIFICATION_SITE
    NOTIFICATION_SITE.reset()


@pytest.fixture(scope="session")
def rabbit(services: dict[str, str]) -> RabbitNode:
    """The shared node, by the settings it runs with: read anew they would name other ports, its own being taken."""
    node = RabbitNode(Path(services[RABBIT_FOLDER]))
    node._settings = RabbitSettings(**json.loads((node.folder / "node.json").read_text()))
    return node


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def server(server_folder: Path, new_database: Callable[[], str], rabbit: RabbitNode) -> Iterator[Server]:
    """The service as it runs, with its background process, on a database of its own."""
    # Limits as in production, but for the address: every test comes from the same one.
    more = {"AUTH_LOGIN_FAILURES_PER_ADDRESS": "1000", "AUTH_WORKERS": "2", "AUTH_TRUSTED_PROXIES": ""}
    with running(Server(server_folder, new_database(), rabbit.url, more), background=True) as started:
        yield started


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The database goes with its cluster: threads of the tests may still be connected to it when the run ends."""
    return True


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes databases of the kind this run is about, with every table and the demonstration accounts.

    One is prepared; the others are copies of it.
    """
    folder = tmp_path_factory.mktemp("databases")
    numbers = itertools.count(1)
    if connection.vendor == "sqlite":
        prepared = folder / "prepared.sqlite3"
        Server(folder, f"sqlite:///{prepared}", "amqp://x:y@127.0.0.1:1/").prepare()
        with contextlib.closing(sqlite3.connect(prepared)) as connected:
            connected.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        def copy_file() -> str:
            path = folder / f"copy{next(numbers)}.sqlite3"
            shutil.copy(prepared, path)
            return f"sqlite:///{path}"

        return copy_file
    maintenance: str = request.getfixturevalue("services")[POSTGRES_URL]
    base, name = maintenance.rsplit("/", 1)[0], f"prepared_{os.getpid()}"

    def create(database: str, template: str) -> str:
        with psycopg.connect(maintenance, autocommit=True) as connected:
            connected.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return f"{base}/{database}"

    Server(folder, create(name, "template1"), "amqp://x:y@127.0.0.1:1/").prepare()
    return lambda: create(f"{name}_{next(numbers)}", name)


@pytest.fixture
def own_database(new_database: Callable[[], str]) -> str:
    """The address of one of them."""
    return new_database()


@pytest.fixture
def frozen() -> Iterator[clock.FrozenClock]:
    """A clock that stands at noon."""
    with clock.frozen(NOON) as held:
        yield held


@pytest.fixture
def api(db: None) -> Api:
    """A visitor."""
    return Api()


@pytest.fixture
def alice(db: None) -> User:
    return make_user("alice")


@pytest.fixture
def device(alice: User) -> Device:
    """Alice, logged in."""
    return log_in(alice)


@pytest.fixture
def admin(db: None) -> Device:
    return make_admin()
