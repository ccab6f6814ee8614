"""A connection that heals: back-off, what is built anew, and what is said while it is away (H09, H10, H11)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from aiormq.connection import Connection
from amqp import Bystander
from clocks import SetClock
from prometheus_client import REGISTRY
from tcp_proxy import proxy_to
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service import background
from notification_service.broker import link as link_module
from notification_service.broker.declare import count_consumers
from notification_service.broker.link import BrokerLink, open_channel
from notification_service.errors import Unavailable
from notification_service.settings import Settings

LIMIT = timedelta(seconds=20)


async def nothing(_connection: Connection) -> None:
    """For links that need no channels."""


@contextlib.asynccontextmanager
async def running(
    url: str,
    clock: SetClock,
    *,
    set_up: Callable[[Connection], Awaitable[None]] = nothing,
    on_lost: Callable[[], None] = lambda: None,
    name: str = "test-link",
) -> AsyncIterator[BrokerLink]:
    link = BrokerLink(url, name=name, clock=clock, set_up=set_up, on_lost=on_lost)
    link.start()
    try:
        yield link
    finally:
        await link.close()


@pytest.mark.req("H09")
async def test_it_comes_back_when_the_broker_closes_the_connection(
    amqp_url: str, rabbit: RabbitNode, clock: SetClock
) -> None:
    lost: list[bool] = []
    set_ups: list[Connection] = []

    async def set_up(connection: Connection) -> None:
        set_ups.append(connection)

    async with running(amqp_url, clock, set_up=set_up, on_lost=lambda: lost.append(True), name="closing") as link:
        await link.wait_ready(LIMIT)
        vhost = amqp_url.rpartition("/")[2]
        for round_ in (1, 2):
            await asyncio.to_thread(rabbit.ctl, "close_all_connections", "--vhost", vhost, "for a test")
            await until(lambda count=round_: len(set_ups) > count and link.is_ready)
        assert len(lost) == 2
        assert link.connection is set_ups[-1]
        assert link.problem is None
    assert REGISTRY.get_sample_value("amqp_reconnects_total", {"link": "closing"}) == 2
    assert link.connection is None


async def test_it_knocks_ever_more_rarely_and_never_all_at_once(amqp_url: str) -> None:
    clock = SetClock(pace=0.01)
    async with proxy_to(amqp_url) as proxy:
        await proxy.refuse()
        async with running(proxy.through(amqp_url), clock) as link:
            await until(lambda: len(clock.pauses_s) >= 12)
            with pytest.raises(Unavailable, match=r"RabbitMQ does not answer: .*(Connect|refused)"):
                await link.wait_ready(timedelta(milliseconds=10))
            pauses = clock.pauses_s[:12]
            await proxy.listen()
            await link.wait_ready(LIMIT)
    expected = [min(0.2 * 2**turn, 5.0) for turn in range(12)]
    # Half to one and a half times: processes that lost the broker together return one by one.
    assert all(0.5 * each <= pause <= 1.5 * each for pause, each in zip(pauses, expected, strict=True))
    assert len({round(pause / each, 6) for pause, each in zip(pauses, expected, strict=True)}) > 1


async def test_what_cannot_be_set_up_is_tried_again_and_never_called_lost(amqp_url: str, clock: SetClock) -> None:
    lost: list[bool] = []
    tries: list[Connection] = []

    async def set_up(connection: Connection) -> None:
        tries.append(connection)
        if len(tries) < 3:
            raise RuntimeError("not yet")

    async with running(amqp_url, clock, set_up=set_up, on_lost=lambda: lost.append(True)) as link:
        await link.wait_ready(LIMIT)
        assert len(tries) == 3
        assert lost == []
        assert all(each.is_closed for each in tries[:2])


async def test_a_set_up_that_is_never_answered_is_given_up(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_SET_UP_LIMIT_S", 0.3)
    tries: list[Connection] = []

    async def set_up(connection: Connection) -> None:
        tries.append(connection)
        if len(tries) == 1:
            await asyncio.Event().wait()

    async with running(amqp_url, clock, set_up=set_up) as link:
        await link.wait_ready(LIMIT)
        assert len(tries) == 2
        assert tries[0].is_closed


async def test_it_ends_in_the_middle_of_a_set_up(amqp_url: str, clock: SetClock) -> None:
    frozen = asyncio.Event()

    async with proxy_to(amqp_url) as proxy:

        async def set_up(connection: Connection) -> None:
            channel = await open_channel(connection)
            proxy.freeze()
            frozen.set()
            await channel.queue_declare("never-answered", auto_delete=True)

        async with running(proxy.through(amqp_url), clock, set_up=set_up), asyncio.timeout(LIMIT.total_seconds()):
            await frozen.wait()
            await asyncio.sleep(0.1)  # the question is on its way


async def test_nothing_is_left_of_a_connection_that_does_not_answer_its_end(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_CLOSE_LIMIT_S", 0.2)
    before = asyncio.all_tasks()
    async with proxy_to(amqp_url) as proxy:
        async with running(proxy.through(amqp_url), clock) as link:
            await link.wait_ready(LIMIT)
            proxy.freeze()
        left = [task.get_coro().__qualname__ for task in asyncio.all_tasks() - before]  # type: ignore[union-attr]
        assert [name for name in left if name.startswith(("Connection", "FutureStore"))] == []


async def test_it_ends_although_the_library_answers_a_cancellation_with_an_error(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_ASK_AGAIN_S", 0.3)
    waiting = asyncio.Event()

    async def set_up(_connection: Connection) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError("lost at that moment") from None

    async with asyncio.timeout(LIMIT.total_seconds()):
        async with running(amqp_url, clock, set_up=set_up) as link:
            await waiting.wait()
        assert not link.is_ready


async def test_the_loss_of_a_guarded_channel_builds_everything_again(amqp_url: str, clock: SetClock) -> None:
    channels: list[Any] = []

    async def set_up(connection: Connection) -> None:
        channel = await open_channel(connection)
        link.guard(channel)
        channels.append(channel)

    async with running(amqp_url, clock, set_up=set_up) as link:
        await link.wait_ready(LIMIT)
        with pytest.raises(Exception, match="NOT_FOUND"):
            await channels[0].queue_declare("no-such-queue", passive=True)
        await until(lambda: len(channels) == 2 and link.is_ready)


async def test_it_can_be_told_to_begin_again(amqp_url: str, clock: SetClock) -> None:
    connections: list[Connection] = []

    async def set_up(connection: Connection) -> None:
        connections.append(connection)

    async with running(amqp_url, clock, set_up=set_up) as link:
        await link.wait_ready(LIMIT)
        link.reset()
        await until(lambda: len(connections) == 2 and link.is_ready)
        assert connections[0].is_closed
        assert not link.is_blocked


@pytest.mark.req("H10")
async def test_a_broker_that_falls_silent_is_noticed_by_its_missing_heartbeats(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rule is three missed beats and a second each; with 10 s between beats that is 33 s, with 1 s it is 6 s.
    monkeypatch.setattr(link_module, "_HEARTBEAT_S", 1)
    async with proxy_to(amqp_url) as proxy, running(proxy.through(amqp_url), clock) as link:
        await link.wait_ready(LIMIT)
        proxy.freeze()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await until(lambda: not link.is_ready, within_s=30)
        assert loop.time() - started < 3 * (1 + 1) + 3  # 3 s more: the machine may be busy
        assert link.problem == "connection lost"
        proxy.thaw()
        await link.wait_ready(LIMIT)


async def test_a_broker_that_takes_connections_and_says_nothing_is_given_up(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_CONNECT_LIMIT_S", 0.2)
    async with proxy_to(amqp_url) as proxy:
        proxy.freeze()
        async with running(proxy.through(amqp_url), clock) as link:
            await until(lambda: len(clock.pauses_s) >= 2)
            assert "TimeoutError" in (link.problem or "")
            monkeypatch.undo()
            proxy.thaw()
            await link.wait_ready(LIMIT)


async def test_consumers_of_a_queue_are_counted_without_harm(
    amqp_url: str, clock: SetClock, outside: Bystander
) -> None:
    await outside.declare("here")
    async with running(amqp_url, clock) as link:
        await link.wait_ready(LIMIT)
        connection = link.connection
        assert connection is not None
        assert await count_consumers(connection, "not-here") == 0
        assert await count_consumers(connection, "here") == 0
        channel = await open_channel(connection)
        await channel.basic_consume("here", lambda _message: asyncio.sleep(0))
        assert await count_consumers(connection, "here") == 1
        assert link.is_ready


def test_every_connection_says_whose_it_is_and_asks_for_heartbeats() -> None:
    settings = Settings(_env_file=None)
    link = BrokerLink(
        settings.amqp_url.get_secret_value(), name="worker-1", clock=SetClock(), set_up=nothing, on_lost=lambda: None
    )
    assert "name=herald-worker-1" in link._url
    assert "heartbeat=10" in link._url
