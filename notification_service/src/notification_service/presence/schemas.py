"""Bodies of the presence API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, LimitParameter
from shared_contracts.ws.frames import PresenceStatus


class DeviceOut(BaseModel):
    """A connected device."""

    device_id: str
    status: PresenceStatus


class PresenceOut(BaseModel):
    """Presence of one user."""

    user_id: UUID
    status: PresenceStatus
    last_seen_at: datetime | None = Field(description="Online: now. Away: since when. Null: never seen.")
    device_count: int
    devices: list[DeviceOut]


class PresencesOut(BaseModel):
    """Presence of the users asked for."""

    items: list[PresenceOut]
    next_cursor: None = None


class ConnectionOut(BaseModel):
    """A live connection."""

    id: UUID
    node: str
    user_id: UUID
    session_id: UUID
    device_id: str
    transport: str = Field(description="`websocket` or `sse`.")
    status: str
    client: str | None = Field(description="Name and version, as the client said in `hello`.")
    remote_address: str | None
    user_agent: str | None
    connected_at: datetime
    sent_seq: int = Field(description="How far the user's stream was written to this connection.")
    unacked: int = Field(description="Frames in flight.")


class ConnectionsOut(BaseModel):
    """A page of connections."""

    items: list[ConnectionOut]
    next_cursor: str | None
    missing_nodes: int = Field(description="Nodes that did not answer in time; 0: the list is complete.")


class ConnectionsQuery(BaseModel):
    """Which connections."""

    user_id: UUID | None = None
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


UserIds = Annotated[list[str], Field(min_length=1, max_length=500)]
