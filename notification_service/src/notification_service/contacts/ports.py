"""What contacts need of the channels; the entrypoints hand it over, because domains do not know the stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewAddress:
    """A checked address.

    Attributes:
        hint: What may be shown of it.
        proof: `code`, `start` or `none`; see `channels.interface.CheckedAddress`.
    """

    value: str = field(repr=False)
    hint: str
    secret: str | None = field(repr=False)
    proof: str


class AddressRefused(Exception):
    """The address cannot be used; the text says why."""

    def __init__(self, message: str, field_name: str) -> None:
        super().__init__(message)
        self.field_name = field_name


class Directory(Protocol):
    """The channels as contacts see them."""

    @property
    def names(self) -> frozenset[str]:
        """Channels that take contacts."""

    async def check(self, channel: str, address: str, secret: str | None) -> NewAddress:
        """Check and normalise.

        Raises:
            AddressRefused: It cannot be used.
        """

    async def prove(
        self, channel: str, *, contact_id: UUID, user_id: UUID, tenant: str, address: str, secret: str | None, code: str
    ) -> bool:
        """Send a code there; answers whether that alone has proved it. Never raises for the provider's sake."""

    def start_link(self, channel: str, code: str) -> str | None:
        """Where the owner presents a start code, if there is such a link."""

    def is_configured(self, channel: str) -> bool:
        """Whether the channel can send."""

    @property
    def web_push_key(self) -> str | None:
        """What browsers subscribe with; None while Web Push is not configured."""
