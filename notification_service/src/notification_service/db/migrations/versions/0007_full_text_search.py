# ruff: noqa: S608 - statements are made of names that stand in this file
"""Full-text search over titles and bodies.

Revision: 0007, after 0006.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from notification_service.db.base import Words
from notification_service.words import find_words

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BATCH = 1_000
# The rows of the FTS5 table by what they are of: it has no keys of its own, and row ids of other tables may change.
_SQLITE = (
    """CREATE TABLE notification_search_rows (
        id INTEGER PRIMARY KEY, notification_id CHAR(32) NOT NULL, variant VARCHAR(80) NOT NULL,
        UNIQUE (notification_id, variant))""",
    """CREATE VIRTUAL TABLE notification_search
        USING fts5(words, tokenize = "unicode61 remove_diacritics 0", prefix = '2 3')""",
)
_TABLES = (("notifications", "id", "''"), ("notification_contents", "notification_id", "{row}.variant"))


def _triggers(table: str, key: str, variant: str) -> list[str]:
    new, old = variant.format(row="new"), variant.format(row="old")
    mine = f"(SELECT id FROM notification_search_rows WHERE notification_id = old.{key} AND variant = {old})"
    add = (
        f"INSERT INTO notification_search_rows (notification_id, variant) VALUES (new.{key}, {new});"
        f" INSERT INTO notification_search (rowid, words) SELECT id, coalesce(new.search, '')"
        f" FROM notification_search_rows WHERE notification_id = new.{key} AND variant = {new};"
    )
    drop = (
        f"DELETE FROM notification_search WHERE rowid = {mine};"
        f" DELETE FROM notification_search_rows WHERE notification_id = old.{key} AND variant = {old};"
    )
    change = f"UPDATE notification_search SET words = coalesce(new.search, '') WHERE rowid = {mine};"
    return [
        f"CREATE TRIGGER {table}_search_add AFTER INSERT ON {table} BEGIN {add} END",
        f"CREATE TRIGGER {table}_search_drop AFTER DELETE ON {table} BEGIN {drop} END",
        (
            f"CREATE TRIGGER {table}_search_change AFTER UPDATE OF search ON {table}"
            f" WHEN old.search IS NOT new.search BEGIN {change} END"
        ),
    ]


def upgrade() -> None:
    """Make the columns and what finds by them, and fill them."""
    connection = op.get_bind()
    for table, _, _ in _TABLES:
        op.add_column(table, sa.Column("search", Words, nullable=True))
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE:
            op.execute(statement)
        for table, key, variant in _TABLES:
            named = variant.format(row=table)
            op.execute(
                f"INSERT INTO notification_search_rows (notification_id, variant) SELECT {key}, {named} FROM {table}"
            )
            for trigger in _triggers(table, key, variant):
                op.execute(sa.text(trigger))
        op.execute("INSERT INTO notification_search (rowid, words) SELECT id, '' FROM notification_search_rows")
    for table, key, _ in _TABLES:
        _fill(connection, table, key)
    if connection.dialect.name != "sqlite":
        op.create_index("ix_notifications_search", "notifications", ["search"], postgresql_using="gin")


def _fill(connection: sa.Connection, name: str, key: str) -> None:
    keys = [key] if name == "notifications" else [key, "variant"]
    table = sa.table(name, *(sa.column(each) for each in (*keys, "title", "body", "search")))
    last: tuple[Any, ...] | None = None
    while True:
        columns = [table.c[each] for each in keys]
        query = sa.select(*columns, table.c.title, table.c.body).order_by(*columns).limit(_BATCH)
        if last is not None:
            query = query.where(sa.tuple_(*columns) > sa.tuple_(*last))
        rows = connection.execute(query).all()
        if not rows:
            return
        last = tuple(rows[-1][: len(keys)])
        words: sa.ColumnElement[Any] = sa.bindparam("words", type_=sa.Text())
        if connection.dialect.name != "sqlite":
            words = sa.func.array_to_tsvector(sa.func.string_to_array(words, " "))
        statement = sa.update(table).values(search=words)
        for number, column in enumerate(columns):
            statement = statement.where(column == sa.bindparam(f"key_{number}"))
        connection.execute(
            statement,
            [
                {"words": find_words(row.title, row.body)}
                | {f"key_{number}": row[number] for number in range(len(keys))}
                for row in rows
            ],
        )


def downgrade() -> None:
    """Take them away."""
    if op.get_bind().dialect.name == "sqlite":
        for table, _, _ in _TABLES:
            for what in ("add", "drop", "change"):
                op.execute(f"DROP TRIGGER {table}_search_{what}")
        op.execute("DROP TABLE notification_search")
        op.execute("DROP TABLE notification_search_rows")
    else:
        op.drop_index("ix_notifications_search", "notifications")
    for table, _, _ in _TABLES:
        op.drop_column(table, "search")
