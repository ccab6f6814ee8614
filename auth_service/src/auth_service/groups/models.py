from __future__ import annotations

from django.db import models
from typing_extensions import override

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.tenants.models import Tenant
from shared_contracts.identity_events import GroupSnapshot
from shared_contracts.ids import new_id

MAX_SLUG_LENGTH = 100
MAX_NAME_LENGTH = 200
SLUG_PATTERN = r"[a-z0-9]+(?:[-_.][a-z0-9]+)*"


class Group(models.Model):
    """Users who are addressed together. Not a role: being a member gives no right but to read the member list."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="groups", db_index=False)
    slug = models.CharField(max_length=MAX_SLUG_LENGTH)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    description = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(default=clock.now, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="groups")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["tenant", "slug"], name="group_slug_unique"),)
        indexes = (models.Index(fields=["tenant", "created_at", "id"], name="group_tenant_created"),)

    @override
    def __str__(self) -> str:
        return self.name

    def snapshot(self) -> GroupSnapshot:
        """The group as events and the mirror show it."""
        return GroupSnapshot(id=self.id, slug=self.slug, name=self.name, tenant=self.tenant_id)


class Membership(models.Model):
    """One user in one group."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    group = models.ForeignKey(Group, on_delete=models.CASCADE, related_name="memberships", db_index=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    joined_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["group", "user"], name="membership_unique"),)
        indexes = (models.Index(fields=["group", "joined_at", "id"], name="membership_group_joined"),)

    @override
    def __str__(self) -> str:
        return f"{self.user_id} in {self.group_id}"
