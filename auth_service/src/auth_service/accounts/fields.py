"""Columns that hold what SQLite and PostgreSQL have no common type for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models
from typing_extensions import override

from shared_contracts.scopes import ASSIGNABLE_ROLES, Role

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    _RolesBase = models.CharField[Iterable[str], tuple[str, ...]]
else:
    _RolesBase = models.CharField

_ORDER = {role: place for place, role in enumerate(ASSIGNABLE_ROLES)}


def sort_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles once each, least first, so that equal sets are equal text.

    Raises:
        ValueError: A word that is no role a user can have.
    """
    try:
        return tuple(str(role) for role in sorted({Role(role) for role in roles}, key=_ORDER.__getitem__))
    except (ValueError, KeyError):
        raise ValueError(f"roles are {', '.join(ASSIGNABLE_ROLES)}") from None


def role_sets_with(role: str) -> list[tuple[str, ...]]:
    """Every value of a roles column that contains the role: eight, so an index on the column finds them."""
    others = [other for other in ASSIGNABLE_ROLES if other != role]
    return [sort_roles([role, *chosen]) for count in range(len(others) + 1) for chosen in combinations(others, count)]


class RolesField(_RolesBase):
    """A user's roles in one column, separated by spaces: one row read answers who may do what, on either database."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 64)
        super().__init__(*args, **kwargs)

    def from_db_value(  # noqa: D102 - Django's own hook
        self, value: str | None, _expression: object, _connection: BaseDatabaseWrapper
    ) -> tuple[str, ...] | None:
        return None if value is None else tuple(value.split())

    @override
    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value
        try:
            return sort_roles(value.split() if isinstance(value, str) else value)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    @override
    def get_prep_value(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        return " ".join(sort_roles(value))

    @override
    def value_to_string(self, obj: models.Model) -> str:
        return str(self.get_prep_value(self.value_from_object(obj)))
