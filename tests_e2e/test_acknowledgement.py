"""Acknowledgements, windows, resuming: what was not acknowledged comes again, what was does not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from harness.broker import Backend, backend_of, queue_counts
from harness.metrics import are_consumers_alive
from harness.people import Rest
from harness.rounds import IS_THOROUGH
from harness.sockets import connect, connected
from harness.stack import Stack
from harness.waiting import eventually


@pytest.mark.req("DG-1", "DG-7")
async def test_what_was_not_acknowledged_comes_again_marked(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    first_url, second_url = stack.system.notify_urls
    device = await connect(first_url, person.access, device_id="phone", acks=False)
    # What is sent before the user's first device is identified finds no queue, and is kept in the mailbox alone.
    await device.synced()
    sent = [await backend.send_to(person.id, f"n{number}") for number in range(3)]
    frames = await device.take(3)
    assert [frame["redelivered"] for frame in frames] == [False, False, False]
    await device.ack(frames[0])
    await rest.wait_for_acknowledgements(person, "phone", open_count=2)
    await device.drop()
    await eventually(
        lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (2, 0)
    )
    async with connected(second_url, person.access, device_id="phone") as device:
        again = await device.take(2)
        assert [frame["id"] for frame in again] == sent[1:]
        assert [frame["seq"] for frame in again] == [2, 3]
        assert [frame["redelivered"] for frame in again] == [True, True]


@pytest.mark.req("I06")
@pytest.mark.only_on("sqlite")
async def test_a_client_that_never_acknowledges_gets_a_window_and_the_rest_stays_in_the_broker(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    queue = f"user.{person.id}"
    device = await connect(stack.system.notify_urls[0], person.access, device_id="phone", acks=False)
    await device.synced()
    for number in range(100):
        await backend.send_to(person.id, f"n{number}")
    await device.take(64)
    await device.expect_nothing(for_s=1)
    counts = await asyncio.to_thread(queue_counts, stack, queue)
    assert counts == (36, 64)
    # After the acknowledgement time-out (6 s in this installation) the same frames come again; in the end: 4412.
    again = await device.take(64)
    assert [frame["seq"] for frame in again] == list(range(1, 65))
    assert {frame["redelivered"] for frame in again} == {True}
    assert await device.wait_closed(within_s=40) == 4412
    await eventually(lambda: asyncio.to_thread(queue_counts, stack, queue), is_good=lambda counts: counts == (100, 0))


@contextlib.asynccontextmanager
async def impatient_broker(stack: Stack, limit_s: int) -> AsyncIterator[None]:
    """RabbitMQ closes a channel once one delivery on it is unacknowledged for so long; by default it is 30 min."""

    async def set_limit(milliseconds: int, look_every_ms: int) -> None:
        settings = {"consumer_timeout": milliseconds, "channel_tick_interval": look_every_ms}
        for name, value in settings.items():
            await asyncio.to_thread(stack.node.ctl, "eval", f"application:set_env(rabbit, {name}, {value}).")
        # Channels read it when they are opened.
        await asyncio.to_thread(stack.node.ctl, "close_all_connections", "the test changes a limit")
        assert await are_consumers_alive(stack)

    await set_limit(limit_s * 1_000, 1_000)
    try:
        yield
    finally:
        await set_limit(1_800_000, 60_000)


@pytest.mark.req("I07")
@pytest.mark.ledger  # which runs it: `make ledger ARGS="-k acknowledges_slowly"`
@pytest.mark.only_on("postgresql")
# RabbitMQ's limit must be longer than the 45 s after which a queue is left: this cannot be short. The rule itself is in
# `make test`: notification_service/tests/gateway/test_feed.py.
@pytest.mark.skipif(not IS_THOROUGH, reason="waits for more than a minute: only in the long form")
async def test_a_device_that_acknowledges_slowly_takes_no_channel_from_the_others(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    async with impatient_broker(stack, 55), backend_of(stack) as backend:
        device = await connect(stack.system.notify_urls[0], person.access, device_id="phone", acks=False)
        await device.synced()
        for number in range(64):
            await backend.send_to(person.id, f"n{number}")
        frames = await device.take(64)
        # Always in time for the session, and never done with what was delivered first within the broker's limit.
        for frame in frames[:18]:
            await device.ack(frame)
            await asyncio.sleep(4)
        log = "".join(each.read_text(errors="replace") for each in (stack.node.folder / "log").glob("*.log"))
        assert "has timed out waiting for delivery acknowledgement" not in log
        await device.ack(frames[-1])
        await eventually(
            lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (0, 0)
        )
        sent = await backend.send_to(person.id, "and on")
        while (await device.next("notification"))["id"] != sent:
            pass
        await device.close()


async def test_the_window_moves_with_the_acknowledgements(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access, acks=False) as device:
        await device.synced()
        await asyncio.gather(*(backend.send_to(person.id, f"n{number}") for number in range(200)))
        seen: list[int] = []
        while len(seen) < 200:
            frame = await device.next("notification")
            seen.append(frame["seq"])
            if len(seen) % 20 == 0:
                await device.ack(frame)
        assert seen == list(range(1, 201))


async def test_auto_mode_needs_no_acknowledgements(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    async with connected(url, person.access, device_id="tv", acks=False, ack_mode="auto") as device:
        for number in range(150):
            await backend.send_to(person.id, f"n{number}")
        await device.take(150)
        await eventually(
            lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (0, 0)
        )
        await rest.wait_for_acknowledgements(person, "tv")
    async with connected(url, person.access, device_id="tv", acks=False, ack_mode="auto") as device:
        await device.synced()
        assert device.notifications == []


@pytest.mark.req("I08")
@pytest.mark.req("I09")
@pytest.mark.req("DG-11")
async def test_random_disconnects_leave_no_gap_and_no_wrong_order(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    urls = stack.system.notify_urls
    chance = random.Random(42)
    received: list[str] = []
    position: str | None = None

    async def publish() -> list[str]:
        sent = []
        for number in range(1000):
            sent.append(await backend.send_to(person.id, f"n{number}"))
            if number % 50 == 0:
                await asyncio.sleep(0.05)
        return sent

    publishing = asyncio.create_task(publish())
    while len(received) < 1000:
        device = await connect(chance.choice(urls), person.access, device_id="phone", position=position, acks=True)
        last_seq = 0
        for _ in range(chance.randrange(10, 120)):
            try:
                frame = await device.next("notification", within_s=3)
            except TimeoutError:
                break
            assert last_seq in (0, frame["seq"] - 1)
            last_seq = frame["seq"]
            if frame["id"] not in received:
                received.append(frame["id"])
            position = frame["position"]
        await (device.drop() if chance.random() < 0.5 else device.close())
    assert received == await publishing


@pytest.mark.req("I08")
async def test_a_position_that_is_not_held_is_answered_with_a_reset(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    for number in range(3):
        await backend.send_to(person.id, f"n{number}")
    await eventually(
        lambda: rest.notify("GET", "/api/v1/inbox/counts", token=person.access),
        is_good=lambda answer: answer.json()["unread"] == 3,
    )
    async with connected(
        url, person.access, device_id="phone", position="deadbeef.000000000000.000000000001", welcome=False
    ) as device:
        welcome = await device.next("welcome")
        assert welcome["resume"] == "reset"
        reset = await device.next("reset")
        assert reset["reason"] == "unknown_position"
        assert reset["counts"] == {"unread": 3, "unseen": 3}
        assert reset["position"] == welcome["position"]
        await device.synced()
        assert device.notifications == []
        # One reset, no loop: from here on the device goes on as any other.
        live = await backend.send_to(person.id, "n3")
        assert (await device.next("notification"))["id"] == live


async def test_sync_sends_what_changed_since_a_position(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access) as device:
        await device.synced()
        for number in range(10):
            await backend.send_to(person.id, f"n{number}")
        frames = await device.take(10)
        await device.send(type="sync", position=frames[6]["position"], ref="s1")
        again = await device.take(3)
        assert [frame["seq"] for frame in again] == [8, 9, 10]
        assert {frame["redelivered"] for frame in again} == {True}
        assert (await device.next("synced"))["position"] == frames[-1]["position"]
        await device.send(type="sync", position="deadbeef.000000000000.000000000001", ref="s2")
        refused = await device.next("error")
        assert (refused["ref"], refused["code"]) == ("s2", "invalid_position")


@pytest.mark.req("DG-2", "DG-3")
async def test_positions_are_valid_on_every_node(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    first_url, second_url = stack.system.notify_urls
    for number in range(5):
        await backend.send_to(person.id, f"n{number}")
    async with connected(first_url, person.access, device_id="a", acks=False) as device:
        frames = await device.take(5)
    async with connected(second_url, person.access, device_id="b", position=frames[2]["position"]) as device:
        again = await device.take(2)
        assert [frame["id"] for frame in again] == [frame["id"] for frame in frames[3:]]
        await device.synced()
        assert len(device.notifications) == 2
