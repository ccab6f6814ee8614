from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import NotFound
from auth_service.identity_events.actions import do_emit
from auth_service.tenants.errors import DefaultTenantStays, TenantExists
from auth_service.tenants.models import Tenant
from auth_service.tokens.key_actions import make_look_again_event


def find_visible_tenants(caller: Caller) -> QuerySet[Tenant]:
    """Operators see all tenants, everyone else their own."""
    return Tenant.objects.all() if caller.is_operator else Tenant.objects.filter(slug=caller.tenant)


def get_tenant(caller: Caller, slug: str) -> Tenant:
    """One tenant the caller may see.

    Raises:
        NotFound: There is none, or it is another's.
    """
    tenant = find_visible_tenants(caller).filter(slug=slug).first()
    if tenant is None:
        raise NotFound
    return tenant


def do_create_tenant(slug: str, name: str, by: Origin) -> Tenant:
    """Make an empty tenant; its first administrator is created by an operator.

    Raises:
        TenantExists: The slug is taken.
    """
    tenant = Tenant(slug=slug, name=name)
    try:
        with transaction.atomic():
            tenant.save(force_insert=True)
            do_record(Action.TENANT_CREATED, by, subject=("tenant", slug), tenant=slug)
    except IntegrityError:
        raise TenantExists from None
    return tenant


def do_update_tenant(tenant: Tenant, changes: Mapping[str, Any], by: Origin) -> Tenant:
    """Rename a tenant, or switch it off or on. Off: nobody of it logs in, its tokens are refused, and
    its sockets close.

    Raises:
        DefaultTenantStays: The default tenant cannot be switched off.
    """
    if tenant.is_default and changes.get("is_active") is False:
        raise DefaultTenantStays
    with transaction.atomic():
        fresh = Tenant.objects.select_for_update().get(slug=tenant.slug)
        was_active = fresh.is_active
        fresh.name = changes.get("name", fresh.name)
        fresh.is_active = changes.get("is_active", fresh.is_active)
        fresh.save()
        details = {"fields": sorted(changes), "is_active": fresh.is_active}
        do_record(Action.TENANT_UPDATED, by, subject=("tenant", fresh.slug), tenant=fresh.slug, details=details)
        if was_active and not fresh.is_active:
            # One event however many users: gateways ask about every token they hold, and close the refused ones.
            do_emit(make_look_again_event())
    return fresh
