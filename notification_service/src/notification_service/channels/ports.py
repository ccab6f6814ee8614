"""What channels need of templates and preferences; the entrypoints hand it over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.notifications.entity import Notification
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason


@dataclass(frozen=True, slots=True)
class Recipient:
    """The user as the mirror knows them now."""

    id: UUID
    username: str
    email: str | None
    phone: str | None
    locale: str
    timezone: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """A delivery that is about to be sent."""

    delivery_id: UUID
    notification: Notification
    recipient: Recipient
    channel: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """Title and body in the recipient's language."""

    title: str
    body: str
    html: str | None = None
    locale: str = "en"


@dataclass(frozen=True, slots=True)
class Unrenderable:
    """The templates do not fit the notification: a permanent failure (requirement F03)."""

    reason: Reason
    detail: str


class Renderer(Protocol):
    """Renders templates."""

    async def render(self, wanted: Sequence[Pending]) -> Sequence[Rendered | Unrenderable]:
        """What to say, for each, in order."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the user's preferences say at the moment of sending (requirement F14).

    Attributes:
        status: None: go on. `suppressed` ends it; `pending` holds it until `not_before`.
    """

    status: DeliveryState | None = None
    reason: Reason | None = None
    not_before: datetime | None = None
    rules: list[dict[str, Any]] = field(default_factory=list)


GO_ON = Verdict()


class Gate(Protocol):
    """Reads preferences again, at the moment of sending."""

    async def check(self, connection: AsyncConnection, wanted: Sequence[Pending], now: datetime) -> Sequence[Verdict]:
        """Whether each may be sent now, in order."""
