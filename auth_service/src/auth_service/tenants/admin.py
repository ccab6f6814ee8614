from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from typing_extensions import override

from auth_service.config.admin_site import HeraldModelAdmin, get_admin_caller
from auth_service.tenants.actions import do_create_tenant, do_update_tenant
from auth_service.tenants.models import Tenant


@admin.register(Tenant)
class TenantAdmin(HeraldModelAdmin):
    """Tenants. Only administrators of the default tenant change them."""

    tenant_field = "slug"
    list_display = ("slug", "name", "is_active", "created_at")
    list_filter = ("is_active",)
    search_fields = ("slug", "name")
    fields = ("slug", "name", "is_active")

    @override
    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """The slug stands in tokens and never changes."""
        return ("slug",) if obj is not None else ("is_active",)

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        """Operators only."""
        return get_admin_caller(request).is_operator

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Operators only."""
        return get_admin_caller(request).is_operator

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never: a tenant is switched off."""
        return False

    @override
    def save_model(self, request: HttpRequest, obj: Tenant, form: Any, change: bool) -> None:
        """Through the actions."""
        by = get_admin_caller(request).origin
        given = form.cleaned_data
        if change:
            do_update_tenant(obj, {"name": given["name"], "is_active": given["is_active"]}, by)
        else:
            do_create_tenant(given["slug"], given["name"], by)
