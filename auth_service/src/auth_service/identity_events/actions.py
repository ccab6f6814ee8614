from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction
from pydantic import BaseModel

from auth_service.identity_events.models import OutboxEvent, RevisionCounter
from shared_contracts.identity_events import (
    GroupDeleted,
    GroupSnapshot,
    IdentityEventType,
    KeyRotated,
    MembersChanged,
    NewDeviceLogin,
    SessionRevoked,
    UserDeleted,
    UserSnapshot,
)

EventData = (
    UserSnapshot
    | UserDeleted
    | GroupSnapshot
    | GroupDeleted
    | MembersChanged
    | SessionRevoked
    | KeyRotated
    | NewDeviceLogin
)


@dataclass(frozen=True)
class NewEvent:
    """An event to be written.

    Attributes:
        subject_id: The user whose data it holds; None when it holds nobody's.
    """

    type: IdentityEventType
    tenant: str
    data: EventData
    subject_id: UUID | None = None


def do_emit(*events: NewEvent) -> None:
    """Write events into the outbox, with the next revisions.

    Must be the last thing its transaction does: from here to the commit every other change waits for the counter's
    row. That wait is what makes revisions gapless and their order the order of commits.
    """
    if not events:
        return
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an event belongs into the transaction of its change")
    last = _take_revisions(len(events))
    first = last - len(events) + 1
    OutboxEvent.objects.bulk_create(
        [
            OutboxEvent(
                revision=revision,
                type=event.type,
                tenant=event.tenant,
                subject_id=event.subject_id,
                data=_dump(event.data),
            )
            for revision, event in enumerate(events, start=first)
        ],
        batch_size=500,
    )


def get_revision() -> int:
    """The revision of the last committed event; 0 before the first."""
    return RevisionCounter.objects.filter(id=1).values_list("value", flat=True).first() or 0


def _take_revisions(count: int) -> int:
    table = RevisionCounter._meta.db_table  # noqa: SLF001 - Django's documented way to a model's table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (id, value) VALUES (1, %s) "  # noqa: S608 - the table's name is a constant
            f"ON CONFLICT (id) DO UPDATE SET value = {table}.value + excluded.value RETURNING value",
            [count],
        )
        return int(cursor.fetchone()[0])


def _dump(data: BaseModel) -> dict[str, object]:
    # Fields left unset stay out, as in the golden files.
    return data.model_dump(mode="json", exclude_unset=True)
