"""From a checked request to what is stored: the notification, who it is for, and who does not exist. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from notification_service.event_types.entity import PLAIN_MESSAGE, EventType
from notification_service.identity.directory import Directory
from notification_service.notifications.entity import Notification
from notification_service.routing.recipients import Problem, find_audience


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of one notification.

    Attributes:
        user_ids: Recipients, each once, in the order they were named; empty for broadcasts, which are stored once, and
            for audiences that are served in pieces.
        problems: Recipients that get nothing.
        recipients_count: How many people it reaches.
        in_pieces: Whether the audience is too large for one transaction.
    """

    notification: Notification
    user_ids: tuple[UUID, ...]
    problems: tuple[Problem, ...]
    recipients_count: int
    type: EventType = PLAIN_MESSAGE
    in_pieces: bool = False


def make_plan(
    notification: Notification,
    directory: Directory,
    *,
    audience_size: int,
    type_: EventType = PLAIN_MESSAGE,
    in_pieces: bool = False,
) -> Plan:
    """Decide who gets a notification.

    Args:
        notification: What was asked for.
        directory: Everything about its recipients.
        audience_size: Active users of the tenant for a broadcast, all recipients for an audience in pieces.
        type_: Its event type.
        in_pieces: Whether the audience was too large to be looked up whole.
    """
    if notification.is_broadcast:
        return Plan(notification, (), (), audience_size, type_)
    recipients = notification.recipients
    audience = find_audience(recipients, tenant=notification.tenant, directory=directory, exclude=recipients.exclude)
    problems = tuple(audience.problems)
    if in_pieces:
        return Plan(notification, (), problems, audience_size, type_, in_pieces=True)
    user_ids = tuple(audience.user_ids)
    return Plan(notification, user_ids, problems, len(user_ids), type_)
