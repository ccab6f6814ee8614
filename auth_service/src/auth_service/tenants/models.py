from __future__ import annotations

from django.db import models
from typing_extensions import override

from auth_service import clock
from shared_contracts.claims import DEFAULT_TENANT

SLUG_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""1 to 63 characters, as in a host name (RFC 1123): fits in a claim, an address and a queue name."""


class Tenant(models.Model):
    """A customer whose users, groups and service accounts are kept apart from everyone else's.

    The slug is the key: it stands in every token and event, so it never changes.
    """

    slug = models.CharField(max_length=63, primary_key=True)
    name = models.CharField(max_length=200)
    is_active = models.BooleanField(
        default=True, help_text="Nobody of an inactive tenant can log in, and their tokens are refused."
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        ordering = ("slug",)

    @override
    def __str__(self) -> str:
        return self.slug

    @property
    def is_default(self) -> bool:
        """Whether this is the operator's own tenant, whose administrators look after all tenants."""
        return self.slug == DEFAULT_TENANT
