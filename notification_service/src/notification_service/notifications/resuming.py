"""Where a connecting device goes on: from its own position, from its last acknowledgement, or anew. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from notification_service.notifications.pages import StreamInfo
from shared_contracts.ws.positions import Position, parse_position

Resume = Literal["fresh", "recovered", "reset"]
ResetReason = Literal["too_old", "unknown_position", "too_many"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where to go on.

    Attributes:
        seq, broadcast: Everything after these is sent.
        high_seq, high_broadcast: Up to here frames may have been sent to this device before.
        reason: Why a reset was needed.
    """

    resume: Resume
    seq: int
    broadcast: int
    high_seq: int
    high_broadcast: int
    reason: ResetReason | None = None


def decide_start(requested: str | None, info: StreamInfo, *, max_items: int) -> Start:
    """Choose the starting point of a connection.

    Args:
        requested: The position the client named; None: the last one this device acknowledged.
        info: The user's stream now.
        max_items: Longest gap that is replayed, in each of the two streams.
    """
    cursor = info.cursor
    high_seq = cursor.sent_seq if cursor else 0
    high_broadcast = cursor.sent_broadcast if cursor else 0
    if requested is not None:
        position = parse_position(requested)
        if position is None or position.epoch != info.epoch:
            return _reset(info, "unknown_position")
        # Broadcasts from before the user's time are not theirs, whatever position they name.
        position = position._replace(broadcast=max(position.broadcast, info.broadcast_floor))
    elif cursor is not None:
        position = Position(info.epoch, cursor.acked_broadcast, cursor.acked_seq)
    else:
        seq, broadcast = find_beginning(info)
        if problem := _find_problem(seq, broadcast, info, max_items):
            return _reset(info, problem)
        return Start("fresh", seq, broadcast, high_seq, high_broadcast)
    if problem := _find_problem(position.seq, position.broadcast, info, max_items):
        return _reset(info, problem)
    return Start("recovered", position.seq, position.broadcast, high_seq, high_broadcast)


def find_beginning(info: StreamInfo) -> tuple[int, int]:
    """The numbers in both streams after which a new device begins.

    Where the user's other devices are; a new user with everything since their time began.
    """
    return max(info.acked_seq, info.floor_seq), max(info.acked_broadcast, info.broadcast_floor, info.floor_broadcast)


def _find_problem(seq: int, broadcast: int, info: StreamInfo, max_items: int) -> ResetReason | None:
    if seq > info.top_seq or broadcast > info.top_broadcast:
        return "unknown_position"
    if seq < info.floor_seq or broadcast < info.floor_broadcast:
        return "too_old"
    if info.top_seq - seq > max_items or info.top_broadcast - broadcast > max_items:
        return "too_many"
    return None


def _reset(info: StreamInfo, reason: ResetReason) -> Start:
    return Start("reset", info.top_seq, info.top_broadcast, 0, 0, reason)
