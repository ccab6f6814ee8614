"""Many rows as one bound value: set-based statements whose text does not grow with the number of rows.

PostgreSQL gets one array per column (`unnest`), SQLite one JSON text (`json_each`). A VALUES list of 500 rows would be
compiled anew for every length, about 20 ms each; these compile once.

Statements on the way of every message are built once too (`RowsStatement`): SQLAlchemy takes about a millisecond to put
one together, several times what executing it takes (docs/decisions/0070).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Dialect,
    Executable,
    FromClause,
    bindparam,
    func,
    select,
    type_coerce,
)
from sqlalchemy import column as sql_column
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from notification_service.db.direct import DirectStatement, Records, RowTypes, find_driver, make_direct

__all__ = ("Build", "RowTypes", "RowsStatement", "TablesStatement", "make_rows")


Build = Callable[[str, FromClause], Executable]
"""Makes a statement from the dialect's name and the table of rows."""


def make_rows(connection: AsyncConnection, types: RowTypes, records: Records, name: str = "r") -> FromClause:
    """A table of these records, to select from, join with, or insert from.

    Args:
        connection: Tells the dialect.
        types: Column names and types, in the order of each record's values.
        records: At least one.
        name: Of the table in the statement; two tables of rows in one statement need two names.
    """
    dialect = connection.dialect
    values = _bind_rows(_processors(dialect, types), types, records, name)
    return _define_rows(dialect, types, name, values)


class TablesStatement:
    """A statement over several tables of rows that is put together once for each dialect, and then only given rows.

    On PostgreSQL it is compiled once too, and from a transaction's second statement on goes to the driver directly
    (docs/decisions/0073). Its rows have their columns as attributes either way.

    Args:
        tables: Column names and types of each table, in the order of each record's values.
        build: Makes the statement; further values are bound as `bindparam("name")`.
    """

    def __init__(
        self, tables: Mapping[str, RowTypes], build: Callable[[str, Mapping[str, FromClause]], Executable]
    ) -> None:
        self._tables = tables
        self._build = build
        self._ready: dict[str, _Ready] = {}

    async def execute(
        self, connection: AsyncConnection, records: Mapping[str, Records], **others: Any
    ) -> Sequence[Any]:
        """Run the statement; answers the rows it returns, none when it returns nothing.

        Args:
            connection: Tells the dialect.
            records: At least one for each table.
            others: The further values.
        """
        dialect = connection.dialect
        ready = self._ready.get(dialect.name)
        if ready is None:
            ready = self._ready[dialect.name] = self._prepare(dialect)
        statement, processors, direct = ready
        if direct is not None and (driver := find_driver(connection)) is not None:
            return await direct.run(connection, driver, records, others)
        values = dict(others)
        for name, types in self._tables.items():
            values |= _bind_rows(processors[name], types, records[name], name)
        result = await connection.execute(statement, values)
        return result.all() if result.returns_rows else ()

    def _prepare(self, dialect: Dialect) -> _Ready:
        rows = {name: _define_rows(dialect, types, name, None) for name, types in self._tables.items()}
        statement = self._build(dialect.name, rows)
        direct = None if dialect.name == "sqlite" else make_direct(statement, dialect, self._tables)
        return statement, {name: _processors(dialect, types) for name, types in self._tables.items()}, direct


class RowsStatement:
    """The same over one table of rows.

    Args:
        types: Column names and types, in the order of each record's values.
        build: Makes the statement; further values are bound as `bindparam("name")`.
    """

    def __init__(self, types: RowTypes, build: Build) -> None:
        self._statement = TablesStatement({_NAME: types}, lambda dialect_name, rows: build(dialect_name, rows[_NAME]))

    async def execute(self, connection: AsyncConnection, records: Records, **others: Any) -> Sequence[Any]:
        """As `TablesStatement.execute`, with the records of the one table."""
        return await self._statement.execute(connection, {_NAME: records}, **others)


_NAME = "r"
_Processors = list[Callable[[Any], Any] | None] | None
_Ready = tuple[Executable, Mapping[str, _Processors], DirectStatement | None]


def _processors(dialect: Dialect, types: RowTypes) -> _Processors:
    """How SQLite stores values of these types; None on PostgreSQL, whose driver knows them."""
    if dialect.name != "sqlite":
        return None
    return [kind.dialect_impl(dialect).bind_processor(dialect) for kind in types.values()]


def _bind_rows(processors: _Processors, types: RowTypes, records: Records, name: str) -> dict[str, Any]:
    """The values of the parameters that `_define_rows` names."""
    if processors is None:
        return {f"{name}_{column}": values for column, values in zip(types, zip(*records, strict=True), strict=True)}
    stored = [
        [value if process is None else process(value) for process, value in zip(processors, record, strict=True)]
        for record in records
    ]
    return {f"{name}_rows": orjson.dumps(stored).decode()}


def _define_rows(dialect: Dialect, types: RowTypes, name: str, values: Mapping[str, Any] | None) -> FromClause:
    """The table; without values its parameters keep their names, and get them when the statement is executed."""

    def bind(parameter: str, kind: TypeEngine[Any] | None = None) -> Any:
        if values is None:
            return bindparam(parameter, type_=kind)
        return bindparam(parameter, values[parameter], type_=kind, unique=True)

    if dialect.name == "sqlite":
        each = func.json_each(bind(f"{name}_rows")).table_valued("value")
        extracted: list[ColumnElement[Any]] = [
            type_coerce(func.json_extract(each.c.value, f"$[{index}]"), kind).label(column)
            for index, (column, kind) in enumerate(types.items())
        ]
        return select(*extracted).select_from(each).subquery(name)
    # One dimension, said aloud: a list as a JSON value would count as a second one.
    arrays = [bind(f"{name}_{column}", ARRAY(kind, dimensions=1)) for column, kind in types.items()]
    table = func.unnest(*arrays).table_valued(*(sql_column(column, kind) for column, kind in types.items()), name=name)
    return table.render_derived()
