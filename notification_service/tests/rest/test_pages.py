"""Lists in pages: cursors that nobody can make, move or read for somebody else (E08)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from service import Service

from notification_service.errors import InvalidCursor
from notification_service.rest.pages import MAX_LIMIT, Cursors

CURSORS = Cursors("a secret of 24 characters")


def test_a_cursor_is_read_where_it_was_written() -> None:
    for values in ([1, 2], "text", {"a": None}, [2**62, -1]):
        assert CURSORS.read("list:me", CURSORS.write("list:me", values)) == values
    assert CURSORS.read("list:me", None) is None


@pytest.mark.req("E08")
def test_a_cursor_of_another_list_caller_or_secret_is_refused() -> None:
    cursor = CURSORS.write("list:me", [1])
    for scope, cursors in (("list:you", CURSORS), ("other:me", CURSORS), ("list:me", Cursors("another secret"))):
        with pytest.raises(InvalidCursor):
            cursors.read(scope, cursor)


@pytest.mark.req("E08")
def test_no_change_of_a_cursor_passes() -> None:
    cursor = CURSORS.write("list:me", [123456, 7])
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for index in range(len(raw)):
        changed = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(InvalidCursor):
            CURSORS.read("list:me", base64.urlsafe_b64encode(changed).decode())


@pytest.mark.req("E08")
@pytest.mark.parametrize("odd", ["", "A", "====", "\x00", "ü", "not a cursor", "A" * 1024, "YWJj"])
def test_what_is_no_cursor(odd: str) -> None:
    with pytest.raises(InvalidCursor):
        CURSORS.read("list:me", odd)


@pytest.mark.req("E08")
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("path", ["/api/v1/inbox", "/api/v1/event-types", "/api/v1/dead-letters"])
async def test_every_list_refuses_odd_cursors_and_limits(service: Service, path: str) -> None:
    admin = service.add_person("admin", tenant=service.add_tenant())

    async def ask(**parameters: Any) -> Any:
        return await service.get(path, admin, params=parameters)

    for odd in ("x", "A" * 40, "A" * 5000, "' OR 1=1"):
        answer = await ask(cursor=odd)
        assert answer.status_code in (400, 422)
        assert answer.json()["code"] in ("invalid_cursor", "invalid_schema")
    for limit in (0, -1, MAX_LIMIT + 1, 10**9, "many", "1.5", ""):
        answer = await ask(limit=limit)
        assert answer.status_code == 422, limit
        assert answer.json()["errors"][0]["field"] == "limit"
    assert (await ask(limit=MAX_LIMIT)).status_code == 200


@pytest.mark.req("E08")
@pytest.mark.asyncio(loop_scope="session")
async def test_a_cursor_does_not_work_for_somebody_else(service: Service) -> None:
    sender, ada, eve = service.add_person("publisher"), service.add_person(), service.add_person()
    for _ in range(3):
        await service.deliver(sender, ada, eve)
    cursor = (await service.get("/api/v1/inbox?limit=1", ada)).json()["next_cursor"]
    assert cursor is not None
    assert (await service.get(f"/api/v1/inbox?limit=1&cursor={cursor}", ada)).status_code == 200
    answer = await service.get(f"/api/v1/inbox?limit=1&cursor={cursor}", eve)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")
    admin = service.add_person("admin")
    assert (await service.get(f"/api/v1/dead-letters?cursor={cursor}", admin)).status_code == 400
