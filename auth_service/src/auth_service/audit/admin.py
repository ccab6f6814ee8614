from __future__ import annotations

from django.contrib import admin

from auth_service.audit.models import AuditEvent
from auth_service.config.admin_site import LookOnlyAdmin


@admin.register(AuditEvent)
class AuditEventAdmin(LookOnlyAdmin):
    """Who did what to whom, when and from where. To look at, and nothing else."""

    list_display = ("occurred_at", "action", "actor_type", "actor_id", "subject_type", "subject_id", "ip")
    list_filter = ("action", "actor_type", "occurred_at")
    search_fields = ("=actor_id", "subject_id", "correlation_id", "ip")
    search_help_text = "An id of a user or a session, an address, or a correlation id"
    ordering = ("-occurred_at", "-id")
    date_hierarchy = "occurred_at"
