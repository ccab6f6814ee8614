"""What connections wait for: identification, pages, changes. Everything here asks another process, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from notification_service.batching import Batcher
from notification_service.clock import Clock
from notification_service.errors import ServiceError, Unavailable
from notification_service.gateway.client import Client
from notification_service.gateway.cursors import Cursors
from notification_service.gateway.effects import AskPreferences, ChangeItems, Fetch, IdentifyAgain, SendMessage
from notification_service.gateway.feed import Feed
from notification_service.gateway.feeds import Feeds
from notification_service.gateway.ports import Device, Intake, Mailbox, PageWanted, PreferencesPort
from notification_service.gateway.session import Identity
from notification_service.identity.access import Access, Caller
from notification_service.identity.introspection import Ending
from notification_service.notifications.pages import Page, StreamInfo
from shared_contracts.access_tokens import RejectedToken
from shared_contracts.error_codes import ErrorCode
from shared_contracts.scopes import Scope
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import Hello

log = structlog.get_logger(__name__)

_MAX_BATCH: Final = 500
# 20 min in all: the longest an access token lives, and more.
_VALIDATION_TRIES: Final = 240
_VALIDATION_PAUSE: Final = timedelta(seconds=5)
# A frame that is on its way when the store is asked arrives within this time.
_GRACE: Final = timedelta(seconds=1)
# The same words as when the event comes.
CLOSINGS: Final[Mapping[Ending | None, tuple[CloseCode, str]]] = {
    Ending.ACCOUNT_CLOSED: (CloseCode.ACCOUNT_CLOSED, "the account is closed"),
    Ending.SESSION_ENDED: (CloseCode.SESSION_REVOKED, "the session was ended"),
    None: (CloseCode.TOKEN_EXPIRED, "the token is no longer good"),
}


class Serving:
    """Serves the connections of one node."""

    def __init__(
        self,
        *,
        access: Access,
        mailbox: Mailbox,
        intake: Intake,
        preferences: PreferencesPort,
        feeds: Feeds,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._access = access
        self._mailbox = mailbox
        self._intake = intake
        self._preferences = preferences
        self._feeds = feeds
        self._cursors = cursors
        self._clock = clock
        self._opening: Batcher[Device, StreamInfo] = Batcher(mailbox.open, max_batch=_MAX_BATCH, calls_at_once=2)
        self._reading: Batcher[PageWanted, Page] = Batcher(mailbox.read_pages, max_batch=200, calls_at_once=2)

    # --- who is it ------------------------------------------------------------------------------------------------

    async def identify(self, connection: Client, hello: Hello) -> Feed | None:
        """Check the token, join the user's feed, read the stream, start the session; None when it was refused."""
        moment = self._access.introspection.moment
        caller = await self._check(connection, hello.token, connection.ticket)
        if caller is None:
            return None
        connection.token = caller.token
        connection.info = hello.client
        feed = self._feeds.attach(connection, caller.id, caller.tenant)
        try:
            await self._feeds.declare(feed)
            device_id = hello.device_id or str(caller.session_id)
            info = await self._opening.ask(Device(caller.id, caller.tenant, device_id))
        except Unavailable as error:
            self._feeds.detach(connection, caller.id)
            log.warning("connection_not_started", problem=error.detail)
            connection.run(connection.session.close(CloseCode.OVERLOADED, "not available right now"))
            return None
        if (cursor := self._cursors.find(caller.id, device_id)) is not None:
            info = replace(info, cursor=cursor)
        feed.acked_seq = max(feed.acked_seq, info.acked_seq)
        now, wall_clock = self._clock.monotonic(), self._clock.now()
        identity = _make_identity(caller)
        connection.run(connection.session.on_identified(identity, hello, info, now=now, wall_clock=wall_clock))
        if not connection.session.is_open:
            # Gone while it was being identified.
            self._feeds.detach(connection, caller.id)
            return None
        if self._access.introspection.has_changed(caller.id, since=moment):
            # What was heard meanwhile found no session here to act on.
            await self.validate_again([connection])
        return feed

    async def identify_again(self, connection: Client, wanted: IdentifyAgain) -> None:
        """Check a new token for an open session."""
        caller = await self._check(connection, wanted.token, None)
        if caller is None:
            return
        connection.token = wanted.token
        now, wall_clock = self._clock.monotonic(), self._clock.now()
        session = connection.session
        connection.run(session.on_refreshed(_make_identity(caller), wanted.ref, now=now, wall_clock=wall_clock))

    async def validate_again(self, connections: Sequence[Client]) -> None:
        """Ask the auth service about tokens of open sessions, because its events may have been missed, or concern all.

        While it does not answer, asked again until every token in question has expired.
        """
        waiting = list(connections)
        for _ in range(_VALIDATION_TRIES):
            waiting = [each for each in waiting if each.session.is_open and each.token is not None]
            later: list[Client] = []
            for start in range(0, len(waiting), _MAX_BATCH):
                part = waiting[start : start + _MAX_BATCH]
                are_done = await asyncio.gather(*(self._validate(each) for each in part))
                later += [each for each, is_done in zip(part, are_done, strict=True) if not is_done]
            waiting = later
            if not waiting:
                return
            await self._clock.sleep(_VALIDATION_PAUSE)

    async def _validate(self, connection: Client) -> bool:
        try:
            answer = await self._access.introspection.ask(connection.token or "")
        except Unavailable:
            return False
        if answer.is_active:
            connection.run(connection.session.on_rights(answer.roles))
        else:
            code, detail = CLOSINGS[answer.ending]
            connection.run(connection.session.close(code, detail))
        return True

    async def _check(self, connection: Client, token: str, ticket: str | None) -> Caller | None:
        try:
            caller = await (self._access.redeem(ticket) if ticket else self._access.identify(token))
        except RejectedToken as rejected:
            connection.run(connection.session.on_refused(is_expired=rejected.is_expired))
            return None
        except Unavailable:
            connection.run(connection.session.close(CloseCode.OVERLOADED, "not available right now"))
            return None
        if caller.is_service or Scope.INBOX not in caller.scopes:
            connection.run(connection.session.on_refused(is_expired=False))
            return None
        return caller

    # --- what did it miss -----------------------------------------------------------------------------------------

    async def fetch(self, connection: Client, wanted: Fetch) -> None:
        """Read a page for a session that is off the live path."""
        identity = connection.session.identity
        if identity is None:
            return
        follower = connection.session.follower
        question = PageWanted(identity.user_id, identity.tenant, wanted.after_seq, wanted.after_broadcast, wanted.limit)
        try:
            page = await self._reading.ask(question)
        except Unavailable:
            connection.run(follower.on_fetch_failed(self._clock.monotonic()))
            return
        connection.run(follower.on_page(page, self._clock.monotonic()))

    async def check_tops(self, user_ids: Sequence[UUID]) -> None:
        """Compare the ends of streams with what the devices have, and have them catch up where something is missing."""
        try:
            tops = await self._mailbox.read_tops(user_ids)
        except Unavailable:
            return
        behind = {user_id: top for user_id, top in tops.items() if self._is_behind(user_id, top)}
        if not behind:
            return
        await self._clock.sleep(_GRACE)
        for user_id, top in behind.items():
            feed = self._feeds.find(user_id)
            for connection in tuple(feed.connections) if feed else ():
                follower = connection.session.follower
                if follower.is_live and follower.sent_seq < top:
                    log.info("stream_was_behind", sent=follower.sent_seq, top=top)
                    connection.run(follower.on_top(top, self._clock.monotonic()))

    async def check_broadcasts(self, clients: Mapping[str, Collection[Client]]) -> None:
        """The same for the broadcasts: one that was published while this node's queue was away was routed nowhere.

        Args:
            clients: By tenant.
        """
        try:
            tops = await self._mailbox.read_broadcast_tops([tenant for tenant, own in clients.items() if own])
        except Unavailable:
            return
        if not any(self._find_behind(clients, tops)):
            return
        await self._clock.sleep(_GRACE)
        now = self._clock.monotonic()
        for client, top in list(self._find_behind(clients, tops)):
            log.info("broadcasts_were_behind", sent=client.session.follower.sent_broadcast, top=top)
            client.run(client.session.follower.on_broadcast_top(top, now))

    @staticmethod
    def _find_behind(
        clients: Mapping[str, Collection[Client]], tops: Mapping[str, int]
    ) -> Iterator[tuple[Client, int]]:
        for tenant, top in tops.items():
            for client in clients[tenant]:
                follower = client.session.follower
                if follower.is_live and follower.sent_broadcast < top:
                    yield client, top

    def _is_behind(self, user_id: UUID, top: int) -> bool:
        feed = self._feeds.find(user_id)
        return feed is not None and any(each.session.follower.sent_seq < top for each in feed.connections)

    # --- commands -------------------------------------------------------------------------------------------------

    async def change_items(self, connection: Client, wanted: ChangeItems) -> None:
        """Change the state of items."""
        identity = connection.session.identity
        if identity is None:
            return
        try:
            changed = await self._mailbox.change_items(
                user_id=identity.user_id, tenant=identity.tenant, action=wanted.action, ids=wanted.ids
            )
        except ServiceError as error:
            connection.run(connection.session.on_command_failed(error.code, error.detail, wanted.ref))
            return
        connection.run(
            connection.session.on_items_changed(
                seq=changed.seq,
                body=changed.body,
                label=changed.label,
                counts=changed.counts,
                ref=wanted.ref,
                now=self._clock.monotonic(),
            )
        )

    async def ask_preferences(self, connection: Client, wanted: AskPreferences) -> None:
        """Read or change the user's preferences; a change is told to every device besides."""
        identity = connection.session.identity
        if identity is None:
            return
        try:
            if wanted.changes is None:
                values = await self._preferences.get(identity.user_id, identity.tenant)
            else:
                values = await self._preferences.patch(identity.user_id, identity.tenant, wanted.changes)
        except ServiceError as error:
            connection.run(connection.session.on_command_failed(error.code, error.detail, wanted.ref))
            return
        connection.run(connection.session.on_preferences(values, wanted.ref))

    async def send_message(self, connection: Client, wanted: SendMessage) -> None:
        """Accept a message from this user."""
        if connection.session.identity is None:
            return
        if connection.token is None:
            # It came with a ticket, which is used up: what it may do now cannot be asked without a token.
            detail = "send refresh with an access token first: this connection authenticated with a ticket"
            failed = connection.session.on_command_failed(ErrorCode.NOT_AUTHENTICATED, detail, wanted.frame.ref)
            connection.run(failed)
            return
        try:
            caller = await self._access.identify(connection.token)
            accept = self._intake.accept_live_event if wanted.frame.live else self._intake.accept_message
            notification_id = await accept(caller, wanted.frame)
        except RejectedToken as rejected:
            connection.run(connection.session.on_refused(is_expired=rejected.is_expired))
        except ServiceError as error:
            connection.run(connection.session.on_command_failed(error.code, error.detail, wanted.frame.ref))
        else:
            connection.run(connection.session.on_message_sent(notification_id, wanted.frame.ref))


def _make_identity(caller: Caller) -> Identity:
    return Identity(caller.id, caller.session_id, caller.tenant, caller.roles, caller.expires_at, caller.scopes)
