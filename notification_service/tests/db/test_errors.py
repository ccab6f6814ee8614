"""Which of the database's errors mean "try again", and which come again with every try."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, bindparam, text

from notification_service.db.engine import Database
from notification_service.errors import Unavailable


async def test_a_value_no_column_can_hold_is_not_the_databases_absence(database: Database) -> None:
    statement = text("SELECT :number").bindparams(bindparam("number", 2**70, type_=BigInteger()))
    with pytest.raises(Exception, match=r"out of .*range|too large") as caught:
        async with database.read() as connection:
            await connection.execute(statement)
    assert not isinstance(caught.value, Unavailable)


async def test_tables_that_are_not_migrated_yet_are_waited_for(database: Database) -> None:
    for missing in ("SELECT 1 FROM a_table_of_tomorrow", "SELECT a_column_of_tomorrow FROM dead_letters"):
        with pytest.raises(Unavailable):
            async with database.read() as connection:
                await connection.execute(text(missing))
