"""What a session wants done. The connection does it; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import Hello, PresenceStatus, Send


@dataclass(frozen=True, slots=True)
class SendText:
    """Write one text frame."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection. Nothing else happens to this session afterwards."""

    code: CloseCode
    reason: str


@dataclass(frozen=True, slots=True)
class SendPing:
    """Write a WebSocket ping."""


@dataclass(frozen=True, slots=True)
class Identify:
    """Check the token and read the stream; answer with `on_identified` or `on_refused`."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class IdentifyAgain:
    """Check a new token for the same user; answer with `on_refreshed` or `on_refused`."""

    token: str
    ref: str | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read what changed after these numbers from the mailbox; answer with `on_page` or `on_fetch_failed`."""

    after_seq: int
    after_broadcast: int
    limit: int


@dataclass(frozen=True, slots=True)
class Acked:
    """This device has everything up to these numbers."""

    seq: int
    broadcast: int


@dataclass(frozen=True, slots=True)
class ChangeItems:
    """Change the state of items; answer with `on_items_changed` or `on_command_failed`."""

    action: str
    ids: tuple[UUID, ...] | None
    ref: str | None


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Accept a message from this user; answer with `on_message_sent` or `on_command_failed`."""

    frame: Send


@dataclass(frozen=True, slots=True)
class AskPreferences:
    """Answer with the own preferences (`on_preferences`), changed first when `changes` is given."""

    changes: dict[str, Any] | None
    ref: str | None


@dataclass(frozen=True, slots=True)
class FollowPresence:
    """Follow other users' presence; answer with `on_following` or `on_command_failed`."""

    user_ids: frozenset[UUID]
    ref: str | None


@dataclass(frozen=True, slots=True)
class UnfollowPresence:
    """Follow these users no longer."""

    user_ids: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class ShowPresence:
    """The person at this device said whether they are there; answer with `on_presence`."""

    status: PresenceStatus
    ref: str | None


@dataclass(frozen=True, slots=True)
class WakeAfter:
    """Call `on_tick` again after this many seconds, besides the regular ticks."""

    seconds: float


Effect = (
    SendText
    | Close
    | SendPing
    | Identify
    | IdentifyAgain
    | Fetch
    | Acked
    | ChangeItems
    | SendMessage
    | AskPreferences
    | FollowPresence
    | UnfollowPresence
    | ShowPresence
    | WakeAfter
)
