"""Where a change comes from: who asked, and from which address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from shared_contracts.claims import DEFAULT_TENANT

ActorType = Literal["user", "service", "system", "anonymous"]


@dataclass(frozen=True)
class Origin:
    """Handed to every action that writes an audit event.

    Attributes:
        actor_id: None for the system and for whoever has not proved who they are.
        ip: The client's address as far as trusted proxies tell it; None from the command line.
    """

    actor_type: ActorType = "anonymous"
    actor_id: UUID | None = None
    tenant: str = DEFAULT_TENANT
    ip: str | None = None
    user_agent: str = ""
    correlation_id: str = ""

    def acting_as(self, actor_type: ActorType, actor_id: UUID | None, tenant: str) -> Origin:
        """The same request, now that it is known who makes it."""
        return replace(self, actor_type=actor_type, actor_id=actor_id, tenant=tenant)


SYSTEM = Origin(actor_type="system")
"""The service itself: commands and background work."""
