from sqlalchemy import text, bindparam, BigInteger, String
import pytest
from notification_service.db.engine import Database

@pytest.mark.parametrize("value", [2**70, "x\0y", 2.5])
async def test_x(database: Database, value) -> None:
    typ = String() if isinstance(value, str) else BigInteger()
    try:
        async with database.read() as c:
            await c.execute(text("SELECT :v").bindparams(bindparam("v", type_=typ)), {"v": value})
        print("OK", value)
    except Exception as e:
        print("RAISED", database.is_sqlite, repr(value), type(e), type(e.__cause__), type(getattr(e.__cause__, "orig", None)), type(getattr(getattr(e.__cause__, "orig", None), "__cause__", None)))
