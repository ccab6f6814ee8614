"""Users' queues and the devices on this node: nobody consumes for nobody, and nothing stays unsettled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from builders import USER
from waiting import until

from notification_service.broker.user_queues import QueuedFrame, Receipt, UserQueues
from notification_service.clock import SystemClock
from notification_service.gateway.client import Client
from notification_service.gateway.feeds import Feeds
from notification_service.gateway.gossip import Gossip


class Queues:
    """RabbitMQ, as far as the feeds see it; declaring waits until it may go on."""

    def __init__(self) -> None:
        self.consumed: list[UUID] = []
        self.left: list[tuple[UUID, list[int]]] = []
        self.given_back: list[int] = []
        self.settled: list[int] = []
        self.may_declare = asyncio.Event()
        self.may_declare.set()

    async def declare(self, _user_id: UUID) -> None:
        await self.may_declare.wait()

    async def consume(self, user_id: UUID) -> None:
        self.consumed.append(user_id)

    async def leave(self, user_id: UUID, unsettled: list[Receipt]) -> None:
        self.left.append((user_id, [each.tag for each in unsettled]))

    async def give_back(self, receipt: Receipt) -> None:
        self.given_back.append(receipt.tag)

    async def settle(self, receipts: list[Receipt]) -> None:
        self.settled += [each.tag for each in receipts]


def make() -> tuple[Feeds, Queues, Callable[[], Client]]:
    queues, feeds = Queues(), Feeds(SystemClock())
    nothing = SimpleNamespace(move=lambda _user: None, acked=lambda *_: None, forward=lambda *_: None)
    feeds.connect_to(cast("UserQueues", queues), cast("Gossip", nothing))
    return feeds, queues, lambda: cast("Client", SimpleNamespace(run=lambda _: None, session=Session()))


class Session:
    def on_item(self, *_: Any, **__: Any) -> list[Any]:
        return []


def frame(tag: int, seq: int, *, type_: str = "notification") -> QueuedFrame:
    return QueuedFrame(seq, type_, b"{}", is_redelivered=False, receipt=Receipt(cast("Any", None), tag))


@pytest.mark.req("I13")
async def test_a_queue_is_not_consumed_for_a_device_that_left_while_it_was_declared_again() -> None:
    feeds, queues, device = make()
    first = device()
    feed = feeds.attach(first, USER, "default")
    await feeds.declare(feed)
    await feeds.consume(feed)
    assert queues.consumed == [USER]
    # The broker restarts, and while the queue is declared again the device goes.
    queues.may_declare.clear()
    feeds.on_consumer_lost(USER)
    await asyncio.sleep(0)
    feeds.detach(first, USER)
    queues.may_declare.set()
    await until(lambda: bool(queues.left))
    await asyncio.sleep(0)
    assert queues.consumed == [USER]
    # And for one that comes back meanwhile it is.
    feed = feeds.attach(device(), USER, "default")
    await feeds.declare(feed)
    await feeds.consume(feed)
    assert queues.consumed == [USER, USER]


@pytest.mark.req("I07", "I15")
async def test_what_came_from_a_lost_queue_is_settled() -> None:
    feeds, queues, device = make()
    feed = feeds.attach(device(), USER, "default")
    await feeds.consume(feed)
    feeds.start()
    for seq in (1, 2):
        feeds.on_frame(USER, frame(seq, seq))
    feeds.on_consumer_lost(USER)
    await until(lambda: queues.settled == [1, 2])
    assert feed.unsettled_count == 0
    await feeds.stop()


@pytest.mark.req("I07")
async def test_a_frame_for_nobody_goes_back_to_its_queue() -> None:
    feeds, queues, device = make()
    only = device()
    feeds.attach(only, USER, "default")
    feeds.on_frame(USER, frame(1, 1))
    feeds.detach(only, USER)
    feeds.on_frame(USER, frame(2, 2))
    await until(lambda: queues.given_back == [2])
    await until(lambda: queues.left == [(USER, [1])])
    assert queues.settled == []


@pytest.mark.req("I06", "I07")
async def test_a_queue_whose_devices_do_not_acknowledge_is_left_long_before_the_brokers_limit() -> None:
    feeds, queues, device = make()
    clock = feeds._clock = cast("Any", SimpleNamespace(monotonic=lambda: 0.0))
    feed = feeds.attach(device(), USER, "default")
    await feeds.consume(feed)
    for seq in (1, 2, 3):
        feeds.on_frame(USER, frame(seq, seq))
    clock.monotonic = lambda: 44.0
    feeds.park_waiting()
    assert feed.wants_consumer
    clock.monotonic = lambda: 46.0
    feeds.park_waiting()
    await until(lambda: queues.left == [(USER, [1, 2, 3])])
    assert feeds.expected_consumers == 0
    # Somebody acknowledges: the queue is consumed again.
    feeds.on_acked_elsewhere(USER, 3)
    await until(lambda: queues.consumed == [USER, USER])
    assert feeds.expected_consumers == 1
