from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from auth_service.api.access import Access
from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.tenants.actions import do_create_tenant, do_update_tenant, find_visible_tenants, get_tenant
from auth_service.tenants.serializers import TenantChangesIn, TenantIn, TenantOut
from shared_contracts.scopes import Scope

_TENANT = {"slug": "acme", "name": "Acme", "is_active": True, "created_at": "2026-01-02T03:04:05Z"}


class TenantsView(ApiView):
    """All tenants."""

    access = {"GET": Scope.TENANTS_WRITE, "POST": Access.OPERATOR_ADMIN}
    serializer_class = TenantOut
    pagination_class = CursorPages
    orderings = ("slug", "-slug")
    ordering_key = "slug"

    @operation(
        "list_tenants",
        "List tenants",
        response=TenantOut(many=True),
        answers=_TENANT,
    )
    def get(self, request: Request) -> Response:
        """Administrators of the default tenant see all, others their own."""
        page = self.paginate_queryset(find_visible_tenants(self.caller)) or []
        return self.get_paginated_response(TenantOut(page, many=True).data)

    @operation(
        "create_tenant",
        "Make a tenant",
        request=TenantIn,
        response=TenantOut,
        status=201,
        sends={"slug": "acme", "name": "Acme"},
        answers=_TENANT,
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """Its first administrator is made by `POST /users` with `tenant`."""
        fields = self.read(TenantIn)
        return Response(TenantOut(do_create_tenant(fields["slug"], fields["name"], self.origin)).data, status=201)


class TenantView(ApiView):
    """One tenant."""

    access = {"GET": Scope.TENANTS_WRITE, "PATCH": Access.OPERATOR_ADMIN}
    serializer_class = TenantOut

    @operation("get_tenant", "Read a tenant", response=TenantOut, answers=_TENANT)
    def get(self, request: Request, slug: str) -> Response:
        """One's own, or any for administrators of the default tenant."""
        return Response(TenantOut(get_tenant(self.caller, slug)).data)

    @operation(
        "change_tenant",
        "Change a tenant",
        request=TenantChangesIn,
        response=TenantOut,
        sends={"is_active": False},
        answers={**_TENANT, "is_active": False},
    )
    def patch(self, request: Request, slug: str) -> Response:
        """A tenant that is switched off has no valid tokens; its data stays."""
        tenant = get_tenant(self.caller, slug)
        return Response(TenantOut(do_update_tenant(tenant, self.read(TenantChangesIn), self.origin)).data)
