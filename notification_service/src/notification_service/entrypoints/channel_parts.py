"""What the outgoing channels are made of, and the loops they need; part of `Parts`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.background import end_tasks, keep_running, spawn
from notification_service.broker.consumer import BatchConsumer
from notification_service.broker.publisher import Publisher
from notification_service.broker.work import WorkConsumers
from notification_service.channels.board import BreakerBoard
from notification_service.channels.follow_ups import FollowUps
from notification_service.channels.http.client import HttpClient
from notification_service.channels.http.guard import Policy
from notification_service.channels.interface import Tools
from notification_service.channels.links import Links
from notification_service.channels.planned import Reach
from notification_service.channels.poison import DeliveryPoisonHandler
from notification_service.channels.ports import GO_ON, Gate, Pending, Rendered, Renderer, Unrenderable, Verdict
from notification_service.channels.queueing import Queueing
from notification_service.channels.rates import MemoryTurns, RateLimits, RedisTurns
from notification_service.channels.receipts import Receipts
from notification_service.channels.registry import Registry
from notification_service.channels.releasing import Outlet, Releasing
from notification_service.channels.reporting import Reporting
from notification_service.channels.telegram.channel import TelegramChannel
from notification_service.clock import Clock
from notification_service.contacts.secrets import SecretBox
from notification_service.contacts.service import ContactBook
from notification_service.db.engine import Database
from notification_service.entrypoints.contact_port import ChannelDirectory
from notification_service.errors import Unavailable
from notification_service.rates import parse_rates
from notification_service.settings import Settings
from shared_contracts.topology import CHANNEL_POISON, channel_queue

if TYPE_CHECKING:
    from notification_service.channels.worker import ChannelWorker


class PlainRenderer:
    """The notification's own words, without templates."""

    async def render(self, wanted: Sequence[Pending]) -> Sequence[Rendered | Unrenderable]:
        """Title and body as they were given."""
        return [
            Rendered(
                each.notification.title or each.notification.event_type,
                each.notification.body or "",
                None,
                each.notification.locale or each.recipient.locale,
            )
            for each in wanted
        ]


class OpenGate:
    """Lets everything pass."""

    async def check(self, connection: AsyncConnection, wanted: Sequence[Pending], now: datetime) -> Sequence[Verdict]:  # noqa: ARG002
        """Go on."""
        return [GO_ON] * len(wanted)


class ChannelParts:
    """The channels of one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        publisher: Publisher,
        clock: Clock,
        node_id: str,
        renderer: Renderer | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._node_id = node_id
        self._renderer = renderer or PlainRenderer()
        self._gate = gate or OpenGate()
        self._beside: list[asyncio.Task[None]] = []

    @cached_property
    def http(self) -> HttpClient:
        """Calls to addresses of users and to providers."""
        return HttpClient(Policy(allow_loopback=self._settings.allow_private_targets))

    @cached_property
    def registry(self) -> Registry:
        """All channels."""
        return Registry(Tools(self._settings, self.http, self._clock))

    @cached_property
    def reach(self) -> Reach:
        """What can be sent over."""
        registry = self.registry
        return Reach(
            registry.configured,
            require_verified=self._settings.needs_verified_contacts,
            withdrawing=registry.configured_that_can("withdraw"),
            editing=registry.configured_that_can("edit"),
        )

    @cached_property
    def box(self) -> SecretBox:
        """Encryption of contacts."""
        return SecretBox(self._settings.contact_keys)

    @cached_property
    def links(self) -> Links:
        """Links in what is sent."""
        return Links(self._settings.public_url, self._settings.internal_keys[0])

    @cached_property
    def contact_book(self) -> ContactBook:
        """Users' own contacts."""
        return ContactBook(
            database=self._database,
            directory=ChannelDirectory(self.registry, self._clock),
            box=self.box,
            clock=self._clock,
            needs_proof=self._settings.needs_verified_contacts,
            spawn=partial(spawn, name="contact-proof"),
        )

    @property
    def telegram_webhook_secret(self) -> str | None:
        """What Telegram shows when it calls."""
        channel = self.registry.get("telegram")
        secret = channel.settings.telegram_webhook_secret if isinstance(channel, TelegramChannel) else None
        return secret.get_secret_value() if secret is not None else None

    @cached_property
    def queueing(self) -> Queueing:
        """Publishing deliveries."""
        return Queueing(self._database, self._publisher, self._clock)

    @cached_property
    def receipts(self) -> Receipts:
        """Receipts for backends."""
        return Receipts(self._publisher, self._clock)

    @cached_property
    def limits(self) -> RateLimits:
        """Rate limits."""
        url = self._settings.redis_url
        turns = RedisTurns(url.get_secret_value(), self._clock) if url is not None else MemoryTurns(self._clock)
        return RateLimits(parse_rates(self._settings.rate_limits), turns)

    @cached_property
    def workers(self) -> list[ChannelWorker]:
        """One for every channel that is configured."""
        # Here, because only workers send: what sending needs takes a tenth of the time a process needs to start.
        from notification_service.channels.worker import ChannelWorker, Shared  # noqa: PLC0415

        shared = Shared(
            database=self._database,
            publisher=self._publisher,
            queueing=self.queueing,
            receipts=self.receipts,
            renderer=self._renderer,
            gate=self._gate,
            limits=self.limits,
            links=self.links,
            box=self.box,
            clock=self._clock,
            reach=self.reach,
            delays=self._settings.retry_delays_seconds,
            breaker_threshold=self._settings.breaker_threshold,
            breaker_open_for=self._settings.breaker_open_seconds,
        )
        return [ChannelWorker(channel, shared) for channel in self.registry if channel.is_configured]

    @cached_property
    def releasing(self) -> Releasing:
        """Publishing what waits for room."""
        return Releasing(
            self._database,
            self.queueing,
            self._clock,
            outlets={
                each.channel.name: Outlet(each.most_at_once, partial(self._find_room, each)) for each in self.workers
            },
        )

    def _find_room(self, worker: ChannelWorker) -> int:
        return worker.room - self.consumers.count_arrived(channel_queue(worker.channel.name).name)

    @cached_property
    def board(self) -> BreakerBoard:
        """What this process's breakers are, for all to see."""
        return BreakerBoard(
            self._database, self._clock, node_id=self._node_id, breakers=[each.breakers for each in self.workers]
        )

    @cached_property
    def follow_ups(self) -> FollowUps:
        """Taking back and changing what was sent."""
        return FollowUps(
            database=self._database,
            registry=self.registry,
            renderer=self._renderer,
            links=self.links,
            box=self.box,
            clock=self._clock,
            delays=self._settings.retry_delays_seconds,
        )

    @cached_property
    def reporting(self) -> Reporting:
        """What providers say later."""
        return Reporting(
            database=self._database,
            publisher=self._publisher,
            queueing=self.queueing,
            receipts=self.receipts,
            box=self.box,
            clock=self._clock,
            reach=self.reach,
        )

    @cached_property
    def consumers(self) -> WorkConsumers:
        """The consumers of all work queues."""
        return WorkConsumers(
            self._settings.amqp_url.get_secret_value(),
            name=f"{self._node_id}-channels",
            works=[each.work for each in self.workers],
            clock=self._clock,
        )

    @cached_property
    def poison(self) -> BatchConsumer:
        """The consumer of deliveries that killed their workers."""
        return BatchConsumer(
            self._settings.amqp_url.get_secret_value(),
            queue=CHANNEL_POISON.name,
            name=f"{self._node_id}-{CHANNEL_POISON.name}",
            handle=DeliveryPoisonHandler(
                self._database, self._publisher, self._clock, box=self.box, reach=self.reach, receipts=self.receipts
            ),
            batch_size=50,
            clock=self._clock,
        )

    def start(self) -> None:
        """Begin to send."""
        self.receipts.start()
        self.consumers.start()
        self.poison.start()
        self._beside = [
            keep_running(self.board.run, name="breaker-board"),
            keep_running(self.follow_ups.run, name="follow-ups"),
            keep_running(self.releasing.run, name="release"),
        ]

    @property
    def is_alive(self) -> bool:
        """Whether the broker delivers from every queue."""
        return self.consumers.is_alive and self.poison.is_alive

    async def stop(self) -> None:
        """Finish what is under way."""
        await end_tasks(*self._beside)
        await self.consumers.stop()
        await self.poison.stop()
        with contextlib.suppress(Unavailable):
            await self.board.stop()

    async def close(self) -> None:
        """Close connections to providers."""
        if "registry" in self.__dict__:
            await self.registry.close()
        if "limits" in self.__dict__:
            await self.limits.close()
        if "http" in self.__dict__:
            await self.http.close()
