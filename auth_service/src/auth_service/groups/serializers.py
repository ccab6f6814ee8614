from __future__ import annotations

import re
from typing import Any

from django.utils.text import slugify
from rest_framework import serializers
from typing_extensions import override

from auth_service.api.fields import IdField, LineField, MomentField, SlugField, TextField
from auth_service.groups.models import MAX_NAME_LENGTH, MAX_SLUG_LENGTH, SLUG_PATTERN
from auth_service.tenants import models as tenants

MAX_MEMBERS_PER_CALL = 1_000


class GroupOut(serializers.Serializer[Any]):
    """A group."""

    id = serializers.UUIDField(read_only=True)
    name = serializers.CharField(read_only=True)
    slug = serializers.CharField(read_only=True)
    description = serializers.CharField(read_only=True)
    tenant = serializers.CharField(read_only=True, source="tenant_id")
    created_at = MomentField()
    updated_at = MomentField()


class GroupChangesIn(serializers.Serializer[Any]):
    """What can be said about a group."""

    name = LineField(max_length=MAX_NAME_LENGTH, required=False)
    slug = SlugField(SLUG_PATTERN, max_length=MAX_SLUG_LENGTH, required=False)
    description = TextField(max_length=2_000, allow_blank=True, required=False)


class GroupIn(GroupChangesIn):
    """A new group."""

    name = LineField(max_length=MAX_NAME_LENGTH)
    slug = SlugField(
        SLUG_PATTERN, max_length=MAX_SLUG_LENGTH, required=False, help_text="Left out: made from the name."
    )
    description = TextField(max_length=2_000, allow_blank=True, required=False, allow_null=True)
    tenant = SlugField(tenants.SLUG_PATTERN, required=False)

    @override
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Make the slug that was left out.

        Raises:
            ValidationError: The name has no letter or digit of ASCII to make it from.
        """
        if "slug" not in attrs:
            attrs["slug"] = slugify(attrs["name"]).replace("_", "-").strip("-")[:MAX_SLUG_LENGTH].rstrip("-")
            if not re.fullmatch(SLUG_PATTERN, attrs["slug"]):
                raise serializers.ValidationError({"slug": "cannot be made from this name: give one"})
        return attrs


class MemberOut(serializers.Serializer[Any]):
    """A member of a group."""

    user_id = serializers.UUIDField(read_only=True)
    username = serializers.CharField(read_only=True, source="user.username")
    joined_at = MomentField()


class MembersIn(serializers.Serializer[Any]):
    """Who joins and who leaves, up to 1,000 each."""

    add = serializers.ListField(child=IdField(), max_length=MAX_MEMBERS_PER_CALL, required=False)
    remove = serializers.ListField(child=IdField(), max_length=MAX_MEMBERS_PER_CALL, required=False)


class MembersOut(serializers.Serializer[Any]):
    """What changed; ids that are no user of the tenant are in `unknown`."""

    added = serializers.ListField(child=serializers.UUIDField())
    removed = serializers.ListField(child=serializers.UUIDField())
    unknown = serializers.ListField(child=serializers.UUIDField())
