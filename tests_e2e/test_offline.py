"""Offline: what nobody was there for waits in the durable queue and in the mailbox, and arrives once, in order."""

from __future__ import annotations

import asyncio

import pytest

from harness.broker import Backend, backend_of, queue_counts
from harness.people import Rest
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually


@pytest.mark.req("I10")
@pytest.mark.only_on("postgresql")
@pytest.mark.req("DG-8", "DG-16")
async def test_500_messages_wait_in_the_queue_through_a_broker_restart(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    url, queue = stack.system.notify_urls[0], f"user.{person.id}"
    async with connected(url, person.access, device_id="phone") as device:
        await device.synced()

    sent = await asyncio.gather(*(backend.send_to(person.id, f"n{number}") for number in range(500)))
    await eventually(lambda: backend.depth(queue), is_good=lambda depth: depth == 500)
    stack.node.stop()
    stack.node.start()
    for name in (*stack.notify_names, *stack.worker_names):
        stack.wait_until_ready(name)
    async with backend_of(stack) as again:
        assert await again.depth(queue) == 500

        async with connected(url, person.access, device_id="phone") as device:
            frames = await device.take(500)
            assert [frame["seq"] for frame in frames] == list(range(1, 501))
            assert {frame["id"] for frame in frames} == set(sent)
            await device.synced()
            # Empty, and nothing held back as unacknowledged.
            await eventually(
                lambda: asyncio.to_thread(queue_counts, stack, queue), is_good=lambda counts: counts == (0, 0)
            )


async def test_a_user_who_never_connected_gets_everything_from_the_mailbox(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    sent = [await backend.send_to(person.id, f"n{number}") for number in range(100)]
    assert await asyncio.to_thread(queue_counts, stack, f"user.{person.id}") == (0, 0)
    async with connected(stack.system.notify_urls[1], person.access) as device:
        frames = await device.take(100)
        assert [frame["id"] for frame in frames] == sent
        assert [frame["seq"] for frame in frames] == list(range(1, 101))
        assert (await device.synced())["position"] == frames[-1]["position"]


async def test_a_broadcast_published_while_away_arrives_once(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    urls = stack.system.notify_urls
    async with connected(urls[0], person.access, device_id="phone") as device:
        await device.synced()
    sent = await backend.publish({"title": "to all"}, exchange="notifications.fanout", key="")
    private = await backend.send_to(person.id, "to you")
    async with connected(urls[1], person.access, device_id="phone") as device:
        frames = await device.take(2)
        assert {frame["id"] for frame in frames} == {sent, private}
        await device.synced()
        await rest.wait_for_acknowledgements(person, "phone")
    async with connected(urls[0], person.access, device_id="phone") as device:
        await device.synced()
        assert device.notifications == []


async def test_a_broadcast_from_before_a_users_time_is_not_theirs(stack: Stack, rest: Rest, backend: Backend) -> None:
    await backend.publish({"title": "earlier"}, exchange="notifications.fanout", key="")
    (witness,) = await rest.make_people(1)
    later = await backend.publish({"title": "later"}, exchange="notifications.fanout", key="")
    async with connected(stack.system.notify_urls[0], witness.access) as device:
        frames = await device.take(1)
        assert frames[0]["id"] == later
        await device.synced()
        assert len(device.notifications) == 1


async def test_a_new_device_starts_where_the_others_are(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    for number in range(3):
        await backend.send_to(person.id, f"n{number}")
    async with connected(url, person.access, device_id="old") as old:
        await old.take(3)
        await rest.wait_for_acknowledgements(person, "old")
    last = await backend.send_to(person.id, "n3")
    await eventually(
        lambda: rest.notify("GET", "/api/v1/inbox/counts", token=person.access),
        is_good=lambda answer: answer.json()["unread"] == 4,
    )
    async with connected(url, person.access, device_id="new", welcome=False) as new:
        welcome = await new.next("welcome")
        assert welcome["resume"] == "fresh"
        assert welcome["counts"] == {"unread": 4, "unseen": 4}
        assert [frame["id"] for frame in await new.take(1)] == [last]
    async with connected(url, person.access, device_id="old", welcome=False) as old:
        assert (await old.next("welcome"))["resume"] == "recovered"
        assert [frame["id"] for frame in await old.take(1)] == [last]


@pytest.mark.req("I12")
async def test_an_expired_queue_is_rebuilt_and_the_inbox_is_complete(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    url, queue = stack.system.notify_urls[0], f"user.{person.id}"
    async with connected(url, person.access, device_id="phone") as device:
        await device.synced()
    first = await backend.send_to(person.id, "before the queue is gone")
    await eventually(lambda: backend.depth(queue), is_good=lambda depth: depth == 1)
    stack.node.ctl("delete_queue", queue)
    second = await backend.send_to(person.id, "after")
    inbox = await rest.notify("GET", "/api/v1/inbox", token=person.access)
    await eventually(
        lambda: rest.notify("GET", "/api/v1/inbox", token=person.access),
        is_good=lambda answer: [item["id"] for item in answer.json()["items"]] == [second, first],
    )
    assert inbox.status_code == 200
    async with connected(url, person.access, device_id="phone") as device:
        assert [frame["id"] for frame in await device.take(2)] == [first, second]
        third = await backend.send_to(person.id, "live again")
        assert (await device.next("notification"))["id"] == third
