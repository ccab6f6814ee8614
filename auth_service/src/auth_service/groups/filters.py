from __future__ import annotations

import django_filters
from django.db.models import Q, QuerySet

from auth_service.api.filters import StrictFilterSet
from auth_service.groups.models import Group


class GroupFilter(StrictFilterSet):
    """What a list of groups can be narrowed by."""

    q = django_filters.CharFilter(method="search", max_length=100, help_text="Part of the name or the slug, literally.")
    slug = django_filters.CharFilter(max_length=100)
    member = django_filters.UUIDFilter(field_name="memberships__user_id", help_text="Groups this user is in.")

    class Meta:
        model = Group
        fields = ()

    def search(self, queryset: QuerySet[Group], _name: str, value: str) -> QuerySet[Group]:
        """Groups whose name or slug contains the value, in any case."""
        return queryset.filter(Q(name__icontains=value) | Q(slug__icontains=value))
