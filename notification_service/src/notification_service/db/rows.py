"""Many rows as one bound value: set-based statements whose text does not grow with the number of rows.

PostgreSQL gets one array per column (`unnest`), SQLite one JSON text (`json_each`). A VALUES list of 500 rows would be
compiled anew for every length, about 20 ms each; these compile once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Dialect,
    FromClause,
    Subquery,
    bindparam,
    func,
    select,
    type_coerce,
)
from sqlalchemy import column as sql_column
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

RowTypes = Mapping[str, TypeEngine[Any]]


def make_rows(
    connection: AsyncConnection, types: RowTypes, records: Sequence[Sequence[Any]], name: str = "r"
) -> FromClause:
    """A table of these records, to select from, join with, or insert from.

    Args:
        connection: Tells the dialect.
        types: Column names and types, in the order of each record's values.
        records: At least one.
        name: Of the table in the statement; two tables of rows in one statement need two names.
    """
    dialect = connection.dialect
    if dialect.name == "sqlite":
        return _sqlite_rows(dialect, types, records, name)
    columns = list(zip(*records, strict=True))
    # One dimension, said aloud: a list as a JSON value would count as a second one.
    arrays = [
        bindparam(f"{name}_{column}", list(values), type_=ARRAY(kind, dimensions=1), unique=True)
        for (column, kind), values in zip(types.items(), columns, strict=True)
    ]
    table = func.unnest(*arrays).table_valued(*(sql_column(column, kind) for column, kind in types.items()), name=name)
    return table.render_derived()


def _sqlite_rows(dialect: Dialect, types: RowTypes, records: Sequence[Sequence[Any]], name: str) -> Subquery:
    processors = [kind.dialect_impl(dialect).bind_processor(dialect) for kind in types.values()]
    stored = [
        [value if process is None else process(value) for process, value in zip(processors, record, strict=True)]
        for record in records
    ]
    each = func.json_each(bindparam(f"{name}_rows", orjson.dumps(stored).decode(), unique=True)).table_valued("value")
    columns: list[ColumnElement[Any]] = [
        type_coerce(func.json_extract(each.c.value, f"$[{index}]"), kind).label(column)
        for index, (column, kind) in enumerate(types.items())
    ]
    return select(*columns).select_from(each).subquery(name)
