"""What was looked up about the recipients of one batch: values only, so that routing stays pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Person:
    """What routing needs to know of a user."""

    id: UUID
    tenant: str
    is_active: bool
    locale: str
    timezone: str
    username: str = ""
    email: str | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything that was looked up for one batch of requests; routing decides from it without asking further.

    Attributes:
        people: By id.
        external: User ids by (tenant, external id).
        group_tenants: Tenant of each group that exists.
        members: User ids by group, active users only.
        by_role: User ids by (tenant, role), active users only.
    """

    people: dict[UUID, Person] = field(default_factory=dict)
    external: dict[tuple[str, str], UUID] = field(default_factory=dict)
    group_tenants: dict[UUID, str] = field(default_factory=dict)
    members: dict[UUID, list[UUID]] = field(default_factory=dict)
    by_role: dict[tuple[str, str], list[UUID]] = field(default_factory=dict)
