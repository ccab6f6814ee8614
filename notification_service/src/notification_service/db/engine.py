"""Engine and units of work: one short transaction per request or batch, clear errors when the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from notification_service.db.direct import AUTOCOMMIT
from notification_service.errors import Unavailable

_WRITE_OPTION = "herald_write"
_PING_LIMIT_S = 2.0
# The server's own limit comes first, and leaves the connection usable.
_WATCH_SLACK_S = 0.3


class Database:
    """The database of this service.

    `read()`, `write()` and `single()` are the only ways to a connection, and the only places that commit. They raise
    `Unavailable` when the database does not answer, the pool is empty, or SQLite stays locked, each after `timeout` at
    most.

    Args:
        url: With the asynchronous driver in it.
        pool_size: Connections at most.
        timeout: Longest wait for a connection, and for SQLite's lock.
        unit_limit: Longest a unit of work may take on PostgreSQL, for processes somebody waits for. None: as long as
            each of its statements takes at most 30 s.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        timeout: timedelta = timedelta(seconds=2),
        unit_limit: timedelta | None = None,
    ) -> None:
        unit_limit_s = unit_limit.total_seconds() if unit_limit is not None else None
        self.engine = _make_engine(
            url, pool_size=pool_size, timeout_s=timeout.total_seconds(), statement_limit_s=unit_limit_s
        )
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._single = self.engine.execution_options(isolation_level=AUTOCOMMIT)
        self._unit_limit_s = None if self.is_sqlite else unit_limit_s
        self._timeout_s = timeout.total_seconds()
        self._writer = asyncio.Lock() if self.is_sqlite else None

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing."""
        async with self._connect(self.engine) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own, without the round trips of one.

        For PostgreSQL: SQLite's writers need their turn, which `write` gives.
        """
        async with self._connect(self._single) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends, and rolls back when it raises."""
        async with self._take_turn(), self._connect(self.engine) as connection:
            # SQLite: take the write lock at the start. Taking it later fails at once if another wrote in between.
            connection = await connection.execution_options(**{_WRITE_OPTION: True})  # noqa: PLW2901 - same object
            async with connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def _take_turn(self) -> AsyncIterator[None]:
        """Writers of one process come in order on SQLite, which has one at a time: whoever waits for its lock looks
        again after pauses that grow to 100 ms, and finds others there.
        """
        if self._writer is None:
            yield
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.acquire()
        except TimeoutError:
            raise Unavailable("the database is busy") from None
        try:
            yield
        finally:
            self._writer.release()

    @contextlib.asynccontextmanager
    async def _connect(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        watch: asyncio.TimerHandle | None = None
        with _as_unavailable():
            try:
                async with engine.connect() as connection:
                    if self._unit_limit_s is not None:
                        watch = await _watch(connection, limit_s=self._unit_limit_s + _WATCH_SLACK_S)
                    yield connection
            finally:
                if watch is not None:
                    watch.cancel()

    async def ping(self) -> bool:
        """Whether the database answers within 2 s."""
        try:
            async with asyncio.timeout(_PING_LIMIT_S), self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except (TimeoutError, Unavailable):
            return False
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


async def _watch(connection: AsyncConnection, *, limit_s: float) -> asyncio.TimerHandle:
    """Abort the connection after this long, whatever it is doing.

    A server that went silent answers neither the statement nor the request to cancel it, nor the roll-back: everything
    that waits for it ends at once when its socket is gone.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return asyncio.get_running_loop().call_later(limit_s, driver.terminate)


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable("the database does not answer") from error
    except DBAPIError as error:
        if _is_refused_value(error):
            raise
        if isinstance(error, (InterfaceError, OperationalError)) or error.connection_invalidated:
            raise Unavailable("the database does not answer") from error
        if _is_of_the_server(error):
            raise Unavailable("the database cannot serve this version: is it migrated?") from error
        raise
    except (ConnectionError, TimeoutError) as error:  # asyncpg's own, raised while connecting
        raise Unavailable("the database does not answer") from error


def _is_refused_value(error: DBAPIError) -> bool:
    # asyncpg calls a value that no column of its type can hold an interface error. It comes again with every try.
    cause = error.orig.__cause__ if error.orig is not None else None
    return isinstance(cause, ValueError)


def _is_of_the_server(error: DBAPIError) -> bool:
    """Whether any other statement would have failed as well, and this one may succeed later.

    Connections, shutdown and start, resources; one of two who waited for each other's rows, which was rolled back; and
    tables, columns or rights that a migration has yet to bring.
    """
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and (state[:2] in ("08", "40", "57", "53") or state in ("42P01", "42703", "42501"))


def _make_engine(url: str, *, pool_size: int, timeout_s: float, statement_limit_s: float | None) -> AsyncEngine:
    options: dict[str, Any] = {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "pool_timeout": timeout_s,
        "pool_size": pool_size,
        "max_overflow": 0,
    }
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_async_engine(url, connect_args={"timeout": timeout_s}, **options)
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    server_settings = {"application_name": "herald-notification", "jit": "off", "timezone": "UTC"}
    if statement_limit_s is not None:
        # By the server itself: a statement that waits for a lock would otherwise wait on after its client has left.
        server_settings["statement_timeout"] = str(round(statement_limit_s * 1000))
    options["connect_args"] = {"timeout": timeout_s, "command_timeout": 30, "server_settings": server_settings}
    # No ping before use: it would cost every transaction a round trip. After a restart of PostgreSQL the first error
    # invalidates the whole pool; callers see `Unavailable` once and try again.
    return create_async_engine(url, pool_recycle=1800, **options)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is sent below, in the form each unit of work needs
    cursor = connection.cursor()
    # A new file that somebody else is migrating: SQLite does not wait for the lock here. The mode is the file's, and
    # who holds the lock has set it before.
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    write = connection.get_execution_options().get(_WRITE_OPTION)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
