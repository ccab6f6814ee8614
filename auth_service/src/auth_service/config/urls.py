"""Every address of this service, domain by domain."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from auth_service.api.routes import route
from auth_service.config import documents, health, metrics_view

_DOMAINS = (
    "accounts",
    "groups",
    "sessions",
    "tokens",
    "service_accounts",
    "tenants",
    "audit",
    "internal_api",
)

urlpatterns = [
    *(path("", include(f"auth_service.{domain}.urls")) for domain in _DOMAINS),
    route("health", health.SummaryView),
    route("health/live", health.LiveView),
    route("health/ready", health.ReadyView),
    route("health/database", health.DatabaseView),
    route("health/broker", health.BrokerView),
    route("metrics", metrics_view.MetricsView),
    route("api/schema", documents.SchemaView),
    route("api/docs", documents.PageView),
    path("admin/", admin.site.urls),
]

handler400 = "auth_service.api.problems.bad_request"
handler403 = "auth_service.api.problems.permission_denied"
handler404 = "auth_service.api.problems.page_not_found"
handler500 = "auth_service.api.problems.server_error"
