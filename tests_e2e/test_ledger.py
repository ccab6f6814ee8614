"""Crashes at random moments while messages flow: everything acknowledged to a publisher is received."""

from __future__ import annotations

import random

import pytest

from harness.ledger import run_ledger
from harness.people import Rest
from harness.rounds import rounds
from harness.stack import Stack

MESSAGES = 2_000
PEOPLE = 4
pytestmark = [pytest.mark.ledger, pytest.mark.timeout(900)]


@pytest.mark.req("I04")
async def test_gateways_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)
    names = stack.notify_names

    def fault() -> None:
        name = random.choice(names)
        stack.kill(name)
        stack.start(name)

    ledger = await run_ledger(stack, people, fault, messages=MESSAGES, rounds=rounds(stack, 10), pause_s=0.06)
    assert len(ledger.acknowledged) == MESSAGES


async def test_workers_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)
    names = stack.worker_names

    def fault() -> None:
        name = random.choice(names)
        stack.kill(name)
        stack.start(name)

    ledger = await run_ledger(stack, people, fault, messages=MESSAGES, rounds=rounds(stack, 10), pause_s=0.06)
    assert len(ledger.acknowledged) == MESSAGES


@pytest.mark.req("H08")
async def test_broker_killed(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(PEOPLE)

    def fault() -> None:
        stack.node.kill()
        stack.node.start()

    ledger = await run_ledger(stack, people, fault, messages=MESSAGES, rounds=rounds(stack, 20), pause_s=0.25)
    assert len(ledger.acknowledged) == MESSAGES
