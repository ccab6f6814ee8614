"""Live events from clients: checked, published to whoever is connected now, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import orjson

from notification_service.broker.publisher import Outgoing, Publisher
from notification_service.db.engine import Database
from notification_service.errors import NotFound, PermissionDenied
from notification_service.identity.access import Caller
from notification_service.identity.repository import find_groups, find_members, find_people
from shared_contracts import headers
from shared_contracts.ids import new_id
from shared_contracts.scopes import Scope
from shared_contracts.topology import DELIVERY_DIRECT, user_queue_name
from shared_contracts.ws.frames import Send

EXPIRATION: Final = timedelta(seconds=10)
"""A user whose devices are all away misses it: who typed a minute ago is of no interest."""

_MAX_MEMBERS: Final = 1_000


class LiveSender:
    """Takes `send` frames with `live` true."""

    def __init__(self, *, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher

    async def accept_live_event(self, sender: Caller, frame: Send) -> UUID:
        """Publish to the user, or to the members of the group the sender belongs to; answers the event's id.

        Raises:
            PermissionDenied: Without the scope, to a group of others, or to more than 1,000 members.
            NotFound: No such user or group in the sender's tenant.
            Unavailable: The database does not answer.
        """
        if Scope.MESSAGES_SEND not in sender.scopes:
            raise PermissionDenied(f"this needs the scope {Scope.MESSAGES_SEND}")
        event_id = new_id()
        fields = {
            "event_type": frame.event_type or "live",
            "title": frame.title,
            "body": frame.body,
            "data": frame.data,
            "group_id": str(frame.to.group) if frame.to.group else None,
            "sender": {"id": str(sender.id), "name": sender.name},
        }
        body = orjson.dumps(fields)
        user_ids = await self._find_recipients(sender, frame)
        await self._publisher.publish_all([_make_message(each, event_id, body) for each in user_ids])
        return event_id

    async def _find_recipients(self, sender: Caller, frame: Send) -> Sequence[UUID]:
        async with self._database.read() as connection:
            if frame.to.user is not None:
                person = (await find_people(connection, [frame.to.user])).get(frame.to.user)
                if person is None or person.tenant != sender.tenant or not person.is_active:
                    raise NotFound("there is no such user")
                return [person.id, sender.id] if frame.echo and person.id != sender.id else [person.id]
            group_id = frame.to.group
            assert group_id is not None
            tenant = (await find_groups(connection, [group_id])).get(group_id)
            members = (await find_members(connection, [group_id]))[0].get(group_id, [])
        if tenant != sender.tenant or sender.id not in members:
            # Whether a group of others exists is not told.
            raise NotFound("there is no such group with you in it")
        if len(members) > _MAX_MEMBERS:
            raise PermissionDenied(f"live events are for groups of up to {_MAX_MEMBERS} members")
        return [each for each in members if each != sender.id or frame.echo is not False]


def _make_message(user_id: UUID, event_id: UUID, body: bytes) -> Outgoing:
    return Outgoing(
        exchange=DELIVERY_DIRECT.name,
        routing_key=user_queue_name(user_id),
        body=body,
        message_id=str(event_id),
        headers={headers.EPHEMERAL: True},
        expiration=EXPIRATION,
        persistent=False,
        mandatory=False,
    )
