from __future__ import annotations

from auth_service.api.routes import route
from auth_service.tenants import views

urlpatterns = [
    route("api/v1/tenants", views.TenantsView),
    route("api/v1/tenants/<str:slug>", views.TenantView),
]
