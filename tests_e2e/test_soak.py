"""A long run with a fault in every hundredth step: nothing is lost, and nothing grows.

The short form shows that the way through is whole; what grows slowly shows in the long one (`make soak`, two hours, or
`HERALD_SOAK_SECONDS`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import websockets

from harness.growth import Limits, Sample, find_growth, take_sample
from harness.ledger import Ledger, renew_tokens, wait_complete, wait_settled
from harness.metrics import are_consumers_alive
from harness.people import Person, Rest, Tenancy
from harness.rounds import IS_THOROUGH, rounds
from harness.sockets import connect
from harness.stack import Stack
from harness.stubborn import AmqpPublisher, Publisher, RestPublisher, StubbornDevice

SECONDS = float(os.environ.get("HERALD_SOAK_SECONDS", rounds(7_200, 20)))
PEOPLE = rounds(100, 10)
STEPS = rounds(500, 100)  # of one turn
PAUSE_S = 0.02
FAULTY_SHARE = 0.01
LEAST_SAMPLES = 6
# Allocators settle within minutes: in seconds, memory says little.
LIMITS = Limits(0.03, 4_096) if IS_THOROUGH else Limits(0.25, 40_960)

Step = Callable[[], Awaitable[object]]


class Soak:
    """Steps that go well, and steps that do not."""

    def __init__(self, stack: Stack, rest: Rest, tenancy: Tenancy) -> None:
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        self._stack = stack
        self._rest = rest
        self._tenancy = tenancy
        self._backend = AmqpPublisher(stack, tenancy)
        self._publishers: tuple[Publisher, ...] = (self._backend, RestPublisher(stack, tenancy))
        self.ledger.over_rest = {person.id for person in tenancy.people[1::2]}
        self.ledger.devices = [
            StubbornDevice(stack, person, f"device-{number}", first_node=number)
            for person in tenancy.people
            for number in range(2)
        ]
        self._turn = 0

    async def step(self) -> None:
        """A message to the next person, now and then to everybody; one time in a hundred a fault besides."""
        if random.random() < FAULTY_SHARE:
            await self.strike()
        self._turn += 1
        number = self._turn % len(self._tenancy.people)
        person = None if self._turn % 50 == 0 else self._tenancy.people[number]
        message_id = str(uuid.uuid4())
        self.ledger.attempted.add(message_id)
        await self._publishers[number % 2].publish(message_id, person, f"n{self._turn}")
        if person is None:
            self.ledger.broadcasts.append(message_id)
        else:
            self.ledger.sent.setdefault(person.id, []).append(message_id)

    async def strike(self, only: str | None = None) -> None:
        """One fault, of any kind."""
        kinds: dict[str, Step] = {
            "device lost": random.choice(self.ledger.devices).drop,
            "garbage from a device": self._send_garbage,
            "unknown token": self._knock,
            "poison": self._backend.publish_poison,
            "invalid request": self._ask_wrongly,
            "connections closed": self._close_connections,
        }
        kind = only or random.choice(list(kinds))
        self.faults[kind] += 1
        await kinds[kind]()

    async def _send_garbage(self) -> None:
        passer_by = await connect(self._any_url, self._any_person.access, device_id="passer-by")
        await passer_by.synced()
        for _ in range(5):
            await passer_by.send_raw("{")
        assert await passer_by.wait_closed() == 4500

    async def _knock(self) -> None:
        async with websockets.connect(f"{self._any_url.replace('http', 'ws', 1)}/ws") as stranger:
            await stranger.send('{"type":"hello","protocol":1,"token":"none"}')
            await stranger.wait_closed()
            assert stranger.close_code == 4501

    async def _ask_wrongly(self) -> None:
        token = self._tenancy.service_token
        answer = await self._rest.notify("POST", "/api/v1/notifications/send", token=token, json={"title": 1})
        assert answer.status_code == 422, answer.text

    async def _close_connections(self) -> None:
        await asyncio.to_thread(self._stack.node.ctl, "close_all_connections", "the test closes connections")

    @property
    def _any_url(self) -> str:
        return random.choice(self._stack.system.notify_urls)

    @property
    def _any_person(self) -> Person:
        return random.choice(self._tenancy.people)

    async def rest_a_moment(self) -> Sample:
        """Everything has arrived and every consumer is back: what the processes hold then."""
        await wait_complete(self.ledger)
        await wait_settled(self._stack, self._tenancy)
        assert await are_consumers_alive(self._stack)
        return await asyncio.to_thread(take_sample, self._stack)

    async def stop(self) -> None:
        """End devices and publishers."""
        await asyncio.gather(
            *(device.stop() for device in self.ledger.devices), *(each.close() for each in self._publishers)
        )


@pytest.mark.req("J05")
@pytest.mark.only_on("postgresql")
@pytest.mark.timeout(SECONDS + 600)
async def test_a_long_run_with_faults_loses_nothing_and_nothing_grows(stack: Stack, rest: Rest) -> None:
    tenancy = await rest.make_tenancy(PEOPLE)
    samples: list[Sample] = []
    soak = Soak(stack, rest, tenancy)
    renewing = asyncio.create_task(renew_tokens(rest, tenancy))
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(device.ready.wait() for device in soak.ledger.devices))
        for kind in ("garbage from a device", "unknown token", "poison", "invalid request", "connections closed"):
            # Each at least once, and what it needs for the first time is there before anything is compared.
            await soak.strike(kind)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline or len(samples) < LEAST_SAMPLES:
            for _ in range(STEPS):
                await soak.step()
                await asyncio.sleep(PAUSE_S)
            samples.append(await soak.rest_a_moment())
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await soak.stop()
        print(f"\nsoak: {len(soak.ledger.attempted)} messages, faults {dict(soak.faults)}")  # noqa: T201 - figures
        for figure, first in samples[len(samples) // 3].items() if samples else ():
            print(f"soak: {figure}: {first} -> {samples[-1][figure]}")  # noqa: T201 - what a long run is for
    soak.ledger.check()
    assert find_growth(samples, LIMITS) == {}
