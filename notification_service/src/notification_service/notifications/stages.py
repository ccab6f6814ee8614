"""How far a notification as a whole has come, in the word that senders read everywhere."""

from __future__ import annotations

from typing import Literal

from notification_service.db.base import AnyRow

Stage = Literal["accepted", "scheduled", "processing", "dispatched", "recalled"]


def describe_stage(row: AnyRow) -> Stage:
    """The stage of one row of `notifications`."""
    if row.recalled_at is not None:
        return "recalled"
    if row.dispatched_at is not None:
        return "dispatched"
    if row.routed_at is not None:
        return "processing"
    return "scheduled" if row.deliver_at is not None else "accepted"
