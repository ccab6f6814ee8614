"""Long absences and full queues: everything, in order, once; or one reset and then everything that follows."""

from __future__ import annotations

import asyncio

import pytest

from harness.broker import Backend
from harness.people import Rest
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("postgresql")


@pytest.mark.req("X-3", "DG-2", "DG-4", "DG-5")
async def test_500_items_missed_by_one_device_come_once_in_order_on_the_other_node(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    first, second = stack.system.notify_urls
    async with connected(first, person.access, device_id="phone") as device:
        await device.synced()
        position = device.frames[0]["position"]
    sent = await asyncio.gather(*(backend.send_to(person.id, f"n{number}") for number in range(500)))
    # Its user has read some of it elsewhere: what the queue no longer has comes from the mailbox.
    async with connected(second, person.access, device_id="desk", position=position) as desk:
        await desk.take(200, within_s=60)
    async with connected(second, person.access, device_id="phone", position=position, welcome=False) as device:
        assert (await device.next("welcome"))["resume"] == "recovered"
        frames = await device.take(500, within_s=60)
        assert [frame["seq"] for frame in frames] == list(range(1, 501))
        assert {frame["id"] for frame in frames} == set(sent)
        await device.synced(within_s=30)
        assert len(device.notifications) == 500


@pytest.mark.req("X-3", "I08", "DG-9")
async def test_a_gap_beyond_the_cap_is_one_reset_and_no_loop(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    (name,) = stack.add("all-in-one", 1, {"NOTIFY_RESUME_MAX_ITEMS": "20"})
    await asyncio.to_thread(stack.start, name)
    try:
        url = stack.url_of(name)
        async with connected(url, person.access, device_id="phone", welcome=False) as device:
            position = (await device.next("welcome"))["position"]
        for number in range(30):
            await backend.send_to(person.id, f"n{number}")

        async def unread() -> int:
            return int((await rest.notify("GET", "/api/v1/inbox/counts", token=person.access)).json()["unread"])

        await eventually(unread, is_good=lambda count: count == 30)
        async with connected(url, person.access, device_id="phone", position=position, welcome=False) as device:
            welcome, reset = await device.next("welcome"), await device.next("reset")
            assert (welcome["resume"], reset["reason"], reset["counts"]["unread"]) == ("reset", "too_many", 30)
            await device.synced()
            assert device.notifications == []
            # A client that goes on as if nothing were lost is told, then closed.
            await device.send(type="sync", position=position)
            assert (await device.next("error"))["code"] == "position_gone"
            await device.send(type="sync", position=position)
            assert await device.wait_closed() == 4410
        # One that takes the new position is as any other: nothing of the gap, everything after it.
        sent = await backend.send_to(person.id, "after")
        async with connected(
            url, person.access, device_id="phone", position=reset["position"], welcome=False
        ) as device:
            assert (await device.next("welcome"))["resume"] == "recovered"
            assert (await device.next("notification"))["id"] == sent
            await device.synced()
            assert [frame["type"] for frame in device.frames].count("reset") == 0
    finally:
        await asyncio.to_thread(stack.remove, name)


@pytest.mark.req("I11", "DG-8")
async def test_a_full_queue_drops_the_oldest_and_the_device_gets_everything(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    queue, policy = f"user.{person.id}", f"ten-{person.id}"
    async with connected(stack.system.notify_urls[0], person.access, device_id="phone") as device:
        await device.synced()
    definition = '{"max-length": 10, "overflow": "drop-head"}'
    options = ("--priority", "99", "--apply-to", "queues")
    await asyncio.to_thread(stack.node.ctl, "set_policy", *options, policy, f"^{queue}$", definition)
    try:
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(25)]
        await eventually(lambda: backend.depth(queue), is_good=lambda depth: depth == 10)
        async with connected(stack.system.notify_urls[1], person.access, device_id="phone") as device:
            frames = await device.take(25)
            assert [frame["id"] for frame in frames] == sent
            assert [frame["seq"] for frame in frames] == list(range(1, 26))
            await device.synced()
    finally:
        await asyncio.to_thread(stack.node.ctl, "clear_policy", policy)
