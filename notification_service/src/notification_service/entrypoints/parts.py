"""The objects every process of this service is made of, each built once and only when it is asked for."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any
from uuid import UUID

import httpx

from notification_service.background import spawn
from notification_service.broker.declare import count_consumers
from notification_service.broker.publisher import Publisher
from notification_service.broker.purge import delete_queue, purge_queue
from notification_service.channels.links import Unsubscription
from notification_service.clock import Clock, SystemClock
from notification_service.db.engine import Database
from notification_service.dead_letters.depth import Depth
from notification_service.digests.weekly import plan_weekly_summary
from notification_service.dispatch.dispatcher import Dispatcher
from notification_service.dispatch.marks import DispatchMarks
from notification_service.dispatch.relay import Relay
from notification_service.entrypoints.channel_parts import ChannelParts
from notification_service.entrypoints.deciding import Deciding
from notification_service.entrypoints.dismissals import Dismissals
from notification_service.entrypoints.engine_port import PreferenceGate, TemplateRenderer
from notification_service.entrypoints.fanning_out import FanningOut
from notification_service.entrypoints.identity_notices import IdentityNotices
from notification_service.entrypoints.intake_port import IntakePort
from notification_service.entrypoints.mailbox_port import KeptPort, MailboxPort
from notification_service.entrypoints.personal_data import PERSONAL_DATA
from notification_service.entrypoints.pipeline import Pipeline
from notification_service.entrypoints.preferences_frame import publish_preferences
from notification_service.entrypoints.receipt_sources import read_of
from notification_service.entrypoints.rolling_up import RollingUp
from notification_service.entrypoints.schedules_port import SchedulesPort
from notification_service.entrypoints.sent import SentNotifications
from notification_service.entrypoints.storing_at_once import StoringAtOnce
from notification_service.entrypoints.timekeeping import Timekeeper
from notification_service.event_types.catalog import Catalog
from notification_service.gateway.node import GatewayNode
from notification_service.gateway.observer import Observer
from notification_service.identity.access import Access
from notification_service.identity.audit import AuditRelay
from notification_service.identity.introspection import Introspection
from notification_service.identity.key_set import KeySet
from notification_service.identity.mirror import AuthListings, Mirror
from notification_service.identity.personal_data import Subject
from notification_service.identity.tokens import SignatureCheck
from notification_service.intake.accept import Acceptor
from notification_service.intake.handing_over import HandingOver
from notification_service.intake.live import LiveSender
from notification_service.mailbox.live_broadcasts import LiveBroadcasts
from notification_service.mailbox.resume import clear_queue_marks
from notification_service.mailbox.service import Inbox
from notification_service.mailbox.state import StateChange
from notification_service.notifications.pages import FrameType, StreamFrame
from notification_service.personal_data.erasure import Eraser, request_erasure
from notification_service.preferences.repository import DefaultsStore
from notification_service.preferences.service import Preferences
from notification_service.presence.last_seen import LastSeen
from notification_service.presence.people import People
from notification_service.presence.ports import Nodes
from notification_service.settings import Settings
from notification_service.templates.service import Templates
from notification_service.templates.store import TemplateStore
from shared_contracts.requests import DEFAULT_EVENT_TYPE
from shared_contracts.topology import DEAD, INTAKE, user_queue_name
from shared_contracts.ws.positions import Position


class Parts:
    """See the module. `process` names this process in logs and at the broker."""

    def __init__(self, settings: Settings, *, process: str) -> None:
        self.settings = settings
        self.process = process
        # Readable in the broker's own lists, and new at every start.
        self.node_id = f"{process}-{socket.gethostname()[:20]}-{os.getpid()}-{secrets.token_hex(3)}"
        self.clock: Clock = SystemClock()

    @property
    def amqp_url(self) -> str:
        """RabbitMQ's address, with its credentials."""
        return self.settings.amqp_url.get_secret_value()

    @cached_property
    def database(self) -> Database:
        """The database."""
        return Database(
            self.settings.sqlalchemy_url,
            pool_size=self.settings.database_pool_size,
            timeout=self.settings.database_timeout,
            # Nobody waits for the others, and what they do at once may be much.
            unit_limit=None if self.process in ("worker", "scheduler") else self.settings.database_timeout,
        )

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """For calls to the auth service; proxy variables of the environment are not for those."""
        return httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=20, keepalive_expiry=30))

    @cached_property
    def publisher(self) -> Publisher:
        """Confirmed publishing."""
        return Publisher(self.amqp_url, name=self.node_id, clock=self.clock)

    @cached_property
    def keys(self) -> KeySet:
        """The auth service's public keys."""
        url = f"{self.settings.auth_base_url}/.well-known/jwks.json"
        return KeySet(url, client=self.http, clock=self.clock)

    @cached_property
    def access(self) -> Access:
        """Verification of tokens."""
        signatures = SignatureCheck(
            self.keys, issuer=self.settings.auth_issuer, audience=self.settings.auth_audience, clock=self.clock
        )
        introspection = Introspection(
            self.settings.auth_base_url,
            key=self.settings.internal_keys[0],
            client=self.http,
            ttl=self.settings.introspection_ttl,
            clock=self.clock,
        )
        return Access(signatures, introspection)

    @cached_property
    def mirror(self) -> Mirror:
        """The mirror of the auth service."""
        listings = AuthListings(self.settings.auth_base_url, key=self.settings.internal_keys[0], client=self.http)
        return Mirror(
            self.database,
            listings,
            self.clock,
            on_erased=partial(request_erasure, clock=self.clock),
            followers=(self.eraser.on_events, self.notices.on_events),
        )

    @cached_property
    def eraser(self) -> Eraser:
        """Erasing what is held about people whose accounts are gone."""

        async def purge(subjects: Sequence[Subject]) -> int:
            names = [each.encode() for subject in subjects for each in subject.quoted_references]
            connection = self.publisher.link.connection
            return await purge_queue(connection, DEAD.name, lambda body: not any(name in body for name in names))

        return Eraser(
            database=self.database,
            parts=PERSONAL_DATA,
            delete_queue=lambda user_id: delete_queue(self.publisher.link.connection, user_queue_name(user_id)),
            purge_queues=purge,
            clock=self.clock,
        )

    @cached_property
    def notices(self) -> IdentityNotices:
        """Telling users of their own accounts."""
        return IdentityNotices(database=self.database, publisher=self.publisher, clock=self.clock)

    @cached_property
    def audit_relay(self) -> AuditRelay:
        """Lines of the audit log on their way to the auth service."""
        return AuditRelay(
            self.database,
            self.settings.auth_base_url,
            key=self.settings.internal_keys[0],
            client=self.http,
            clock=self.clock,
        )

    @cached_property
    def live(self) -> LiveBroadcasts:
        """This process's memory of the live broadcasts."""
        return LiveBroadcasts()

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Publishing what is kept."""
        return Dispatcher(self.publisher, self.clock)

    @cached_property
    def marks(self) -> DispatchMarks:
        """Noting what is dispatched."""
        return DispatchMarks(self.database, self.clock, clear_queue_marks)

    @cached_property
    def catalog(self) -> Catalog:
        """This process's memory of event types and settings."""
        return Catalog()

    @cached_property
    def defaults(self) -> DefaultsStore:
        """This process's memory of default preferences."""
        return DefaultsStore()

    @cached_property
    def template_store(self) -> TemplateStore:
        """This process's memory of templates."""
        return TemplateStore()

    @cached_property
    def templates(self) -> Templates:
        """Writing and rendering templates."""
        return Templates(database=self.database, catalog=self.catalog, store=self.template_store, clock=self.clock)

    @cached_property
    def preferences(self) -> Preferences:
        """Preferences of users, and their defaults."""
        return Preferences(
            database=self.database,
            catalog=self.catalog,
            defaults=self.defaults,
            clock=self.clock,
            tell=self._tell_preferences,
            on_saved=plan_weekly_summary,
        )

    @cached_property
    def deciding(self) -> Deciding:
        """Deciding who gets what."""
        return Deciding(
            templates=self.template_store,
            defaults=self.defaults,
            live=self.live,
            # The channels need this object; so it asks for them late.
            reach=lambda: self.channels.reach,
            clock=self.clock,
        )

    @cached_property
    def channels(self) -> ChannelParts:
        """The outgoing channels."""
        return ChannelParts(
            self.settings,
            database=self.database,
            publisher=self.publisher,
            clock=self.clock,
            node_id=self.node_id,
            renderer=TemplateRenderer(self.database, self.catalog, self.deciding, self.templates),
            gate=PreferenceGate(self.catalog, self.deciding),
        )

    async def unsubscribe(self, wanted: Unsubscription) -> None:
        """Switch off what an unsubscribe link names: the category on that channel, or the event type without one."""
        switched_off = {wanted.channel: False}
        if wanted.category is not None:
            change: dict[str, Any] = {"categories": {wanted.category: switched_off}}
        elif wanted.event_type != DEFAULT_EVENT_TYPE:
            change = {"event_types": {wanted.event_type: switched_off}}
        else:
            change = {"channels": switched_off}
        await self.preferences.patch(wanted.user_id, wanted.tenant, change)

    @cached_property
    def fanning_out(self) -> FanningOut:
        """Serving large audiences."""
        return FanningOut(
            database=self.database,
            catalog=self.catalog,
            deciding=self.deciding,
            dispatcher=self.dispatcher,
            marks=self.marks,
            publish_deliveries=self.channels.queueing.publish,
            clock=self.clock,
        )

    @cached_property
    def timekeeper(self) -> Timekeeper:
        """What time brings."""
        return Timekeeper(
            database=self.database,
            publisher=self.publisher,
            dispatcher=self.dispatcher,
            marks=self.marks,
            catalog=self.catalog,
            deciding=self.deciding,
            inbox=self.inbox,
            live=self.live,
            reach=lambda: self.channels.reach,
            publish_deliveries=self.channels.queueing.publish,
            clock=self.clock,
            retention=self.settings.retention,
            extras=(RollingUp(self.database).roll_up, Depth(self.database).measure),
        )

    @cached_property
    def sent(self) -> SentNotifications:
        """What was sent, for its senders."""
        return SentNotifications(
            database=self.database,
            catalog=self.catalog,
            dispatcher=self.dispatcher,
            marks=self.marks,
            live=self.live,
            reach=lambda: self.channels.reach,
            clock=self.clock,
        )

    @cached_property
    def schedules(self) -> SchedulesPort:
        """Digests and schedules, for the REST API."""
        return SchedulesPort(database=self.database, catalog=self.catalog, timekeeper=self.timekeeper, clock=self.clock)

    @cached_property
    def acceptor(self) -> Acceptor:
        """Accepting over REST and from clients."""
        return Acceptor(
            database=self.database,
            catalog=self.catalog,
            handing_over=HandingOver(self.publisher, self.clock),
            clock=self.clock,
            relay_grace=self.settings.relay_grace,
        )

    @cached_property
    def inbox(self) -> Inbox:
        """The inbox."""
        return Inbox(
            database=self.database,
            live=self.live,
            clock=self.clock,
            tell_devices=self._tell_devices,
            resume_max_items=self.settings.resume_max_items,
            on_acknowledged=self._tell_acknowledged,
            on_changing=Dismissals(lambda: self.channels.reach, self.clock),
        )

    @cached_property
    def pipeline(self) -> Pipeline:
        """The intake's way through the stages."""
        return Pipeline(
            database=self.database,
            publisher=self.publisher,
            dispatcher=self.dispatcher,
            marks=self.marks,
            mirror=self.mirror,
            catalog=self.catalog,
            deciding=self.deciding,
            publish_deliveries=self.channels.queueing.publish,
            receipts=self.channels.receipts,
            clock=self.clock,
            relay_grace=self.settings.relay_grace,
            fanout_at=self.settings.fanout_at,
            at_once=None if self.database.is_sqlite else self._storing_at_once,
        )

    @cached_property
    def _storing_at_once(self) -> StoringAtOnce:
        return StoringAtOnce(
            database=self.database,
            catalog=self.catalog,
            deciding=self.deciding,
            live=self.live,
            clock=self.clock,
            relay_grace=self.settings.relay_grace,
        )

    @cached_property
    def relay(self) -> Relay:
        """Publishing what a crash left."""
        return Relay(
            database=self.database,
            publisher=self.publisher,
            dispatcher=self.dispatcher,
            marks=self.marks,
            kept=KeptPort(self.live),
            clock=self.clock,
            interval=self.settings.relay_interval,
            hold=self.settings.relay_hold,
        )

    @cached_property
    def gateway(self) -> GatewayNode:
        """This process as a gateway node."""
        return GatewayNode(
            node_id=self.node_id,
            settings=self.settings,
            clock=self.clock,
            access=self.access,
            keys=self.keys,
            mailbox=MailboxPort(self.database, self.inbox, self.live, self.clock, self.channels.receipts),
            intake=IntakePort(self.acceptor, LiveSender(database=self.database, publisher=self.publisher)),
            preferences=self.preferences,
            publisher=self.publisher,
            people=self.people,
            last_seen=LastSeen(self.database, self.clock),
        )

    @cached_property
    def people(self) -> People:
        """Who may see whom."""
        return People(self.database)

    @cached_property
    def observer(self) -> Observer:
        """What a process without sockets hears of the gateway nodes."""
        return Observer(
            url=self.amqp_url,
            node_id=self.node_id,
            publisher=self.publisher,
            clock=self.clock,
            grace_s=self.settings.presence_grace.total_seconds(),
        )

    @property
    def nodes(self) -> Nodes:
        """All gateway nodes together, as this process hears of them."""
        return self.gateway.nodes if "gateway" in self.__dict__ else self.observer.nodes

    async def intake_probe(self) -> bool:
        """Whether any worker consumes the intake; asked of the broker, which knows all of them."""
        connection = self.publisher.link.connection
        return connection is not None and await count_consumers(connection, INTAKE.name) > 0

    def _tell_acknowledged(self, user_id: UUID, device_id: str, position: Position) -> None:
        if "gateway" in self.__dict__:
            self.gateway.on_device_acked(user_id, device_id, str(position))
            self.gateway.gossip.tell_device_acked(user_id, device_id, str(position))
        elif "observer" in self.__dict__:
            self.observer.gossip.tell_device_acked(user_id, device_id, str(position))

    def _tell_devices(self, change: StateChange) -> None:
        self.channels.receipts.add(read_of(change.user_id, change.body, self.clock.now(), tenant=change.tenant))
        # Not waited for: whoever made the change gets the answer first, with its `ref`, then the frame everybody gets.
        spawn(self._publish_state(change), name="tell-devices")

    def _tell_preferences(self, user_id: UUID, values: dict[str, Any]) -> None:
        spawn(publish_preferences(self.publisher, user_id, values), name="tell-preferences")

    async def _publish_state(self, change: StateChange) -> None:
        if change.seq is None or change.body is None:
            return
        frame = StreamFrame(
            change.user_id, change.seq, FrameType.STATE, change.body, change.has_queue, change.queue_generation
        )
        for gone in await self.dispatcher.dispatch_frames([frame]):
            self.marks.add_gone_queue(*gone)

    async def close(self) -> None:
        """Close what was opened. The loops that use these parts have ended before."""
        if "channels" in self.__dict__:
            await self.channels.receipts.stop()
            await self.channels.close()
        if "publisher" in self.__dict__:
            await self.publisher.close()
        if "marks" in self.__dict__:
            await self.marks.stop()
        if "http" in self.__dict__:
            await self.http.aclose()
        if "database" in self.__dict__:
            await self.database.close()
        await asyncio.sleep(0)
