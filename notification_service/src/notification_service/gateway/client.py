"""One connected client, whatever carries its frames: runs what its session wants done."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final
from uuid import UUID

from notification_service.gateway.effects import Close, Effect, SendPing, SendText, WakeAfter
from notification_service.gateway.session import Session
from shared_contracts.ids import new_id
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import ClientInfo

if TYPE_CHECKING:
    from notification_service.gateway.node import GatewayNode

PAUSE_BYTES: Final = 256 * 1024
"""Waiting for one client, from where it is served from the mailbox instead of being written to as things happen."""


class Client(ABC):
    """See the module. Subclasses move the bytes.

    Attributes:
        token: What the client presented; None with a ticket.
        info: Which software it says it is.
    """

    transport_name: ClassVar[str]
    takes_ready_frames: ClassVar[bool]
    """Whether `write` takes WebSocket frames as they are."""

    def __init__(self, node: GatewayNode) -> None:
        self.node = node
        self.id: UUID = new_id()
        self.session = Session(self.id, node.limits, node.clock.monotonic())
        self.token: str | None = None
        self.ticket: str | None = None
        self.info: ClientInfo | None = None
        self.remote_address: str | None = None
        self.user_agent: str | None = None
        self.connected_at: datetime | None = None

    def run(self, effects: list[Effect]) -> None:
        """Do what the session wants done."""
        # A page has many frames, which are written as one: a write of its own costs each 5 µs.
        texts: list[bytes] = []
        for effect in effects:
            # First what is most frequent, without the cost of a match: 0.3 µs of each frame.
            if type(effect) is SendText:
                texts.append(effect.text)
                continue
            if texts:
                self.send_texts(texts)
                texts = []
            match effect:
                case SendPing():
                    self.send_ping()
                case WakeAfter(seconds):
                    asyncio.get_running_loop().call_later(seconds, self.tick)
                case Close(code, reason):
                    self.end(code, reason)
                case _:
                    self.node.do(self, effect)
        if texts:
            self.send_texts(texts)
        if self.session.follower.acks_by_itself and self.is_writable:
            self.acknowledge_written()

    def tick(self) -> None:
        """Time has passed."""
        if self.is_writable:
            self.run(self.session.on_tick(self.node.clock.monotonic()))

    def fail(self) -> None:
        """An unforeseen error happened while serving this client; it was logged with the connection's id."""
        self.run(self.session.close(CloseCode.SERVER_FAULT, f"server fault {self.id}"))

    def acknowledge_written(self) -> None:
        """For devices that do not acknowledge themselves: what the kernel has counts as received."""
        if self.waiting_bytes == 0:
            effects = self.session.follower.on_flushed(self.node.clock.monotonic())
            if effects:
                self.run(effects)

    @property
    @abstractmethod
    def is_writable(self) -> bool:
        """Whether frames can still be written."""

    @property
    @abstractmethod
    def waiting_bytes(self) -> int:
        """What was written and is not with the kernel yet."""

    def send_text(self, text: bytes) -> None:
        """Write one frame."""
        self.send_texts((text,))

    @abstractmethod
    def send_texts(self, texts: Sequence[bytes]) -> None:
        """Write a frame for each of these, in order."""

    @abstractmethod
    def send_ping(self) -> None:
        """See whether the client is there."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write a ready WebSocket frame; only where `takes_ready_frames`."""

    @abstractmethod
    def end(self, code: CloseCode, reason: str) -> None:
        """Tell the client why, and end."""
