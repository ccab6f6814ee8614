from __future__ import annotations

import django_filters
from django.db.models import QuerySet

from auth_service.accounts.models import User, UserQuerySet
from auth_service.api.filters import FlagFilter, StrictFilterSet
from shared_contracts.scopes import ASSIGNABLE_ROLES

MAX_SEARCH_LENGTH = 100


class UserFilter(StrictFilterSet):
    """What a list of users can be narrowed by. A wrong value is 422, not an empty list."""

    q = django_filters.CharFilter(
        method="search",
        max_length=MAX_SEARCH_LENGTH,
        help_text="Part of a username, e-mail address, external id or phone number, literally, in any case.",
    )
    role = django_filters.ChoiceFilter(method="by_role", choices=[(str(role), str(role)) for role in ASSIGNABLE_ROLES])
    group = django_filters.UUIDFilter(field_name="memberships__group_id", help_text="Members of this group.")
    is_active = FlagFilter()
    external_id = django_filters.CharFilter(max_length=128)

    class Meta:
        model = User
        fields = ()

    def search(self, queryset: UserQuerySet, _name: str, value: str) -> QuerySet[User]:
        """Users whose search text contains the value."""
        return queryset.matching(value)

    def by_role(self, queryset: UserQuerySet, _name: str, value: str) -> QuerySet[User]:
        """Users who have the role, whatever else they are."""
        return queryset.with_role(value)
