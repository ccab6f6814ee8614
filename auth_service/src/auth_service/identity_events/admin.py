from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from typing_extensions import override

from auth_service.config.admin_site import LookOnlyAdmin, get_admin_caller
from auth_service.identity_events.models import OutboxEvent


@admin.register(OutboxEvent)
class OutboxEventAdmin(LookOnlyAdmin):
    """What was told to other services, and what still waits."""

    list_display = ("revision", "type", "tenant", "subject_id", "occurred_at", "published_at")
    list_filter = (("published_at", admin.EmptyFieldListFilter), "type")
    search_fields = ("=revision", "subject_id")
    ordering = ("-revision",)

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Operators only: events of all tenants stand in one line."""
        rows = super().get_queryset(request)
        return rows if get_admin_caller(request).is_operator else rows.none()
