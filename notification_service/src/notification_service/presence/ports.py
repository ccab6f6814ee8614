"""What presence over REST needs from whoever listens to the nodes; the entrypoints hand it over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from notification_service.presence.board import PresenceView


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One live connection as administrators see it."""

    id: UUID
    node: str
    user_id: UUID
    session_id: UUID
    device_id: str
    transport: str
    status: str
    client: str | None
    remote_address: str | None
    user_agent: str | None
    connected_at: datetime
    sent_seq: int
    unacked: int


@dataclass(frozen=True, slots=True)
class ConnectionsWanted:
    """Which connections: of this tenant, perhaps of one user, with ids after one; in order of their ids."""

    tenant: str
    user_id: UUID | None
    after: UUID | None
    limit: int


class Nodes(Protocol):
    """All gateway nodes together."""

    def describe_presence(self, user_id: UUID) -> PresenceView:
        """What is known of a user now.

        Raises:
            Unavailable: This process does not hear the nodes at the moment.
        """

    async def list_connections(self, wanted: ConnectionsWanted) -> tuple[list[ConnectionRow], int]:
        """A page over all nodes, and how many nodes did not answer in time."""

    async def close_connection(self, connection_id: UUID, tenant: str) -> bool:
        """End one connection, wherever it is; answers whether it was found."""
