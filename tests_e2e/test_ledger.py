"""Crashes at random moments while messages flow: everything acknowledged to a publisher is received."""

from __future__ import annotations

import asyncio
import random

import pytest

from harness.ledger import Ledger, StubbornClient, StubbornPublisher
from harness.people import Person, Rest
from harness.stack import Stack

MESSAGES = 2_000
PEOPLE = 4
pytestmark = [pytest.mark.ledger, pytest.mark.timeout(900)]


async def run_ledger(stack: Stack, people: list[Person], fault: object, *, rounds: int, pause_s: float) -> Ledger:
    """Publish to everybody, in order for each, while `fault` strikes `rounds` times."""
    ledger = Ledger()
    clients = [StubbornClient(stack, person, ledger, first_node=number) for number, person in enumerate(people)]
    for client in clients:
        await asyncio.wait_for(client.ready.wait(), 30)
    striking = asyncio.create_task(strike(fault, rounds))
    publishers = [StubbornPublisher(stack, ledger) for _ in people]

    async def publish(publisher: StubbornPublisher, person: Person) -> list[str]:
        sent = []
        for number in range(MESSAGES // len(people)):
            sent.append(await publisher.publish(person.id, number))
            # Spread over the time the faults take.
            await asyncio.sleep(0 if striking.done() else pause_s)
        return sent

    sent = await asyncio.gather(*(publish(*pair) for pair in zip(publishers, people, strict=True)))
    await striking
    await asyncio.to_thread(stack.revive)
    for client, wanted in zip(clients, sent, strict=True):
        await client.wait_for(set(wanted), within_s=90)
    await asyncio.sleep(0.5)
    for closing in (*(client.stop() for client in clients), *(publisher.close() for publisher in publishers)):
        await closing
    for person, wanted in zip(people, sent, strict=True):
        assert ledger.received[person.id].keys() == set(wanted)
    assert ledger.order_faults == []
    assert ledger.unexpected() == set()
    return ledger


async def strike(fault: object, rounds: int) -> None:
    chance = random.Random()
    for _ in range(rounds):
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        await asyncio.to_thread(fault)  # type: ignore[arg-type]


@pytest.mark.req("I04")
async def test_gateways_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)
    names = stack.notify_names

    def fault() -> None:
        name = random.choice(names)
        stack.kill(name)
        stack.start(name)

    ledger = await run_ledger(stack, people, fault, rounds=10, pause_s=0.06)
    assert len(ledger.acknowledged) == MESSAGES


async def test_workers_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)
    names = stack.worker_names

    def fault() -> None:
        name = random.choice(names)
        stack.kill(name)
        stack.start(name)

    ledger = await run_ledger(stack, people, fault, rounds=10, pause_s=0.06)
    assert len(ledger.acknowledged) == MESSAGES


@pytest.mark.req("H08")
async def test_broker_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)

    def fault() -> None:
        stack.node.kill()
        stack.node.start()

    ledger = await run_ledger(stack, people, fault, rounds=20, pause_s=0.25)
    assert len(ledger.acknowledged) == MESSAGES
