"""From a checked request to what is stored: the notification, who gets it, and who does not and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from notification_service.identity.directory import Directory
from notification_service.notifications.entity import Notification
from notification_service.routing.recipients import Problem, find_audience


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one notification.

    Attributes:
        user_ids: Whose mailboxes get an item; empty for broadcasts, which are stored once.
        problems: Recipients that get nothing.
        recipients_count: How many people it reaches.
    """

    notification: Notification
    user_ids: tuple[UUID, ...]
    problems: tuple[Problem, ...]
    recipients_count: int


def make_plan(notification: Notification, directory: Directory, *, audience_size: int) -> Plan:
    """Decide who gets a notification.

    Args:
        notification: What was asked for.
        directory: Everything about its recipients.
        audience_size: Active users of the tenant; counted only for broadcasts.
    """
    if notification.is_broadcast:
        return Plan(notification, (), (), audience_size)
    audience = find_audience(notification.recipients, tenant=notification.tenant, directory=directory)
    user_ids = tuple(audience.user_ids)
    return Plan(notification, user_ids if notification.wants_in_app else (), tuple(audience.problems), len(user_ids))
