"""Statements that go to PostgreSQL's driver as they are: the text is known, only the rows differ.

SQLAlchemy takes 120 µs of each execution to find a compiled text by its key, to convert values that need no converting,
and to describe a result that is described already; the statement itself takes 60 (docs/decisions/0073). Everything else
stays SQLAlchemy's: connections, transactions, and what an error means for them.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Dialect,
    Executable,
    Integer,
    String,
    Uuid,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from notification_service.db.base import UtcDateTime

RowTypes = Mapping[str, TypeEngine[Any]]
Records = Sequence[Sequence[Any]]
_Encoder = Callable[[Any], Any] | None

AUTOCOMMIT: Final = "AUTOCOMMIT"
"""SQLAlchemy's name for a connection without transactions: each statement is one of its own."""

# The driver takes and gives their values as Python has them; JSON is text to it.
_PLAIN: Final = (BigInteger, Boolean, Integer, String, Uuid, UtcDateTime)

# PostgreSQL's class of error codes for violated constraints.
_INTEGRITY: Final = "23"


class DirectStatement:
    """See the module; made by `make_direct`.

    Args:
        sql: With numbered parameters.
        tables: For each table of rows, where the arrays of its columns are among the parameters, and what encodes their
            values (None: as they are), in the order of the columns.
        others_at: Where the further values are, by name.
        arguments: All parameters, with the values of those that never differ.
        row: Makes a row of a record.
    """

    __slots__ = ("_arguments", "_others_at", "_row", "_sql", "_tables")

    def __init__(
        self,
        sql: str,
        *,
        tables: Mapping[str, Sequence[tuple[int, _Encoder]]],
        others_at: Mapping[str, int],
        arguments: Sequence[Any],
        row: Callable[[Any], Any] | None,
    ) -> None:
        self._sql = sql
        self._tables = tables
        self._others_at = others_at
        self._arguments = arguments
        self._row = row

    async def run(
        self, connection: AsyncConnection, driver: Any, records: Mapping[str, Records], others: Mapping[str, Any]
    ) -> list[Any]:
        """Run the statement in the connection's transaction, which has begun, or as one of its own.

        Raises:
            DBAPIError: As SQLAlchemy raises it.
        """
        arguments = list(self._arguments)
        for name, places in self._tables.items():
            for (at, encode), values in zip(places, zip(*records[name], strict=True), strict=True):
                arguments[at] = values if encode is None else [encode(value) for value in values]
        for name, value in others.items():
            arguments[self._others_at[name]] = value
        try:
            found = await driver.fetch(self._sql, *arguments)
        except Exception as error:
            if driver.is_closed():
                # SQLAlchemy finds that out in its own way, and gives up what it must of its pool.
                await connection.execute(text("SELECT 1"))
            state = getattr(error, "sqlstate", None)
            if state is None:
                raise
            kind = IntegrityError if state.startswith(_INTEGRITY) else DBAPIError
            raise kind(self._sql, None, error) from error
        row = self._row
        return [] if row is None else [row(each) for each in found]


def make_direct(statement: Executable, dialect: Dialect, tables: Mapping[str, RowTypes]) -> DirectStatement | None:
    """Compile a statement over rows for the driver; None when that cannot be done.

    Args:
        statement: Made for this dialect, its rows bound as arrays named `<table>_<column>`.
        dialect: PostgreSQL's.
        tables: The types of the rows' columns, by table.
    """
    encoders = {name: {each: _find_encoder(kind) for each, kind in types.items()} for name, types in tables.items()}
    columns = dict(getattr(statement, "exported_columns", {}).items())
    if any(_UNKNOWN in each.values() for each in encoders.values()) or any(
        _find_encoder(column.type) is _UNKNOWN for column in columns.values()
    ):
        return None
    compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # all executables with a text have it
    if compiled.post_compile_params or not compiled.positiontup:
        return None
    places = {name: at for at, name in enumerate(compiled.positiontup)}
    if len(places) != len(compiled.positiontup):
        return None
    return DirectStatement(
        compiled.string,
        tables={
            name: [(places[f"{name}_{column}"], encode) for column, encode in found.items()]
            for name, found in encoders.items()
        },
        others_at=places,
        arguments=[compiled.binds[name].effective_value for name in compiled.positiontup],
        row=_make_row(columns) if columns else None,
    )


def find_driver(connection: AsyncConnection) -> Any:
    """The driver's own connection when its transaction has begun, or when there shall be none.

    None: let SQLAlchemy do it, which begins one, or finds out what is wrong.
    """
    sync = connection.sync_connection
    if sync is None or sync.closed or sync.invalidated:
        return None
    driver: Any = sync.connection.driver_connection
    if driver.is_closed():
        return None
    if sync.get_execution_options().get("isolation_level") == AUTOCOMMIT:
        return driver
    return driver if sync.in_transaction() and driver.is_in_transaction() else None


def _unknown(_value: Any) -> Any:
    raise AssertionError("values of this kind are left to SQLAlchemy")


_UNKNOWN: Final = _unknown


def _dump(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _find_encoder(kind: TypeEngine[Any]) -> _Encoder:
    if isinstance(kind, JSON):
        return _dump
    return None if isinstance(kind, _PLAIN) else _UNKNOWN


def _make_row(columns: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Makes rows of records. JSON needs no reading: SQLAlchemy has taught the driver to."""
    row: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024 - the names are known only here
    make: Callable[[Any], Any] = row._make
    return make
