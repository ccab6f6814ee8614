"""The channels as contacts see them: `contacts.ports.Directory`."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import structlog

from notification_service.channels.interface import Address, InvalidAddress, Message, SendFailed
from notification_service.channels.registry import Registry
from notification_service.clock import Clock
from notification_service.contacts.ports import AddressRefused, NewAddress

log = structlog.get_logger(__name__)


class ChannelDirectory:
    """See the module."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    @property
    def names(self) -> frozenset[str]:
        """Channels that take contacts."""
        return frozenset(self._registry.all)

    async def check(self, channel: str, address: str, secret: str | None) -> NewAddress:
        """Check and normalise."""
        try:
            checked = await self._registry.all[channel].check_address(address, secret)
        except InvalidAddress as error:
            raise AddressRefused(str(error), error.field_name) from None
        return NewAddress(checked.value, checked.hint, checked.secret, checked.proof)

    async def prove(
        self, channel: str, *, contact_id: UUID, user_id: UUID, tenant: str, address: str, secret: str | None, code: str
    ) -> bool:
        """Send a code there."""
        now = self._clock.now()
        message = Message(
            delivery_id=uuid5(contact_id, code),
            notification_id=contact_id,
            user_id=user_id,
            tenant=tenant,
            event_type="contact.verification",
            title=f"Your code is {code}",
            body=f"Enter {code} to confirm this address. Whoever did not ask for it can ignore this message.",
            html=None,
            locale="en",
            data={},
            actions=[],
            priority="high",
            category=None,
            tags=[],
            collapse_key=None,
            created_at=now,
            expires_at=None,
        )
        try:
            return await self._registry.all[channel].prove(message, Address(address, secret, contact_id), code)
        except SendFailed as failed:
            problem = failed.failure.detail
        except Exception as error:  # noqa: BLE001 - the channel says what it means
            problem = self._registry.all[channel].classify_error(error).detail
        log.warning("verification_not_sent", channel=channel, contact_id=str(contact_id), problem=problem)
        return False

    def start_link(self, channel: str, code: str) -> str | None:
        """Where the owner presents a start code."""
        return self._registry.all[channel].start_link(code)

    def is_configured(self, channel: str) -> bool:
        """Whether the channel can send."""
        return channel in self._registry.configured

    @property
    def web_push_key(self) -> str | None:
        """What browsers subscribe with."""
        channel: Any = self._registry.get("web_push")
        return str(channel.public_key) if channel is not None and channel.is_configured else None
