"""The `preferences` frame on its way to every device of a user: a live frame for all nodes, stored nowhere."""

from __future__ import annotations

import itertools
from typing import Any, Final
from uuid import UUID

from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.gateway.answers import encode
from notification_service.gateway.gossip import FRAME_LIVE, HEADER_FRAME, HEADER_USER, TYPE_FORWARD
from shared_contracts.ids import new_id
from shared_contracts.topology import GATEWAY_GOSSIP

_numbers: Final = itertools.count()


async def publish_preferences(publisher: Publisher, user_id: UUID, values: dict[str, Any]) -> None:
    """Tell every node; those without a device of the user pass it over. A device that is away asks when it is back."""
    await publisher.publish(
        Outgoing(
            exchange=GATEWAY_GOSSIP.name,
            routing_key="",
            body=encode("preferences", preferences=values),
            message_id=f"{new_id()}.{next(_numbers)}",
            type=TYPE_FORWARD,
            headers={HEADER_USER: str(user_id), HEADER_FRAME: FRAME_LIVE},
            persistent=False,
            mandatory=False,
        )
    )
