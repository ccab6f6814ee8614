"""Faults at random moments while messages flow: nothing acknowledged is lost, nothing is shown twice, nothing spins.

The short form strikes twice among few devices. The long form (`make ledger`) is what is promised: for each fault 20
rounds, 1,000 sockets on two nodes, 2,000 messages.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from harness.ledger import run_ledger
from harness.metrics import are_consumers_alive
from harness.people import Rest, Tenancy
from harness.rounds import IS_THOROUGH, rounds
from harness.stack import Stack
from harness.waiting import eventually
from notification_service.failpoints import VARIABLE as FAIL_POINT

# A long run in pieces, or on a busy machine: each of the three can be named.
PEOPLE = int(os.environ.get("HERALD_LEDGER_SOCKETS", rounds(1_000, 12))) // 2
MESSAGES = int(os.environ.get("HERALD_LEDGER_MESSAGES", rounds(2_000, 80)))
ROUNDS = int(os.environ.get("HERALD_LEDGER_ROUNDS", rounds(20, 2)))
HANG_S = rounds(20, 12)  # longer than the 10 s a publish waits for its confirm
ALARM_S = rounds(60, 4)
CLOSE_EVERY_S = rounds(5, 2)

pytestmark = [pytest.mark.ledger, pytest.mark.timeout(rounds(3_600, 240)), pytest.mark.only_on("postgresql")]

Fault = Callable[[], object]


def kill_a_gateway(stack: Stack) -> Fault:
    def fault() -> None:
        stack.restart(random.choice(stack.notify_names))

    return fault


def kill_a_worker(stack: Stack) -> Fault:
    def fault() -> None:
        stack.restart(random.choice(stack.worker_names))

    return fault


def die_at(point: str) -> Callable[[Stack], Fault]:
    """A gateway that ends itself at this point, the next time it gets there; then starts again."""

    def make(stack: Stack) -> Fault:
        turns: Iterator[str] = itertools.cycle(stack.notify_names)

        def fault() -> None:
            name = next(turns)
            stack.restart(name, settings={FAIL_POINT: point})
            deadline = time.monotonic() + 5
            while stack.is_running(name) and time.monotonic() < deadline:
                time.sleep(0.05)
            stack.restart(name)

        return fault

    return make


def restart_the_broker(stack: Stack) -> Fault:
    def fault() -> None:
        stack.node.stop()
        stack.node.start()

    return fault


def kill_the_broker(stack: Stack) -> Fault:
    def fault() -> None:
        stack.node.kill()
        stack.node.start()

    return fault


def close_connections(stack: Stack) -> Fault:
    def fault() -> None:
        stack.node.ctl("close_all_connections", "the test closes connections")
        time.sleep(CLOSE_EVERY_S)

    return fault


def freeze_the_broker(stack: Stack) -> Fault:
    def fault() -> None:
        stack.node.pause()
        time.sleep(HANG_S)
        stack.node.resume()

    return fault


def raise_the_alarm(stack: Stack) -> Fault:
    def fault() -> None:
        stack.node.ctl("set_vm_memory_high_watermark", "0")
        try:
            time.sleep(ALARM_S)
        finally:
            stack.node.ctl("set_vm_memory_high_watermark", "0.4")

    return fault


def restart_the_database(stack: Stack) -> Fault:
    def fault() -> None:
        assert stack.cluster is not None
        stack.cluster.stop()
        stack.cluster.start()

    return fault


FAULTS = [
    pytest.param(kill_a_gateway, id="gateway-killed", marks=pytest.mark.req("I04")),
    pytest.param(kill_a_worker, id="worker-killed", marks=pytest.mark.req("I21")),
    pytest.param(restart_the_broker, id="broker-restarted", marks=pytest.mark.req("H02")),
    pytest.param(kill_the_broker, id="broker-killed", marks=pytest.mark.req("H08")),
    pytest.param(close_connections, id="connections-closed", marks=pytest.mark.req("H09")),
    pytest.param(freeze_the_broker, id="broker-frozen", marks=pytest.mark.req("H05")),
    pytest.param(raise_the_alarm, id="memory-alarm", marks=pytest.mark.req("H06")),
    pytest.param(restart_the_database, id="database-restarted", marks=pytest.mark.req("H15")),
]
if IS_THOROUGH:
    # In the short form test_faults_delivering.py has these, with one device each.
    FAULTS += [
        pytest.param(die_at("after_ws_send_before_client_ack"), id="gateway-dies-sent", marks=pytest.mark.req("I04")),
        pytest.param(die_at("after_client_ack_before_amqp_ack"), id="gateway-dies-acked", marks=pytest.mark.req("I05")),
    ]


@pytest.fixture
async def tenancy(rest: Rest) -> Tenancy:
    """People of a tenant of their own, so that everybody can be sent to."""
    return await rest.make_tenancy(PEOPLE)


@pytest.mark.parametrize("make_fault", FAULTS)
async def test_a_fault_loses_nothing_and_shows_nothing_twice(
    stack: Stack, rest: Rest, tenancy: Tenancy, make_fault: Callable[[Stack], Fault], request: pytest.FixtureRequest
) -> None:
    try:
        await run_ledger(
            stack,
            rest,
            tenancy,
            make_fault(stack),
            messages=MESSAGES,
            rounds=ROUNDS,
            name=request.node.callspec.id,
            checks_quiet=IS_THOROUGH,
        )
    finally:
        stack.revive()

    async def alive() -> bool:
        return await are_consumers_alive(stack) and await answers(rest)

    await eventually(alive, is_good=bool, within_s=30)


async def answers(rest: Rest) -> bool:
    """Whether every thread of the auth service has a database again."""
    body = {"client_id": "shop", "client_secret": "herald-shop-secret"}
    found = await asyncio.gather(*(rest.auth("POST", "/api/v1/auth/service-token", json=body) for _ in range(8)))
    return {answer.status_code for answer in found} == {200}
