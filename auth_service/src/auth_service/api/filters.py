"""Filters of lists: a wrong value is 422, never an empty list and never everything."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from typing_extensions import override


class StrictFilterSet(django_filters.FilterSet):
    """Refuses a filter with nothing in it: a program that lost a group's id must not be shown every user."""

    @override
    def is_valid(self) -> bool:
        """Check what was asked for."""
        if not super().is_valid():
            return False
        given = self.data or {}
        for name, each in self.filters.items():
            if not isinstance(each, django_filters.CharFilter) and given.get(name) == "":
                self.form.add_error(name, "must not be empty; leave it out instead")
        return not self.form.errors


@extend_schema_field(OpenApiTypes.BOOL)
class FlagFilter(django_filters.TypedChoiceFilter):
    """`true` or `false`."""

    def __init__(self, **kwargs: Any) -> None:
        choices = (("true", "true"), ("false", "false"))
        super().__init__(choices=choices, coerce=lambda value: value == "true", **kwargs)
