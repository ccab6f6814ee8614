"""The relay's view of the outbox: what is waiting, what has gone out, and who may publish."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from auth_service import clock
from auth_service.identity_events.models import Lease, OutboxEvent


@dataclass(frozen=True)
class Envelope:
    """One event as it goes out."""

    revision: int
    event_id: UUID
    type: str
    body: bytes
    occurred_at: datetime


def find_pending(limit: int) -> list[Envelope]:
    """The next events to publish, in the order of their revisions."""
    rows = OutboxEvent.objects.filter(published_at=None).order_by("revision")[:limit]
    return [make_envelope(row) for row in rows]


def find_published(*, from_revision: int, to_revision: int | None, limit: int) -> list[Envelope]:
    """Events that are still kept, in the order of their revisions."""
    rows = OutboxEvent.objects.filter(revision__gte=from_revision, published_at__isnull=False)
    if to_revision is not None:
        rows = rows.filter(revision__lte=to_revision)
    return [make_envelope(row) for row in rows.order_by("revision")[:limit]]


def do_mark_published(revisions: Sequence[int]) -> None:
    """These have been confirmed by RabbitMQ."""
    OutboxEvent.objects.filter(revision__in=revisions, published_at=None).update(published_at=clock.now())


def do_prune_events(retention: timedelta) -> int:
    """Delete published events that are older than is kept for replay; answer how many."""
    return OutboxEvent.objects.filter(published_at__lt=clock.now() - retention).delete()[0]


def do_take_lease(name: str, holder: str, lifetime: timedelta) -> bool:
    """Take or prolong a lease; False while another holder has it. Two statements at most, safe with any number."""
    now = clock.now()
    free = Lease.objects.filter(name=name, holder=holder) | Lease.objects.filter(name=name, expires_at__lte=now)
    if free.update(holder=holder, expires_at=now + lifetime):
        return True
    made = Lease(name=name, holder=holder, expires_at=now + lifetime)
    Lease.objects.bulk_create([made], ignore_conflicts=True)
    return Lease.objects.filter(name=name, holder=holder).exists()


def do_give_back_lease(name: str, holder: str) -> None:
    """Let the next one in at once."""
    Lease.objects.filter(name=name, holder=holder).delete()


def make_envelope(row: OutboxEvent) -> Envelope:
    """The wire form: exactly that of the golden files of `shared_contracts`."""
    body: dict[str, Any] = {
        "event_id": str(row.event_id),
        "revision": row.revision,
        "type": row.type,
        "occurred_at": _format(row.occurred_at),
        "tenant": row.tenant,
        "data": row.data,
    }
    encoded = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Envelope(row.revision, row.event_id, row.type, encoded, row.occurred_at)


def _format(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
