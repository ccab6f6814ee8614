"""Parts of the full copies: what the mirror asks for by name, when it meets someone it has not heard of yet."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from typing_extensions import override

from auth_service.accounts.models import User
from auth_service.api.filters import StrictFilterSet
from auth_service.audit.models import AuditEvent
from auth_service.groups.models import Group, Membership

MAX_NAMED = 200
"""Ids of one call at most: as many as fit into a request line."""


class _IdsField(forms.CharField):
    """UUIDs separated by commas, as a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_NAMED * 37, **kwargs)

    @override
    def clean(self, value: Any) -> list[UUID] | None:
        text = super().clean(value)
        if not text:
            return None
        try:
            ids = [UUID(each) for each in text.split(",")]
        except ValueError:
            raise ValidationError("must be UUIDs separated by commas") from None
        if len(ids) > MAX_NAMED:
            raise ValidationError(f"at most {MAX_NAMED}")
        return ids


class _NamesField(forms.Field):
    """A parameter that may come several times."""

    widget = forms.MultipleHiddenInput

    @override
    def clean(self, value: Any) -> list[str] | None:
        names = [str(each) for each in value or ()]
        if len(names) > MAX_NAMED or any(not 1 <= len(each) <= 128 or "\x00" in each for each in names):
            raise ValidationError(f"at most {MAX_NAMED}, of 1 to 128 characters each, without NUL")
        return names or None


@extend_schema_field({"type": "string", "description": f"Only these: up to {MAX_NAMED} UUIDs, separated by commas."})
class IdsFilter(django_filters.Filter):
    """Only these rows."""

    field_class = _IdsField


@extend_schema_field({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 128}})
class NamesFilter(django_filters.Filter):
    """Only rows of these names; the parameter comes once for each."""

    field_class = _NamesField


class NamedUsersFilter(StrictFilterSet):
    """Some users."""

    ids = IdsFilter(field_name="id", lookup_expr="in")
    tenant = django_filters.CharFilter(field_name="tenant_id", max_length=63)
    external_id = NamesFilter(
        field_name="external_id", lookup_expr="in", help_text=f"May come up to {MAX_NAMED} times; needs `tenant`."
    )

    class Meta:
        model = User
        fields = ()

    @override
    def is_valid(self) -> bool:
        """An external id means nothing without its tenant."""
        if super().is_valid() and self.form.cleaned_data["external_id"] and not self.form.cleaned_data["tenant"]:
            self.form.add_error("tenant", "is needed with external_id")
        return not self.form.errors


class NamedGroupsFilter(StrictFilterSet):
    """Some groups."""

    ids = IdsFilter(field_name="id", lookup_expr="in")

    class Meta:
        model = Group
        fields = ()


class MembershipsFilter(StrictFilterSet):
    """Members of one group."""

    group_id = django_filters.UUIDFilter(field_name="group_id")

    class Meta:
        model = Membership
        fields = ()


class ErasedUsersFilter(StrictFilterSet):
    """Of some users, those that were erased."""

    ids = IdsFilter(method="by_subject", required=True)

    class Meta:
        model = AuditEvent
        fields = ()

    def by_subject(self, queryset: QuerySet[AuditEvent], _name: str, value: list[UUID]) -> QuerySet[AuditEvent]:
        """The trail names users by id, as text."""
        return queryset.filter(subject_id__in=[str(each) for each in value])
