"""What the gateway needs from the other stages; the entrypoints hand it over: stages do not import each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from notification_service.identity.access import Caller
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import Cursor, Page, StreamInfo
from shared_contracts.ws.frames import Send


@dataclass(frozen=True, slots=True)
class Device:
    """A device that connects."""

    user_id: UUID
    tenant: str
    device_id: str


@dataclass(frozen=True, slots=True)
class PageWanted:
    """What came after these numbers, `limit` notifications at most."""

    user_id: UUID
    tenant: str
    after_seq: int
    after_broadcast: int
    limit: int


@dataclass(frozen=True, slots=True)
class ItemsChanged:
    """Outcome of a change of state; `seq` and `body` None when everything was like that already."""

    seq: int | None
    body: bytes | None
    label: str
    counts: Counts


class Mailbox(Protocol):
    """The stored streams. All methods raise `Unavailable` when the database does not answer."""

    async def open(self, devices: Sequence[Device]) -> Sequence[StreamInfo]:
        """Mark the users' queues as declared and read their streams, in the order of the devices."""

    async def read_pages(self, wanted: Sequence[PageWanted]) -> Sequence[Page]:
        """Pages in the order of the questions."""

    async def write_cursors(self, cursors: Sequence[tuple[UUID, str, Cursor]]) -> None:
        """Remember how far devices have come."""

    async def read_tops(self, user_ids: Collection[UUID]) -> dict[UUID, int]:
        """The last number of each user's stream."""

    async def read_broadcast_tops(self, tenants: Collection[str]) -> dict[str, int]:
        """The last number of each tenant's broadcasts."""

    async def change_items(
        self, *, user_id: UUID, tenant: str, action: str, ids: Sequence[UUID] | None
    ) -> ItemsChanged:
        """Change the state of items and tell every device."""


class PreferencesPort(Protocol):
    """The users' preferences. Methods raise a `ServiceError` for what cannot be done."""

    async def get(self, user_id: UUID, tenant: str) -> dict[str, Any]:
        """A user's preferences."""

    async def patch(self, user_id: UUID, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
        """Change some of them, and tell every device."""


class Intake(Protocol):
    """Where messages from clients are accepted."""

    async def accept_message(self, sender: Caller, frame: Send) -> UUID:
        """Accept a message; raises a `ServiceError` when it may not be sent."""

    async def accept_live_event(self, sender: Caller, frame: Send) -> UUID:
        """Publish an event that is never stored; raises a `ServiceError` when it may not be sent."""
