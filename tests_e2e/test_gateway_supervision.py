"""Consumers that lose their queue, their rights or their shape of things: noticed, said, and healed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import httpx
import pytest

from harness.broker import Backend
from harness.people import Rest
from harness.sockets import connect, connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.only_on("sqlite")]

NODE = "notify-1"


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> AsyncIterator[None]:
    """What a test took is given back: the others find every process ready."""
    yield
    for name in (*stack.notify_names, *stack.worker_names, "scheduler"):
        await asyncio.to_thread(stack.wait_until_ready, name)


async def metric(rest: Rest, name: str) -> float:
    lines = (await rest.notify("GET", "/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0].split("{")[0] == name)


def cpu_s(stack: Stack, name: str) -> float:
    fields = Path(f"/proc/{stack.pid_of(name)}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def is_ready(rest: Rest) -> bool:
    return (await rest.notify("GET", "/health/ready")).status_code == 200


@pytest.mark.req("I13")
async def test_queues_deleted_under_their_consumers_are_back_within_10_s(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    people = await rest.make_people(5)
    url = stack.system.notify_urls[0]
    devices = [await connect(url, person.access, device_id="d") for person in people]
    for device in devices:
        await device.synced()
    for person in people:
        # Not in this thread: the devices must answer pings meanwhile.
        await asyncio.to_thread(stack.node.ctl, "delete_queue", f"user.{person.id}")
    started = time.monotonic()
    for person, device in zip(people, devices, strict=True):
        sent = await backend.send_to(person.id, "after")
        assert (await device.next("notification", within_s=10))["id"] == sent
    assert time.monotonic() - started < 10

    async def alive() -> tuple[float, float]:
        return await metric(rest, "amqp_consumers_alive"), await metric(rest, "amqp_consumers_expected")

    await eventually(alive, is_good=lambda counts: counts[0] == counts[1] >= 5, within_s=10)
    for device in devices:
        await device.close()


@pytest.mark.req("H12")
async def test_rights_taken_and_given_back(stack: Stack, rest: Rest, backend: Backend) -> None:
    ada, ben = await rest.make_people(2)
    url = stack.system.notify_urls[0]
    async with connected(url, ada.access, device_id="d") as device:
        await device.synced()
        user = "herald"
        await asyncio.to_thread(stack.node.ctl, "clear_permissions", "-p", "/", user)
        try:
            # Whoever needs a new right now is told to come back later; the process does not spin meanwhile.
            refused = await connect(url, ben.access)
            assert await refused.wait_closed(within_s=30) in (1013, 1012)
            before = cpu_s(stack, NODE)
            await asyncio.sleep(5)
            assert cpu_s(stack, NODE) - before < 0.5
        finally:
            await asyncio.to_thread(stack.node.ctl, "set_permissions", "-p", "/", user, ".*", ".*", ".*")
        await eventually(lambda: is_ready(rest), is_good=bool, within_s=30)

        async def send() -> str:
            try:
                return await backend.send_to(ada.id, "again")
            except Exception:  # noqa: BLE001 - its channel may have been closed too
                return ""

        sent = await eventually(send, is_good=bool, within_s=20)
        while (await device.next("notification", within_s=30))["id"] != sent:
            pass


@pytest.mark.req("H11")
async def test_a_queue_with_other_arguments_is_named_and_waited_for(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    await asyncio.to_thread(stack.stop, NODE)
    connection = await aio_pika.connect(stack.node.url)
    channel = await connection.channel()
    await channel.queue_delete("notifications.dead")
    await channel.declare_queue("notifications.dead", durable=True, arguments={"x-queue-type": "classic"})
    await asyncio.to_thread(stack.start, NODE, wait=False)
    try:

        async def said() -> bool:
            return "topology_conflict" in stack.log_of(NODE) and "notifications.dead" in stack.log_of(NODE)

        await eventually(said, is_good=bool, within_s=30)
        await eventually(lambda: is_alive(rest), is_good=bool, within_s=20)
        assert not await is_ready(rest)
        before, lines = cpu_s(stack, NODE), stack.log_of(NODE).count("topology_conflict")
        await asyncio.sleep(5)
        assert cpu_s(stack, NODE) - before < 0.5
        assert stack.log_of(NODE).count("topology_conflict") - lines <= 8
    finally:
        await channel.queue_delete("notifications.dead")
        await connection.close()
    await eventually(lambda: is_ready(rest), is_good=bool, within_s=30)
    async with connected(stack.system.notify_urls[0], person.access) as device:
        await device.synced()
        sent = await backend.send_to(person.id, "healed")
        assert (await device.next("notification"))["id"] == sent


@pytest.mark.req("H11")
async def test_one_users_queue_with_other_arguments_hurts_nobody_else(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    ada, ben = await rest.make_people(2)
    connection = await aio_pika.connect(stack.node.url)
    channel = await connection.channel()
    await channel.declare_queue(f"user.{ada.id}", durable=True, arguments={"x-max-length": 5})
    url = stack.system.notify_urls[0]
    async with connected(url, ben.access) as other:
        await other.synced()
        refused = await connect(url, ada.access)
        assert await refused.wait_closed() == 1013
        assert "user_queue_not_declared" in stack.log_of(NODE)
        sent = await backend.send_to(ben.id, "as ever")
        assert (await other.next("notification"))["id"] == sent
        await channel.queue_delete(f"user.{ada.id}")
        async with connected(url, ada.access) as healed:
            sent = await backend.send_to(ada.id, "healed")
            assert (await healed.next("notification"))["id"] == sent
    await connection.close()


@pytest.mark.req("J06")
@pytest.mark.parametrize(
    ("alarm", "over"),
    [
        pytest.param(
            ("set_vm_memory_high_watermark", "0"),
            ("set_vm_memory_high_watermark", "0.4"),
            id="memory",
            marks=pytest.mark.req("H06"),
        ),
        pytest.param(
            ("set_disk_free_limit", "1000GB"),
            ("set_disk_free_limit", "50MB"),
            id="disk",
            marks=pytest.mark.req("H07"),
        ),
    ],
)
async def test_an_alarm_shows_and_consumers_go_on(
    stack: Stack, rest: Rest, alarm: tuple[str, ...], over: tuple[str, ...]
) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access, acks=False) as device:
        await device.synced()
        await asyncio.to_thread(stack.node.ctl, *alarm)
        try:
            shop = await rest.shop_token()
            body = {"title": "during", "recipients": {"users": [person.id]}}
            answer = await rest.notify("POST", "/api/v1/notifications/send", token=shop, json=body)
            assert answer.status_code == 202
            await eventually(lambda: metric(rest, "amqp_blocked"), is_good=lambda value: value == 1.0, within_s=15)
            await device.send(type="ping")
            await device.next("pong")
        finally:
            await asyncio.to_thread(stack.node.ctl, *over)
        frame = await device.next("notification", within_s=60)
        assert frame["id"] == answer.json()["id"]
        await eventually(lambda: metric(rest, "amqp_blocked"), is_good=lambda value: value == 0.0, within_s=15)
    assert await metric(rest, "event_loop_lag_seconds_count") > 10


async def is_alive(rest: Rest) -> bool:
    try:
        return (await rest.notify("GET", "/health/live")).status_code == 200
    except httpx.HTTPError:
        return False
