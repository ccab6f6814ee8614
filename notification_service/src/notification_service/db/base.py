"""Column types and the metadata all tables share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, Row, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from typing_extensions import override

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. PostgreSQL keeps the zone; SQLite keeps none, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of a result, whatever its columns."""

Json: Final[Any] = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""JSON; `jsonb` on PostgreSQL."""

BigNumber: Final[Any] = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both; SQLite only counts INTEGER columns as its row id."""

Words: Final[Any] = Text().with_variant(TSVECTOR(), "postgresql")
"""Words to be found by; `tsvector` on PostgreSQL, on SQLite text with spaces between."""
