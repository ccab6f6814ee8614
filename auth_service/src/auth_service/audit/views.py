from __future__ import annotations

from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.audit.filters import AuditEventFilter
from auth_service.audit.models import AuditEvent
from auth_service.audit.serializers import AuditEventOut
from shared_contracts.scopes import Scope

_EVENT = {
    "id": "0192f6a0-c0de-7abc-8def-0000000000dd",
    "occurred_at": "2026-01-02T03:04:05Z",
    "action": "user.roles_changed",
    "actor_type": "user",
    "actor_id": "0192f6a0-c0de-7abc-8def-0000000000aa",
    "subject_type": "user",
    "subject_id": "0192f6a0-c0de-7abc-8def-0123456789ab",
    "tenant": "default",
    "ip": "192.0.2.1",
    "user_agent": "Herald/1.0",
    "correlation_id": "0192f6a0c0de7abc8def0123456789ab",
    "details": {"from": ["user"], "to": ["user", "staff"]},
}


class AuditEventsView(ApiView):
    """The audit log of a tenant."""

    access = {"GET": Scope.AUDIT_READ}
    serializer_class = AuditEventOut
    pagination_class = CursorPages
    filter_backends = (DjangoFilterBackend,)
    filterset_class = AuditEventFilter
    orderings = ("-occurred_at", "occurred_at")

    @override
    def get_queryset(self) -> QuerySet[AuditEvent]:
        """Events of the caller's tenant; operators may name another."""
        if getattr(self, "swagger_fake_view", False):
            return AuditEvent.objects.none()
        tenant = self.request.query_params.get("tenant", self.caller.tenant)
        if tenant != self.caller.tenant and not self.caller.is_operator:
            return AuditEvent.objects.none()
        return AuditEvent.objects.filter(tenant=tenant)

    @operation(
        "list_audit_events",
        "List audit events",
        response=AuditEventOut(many=True),
        answers=_EVENT,
        parameters=[OpenApiParameter("tenant", str, description="Another tenant's: administrators of `default` only.")],
    )
    def get(self, request: Request) -> Response:
        """Newest first. Events are added and never changed; erasing a user blanks addresses and browsers in theirs."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(AuditEventOut(page, many=True).data)
