"""The database away, slow, full or locked: 503 in time, nothing lost or made up, healed by itself (H15 to H17)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from auth_site import AuthSite
from service import Person, Service, running_service
from tcp_proxy import proxy_to
from waiting import until

from herald_local.postgresql import PostgresCluster
from notification_service.db.engine import Database
from notification_service.db.migrate import migrate

SEND = "/api/v1/notifications/send"
# What is promised is 2 s. A machine that runs tests may be busy with other things; without a limit it would be 30 s.
PROMISED_S = 2.0
SLACK_S = 4.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL server of these tests' own: they stop it."""
    with tempfile.TemporaryDirectory(prefix="herald-test-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own user must get through, which pytest's folders do not allow
        cluster = PostgresCluster(Path(folder) / "postgresql", settings={"fsync": "off"})
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture
async def database_url(cluster: PostgresCluster, request: pytest.FixtureRequest) -> str:
    name = "db_" + str(abs(hash(request.node.nodeid)))
    url = await asyncio.to_thread(cluster.create_database, name)
    database = Database(url.replace("postgresql://", "postgresql+asyncpg://"))
    await migrate(database.engine)
    await database.close()
    return url


@contextlib.asynccontextmanager
async def api_on(
    auth: AuthSite, amqp_url: str, database_url: str, folder: Path, **settings: Any
) -> AsyncIterator[Service]:
    async with running_service(
        auth, amqp_url=amqp_url, database_url=database_url, run_dir=folder, processes=("worker", "api"), **settings
    ) as running:
        yield running


async def send(service: Service, sender: Person) -> tuple[int, float, Any]:
    started = time.monotonic()
    body = {"title": "Hello", "recipients": {"users": [str(sender.id)]}}
    answer = await service.post(SEND, sender, body)
    return answer.status_code, time.monotonic() - started, answer


async def check_unavailable(service: Service, sender: Person) -> None:
    """Writing and reading are refused in time, in the words of a problem, and the process itself stays alive."""
    status, took_s, answer = await send(service, sender)
    assert status == 503, answer.text
    assert took_s < PROMISED_S + SLACK_S
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unavailable"
    assert (await service.get("/health/live")).status_code == 200


async def is_accepted(service: Service, sender: Person) -> bool:
    return (await send(service, sender))[0] == 202


@pytest.mark.req("H15")
@pytest.mark.req("J01")
async def test_a_stopped_server(
    auth: AuthSite, amqp_url: str, cluster: PostgresCluster, database_url: str, tmp_path: Path
) -> None:
    async with api_on(auth, amqp_url, database_url, tmp_path) as service:
        sender = service.add_person("publisher")
        assert await is_accepted(service, sender)
        await asyncio.to_thread(cluster.stop)
        try:
            await check_unavailable(service, sender)
            assert (await service.get("/api/v1/inbox", sender)).status_code == 503
            assert (await service.get("/health/ready")).json()["checks"]["database"] == "unavailable"
            assert (await service.get("/health/database")).status_code == 503
            assert (await service.get("/health/broker")).status_code == 200
            # Nobody who was refused is heard all the same.
            await asyncio.gather(*(send(service, sender) for _ in range(5)))
        finally:
            await asyncio.to_thread(cluster.start)
        await until(lambda: is_accepted(service, sender))
        await until(lambda: _is_status(service, "/health/ready", 200))
        # Each that is stored is in the inbox once, and no other is.
        stored = await asyncio.to_thread(
            cluster.psql, database_url.rpartition("/")[2], "SELECT count(*) FROM notifications"
        )
        await until(lambda: _has_items(service, sender, int(stored)))


async def _is_status(service: Service, path: str, status: int) -> bool:
    return (await service.get(path)).status_code == status


async def _has_items(service: Service, person: Person, count: int) -> bool:
    answer = await service.get("/api/v1/inbox/counts", person)
    return answer.status_code == 200 and answer.json()["total"] == count


@pytest.mark.req("H15")
async def test_every_backend_terminated(
    auth: AuthSite, amqp_url: str, cluster: PostgresCluster, database_url: str, tmp_path: Path
) -> None:
    async with api_on(auth, amqp_url, database_url, tmp_path) as service:
        sender = service.add_person("publisher")
        await asyncio.gather(*(send(service, sender) for _ in range(10)))
        name = database_url.rpartition("/")[2]
        await asyncio.to_thread(
            cluster.psql,
            "postgres",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",  # noqa: S608 - our own
        )
        statuses = [(await send(service, sender))[0] for _ in range(6)]
        assert set(statuses) <= {202, 503}
        assert statuses[-1] == 202
        # Not once per connection of the pool: the first error clears it.
        assert statuses.count(503) <= 2


@pytest.mark.req("H15")
async def test_a_server_that_does_not_answer(auth: AuthSite, amqp_url: str, database_url: str, tmp_path: Path) -> None:
    async with (
        proxy_to(database_url) as proxy,
        api_on(auth, amqp_url, proxy.through(database_url), tmp_path) as service,
    ):
        sender = service.add_person("publisher")
        assert await is_accepted(service, sender)
        proxy.freeze()
        for _ in range(2):
            await check_unavailable(service, sender)
        assert (await service.get("/health/ready")).status_code == 503
        proxy.thaw()
        await until(lambda: is_accepted(service, sender))


@pytest.mark.req("H15")
async def test_a_table_that_somebody_locks(auth: AuthSite, amqp_url: str, database_url: str, tmp_path: Path) -> None:
    async with api_on(auth, amqp_url, database_url, tmp_path) as service:
        sender = service.add_person("publisher")
        assert await is_accepted(service, sender)
        locking = await psycopg.AsyncConnection.connect(database_url)
        await locking.execute("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE")
        await check_unavailable(service, sender)
        await locking.rollback()
        await locking.close()
        await until(lambda: is_accepted(service, sender))


@pytest.mark.req("H16")
async def test_a_pool_with_nothing_left(auth: AuthSite, amqp_url: str, database_url: str, tmp_path: Path) -> None:
    async with api_on(auth, amqp_url, database_url, tmp_path, database_pool_size=2) as service:
        sender = service.add_person("publisher")
        database = service.parts["api"].database
        async with database.read(), database.read():
            await check_unavailable(service, sender)
        assert await is_accepted(service, sender)


@pytest.mark.req("H17")
async def test_sqlite_locked_from_outside(auth: AuthSite, amqp_url: str, sqlite_template: Path, tmp_path: Path) -> None:
    path = shutil.copyfile(sqlite_template, tmp_path / "notify.sqlite3")
    async with api_on(auth, amqp_url, f"sqlite:///{path}", tmp_path) as service:
        sender = service.add_person("publisher")
        assert await is_accepted(service, sender)
        connecting = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with contextlib.closing(connecting) as other:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            await check_unavailable(service, sender)
            # Whoever only reads does not wait for whoever writes.
            assert (await service.get("/api/v1/inbox", sender)).status_code == 200
            other.execute("ROLLBACK")
        assert await is_accepted(service, sender)
