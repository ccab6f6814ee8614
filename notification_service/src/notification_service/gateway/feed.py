"""One user on this node: the sessions of the user's devices, and what the broker waits to have settled. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from notification_service.broker.user_queues import Receipt
    from notification_service.gateway.client import Client


class _Held(NamedTuple):
    """A frame the broker waits for: every copy of it, and when the first one came."""

    receipts: list[Receipt]
    since: float


class Feed:
    """See the module.

    Attributes:
        connections: Of this user on this node, the oldest first.
        acked_seq: The furthest any device is known to have acknowledged, wherever it is connected.
        last_seq: The last frame that came from the user's queue to this node.
        is_declared: Whether this node has made sure that the user's queue exists.
        wants_consumer: Whether this node should be consuming it.
        is_parked: It left the queue because nobody acknowledged, and goes back when somebody does.
    """

    __slots__ = (
        "_unsettled",
        "acked_seq",
        "connections",
        "is_declared",
        "is_parked",
        "last_seq",
        "tenant",
        "user_id",
        "wants_consumer",
    )

    def __init__(self, user_id: UUID, tenant: str) -> None:
        self.user_id = user_id
        self.tenant = tenant
        self.connections: list[Client] = []
        self.acked_seq = 0
        self.last_seq = 0
        self.is_declared = self.is_parked = False
        self.wants_consumer = False
        # In the order of their arrival.
        self._unsettled: dict[int, _Held] = {}

    @property
    def unsettled_count(self) -> int:
        """Frames the broker waits for."""
        return len(self._unsettled)

    def knows(self, seq: int) -> bool:
        """Whether this frame is here, or with a device, already: another copy of it was published twice."""
        return seq <= self.acked_seq or seq in self._unsettled

    def add_unsettled(self, seq: int, receipt: Receipt, now: float) -> list[Receipt]:
        """Note a frame from the queue; answers what can be settled at once, because a device has it already."""
        self.last_seq = max(self.last_seq, seq)
        if seq <= self.acked_seq:
            return [receipt]
        held = self._unsettled.get(seq)
        if held is None:
            self._unsettled[seq] = _Held([receipt], now)
        else:
            # Twice the same number: it was published twice. Both copies are settled together.
            held.receipts.append(receipt)
        return []

    def take_acked(self, seq: int) -> list[Receipt]:
        """A device has everything up to `seq`: answers what can be settled."""
        if seq <= self.acked_seq:
            return []
        self.acked_seq = seq
        done = [number for number in self._unsettled if number <= seq]
        return [receipt for number in done for receipt in self._unsettled.pop(number).receipts]

    def take(self, seq: int) -> list[Receipt]:
        """Answers what can be settled because this one frame needs no acknowledgement."""
        held = self._unsettled.pop(seq, None)
        return held.receipts if held is not None else []

    def take_all(self) -> list[Receipt]:
        """Everything unsettled, in order of the numbers; it is nobody's here any more."""
        taken = [receipt for _, held in sorted(self._unsettled.items()) for receipt in held.receipts]
        self._unsettled.clear()
        return taken

    def waited_s(self, now: float) -> float:
        """How long the broker has been waiting for the frame that came first. Progress with others is none with it."""
        oldest = next(iter(self._unsettled.values()), None)
        return now - oldest.since if oldest is not None else 0.0

    def find_excess(self, limit: int) -> Iterable[Client]:
        """The oldest connections beyond the limit."""
        return self.connections[: max(0, len(self.connections) - limit)]
