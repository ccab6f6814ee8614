from __future__ import annotations

import django_filters

from auth_service.api.filters import StrictFilterSet
from auth_service.audit.models import AuditEvent


class AuditEventFilter(StrictFilterSet):
    """What a list of audit events can be narrowed by. `to` is exclusive."""

    action = django_filters.CharFilter(max_length=64)
    actor_id = django_filters.UUIDFilter()
    subject_id = django_filters.CharFilter(max_length=200)
    occurred_from = django_filters.IsoDateTimeFilter(field_name="occurred_at", lookup_expr="gte")
    occurred_to = django_filters.IsoDateTimeFilter(field_name="occurred_at", lookup_expr="lt")

    class Meta:
        model = AuditEvent
        fields = ()


# `from` is a Python keyword, so the contract's parameter names are given here.
AuditEventFilter.base_filters["from"] = AuditEventFilter.base_filters.pop("occurred_from")
AuditEventFilter.base_filters["to"] = AuditEventFilter.base_filters.pop("occurred_to")
