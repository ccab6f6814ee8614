from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from auth_service.config.admin_site import LookOnlyAdmin, act_on_all, get_admin_caller
from auth_service.service_accounts.actions import do_update_account
from auth_service.service_accounts.models import ServiceAccount


@admin.register(ServiceAccount)
class ServiceAccountAdmin(LookOnlyAdmin):
    """Programs with an account. Secrets are made over the API alone, where they are shown once."""

    list_display = ("name", "client_id", "scope", "tenant", "is_active", "last_used_at", "secret_rotated_at")
    list_filter = ("is_active", "tenant")
    search_fields = ("name", "client_id")
    exclude = ("secret_hash",)
    actions = ("switch_off", "switch_on")

    @admin.action(description="Switch off: refuse its tokens at once")
    def switch_off(self, request: HttpRequest, accounts: QuerySet[ServiceAccount]) -> None:
        """Switch the chosen accounts off."""
        self._set_active(request, accounts, is_active=False)

    @admin.action(description="Switch on again")
    def switch_on(self, request: HttpRequest, accounts: QuerySet[ServiceAccount]) -> None:
        """Switch the chosen accounts on."""
        self._set_active(request, accounts, is_active=True)

    def _set_active(self, request: HttpRequest, accounts: QuerySet[ServiceAccount], *, is_active: bool) -> None:
        caller = get_admin_caller(request)

        def act(account: ServiceAccount) -> None:
            if account.is_active != is_active:
                caller.check_may_grant(["admin"])
                do_update_account(account, {"is_active": is_active}, caller.origin)

        act_on_all(request, accounts, act, "switched on" if is_active else "switched off")
