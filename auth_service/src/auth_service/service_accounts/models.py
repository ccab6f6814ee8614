from __future__ import annotations

from django.db import models
from typing_extensions import override

from auth_service import clock
from auth_service.tenants.models import Tenant
from shared_contracts.ids import new_id
from shared_contracts.scopes import Scope, parse_scope

GRANTABLE_SCOPES = tuple(scope for scope in Scope if scope is not Scope.INBOX)
"""A program has no inbox. Everything else may be given to it, `tokens:issue` to it alone."""


class ServiceAccount(models.Model):
    """A program. It has no password, no session list and no refresh token: a secret, and the scopes given to it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="service_accounts", db_index=False)
    name = models.CharField(max_length=100)
    client_id = models.CharField(max_length=140, unique=True)
    secret_hash = models.CharField(max_length=64, editable=False)
    scope = models.TextField(help_text="Separated by spaces.")
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(default=clock.now, editable=False)
    secret_rotated_at = models.DateTimeField(default=clock.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    tokens_not_before = models.DateTimeField(
        null=True, editable=False, help_text="Its tokens, and user tokens it asked for, issued before are refused."
    )

    class Meta:
        constraints = (models.UniqueConstraint(fields=["tenant", "name"], name="service_account_name_unique"),)
        indexes = (models.Index(fields=["tenant", "created_at", "id"], name="service_account_created"),)

    @override
    def __str__(self) -> str:
        return self.name

    @property
    def scopes(self) -> frozenset[Scope]:
        """What it may do."""
        return parse_scope(self.scope)
