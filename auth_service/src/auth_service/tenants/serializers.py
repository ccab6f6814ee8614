from __future__ import annotations

from typing import Any

from rest_framework import serializers

from auth_service.api.fields import FlagField, LineField, MomentField, SlugField
from auth_service.tenants.models import SLUG_PATTERN


class TenantOut(serializers.Serializer[Any]):
    """A tenant."""

    slug = serializers.CharField(read_only=True)
    name = serializers.CharField(read_only=True)
    is_active = serializers.BooleanField(read_only=True)
    created_at = MomentField()


class TenantIn(serializers.Serializer[Any]):
    """A new tenant. The slug stands in every token and never changes."""

    slug = SlugField(SLUG_PATTERN)
    name = LineField(max_length=200)


class TenantChangesIn(serializers.Serializer[Any]):
    """What can be changed."""

    name = LineField(max_length=200, required=False)
    is_active = FlagField(required=False)
