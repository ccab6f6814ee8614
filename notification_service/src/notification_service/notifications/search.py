"""Full-text search over titles and bodies: `tsvector` on PostgreSQL, FTS5 on SQLite, with the same words on both.

The words are made by `words.find_words` when a text is stored, so both databases find the same, whatever their locale.
PostgreSQL keeps them as a `tsvector` with a GIN index; SQLite as text, which triggers put into the FTS5 table.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Select, Text, Uuid, and_, cast, column, func, literal, or_, table
from sqlalchemy import select as sql_select
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.notifications.models import notification_contents, notifications
from notification_service.words import Search, parse_search

_FTS: Final = table("notification_search", column("rowid"), column("words", Text()))
_ROWS: Final = table("notification_search_rows", column("id"), column("notification_id", Uuid()), column("variant"))


def store_words(dialect_name: str, rows: FromClause, names: tuple[str, ...] = ("search",)) -> list[ColumnElement[Any]]:
    """The columns of rows as they are inserted: words as the database keeps them."""
    return [as_stored(dialect_name, each) if each.name in names else each for each in rows.c]


def as_stored(dialect_name: str, words: ColumnElement[Any]) -> ColumnElement[Any]:
    """Words with spaces between as the database keeps them."""
    if dialect_name == "sqlite":
        return words
    return func.array_to_tsvector(func.string_to_array(words, " ")).label(words.key)


async def forget_words(connection: AsyncConnection) -> None:
    """Leave nothing of deleted words in the index itself, where SQLite keeps them until segments are merged.

    FTS5's `secure-delete` would do it by itself, but needs SQLite 3.42.
    """
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("INSERT INTO notification_search (notification_search) VALUES ('optimize')")


def where_text(
    connection: AsyncConnection, query: Select[Any], *, text: str, variant: ColumnElement[Any] | None = None
) -> Select[Any]:
    """Narrow a query over `notifications` to those whose text has what is looked for.

    Args:
        connection: Tells the dialect.
        query: Has `notifications` among its tables.
        text: What a user typed.
        variant: Column that says which text the reader has; None: the notification's own.
    """
    wanted = parse_search(text)
    title: ColumnElement[Any] = notifications.c.title
    body: ColumnElement[Any] = notifications.c.body
    vector: ColumnElement[Any] = notifications.c.search
    if variant is not None:
        query = query.outerjoin(
            notification_contents,
            and_(
                notification_contents.c.notification_id == notifications.c.id,
                notification_contents.c.variant == variant,
            ),
        )
        title = func.coalesce(notification_contents.c.title, notifications.c.title)
        body = func.coalesce(notification_contents.c.body, notifications.c.body)
        vector = func.coalesce(notification_contents.c.search, notifications.c.search)
        variant = func.coalesce(notification_contents.c.variant, "")
    conditions = []
    if wanted.words:
        if connection.dialect.name == "sqlite":
            conditions.append(_match_sqlite(wanted, literal("") if variant is None else variant))
        else:
            conditions.append(vector.op("@@")(cast(cast(_tsquery(wanted), Text), TSQUERY)))
    if wanted.literal is not None:
        conditions.append(
            or_(title.icontains(wanted.literal, autoescape=True), body.icontains(wanted.literal, autoescape=True))
        )
    return query.where(*conditions)


def _tsquery(wanted: Search) -> ColumnElement[str]:
    # Words are letters and digits only: nothing in them needs quoting beyond this.
    return literal(" & ".join(f"'{word}':*" for word in wanted.words))


def _match_sqlite(wanted: Search, variant: ColumnElement[Any]) -> ColumnElement[bool]:
    found = (
        sql_select(_ROWS.c.id)
        .join(_FTS, _FTS.c.rowid == _ROWS.c.id)
        .where(
            _ROWS.c.notification_id == notifications.c.id,
            _ROWS.c.variant == variant,
            _FTS.c.words.op("MATCH")(" AND ".join(f'"{word}"*' for word in wanted.words)),
        )
    )
    return found.correlate(notifications, notification_contents).exists()
