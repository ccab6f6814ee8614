"""One notification for a large group: the answer does not wait for it, and no member holds up the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from harness.broker import Backend
from harness.metrics import read_metric
from harness.people import Person, Rest
from harness.rounds import rounds
from harness.sockets import Frame, Socket, connected
from harness.stack import Stack
from harness.waiting import eventually

MEMBERS = rounds(10_000, 500)
SLOWEST_ANSWER_S = 1.0
# Twice until the relay looks after what was not dispatched: NOTIFY_RELAY_GRACE and _HOLD of the tests are 5 s.
RELAY_TURNS_S = 15.0


@contextlib.contextmanager
def full_after_one(stack: Stack, person: Person) -> Iterator[None]:
    """An operator's policy by which the person's queue refuses the second message, in place of dropping the first."""
    policy = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    stack.node.ctl(
        "set_policy", "refusing", f"^user\\.{person.id}$", policy, "--priority", "100", "--apply-to", "queues"
    )
    try:
        yield
    finally:
        stack.node.ctl("clear_policy", "refusing")


async def wait_until_known(device: Socket, other: Person) -> None:
    """Return when the last member shares a group with the first: memberships are mirrored in their order."""

    async def subscribe() -> Frame:
        await device.send(type="presence.subscribe", user_ids=[other.id])
        while (frame := await device.next())["type"] not in ("presence", "error"):
            pass
        return frame

    await eventually(subscribe, is_good=lambda frame: frame["type"] == "presence", within_s=120)


@pytest.mark.req("H18", "H04")
@pytest.mark.ledger  # whose long form has all 10,000 members
@pytest.mark.only_on("postgresql")
@pytest.mark.timeout(300)
async def test_a_queue_that_refuses_holds_up_none_of_the_others(stack: Stack, rest: Rest, backend: Backend) -> None:
    people = await rest.make_people(MEMBERS)
    here, away, refusing = people[0], people[MEMBERS // 2], people[-1]
    group_id = await rest.make_group(people)
    token = await rest.shop_token()
    first_url, second_url = stack.system.notify_urls
    for person in (away, refusing):
        # From now on they have queues.
        async with connected(first_url, person.access) as device:
            await device.synced()
            if person is refusing:
                await wait_until_known(device, here)
    sent: list[str] = []
    slowest_s = 0.0
    schedulers = ["scheduler"]

    async def count_pending() -> float:
        return await read_metric(stack, "outbox_pending", schedulers)

    with full_after_one(stack, refusing):
        async with connected(second_url, here.access) as device:
            await device.synced()
            for number in range(3):
                body = {"title": f"to all {number}", "recipients": {"groups": [group_id]}}
                started = time.monotonic()
                answer = await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)
                slowest_s = max(slowest_s, time.monotonic() - started)
                assert answer.status_code == 202, answer.text
                sent.append(answer.json()["id"])
            frames = await device.take(3, within_s=60)
            assert [frame["id"] for frame in frames] == sent
            await eventually(lambda: backend.depth(f"user.{away.id}"), is_good=lambda depth: depth == 3, within_s=60)
            again = await read_metric(stack, "duplicates_suppressed_total", stack.notify_names)
            await asyncio.sleep(RELAY_TURNS_S)
            await eventually(count_pending, is_good=lambda pending: pending == 0)
            # Nobody got anything a second time because somebody else's queue is full.
            assert await read_metric(stack, "duplicates_suppressed_total", stack.notify_names) == again
            assert await backend.depth(f"user.{away.id}") == 3
            assert await backend.depth(f"user.{refusing.id}") == 1
            await device.expect_nothing()
        async with connected(first_url, refusing.access) as device:
            # What its queue refused is in the mailbox.
            assert [frame["id"] for frame in await device.take(3)] == sent
            # While it is connected there is room again.
            sent.append(await backend.send_to(refusing.id, "to one"))
            assert (await device.next("notification", within_s=20))["id"] == sent[-1]
    assert slowest_s < SLOWEST_ANSWER_S
