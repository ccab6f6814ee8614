from __future__ import annotations

from auth_service.errors import Conflict, InvalidInput
from shared_contracts.problems import FieldError


class TenantExists(Conflict):
    """Another tenant has this slug."""

    detail = "There is a tenant with this slug."


class DefaultTenantStays(InvalidInput):
    """The default tenant holds the operators: without it nobody could switch anything on again."""

    detail = "The default tenant cannot be switched off."

    def __init__(self) -> None:
        super().__init__(errors=[FieldError(field="is_active", message=self.detail)])
