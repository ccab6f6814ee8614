from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from auth_service.audit.models import Action, AuditEvent
from auth_service.audit.origin import Origin


def make_audit_event(
    action: Action,
    by: Origin,
    *,
    subject: tuple[str, UUID | str] | None = None,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """One event, not written yet.

    Args:
        action: What happened.
        by: Who did it and from where.
        subject: Kind and id of what it happened to.
        tenant: Of the subject; None when it is the actor's.
        details: Anything else worth keeping. Never a name, an address or a secret: rows outlive the people in them.
    """
    kind, identity = subject or ("", "")
    return AuditEvent(
        action=action,
        actor_type=by.actor_type,
        actor_id=by.actor_id,
        subject_type=kind,
        subject_id=str(identity),
        tenant=tenant or by.tenant,
        ip=by.ip,
        user_agent=by.user_agent[:300],
        correlation_id=by.correlation_id,
        details=dict(details or {}),
    )


def do_record(
    action: Action,
    by: Origin,
    *,
    subject: tuple[str, UUID | str] | None = None,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one event. Inside the transaction of what it tells of, so that there is neither without the other."""
    make_audit_event(action, by, subject=subject, tenant=tenant, details=details).save(force_insert=True)


def do_record_all(events: Iterable[AuditEvent]) -> None:
    """Write several events in one statement."""
    AuditEvent.objects.bulk_create(events)


def do_append_foreign(rows: Iterable[Mapping[str, Any]]) -> int:
    """Write events another service sends; answer how many were new. The same id twice is one event."""
    events = [AuditEvent(**row) for row in rows]
    known = set(AuditEvent.objects.filter(id__in=[event.id for event in events]).values_list("id", flat=True))
    AuditEvent.objects.bulk_create(events, ignore_conflicts=True)
    return len({event.id for event in events} - known)
