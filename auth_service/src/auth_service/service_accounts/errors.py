from __future__ import annotations

from auth_service.errors import Conflict, PermissionDenied


class NameTaken(Conflict):
    """Another service account of the tenant has this name."""

    detail = "Another service account has this name."


class ScopeNotGranted(PermissionDenied):
    """The account asked for a scope it does not have."""

    detail = "The service account does not have this scope."
