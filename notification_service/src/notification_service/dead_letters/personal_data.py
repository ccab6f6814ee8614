"""Dead letters as personal data: requests that name a user and could not be carried out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson
from sqlalchemy import ColumnElement, delete, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.dead_letters.models import dead_letters
from notification_service.identity.personal_data import PersonalData, Subject, leave_out


async def erase(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    """Discard those meant for this user alone; take the name out of those that name others too.

    One pass over the table: it is short, and the payloads may be anything.
    """
    columns = dead_letters.c
    is_named = [_holds(connection, str(subject.user_id).encode())]
    is_named += [_holds(connection, each.encode()) for each in subject.quoted_references[1:]]
    is_told = [columns.detail.contains(each, autoescape=True) for each in subject.references]
    found = await connection.execute(
        select(columns.id, columns.payload, columns.detail).where(or_(*is_named, *is_told))
    )
    alone, shared = [], 0
    for row in found.all():
        payload, detail = _without_in_payload(row.payload, subject), _without_in_text(row.detail, subject)
        if payload is None:
            alone.append(row.id)
        elif (payload, detail) != (row.payload, row.detail):
            values = {"payload": payload, "detail": detail}
            await connection.execute(update(dead_letters).where(columns.id == row.id).values(**values))
            shared += 1
    await connection.execute(delete(dead_letters).where(columns.id.in_(alone)))
    return {"dead_letters": len(alone), "dead_letters_shared": shared}


def _without_in_payload(payload: bytes, subject: Subject) -> bytes | None:
    """A request without this user; None when it is for nobody else, or cannot be read well enough to tell."""
    if not _names(payload, subject):
        return payload
    try:
        request = orjson.loads(payload)
        left = leave_out(request["recipients"], subject.references)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    written = orjson.dumps({**request, "recipients": left})
    return None if left is None or _names(written, subject) else written


def _names(payload: bytes, subject: Subject) -> bool:
    by_id, *by_others = subject.quoted_references
    # An id is unmistakable without its quotes; an external id may be the beginning of another.
    return by_id.strip('"').encode() in payload or any(each.encode() in payload for each in by_others)


def _without_in_text(text: str, subject: Subject) -> str:
    for each in subject.references:
        text = re.sub(rf"(?<![^\s,]){re.escape(each)}(?![^\s,])", "[erased]", text)
    return text


def _holds(connection: AsyncConnection, name: bytes) -> ColumnElement[bool]:
    payload = dead_letters.c.payload
    if connection.dialect.name == "sqlite":
        return func.instr(payload, literal(name)) > 0
    # Spelled with its schema: bare, POSITION is a word of the grammar with a form of its own.
    return func.pg_catalog.position(payload, literal(name)) > 0


PERSONAL_DATA = PersonalData("dead_letters", (dead_letters,), erase)
