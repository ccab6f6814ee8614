"""Identifiers as distinct types, so that the type checker tells a user from a notification."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

import uuid_utils.compat

UserId = NewType("UserId", UUID)
GroupId = NewType("GroupId", UUID)
SessionId = NewType("SessionId", UUID)
NotificationId = NewType("NotificationId", UUID)
ConnectionId = NewType("ConnectionId", UUID)


def new_id() -> UUID:
    """A new UUIDv7 (RFC 9562, section 5.7): rises with time, so that index pages fill from one end."""
    return uuid_utils.compat.uuid7()
