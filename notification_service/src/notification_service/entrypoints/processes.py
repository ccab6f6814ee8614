"""The parts that run in each kind of process, as lifespans: started in order, stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import structlog

from notification_service import metrics
from notification_service.background import end_tasks, keep_running
from notification_service.broker.consumer import BatchConsumer
from notification_service.broker.isolating import Isolating
from notification_service.dead_letters.poison import PoisonHandler
from notification_service.entrypoints.health import Check
from notification_service.entrypoints.parts import Parts
from notification_service.errors import Unavailable
from notification_service.intake.receive import Receiver
from shared_contracts.topology import IDENTITY_MIRROR, INTAKE, INTAKE_BROADCAST, INTAKE_POISON

log = structlog.get_logger(__name__)

_FIRST_CONNECT = timedelta(seconds=60)


@contextlib.asynccontextmanager
async def run_publisher(parts: Parts) -> AsyncIterator[None]:
    """Publishing and what belongs to it. Does not wait for the broker: what cannot be published yet is relayed."""
    parts.publisher.start()
    parts.marks.start()
    parts.channels.receipts.start()
    try:
        yield
    finally:
        await parts.close()


@contextlib.asynccontextmanager
async def run_access(parts: Parts) -> AsyncIterator[None]:
    """Verification of tokens."""
    parts.keys.start()
    try:
        yield
    finally:
        await parts.keys.stop()


@contextlib.asynccontextmanager
async def run_gateway(parts: Parts) -> AsyncIterator[None]:
    """This process as a gateway node."""
    parts.gateway.start()
    try:
        yield
    finally:
        await parts.gateway.stop()


@contextlib.asynccontextmanager
async def run_observer(parts: Parts) -> AsyncIterator[None]:
    """Hearing of the gateway nodes, in a process that is none."""
    parts.observer.start()
    try:
        yield
    finally:
        await parts.observer.stop()


class Worker:
    """The consumers of a worker process. Several processes may run: one is active per queue, the others stand by."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        poison = PoisonHandler(parts.database, parts.publisher, parts.clock)
        receiver = Isolating(Receiver(parts.pipeline.handle), give_up=poison.give_up, clock=parts.clock)
        handlers = (
            (INTAKE.name, receiver, settings.intake_batch_size),
            (INTAKE_BROADCAST.name, receiver, settings.intake_batch_size),
            (INTAKE_POISON.name, poison, 50),
            (IDENTITY_MIRROR.name, parts.mirror, 500),
        )
        self.consumers = [
            BatchConsumer(
                parts.amqp_url,
                queue=queue,
                name=f"{parts.node_id}-{queue}",
                handle=handle,
                batch_size=batch_size,
                clock=parts.clock,
            )
            for queue, handle, batch_size in handlers
        ]
        self._parts = parts

    async def is_alive(self) -> bool:
        """Whether every consumer is with the broker."""
        return self._parts.channels.is_alive and all(consumer.is_alive for consumer in self.consumers)

    async def run(self) -> None:
        """Fill the mirror, then consume until cancelled."""
        await self._fill_mirror()
        metrics.amqp_consumers_expected.set(len(self.consumers))
        metrics.amqp_consumers_alive.set_function(lambda: sum(each.is_alive for each in self.consumers))
        for consumer in self.consumers:
            consumer.start()
        self._parts.channels.start()
        # Where the mirror is: an erasure begins as soon as the mirror hears of it.
        beside = [
            keep_running(self._parts.eraser.run, name="eraser"),
            keep_running(self._parts.fanning_out.run, name="fan-out"),
        ]
        try:
            await asyncio.Event().wait()
        finally:
            await end_tasks(*beside)
            await asyncio.gather(*(consumer.stop() for consumer in self.consumers), self._parts.channels.stop())

    async def _fill_mirror(self) -> None:
        """A worker without users would call every recipient unknown."""
        while True:
            try:
                await self._parts.publisher.link.wait_ready(_FIRST_CONNECT)
                await self._parts.mirror.ensure_filled()
            except Unavailable as error:
                log.warning("worker_waits", problem=error.detail)
                await self._parts.clock.sleep(timedelta(seconds=1))
            else:
                return


@contextlib.asynccontextmanager
async def run_worker(worker: Worker) -> AsyncIterator[None]:
    """A worker beside other things of the process."""
    task = keep_running(worker.run, name="worker")
    try:
        yield
    finally:
        await end_tasks(task)


@contextlib.asynccontextmanager
async def run_scheduler(parts: Parts) -> AsyncIterator[None]:
    """The loops that look after what time brings. Several processes may run them."""
    tasks = [
        keep_running(parts.relay.run, name="relay"),
        keep_running(parts.timekeeper.run, name="timekeeper"),
        keep_running(parts.audit_relay.run, name="audit-relay"),
        keep_running(parts.channels.queueing.run, name="delivery-sweep"),
    ]
    try:
        yield
    finally:
        await end_tasks(*tasks)


def make_checks(parts: Parts, worker: Worker | None = None) -> dict[str, Check]:
    """What this process's health pages answer."""

    async def broker() -> bool:
        return parts.publisher.link.is_ready

    async def keys() -> bool:
        return parts.keys.is_loaded

    async def gateway() -> bool:
        return parts.gateway.is_ready

    checks: dict[str, Check] = {"database": parts.database.ping, "broker": broker}
    if "keys" in parts.__dict__:
        checks["keys"] = keys
    if "gateway" in parts.__dict__:
        checks["gateway"] = gateway
    checks["workers"] = worker.is_alive if worker is not None else parts.intake_probe
    return checks
