"""This process as a gateway node: its connections, its users, its part among the other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from notification_service import metrics
from notification_service.background import end_tasks, keep_running, spawn
from notification_service.broker.consumer import Incoming
from notification_service.broker.node_queue import NodeQueue
from notification_service.broker.publisher import Publisher
from notification_service.broker.user_queues import UserQueues
from notification_service.clock import Clock
from notification_service.gateway.broadcast_feed import BroadcastFeed
from notification_service.gateway.bucket import Bucket
from notification_service.gateway.client import Client
from notification_service.gateway.connection_list import NodesPort, answer_question
from notification_service.gateway.cursors import Cursors
from notification_service.gateway.drain import WAVE_S, plan_drain
from notification_service.gateway.effects import (
    Acked,
    AskPreferences,
    ChangeItems,
    Effect,
    Fetch,
    FollowPresence,
    Identify,
    IdentifyAgain,
    SendMessage,
    ShowPresence,
    UnfollowPresence,
)
from notification_service.gateway.feeds import Feeds
from notification_service.gateway.gossip import (
    FRAME_LIVE,
    HEADER_FRAME,
    HEADER_USER,
    SILENCE_S,
    TYPE_FORWARD,
    TYPE_GOSSIP,
    Gossip,
    Hooks,
)
from notification_service.gateway.handshake import OriginRule
from notification_service.gateway.ports import Intake, Mailbox, PreferencesPort
from notification_service.gateway.presences import Presences
from notification_service.gateway.serving import CLOSINGS, Serving
from notification_service.gateway.session import Limits
from notification_service.identity.access import Access
from notification_service.identity.introspection import Ending
from notification_service.identity.key_set import KeySet
from notification_service.notifications.pages import FrameType
from notification_service.presence.board import Attendance, Attendances, Board
from notification_service.presence.last_seen import LastSeen
from notification_service.presence.people import People
from notification_service.settings import Settings
from shared_contracts import headers, topology
from shared_contracts.identity_events import (
    IdentityEventType,
    KeyRotatedEvent,
    MembersChangedEvent,
    SessionRevokedEvent,
    UnknownEvent,
    UserDeletedEvent,
    UserEvent,
    parse_identity_event,
)
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import Hello, PresenceStatus
from shared_contracts.ws.positions import parse_position

log = structlog.get_logger(__name__)

_TICK_SLICES: Final = 10
"""Ticks come once a second for every connection, a tenth of them at a time."""

_TOP_CHECK: Final = timedelta(seconds=15)
_TOP_BATCH: Final = 2_000
# Clients answer a close within a round trip; those that do not are cut by the server's own limit.
_EMPTY_LIMIT_S: Final = 3.0


class GatewayNode:
    """Everything of this node that connections call, and the loops behind it."""

    def __init__(
        self,
        *,
        node_id: str,
        settings: Settings,
        clock: Clock,
        access: Access,
        keys: KeySet,
        mailbox: Mailbox,
        intake: Intake,
        preferences: PreferencesPort,
        publisher: Publisher,
        people: People,
        last_seen: LastSeen,
    ) -> None:
        self.node_id = node_id
        self.settings = settings
        self.clock = clock
        self.limits = Limits(
            authentication_s=settings.authentication_timeout.total_seconds(),
            heartbeat_s=settings.heartbeat_interval.total_seconds(),
            ack_s=settings.ack_timeout.total_seconds(),
            max_unacked=settings.max_unacked,
            frames_per_second=settings.max_frames_per_second,
            messages_per_second=settings.max_messages_per_second,
            max_following=settings.max_following,
            resume_max_items=settings.resume_max_items,
        )
        self.origin_rule = OriginRule(frozenset(settings.allowed_origins), settings.allow_missing_origin)
        self._access = access
        self._keys = keys
        self._mailbox = mailbox
        self._connections: dict[UUID, Client] = {}
        self._by_tenant: dict[str, set[Client]] = {}
        # Each connection is in one of these. To go through all for each slice would cost more than their ticks.
        self._slices: tuple[set[Client], ...] = tuple(set() for _ in range(_TICK_SLICES))
        self._is_draining = False
        self._handshakes = Bucket(settings.max_handshakes_per_second, clock.monotonic())
        self._last_seen = last_seen
        self._tasks: list[asyncio.Task[None]] = []
        url = settings.amqp_url.get_secret_value()
        self.feeds = Feeds(clock)
        self.queues = UserQueues(
            url, name=node_id, prefetch_count=settings.max_unacked, listener=self.feeds, clock=clock
        )
        self.node_queue = NodeQueue(
            url,
            node_id=node_id,
            name=node_id,
            exchanges=(topology.DELIVERY_FANOUT, topology.GATEWAY_GOSSIP, topology.IDENTITY_EVENTS),
            on_message=self._on_node_message,
            on_connected=self._on_node_connected,
            clock=clock,
        )
        self.board = Board(silence_s=SILENCE_S, grace_s=settings.presence_grace.total_seconds())
        self.presences = Presences(board=self.board, people=people, last_seen=last_seen, clock=clock)
        self.gossip = Gossip(
            node_id=node_id,
            publisher=publisher,
            clock=clock,
            board=self.board,
            has_sockets=True,
            hooks=Hooks(
                own_queue=lambda: self.node_queue.queue_name,
                local_users=lambda: self.feeds.users,
                find_attendances=self._find_attendances,
                find_top=self._find_top,
                on_top=self._on_top,
                on_acked=self.feeds.on_acked_elsewhere,
                on_device_acked=self.on_device_acked,
                on_moved=self._limit_all,
                on_lost=self.presences.on_lost,
                answer=lambda question: answer_question(question, node_id=node_id, clients=self._connections.values),
            ),
        )
        self.nodes = NodesPort(self.gossip, self.board, clock, is_listening=lambda: self.node_queue.link.is_ready)
        self.feeds.connect_to(self.queues, self.gossip)
        self.cursors = Cursors(mailbox, clock)
        self.broadcasts = BroadcastFeed(lambda tenant: self._by_tenant.get(tenant, ()), clock)
        self._serving = Serving(
            access=access,
            mailbox=mailbox,
            intake=intake,
            preferences=preferences,
            feeds=self.feeds,
            cursors=self.cursors,
            clock=clock,
        )

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the broker and begin to serve."""
        self.queues.start()
        self.node_queue.start()
        self.gossip.start()
        self.feeds.start()
        self.cursors.start()
        self._last_seen.start()
        self._tasks = [
            keep_running(self._tick_for_ever, name="ticks"),
            keep_running(self._check_tops_for_ever, name="top-check"),
        ]

    async def drain(self) -> None:
        """Take no new connections, and ask everybody, in waves, to come back elsewhere."""
        if self._is_draining:
            return
        self._is_draining = True
        waiting = list(self._connections.values())
        plan = plan_drain(
            clients=len(waiting),
            other_nodes=len(self.board.socket_queues),
            drain_s=self.settings.drain_time.total_seconds(),
            handshakes_per_second=self.settings.max_handshakes_per_second,
        )
        log.info("gateway_drains", connections=len(waiting), wave_size=plan.wave_size, spread_ms=plan.spread_ms)
        for start in range(0, len(waiting), plan.wave_size):
            now = self.clock.monotonic()
            for client in waiting[start : start + plan.wave_size]:
                client.run(client.session.on_drain(after_ms=plan.after_ms, spread_ms=plan.spread_ms, now=now))
            await self.clock.sleep(timedelta(seconds=WAVE_S))
        await self._wait_until_empty()

    async def _wait_until_empty(self) -> None:
        deadline = self.clock.monotonic() + _EMPTY_LIMIT_S
        while self._connections and self.clock.monotonic() < deadline:
            await self.clock.sleep(timedelta(milliseconds=50))

    async def stop(self) -> None:
        """Leave: cursors written, frames settled or returned, the other nodes told."""
        await self.drain()
        await end_tasks(*self._tasks)
        await self.cursors.stop()
        await self.feeds.stop()
        await self.gossip.stop()
        await self._last_seen.stop()
        await self.queues.close()
        await self.node_queue.close()

    @property
    def is_ready(self) -> bool:
        """Whether users can be served."""
        return self.queues.link.is_ready and self.node_queue.link.is_ready and not self._is_draining

    def admit(self) -> str | None:
        """Why another connection may not come in now; None: it may."""
        if self._is_draining:
            return "this node is stopping; try again"
        if len(self._connections) >= self.settings.max_connections:
            return "this node is full; try again"
        if not self._handshakes.take(self.clock.monotonic()):
            return "too many connections at once; try again"
        return None

    # --- what connections report ----------------------------------------------------------------------------------

    def on_opened(self, connection: Client) -> None:
        """The upgrade is done; nobody is identified yet."""
        self._connections[connection.id] = connection
        self._slices[connection.id.int % _TICK_SLICES].add(connection)
        metrics.ws_connections.set(len(self._connections))

    def on_closed(self, connection: Client) -> None:
        """The connection is gone."""
        if self._connections.pop(connection.id, None) is None:
            return
        self._slices[connection.id.int % _TICK_SLICES].discard(connection)
        metrics.ws_connections.set(len(self._connections))
        identity = connection.session.identity
        if identity is not None:
            self._by_tenant.get(identity.tenant, set()).discard(connection)
            self.presences.unfollow(connection, connection.session.following)
            self._note_cursor(connection, identity.user_id, is_leaving=True)
            self.feeds.detach(connection, identity.user_id)
            if self.feeds.find(identity.user_id) is None:
                self.presences.on_here(identity.user_id)

    def _on_acked(self, connection: Client, acked: Acked) -> None:
        identity = connection.session.identity
        if identity is not None:
            self._note_cursor(connection, identity.user_id)
            self.feeds.on_acked(identity.user_id, acked.seq)

    def _note_cursor(self, connection: Client, user_id: UUID, *, is_leaving: bool = False) -> None:
        session = connection.session
        if session.device_id:
            self.cursors.note(user_id, session.device_id, session.follower.cursor, is_leaving=is_leaving)

    # --- what connections want done -------------------------------------------------------------------------------

    def do(self, connection: Client, effect: Effect) -> None:
        """Do what a session wants done beyond its own socket."""
        match effect:
            case Acked():
                self._on_acked(connection, effect)
            case Identify(hello):
                self._serve(connection, self._identify(connection, hello))
            case IdentifyAgain():
                self._serve(connection, self._serving.identify_again(connection, effect))
            case Fetch():
                self._serve(connection, self._serving.fetch(connection, effect))
            case ChangeItems():
                self._serve(connection, self._serving.change_items(connection, effect))
            case SendMessage():
                self._serve(connection, self._serving.send_message(connection, effect))
            case AskPreferences():
                self._serve(connection, self._serving.ask_preferences(connection, effect))
            case FollowPresence() | UnfollowPresence() | ShowPresence():
                self._do_presence(connection, effect)

    def _do_presence(self, connection: Client, effect: FollowPresence | UnfollowPresence | ShowPresence) -> None:
        match effect:
            case FollowPresence():
                self._serve(connection, self.presences.follow(connection, effect))
            case UnfollowPresence(user_ids):
                self.presences.unfollow(connection, user_ids)
            case ShowPresence():
                if connection.session.identity is not None:
                    self.gossip.move(connection.session.identity.user_id)
                self.presences.show(connection, effect)

    def _serve(self, connection: Client, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                log.error("connection_fault", connection_id=str(connection.id), exc_info=error)  # noqa: TRY400
                connection.fail()

        spawn(guarded(), name="serve")

    async def _identify(self, connection: Client, hello: Hello) -> None:
        feed = await self._serving.identify(connection, hello)
        if feed is None:
            return
        self._by_tenant.setdefault(feed.tenant, set()).add(connection)
        if len(feed.connections) == 1:
            self.presences.on_here(feed.user_id)
        # Again: now it has a name.
        self.gossip.move(feed.user_id)
        self._limit(feed.user_id)
        await self.feeds.consume(feed)

    def _limit(self, user_id: UUID) -> None:
        """Close the user's oldest connections beyond the limit; those on other nodes their node closes."""
        feed = self.feeds.find(user_id)
        excess = self.board.find_excess(user_id, self.settings.max_connections_per_user) if feed else set()
        for connection in tuple(feed.connections) if feed and excess else ():
            if connection.id in excess:
                connection.run(
                    connection.session.close(CloseCode.CONNECTION_LIMIT, "too many connections of this user")
                )

    def _limit_all(self, user_ids: Iterable[UUID]) -> None:
        for user_id in user_ids:
            self._limit(user_id)

    def _find_attendances(self, user_id: UUID) -> Attendances:
        feed = self.feeds.find(user_id)
        if feed is None:
            return ()
        return tuple(
            Attendance(each.id, each.session.device_id, each.session.status is PresenceStatus.AWAY)
            for each in feed.connections
        )

    def on_device_acked(self, user_id: UUID, device_id: str, position: str) -> None:
        """A device acknowledged over REST, as those that receive over SSE do."""
        feed, known = self.feeds.find(user_id), parse_position(position)
        for connection in tuple(feed.connections) if feed and known else ():
            session = connection.session
            if session.device_id == device_id and known and session.is_open and session.follower.knows(known):
                connection.run(session.follower.settle(known.seq, known.broadcast, self.clock.monotonic()))

    # --- what the other processes say -----------------------------------------------------------------------------

    def _on_node_message(self, message: Incoming) -> None:
        handlers: dict[str, Callable[[Incoming], None]] = {
            topology.DELIVERY_FANOUT.name: self._on_broadcast,
            topology.IDENTITY_EVENTS.name: self._on_identity_event,
        }
        handler = handlers.get(message.exchange)
        if handler is None:
            handler = {TYPE_GOSSIP: self.gossip.on_message, TYPE_FORWARD: self._on_forward}.get(message.type or "")
        try:
            if handler is not None:
                handler(message)
        except (KeyError, TypeError, ValueError) as error:
            # Only Herald's own processes publish here; another version may say what this one cannot read.
            log.warning("node_message_unreadable", type=message.type, problem=f"{type(error).__name__}: {error}")

    def _on_broadcast(self, message: Incoming) -> None:
        given = message.headers
        type_ = message.type or FrameType.NOTIFICATION
        self.broadcasts.on_message(given[headers.TENANT], given[headers.SEQ], message.body, type_)

    def _on_forward(self, message: Incoming) -> None:
        given = message.headers
        if given[HEADER_FRAME] == FRAME_LIVE:
            self.feeds.show_live(UUID(given[HEADER_USER]), message.body)
            return
        self.feeds.on_forwarded(UUID(given[HEADER_USER]), given[headers.SEQ], given[HEADER_FRAME], message.body)

    def _on_identity_event(self, message: Incoming) -> None:
        try:
            event = parse_identity_event(message.body)
        except ValidationError:
            log.error("identity_event_unreadable", size_bytes=len(message.body))  # noqa: TRY400
            return
        match event:
            case SessionRevokedEvent(data=data):
                self._access.introspection.note_ended(data.user_id, data.session_ids, spared=data.except_session_id)
                self._close_sessions(data.user_id, data.session_ids, data.except_session_id)
            case UserEvent(type=IdentityEventType.USER_DEACTIVATED, data=user):
                self._close_account(user.id)
            case UserDeletedEvent(data=gone):
                # The eraser deletes the queue: it must not be declared again while devices are still leaving.
                if (feed := self.feeds.find(gone.id)) is not None:
                    feed.wants_consumer = False
                self._close_account(gone.id)
            case UserEvent(data=user):
                self._access.introspection.forget_user(user.id)
                self._tell_rights(user.id, user.roles)
                self.presences.recheck_soon([user.id])
            case MembersChangedEvent(data=members) if members.removed:
                self.presences.recheck_soon(members.removed)
            case KeyRotatedEvent():
                self._keys.refresh()
                # A key may have leaked, all tokens been cut off, or a tenant been switched off.
                self._access.introspection.forget_all()
                everybody = tuple(self._connections.values())
                spawn(self._serving.validate_again(everybody), name="validate-again")
            case UnknownEvent() | _:
                pass

    def _tell_rights(self, user_id: UUID, roles: tuple[str, ...]) -> None:
        feed = self.feeds.find(user_id)
        for connection in tuple(feed.connections) if feed else ():
            connection.run(connection.session.on_rights(roles))

    def _close_account(self, user_id: UUID) -> None:
        self._access.introspection.note_ended(user_id)
        feed = self.feeds.find(user_id)
        for connection in tuple(feed.connections) if feed else ():
            connection.run(connection.session.close(*CLOSINGS[Ending.ACCOUNT_CLOSED]))

    def _close_sessions(self, user_id: UUID, session_ids: tuple[UUID, ...] | None, spared: UUID | None) -> None:
        feed = self.feeds.find(user_id)
        for connection in tuple(feed.connections) if feed else ():
            identity = connection.session.identity
            if identity is None or identity.session_id == spared:
                continue
            if session_ids is None or identity.session_id in session_ids:
                connection.run(connection.session.close(*CLOSINGS[Ending.SESSION_ENDED]))

    def _on_node_connected(self) -> None:
        # Whatever was said while the queue was away is lost: ask again about everything that can have changed.
        self.gossip.on_connected()
        self._access.introspection.forget_all()
        spawn(self._serving.validate_again(tuple(self._connections.values())), name="validate-again")
        spawn(self._check_tops(), name="top-check")

    # --- loops ----------------------------------------------------------------------------------------------------

    async def _tick_for_ever(self) -> None:
        turn = 0
        while True:
            started = self.clock.monotonic()
            await self.clock.sleep(timedelta(seconds=1 / _TICK_SLICES))
            metrics.event_loop_lag_seconds.observe(max(0.0, self.clock.monotonic() - started - 1 / _TICK_SLICES))
            turn = (turn + 1) % _TICK_SLICES
            for connection in tuple(self._slices[turn]):
                connection.tick()
            self.presences.on_tick()
            if turn == 0:
                self.feeds.park_waiting()
                metrics.amqp_consumers_expected.set(self.feeds.expected_consumers)
                metrics.amqp_consumers_alive.set(self.queues.consumer_count)

    async def _check_tops_for_ever(self) -> None:
        while True:
            await self.clock.sleep(_TOP_CHECK)
            await self._check_tops()

    async def _check_tops(self) -> None:
        """Compare every stream with the store: finds frames that were lost on the way, whatever lost them."""
        users = list(self.feeds.users)
        for start in range(0, len(users), _TOP_BATCH):
            await self._serving.check_tops(users[start : start + _TOP_BATCH])
        await self._serving.check_broadcasts(self._by_tenant)

    def _find_top(self, user_id: UUID) -> int:
        feed = self.feeds.find(user_id)
        return feed.last_seq if feed else 0

    def _on_top(self, user_id: UUID, seq: int) -> None:
        feed = self.feeds.find(user_id)
        now = self.clock.monotonic()
        for connection in tuple(feed.connections) if feed else ():
            connection.run(connection.session.follower.on_top(seq, now))
