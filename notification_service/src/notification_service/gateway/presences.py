"""Presence on this node: who follows whom here, and telling them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from notification_service.background import spawn
from notification_service.clock import Clock
from notification_service.errors import Unavailable
from notification_service.gateway.client import Client
from notification_service.gateway.effects import FollowPresence, ShowPresence
from notification_service.presence.board import Board, PresenceView
from notification_service.presence.last_seen import LastSeen
from notification_service.presence.people import People, Viewer
from shared_contracts.error_codes import ErrorCode
from shared_contracts.scopes import Scope
from shared_contracts.ws.frames import PresenceStatus

log = structlog.get_logger(__name__)

# The mirror of the groups is written by a worker, from the same event that told this node: mostly within milliseconds,
# after a hold-up within the second try.
_RECHECKS: Final = (timedelta(seconds=2), timedelta(seconds=13))


class Presences:
    """See the module."""

    def __init__(self, *, board: Board, people: People, last_seen: LastSeen, clock: Clock) -> None:
        self._board = board
        self._people = people
        self._last_seen = last_seen
        self._clock = clock
        self._followers: dict[UUID, set[Client]] = {}

    def on_here(self, user_id: UUID) -> None:
        """The user's first connection on this node came, or the last one went."""
        self._last_seen.note(user_id, self._clock.now())

    def on_lost(self, user_ids: Iterable[UUID]) -> None:
        """A node died with these users on it."""
        for user_id in user_ids:
            self._last_seen.note(user_id, self._clock.now())

    async def follow(self, client: Client, wanted: FollowPresence) -> None:
        """Follow users, all of them or none: who may not be seen, and who does not exist, look alike."""
        identity = client.session.identity
        if identity is None:
            return
        viewer = Viewer(identity.user_id, identity.tenant, Scope.PRESENCE_READ in identity.scopes)
        try:
            visible = await self._people.look(viewer, wanted.user_ids)
        except Unavailable as error:
            client.run(client.session.on_command_failed(error.code, error.detail, wanted.ref))
            return
        if len(visible) < len(wanted.user_ids):
            detail = "presence is shown to people of the same group, and to those with the right presence:read"
            client.run(client.session.on_command_failed(ErrorCode.PERMISSION_DENIED, detail, wanted.ref))
            return
        session = client.session
        for user_id in wanted.user_ids if session.is_open and session.may_follow(wanted.user_ids) else ():
            self._followers.setdefault(user_id, set()).add(client)
        views = [self._describe(user_id, visible[user_id]) for user_id in sorted(wanted.user_ids)]
        client.run(client.session.on_following(views, wanted.ref))

    def unfollow(self, client: Client, user_ids: Iterable[UUID]) -> None:
        """Follow these users no longer."""
        for user_id in user_ids:
            followers = self._followers.get(user_id)
            if followers is not None:
                followers.discard(client)
                if not followers:
                    del self._followers[user_id]

    def show(self, client: Client, wanted: ShowPresence) -> None:
        """Answer what others see now of this client's user."""
        identity = client.session.identity
        if identity is not None:
            client.run(client.session.on_presence(self._describe(identity.user_id, None), wanted.ref))

    def on_tick(self) -> None:
        """Tell followers what changed."""
        for user_id in self._board.take_changed():
            if user_id in self._followers:
                self._tell(self._describe(user_id, None))
        for user_id, left_at in self._board.on_tick(self._clock.monotonic()):
            if user_id in self._followers:
                self._tell(PresenceView(user_id, PresenceStatus.OFFLINE, left_at, {}, 0))

    def recheck_soon(self, user_ids: Iterable[UUID]) -> None:
        """Groups or rights of these users changed: who follows them, and whom they follow, is looked at again."""
        changed = frozenset(user_ids)
        if self._followers:
            spawn(self._recheck(changed), name="presence-recheck")

    async def _recheck(self, changed: frozenset[UUID]) -> None:
        for pause in _RECHECKS:
            await self._clock.sleep(pause)
            for client, followed in self._find_affected(changed).items():
                await self._recheck_client(client, followed)

    def _find_affected(self, changed: frozenset[UUID]) -> dict[Client, set[UUID]]:
        affected: dict[Client, set[UUID]] = {}
        for user_id, followers in self._followers.items():
            for client in followers:
                identity = client.session.identity
                if user_id in changed or (identity is not None and identity.user_id in changed):
                    affected.setdefault(client, set()).add(user_id)
        return affected

    async def _recheck_client(self, client: Client, followed: set[UUID]) -> None:
        identity = client.session.identity
        if identity is None:
            return
        viewer = Viewer(identity.user_id, identity.tenant, Scope.PRESENCE_READ in identity.scopes)
        try:
            visible = await self._people.look(viewer, followed)
        except Unavailable:
            return
        hidden = frozenset(followed - visible.keys())
        if hidden:
            log.info("presence_no_longer_visible", users=len(hidden))
            client.run(client.session.on_not_visible(hidden))

    def _describe(self, user_id: UUID, stored: datetime | None) -> PresenceView:
        view = self._board.describe(user_id, self._clock.now())
        return view if view.last_seen_at else replace(view, last_seen_at=stored)

    def _tell(self, view: PresenceView) -> None:
        for client in tuple(self._followers.get(view.user_id, ())):
            client.run(client.session.on_presence(view))
