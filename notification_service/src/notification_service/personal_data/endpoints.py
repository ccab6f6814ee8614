"""The export of what this service holds about one user; the auth service asks for it in the user's name."""

import hmac
from collections.abc import AsyncIterator, Sequence
from typing import Annotated
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import NotAuthenticated
from notification_service.identity.personal_data import PersonalData
from notification_service.rest.json_route import JsonRoute
from shared_contracts.headers import INTERNAL_KEY

log = structlog.get_logger(__name__)


def make_personal_data_router(
    database: Database, clock: Clock, parts: Sequence[PersonalData], internal_keys: Sequence[str]
) -> APIRouter:
    """`/internal/v1/users/{id}/export`."""
    router = APIRouter(prefix="/internal/v1/users", tags=["internal"], route_class=JsonRoute)

    # Not in the public document: it is for the auth service alone (docs/identity.md).
    @router.get("/{user_id}/export", response_class=StreamingResponse, include_in_schema=False)
    async def export(user_id: UUID, key: Annotated[str | None, Header(alias=INTERNAL_KEY)] = None) -> StreamingResponse:
        """An object with a list for each kind of data; of a user who has nothing here the lists are empty.

        Needs the internal service key. It is written while it is read, so however much there is, little is in memory; a
        database that goes away in the middle ends the connection before the closing brace.
        """
        given = (key or "").encode()
        if not any(hmac.compare_digest(given, known.encode()) for known in internal_keys):
            raise NotAuthenticated("this needs the internal service key")
        log.info("personal_data_exported", user_id=str(user_id))
        return StreamingResponse(_write(database, clock, parts, user_id), media_type="application/json")

    return router


async def _write(
    database: Database, clock: Clock, parts: Sequence[PersonalData], user_id: UUID
) -> AsyncIterator[bytes]:
    yield b'{"exported_at":%b' % orjson.dumps(clock.now(), option=orjson.OPT_UTC_Z)
    async with database.read() as connection:
        for part in parts:
            if part.export is None:
                continue
            yield b",%b:[" % orjson.dumps(part.name)
            separator = b""
            async for row in part.export(connection, user_id):
                yield separator + orjson.dumps(row, default=str, option=orjson.OPT_UTC_Z)
                separator = b","
            yield b"]"
    yield b"}"
