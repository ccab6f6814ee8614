"""Everything this service holds about one user, for the user (GDPR, article 15 and 20)."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from auth_service import clock
from auth_service.accounts.models import OtpDevice, User
from auth_service.accounts.serializers import UserOut
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action, AuditEvent
from auth_service.audit.origin import Origin
from auth_service.audit.serializers import AuditEventOut
from auth_service.groups.models import Membership
from auth_service.sessions.models import Session

_SESSION_FIELDS = (
    "id",
    "device_id",
    "device_name",
    "ip",
    "user_agent",
    "created_at",
    "last_seen_at",
    "expires_at",
    "ended_at",
    "end_reason",
)


def do_export(user: User, by: Origin) -> dict[str, Any]:
    """The export; that it was made is written down. Secrets and hashes are not data about the user, and stay out."""
    do_record(Action.USER_EXPORTED, by, subject=("user", user.id), tenant=user.tenant_id)
    memberships = Membership.objects.filter(user=user).select_related("group").order_by("joined_at")
    trail = AuditEvent.objects.filter(Q(actor_id=user.id) | Q(subject_id=str(user.id))).order_by("occurred_at", "id")
    second_factor = OtpDevice.objects.filter(user=user, confirmed_at__isnull=False).first()
    return {
        "exported_at": clock.now(),
        "profile": UserOut(user).data,
        "password_changed_at": user.password_changed_at,
        "second_factor": {"enabled_at": second_factor.confirmed_at if second_factor else None},
        "groups": [
            {"id": each.group_id, "slug": each.group.slug, "name": each.group.name, "joined_at": each.joined_at}
            for each in memberships
        ],
        "sessions": list(Session.objects.filter(user=user).order_by("created_at").values(*_SESSION_FIELDS)),
        "audit_events": AuditEventOut(trail, many=True).data,
    }
