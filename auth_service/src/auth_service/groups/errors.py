from __future__ import annotations

from auth_service.errors import Conflict


class SlugTaken(Conflict):
    """Another group of the tenant has this slug."""

    detail = "Another group has this slug."
