from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from typing_extensions import override

from auth_service.accounts.models import User, UserQuerySet
from auth_service.api.filters import FlagFilter, StrictFilterSet
from auth_service.groups.models import SLUG_PATTERN
from shared_contracts.scopes import ASSIGNABLE_ROLES

MAX_SEARCH_LENGTH = 100


class _GroupField(forms.CharField):
    """An id or a slug: the id when it can be either."""

    @override
    def clean(self, value: Any) -> UUID | str:
        """The id or the slug.

        Raises:
            ValidationError: Neither.
        """
        word: str = super().clean(value)
        try:
            return UUID(word)
        except ValueError:
            pass
        if word and not re.fullmatch(SLUG_PATTERN, word):
            raise ValidationError("must be the id or the slug of a group")
        return word


@extend_schema_field(OpenApiTypes.STR)
class GroupFilter(django_filters.Filter):
    """Named as people name groups, too."""

    field_class = _GroupField


class UserFilter(StrictFilterSet):
    """What a list of users can be narrowed by. A wrong value is 422, not an empty list."""

    q = django_filters.CharFilter(
        method="search",
        max_length=MAX_SEARCH_LENGTH,
        help_text="Part of a username, e-mail address, external id or phone number, literally, in any case.",
    )
    role = django_filters.ChoiceFilter(method="by_role", choices=[(str(role), str(role)) for role in ASSIGNABLE_ROLES])
    group = GroupFilter(method="by_group", help_text="Members of this group: its id, or its slug.")
    is_active = FlagFilter()
    external_id = django_filters.CharFilter(max_length=128)

    class Meta:
        model = User
        fields = ()

    def search(self, queryset: UserQuerySet, _name: str, value: str) -> QuerySet[User]:
        """Users whose search text contains the value."""
        return queryset.matching(value)

    def by_group(self, queryset: UserQuerySet, _name: str, value: UUID | str) -> QuerySet[User]:
        """Members of the group; of no other tenant than the users' own."""
        if isinstance(value, UUID):
            return queryset.filter(memberships__group_id=value)
        return queryset.filter(memberships__group__slug=value)

    def by_role(self, queryset: UserQuerySet, _name: str, value: str) -> QuerySet[User]:
        """Users who have the role, whatever else they are."""
        return queryset.with_role(value)
