"""Event types that are created when they are first named."""

from __future__ import annotations

from uuid import uuid4

import pytest
from clocks import SetClock
from sqlalchemy import update

from notification_service.db.engine import Database
from notification_service.event_types.catalog import Catalog, raise_version
from notification_service.event_types.creation import load_catalogs
from notification_service.event_types.models import tenant_settings
from shared_contracts.requests import NotificationRequest, Recipients


class Undone(Exception):
    """The transaction is to leave nothing."""


def request(code: str) -> NotificationRequest:
    return NotificationRequest(event_type=code, title="t", tenant="acme", recipients=Recipients(users=(str(uuid4()),)))


async def test_what_an_undone_transaction_created_is_not_remembered(database: Database, clock: SetClock) -> None:
    """The number it raised comes again, with what somebody else did."""
    catalog = Catalog()
    async with database.write() as connection:
        await raise_version(connection, "acme", clock.now())
        await connection.execute(update(tenant_settings).values(unknown_event_types="create"))

    async def create_and_undo() -> None:
        async with database.write() as connection:
            found = await load_catalogs(connection, catalog, [request("parcel.lost")], clock.now())
            assert "parcel.lost" in found["acme"].types
            raise Undone

    with pytest.raises(Undone):
        await create_and_undo()
    async with database.write() as connection:
        await load_catalogs(connection, Catalog(), [request("parcel.found")], clock.now())
    async with database.read() as connection:
        types = (await catalog.load(connection, {"acme"}))["acme"].types
    assert ("parcel.found" in types, "parcel.lost" in types) == (True, False)
