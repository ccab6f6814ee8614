"""The verdict of a fault run: what was attempted, what was acknowledged to the publisher, what was received.

The words are those of RabbitMQ's own Jepsen suite. Lost: acknowledged to the publisher and never received. Unexpected:
received and never attempted. Shown twice: on a device that drops ids it has, the same message under another id.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from harness.people import Person, Rest, Tenancy
from harness.quiet import Quiet
from harness.stack import Stack
from harness.stubborn import AmqpPublisher, Publisher, RestPublisher, StubbornDevice
from harness.waiting import eventually

_PUBLISHERS = 8
_ROUND_S = 1.5
_RENEW_S = 600.0


@dataclass
class Ledger:
    """Counts by notification id.

    Attributes:
        sent: What each person was sent, in the order of the publisher's acknowledgements.
        broadcasts: What everybody was sent.
        over_rest: People who were sent to over REST. What is answered 202 while the broker is away waits in the outbox,
            and what is accepted a moment after its return may overtake it: nothing is promised of their order.
        copies: Frames that came more than once to one device, with the same id: allowed, and counted.
        reconnects: Of all devices together.
    """

    attempted: set[str] = field(default_factory=set)
    sent: dict[str, list[str]] = field(default_factory=dict)
    broadcasts: list[str] = field(default_factory=list)
    over_rest: set[str] = field(default_factory=set)
    devices: list[StubbornDevice] = field(default_factory=list)
    copies: int = 0
    reconnects: int = 0

    @property
    def acknowledged(self) -> int:
        """Messages a publisher got a confirm, or a 202, for."""
        return sum(map(len, self.sent.values())) + len(self.broadcasts)

    @property
    def received(self) -> int:
        """Frames over all devices, the first copy of each."""
        return sum(len(device.seen) for device in self.devices)

    def wanted_by(self, device: StubbornDevice) -> list[str]:
        """The private messages a device must have shown, in their order."""
        return self.sent.get(device.person.id, [])

    def lost(self) -> int:
        """Messages, times devices."""
        broadcasts = set(self.broadcasts)
        return sum(len((broadcasts | set(self.wanted_by(each))) - each.seen.keys()) for each in self.devices)

    def check(self) -> None:
        """Fail unless every device got everything, once, in order, and nothing else."""
        broadcasts = set(self.broadcasts)
        assert self.lost() == 0
        for device in self.devices:
            wanted = self.wanted_by(device)
            assert device.seen.keys() - self.attempted == set(), "unexpected"
            assert device.seen.keys() == set(wanted) | broadcasts
            titles = Counter(device.titles)
            assert not [title for title, count in titles.items() if count > 1], "shown twice"
            shown = [each for each in device.seen if each not in broadcasts]
            moved = [(place, wanted.index(each)) for place, each in enumerate(shown) if wanted[place] != each]
            assert moved == [] or device.person.id in self.over_rest, f"out of order, of {len(wanted)}: {moved}"
            assert device.order_faults == []
            self.copies += sum(device.seen.values()) - len(device.seen)
            self.reconnects += device.reconnects


async def run_ledger(
    stack: Stack,
    rest: Rest,
    tenancy: Tenancy,
    fault: Callable[[], object] | None,
    *,
    messages: int,
    rounds: int,
    name: str,
    checks_quiet: bool = True,
) -> Ledger:
    """Publish to everybody, in order for each, while a fault strikes; then wait until everything has arrived.

    Everybody has two devices, one on each node. Every eighth person is sent to over REST, the others over AMQP; one
    message in twenty is a broadcast.

    Args:
        fault: Strikes once; runs in a thread.
        messages: To publish to all of them together, in equal parts for each round.
        rounds: How often the fault strikes, each time while its part of the messages is on the way.
        name: What the line with the figures begins with.
        checks_quiet: Whether to look at the end that no process spins.
    """
    ledger = Ledger()
    quiet = Quiet(stack)
    ledger.devices = [
        StubbornDevice(stack, person, f"device-{number}", first_node=number)
        for person in tenancy.people
        for number in range(2)
    ]
    publishers: list[Publisher] = [
        RestPublisher(stack, tenancy) if number == 0 else AmqpPublisher(stack, tenancy)
        for number in range(min(_PUBLISHERS, len(tenancy.people)))
    ]
    ledger.over_rest = {person.id for person in tenancy.people[:: len(publishers)]}
    renewing = asyncio.create_task(renew_tokens(rest, tenancy))
    try:
        async with asyncio.timeout(120):
            await asyncio.gather(*(device.ready.wait() for device in ledger.devices))
        plan = _plan(messages, rounds, tenancy.people)
        for part in plan:
            await asyncio.gather(_publish(ledger, publishers, part), _strike(fault))
        await asyncio.to_thread(stack.revive)
        await wait_complete(ledger)
        await wait_settled(stack, tenancy)
        if checks_quiet:
            await quiet.check()
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await asyncio.gather(*(device.stop() for device in ledger.devices), *(each.close() for each in publishers))
        _tell(name, ledger, rounds, quiet)
    ledger.check()
    assert ledger.acknowledged == messages
    return ledger


async def renew_tokens(rest: Rest, tenancy: Tenancy) -> None:
    """A long run outlasts access tokens: sockets are closed when theirs ends, and devices come back with the next."""
    while True:
        await asyncio.sleep(_RENEW_S)
        while True:
            try:
                await rest.renew_tokens(tenancy)
            except (AssertionError, httpx.HTTPError):
                await asyncio.sleep(5)  # the database is away, for example
            else:
                break


@dataclass(frozen=True)
class _Message:
    number: int
    person: int | None


def _plan(messages: int, rounds: int, people: Sequence[Person]) -> list[list[_Message]]:
    """The messages of each round; the people in turn, and now and then everybody."""
    planned, turn = list[_Message](), 0
    for number in range(messages):
        if number % 20 == 19:
            planned.append(_Message(number, None))
        else:
            planned.append(_Message(number, turn % len(people)))
            turn += 1
    size = -(-messages // max(1, rounds))
    return [planned[start : start + size] for start in range(0, messages, size)]


async def _publish(ledger: Ledger, publishers: list[Publisher], part: list[_Message]) -> None:
    """Each person's messages by one publisher, one after another; broadcasts by the last one."""

    async def work(publisher: Publisher, own: list[_Message]) -> None:
        for message in own:
            message_id = str(uuid.uuid4())
            ledger.attempted.add(message_id)
            person = publisher.tenancy.people[message.person] if message.person is not None else None
            await publisher.publish(message_id, person, f"n{message.number}")
            if person is None:
                ledger.broadcasts.append(message_id)
            else:
                ledger.sent.setdefault(person.id, []).append(message_id)
            await asyncio.sleep(_ROUND_S / len(own))

    shares: list[list[_Message]] = [[] for _ in publishers]
    for message in part:
        shares[-1 if message.person is None else message.person % len(publishers)].append(message)
    await asyncio.gather(*(work(publisher, own) for publisher, own in zip(publishers, shares, strict=True)))


async def _strike(fault: Callable[[], object] | None) -> None:
    if fault is not None:
        await asyncio.sleep(random.uniform(0.1, 0.8))
        await asyncio.to_thread(fault)


async def wait_complete(ledger: Ledger) -> None:
    """Every device has what was acknowledged, within two minutes."""

    async def lost() -> int:
        for device in ledger.devices:
            device.check_alive()
        return ledger.lost()

    await eventually(lost, is_good=lambda count: count == 0, within_s=120)


async def wait_settled(stack: Stack, tenancy: Tenancy) -> None:
    """What every device has acknowledged is in no queue any more."""
    own = {f"user.{person.id}" for person in tenancy.people}

    async def waiting() -> int:
        listed = await asyncio.to_thread(stack.node.ctl, "list_queues", "name", "messages")
        rows = (line.split("\t") for line in listed.splitlines())
        return sum(int(count) for queue, count in rows if queue in own)

    await eventually(waiting, is_good=lambda count: count == 0, within_s=60)


def _tell(name: str, ledger: Ledger, rounds: int, quiet: Quiet) -> None:
    print(  # noqa: T201 - the figures are what a long run is for
        f"\nledger: {name}: {rounds} rounds, {len(ledger.devices)} sockets, attempted {len(ledger.attempted)}, "
        f"acknowledged {ledger.acknowledged}, frames received {ledger.received}, lost {ledger.lost()}, "
        f"copies {sum(sum(each.seen.values()) - len(each.seen) for each in ledger.devices)}, "
        f"reconnects {sum(each.reconnects for each in ledger.devices)}, {quiet.describe()}"
    )
