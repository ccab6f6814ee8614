"""The topology on a broker: harmless when repeated, a clear error when something else has the name (H11)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from amqp import Bystander
from clocks import SetClock
from structlog.testing import capture_logs
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service.broker.consumer import BatchConsumer
from notification_service.broker.declare import declare_topology
from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import SystemClock
from shared_contracts.topology import TOPOLOGY

LIMIT = timedelta(seconds=20)


async def ignore(_batch: object) -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


@contextlib.asynccontextmanager
async def consuming(url: str, clock: SystemClock) -> AsyncIterator[BatchConsumer]:
    consumer = BatchConsumer(url, queue="intake", name="conflict", handle=ignore, batch_size=10, clock=clock)
    consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def test_declaring_is_harmless_when_repeated_and_by_many_at_once(amqp_url: str, outside: Bystander) -> None:
    await asyncio.gather(*(declare_topology(outside.connection) for _ in range(4)))
    await declare_topology(outside.connection)
    for queue in TOPOLOGY.queues:
        assert await outside.depth(queue.name) == 0
    for binding in TOPOLOGY.bindings:
        before = await outside.depth(binding.queue.name)
        await outside.publish(b"{}", exchange=binding.exchange.name, key=binding.routing_key)
        await until(lambda queue=binding.queue.name, depth=before + 1: _has(outside, queue, depth))


async def _has(outside: Bystander, queue: str, depth: int) -> bool:
    return await outside.depth(queue) == depth


@pytest.mark.req("H11")
async def test_a_queue_with_other_arguments_is_named_not_hammered_and_heals(amqp_url: str, outside: Bystander) -> None:
    await outside.declare("intake", queue_type="classic")
    clock = SetClock(pace=0.02)
    with capture_logs() as logs:
        async with consuming(amqp_url, clock) as consumer:
            await until(lambda: len(clock.pauses_s) >= 3)
            assert not consumer.is_alive
            assert "inequivalent arg" in (consumer.link.problem or "")
            assert "'intake'" in (consumer.link.problem or "")
            # Nothing heals by hurrying: 5 s, half to one and a half times, from the first refusal on.
            assert all(2.5 <= pause <= 7.5 for pause in clock.pauses_s)

            # Everything else goes on meanwhile, on connections of its own.
            publisher = Publisher(amqp_url, name="beside", clock=SystemClock())
            publisher.start()
            await publisher.link.wait_ready(LIMIT)
            assert await publisher.publish(Outgoing("", "intake", b"{}", "1")) is Outcome.OK
            await publisher.close()

            await outside.delete("intake")
            await until(lambda: consumer.is_alive)
    conflicts = [entry for entry in logs if entry["event"] == "topology_conflict"]
    assert conflicts
    assert all("inequivalent arg" in entry["problem"] for entry in conflicts)
    assert all(entry["log_level"] == "error" for entry in conflicts)


@pytest.mark.req("H11")
async def test_an_exchange_of_another_type_costs_next_to_no_time(amqp_url: str, outside: Bystander) -> None:
    async with outside.channel() as channel:
        await channel.exchange_declare("delivery.direct", exchange_type="topic", durable=True)
    clock = SetClock()  # at its real pace: this is about not spinning
    async with consuming(amqp_url, clock) as consumer:
        await until(lambda: "delivery.direct" in (consumer.link.problem or ""))
        used, started = time.process_time(), time.monotonic()
        await asyncio.sleep(1)
        assert time.process_time() - used < 0.1 * (time.monotonic() - started)


@pytest.mark.req("H12")
async def test_rights_taken_away_and_given_back(amqp_url: str, rabbit: RabbitNode, clock: SetClock) -> None:
    vhost = amqp_url.rpartition("/")[2]
    async with consuming(amqp_url, clock) as consumer:
        await until(lambda: consumer.is_alive)
        await asyncio.to_thread(rabbit.ctl, "clear_permissions", "-p", vhost, "herald")
        await asyncio.to_thread(rabbit.ctl, "close_all_connections", "--vhost", vhost, "for a test")
        await until(lambda: not consumer.is_alive and consumer.link.problem not in (None, "connection lost"))
        await asyncio.to_thread(rabbit.ctl, "set_permissions", "-p", vhost, "herald", ".*", ".*", ".*")
        await until(lambda: consumer.is_alive)
