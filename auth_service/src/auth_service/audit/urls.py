from __future__ import annotations

from auth_service.api.routes import route
from auth_service.audit import views

urlpatterns = [route("api/v1/audit-events", views.AuditEventsView)]
