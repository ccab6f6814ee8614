"""The intake as the gateway sees it: its port, filled with the intake's objects."""

from __future__ import annotations

from uuid import UUID

from notification_service.identity.access import Caller
from notification_service.intake.accept import Acceptor
from notification_service.intake.live import LiveSender
from shared_contracts.ws.frames import Send


class IntakePort:
    """`gateway.ports.Intake`."""

    def __init__(self, acceptor: Acceptor, live: LiveSender) -> None:
        self._acceptor = acceptor
        self._live = live

    async def accept_message(self, sender: Caller, frame: Send) -> UUID:
        """Accept a message to be kept."""
        return await self._acceptor.accept_message(sender, frame)

    async def accept_live_event(self, sender: Caller, frame: Send) -> UUID:
        """Publish an event that is never stored."""
        return await self._live.accept_live_event(sender, frame)
