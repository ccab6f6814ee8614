"""What a request tells about the device it comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from auth_service.sessions.models import MAX_DEVICE_ID_LENGTH, MAX_DEVICE_NAME_LENGTH, MAX_USER_AGENT_LENGTH


@dataclass(frozen=True)
class Device:
    """The device behind one request.

    Attributes:
        id: As an application names its installation; empty when it does not.
        name: For people, for example `Ada's phone`.
    """

    id: str = ""
    name: str | None = None
    ip: str | None = None
    user_agent: str = ""

    @property
    def key(self) -> str:
        """What tells a known device from a new one: its own id, else its kind of browser.

        Not the address: it changes with every network, and each change would be a false alarm.
        """
        return _hash("id", self.id) if self.id else _hash("user-agent", self.user_agent)

    @property
    def fingerprint(self) -> str:
        """What must be the same for a repeated refresh to be a retry rather than a theft."""
        return _hash("id", self.id) if self.id else _hash("seen", f"{self.ip}\x00{self.user_agent}")

    def trimmed(self) -> Device:
        """Cut to what the columns hold."""
        return Device(
            self.id[:MAX_DEVICE_ID_LENGTH],
            self.name[:MAX_DEVICE_NAME_LENGTH] if self.name else None,
            self.ip,
            self.user_agent[:MAX_USER_AGENT_LENGTH],
        )


def _hash(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\x00{text}".encode(errors="replace")).hexdigest()
