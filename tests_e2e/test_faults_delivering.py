"""Faults between the broker and the device: what is redelivered keeps its id, and what stops heals by itself."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter

import aio_pika
import pytest

from harness.broker import Backend, queue_counts
from harness.ledger import run_ledger
from harness.metrics import are_consumers_alive, read_metric
from harness.people import Person, Rest
from harness.rounds import rounds
from harness.sockets import Socket, connect, connected
from harness.stack import Stack
from harness.waiting import eventually
from notification_service.failpoints import VARIABLE as FAIL_POINT

SIDE_BY_SIDE = rounds(5, 2)
KILLS = rounds(50, 2)


async def meet_a_dying_gateway(
    stack: Stack, backend: Backend, name: str, person: Person, *, title: str
) -> tuple[str, Counter[str]]:
    """Get one message through a gateway that dies over it, then go on at another one; answers its id and what came."""
    dying = await connect(stack.url_of(name), person.access, device_id="phone")
    await dying.synced()
    sent = await backend.send_to(person.id, title)
    await dying.wait_closed()
    assert await asyncio.to_thread(stack.wait_for_end, name) == -9
    received = count(dying)
    async with connected(stack.system.notify_urls[0], person.access, device_id="phone") as device:
        await device.synced(within_s=30)

        async def depth() -> tuple[int, int]:
            return await asyncio.to_thread(queue_counts, stack, f"user.{person.id}")

        await eventually(depth, is_good=lambda counts: counts == (0, 0), within_s=30)
        received += count(device)
    return sent, received


def count(socket: Socket) -> Counter[str]:
    return Counter(frame["id"] for frame in socket.notifications)


async def kill_over_and_over(
    stack: Stack, rest: Rest, backend: Backend, fail_point: str, *, kills: int
) -> list[tuple[str, Counter[str]]]:
    people = await rest.make_people(SIDE_BY_SIDE)
    names = stack.add("gateway", SIDE_BY_SIDE, {FAIL_POINT: fail_point})
    outcomes = []
    for number in range(kills // SIDE_BY_SIDE):
        await asyncio.to_thread(stack.start, *names)
        outcomes += await asyncio.gather(
            *(
                meet_a_dying_gateway(stack, backend, name, person, title=f"round {number}")
                for name, person in zip(names, people, strict=True)
            )
        )
    stack.remove(*names)
    return outcomes


@pytest.mark.req("I04", "X-1")
@pytest.mark.only_on("postgresql")
@pytest.mark.timeout(400)
async def test_a_gateway_killed_between_the_send_and_the_broker_loses_nothing(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    outcomes = await kill_over_and_over(stack, rest, backend, "after_ws_send_before_client_ack", kills=KILLS)
    assert len(outcomes) == KILLS
    admin = await rest.log_in("admin")
    for sent, received in outcomes:
        assert received.keys() == {sent}
        assert received[sent] <= 2
        # The receipt spans broker and device: written down only once a device has it.
        status = await eventually(
            lambda sent=sent: rest.notify("GET", f"/api/v1/notifications/status/{sent}", token=admin.access),  # type: ignore[misc]
            is_good=lambda answer: answer.json()["counts_by_channel_and_state"] == {"in_app": {"acked": 1}},
        )
        (delivery,) = status.json()["deliveries"]["items"]
        assert delivery["created_at"] <= delivery["delivered_at"]


@pytest.mark.req("I05")
@pytest.mark.only_on("sqlite")
@pytest.mark.timeout(120)
async def test_a_gateway_killed_between_the_clients_ack_and_the_brokers_delivers_once_more_at_most(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    outcomes = await kill_over_and_over(stack, rest, backend, "after_client_ack_before_amqp_ack", kills=KILLS)
    assert len(outcomes) == KILLS
    for sent, received in outcomes:
        assert received.keys() == {sent}
        assert received[sent] <= 2


@pytest.mark.req("I13")
@pytest.mark.only_on("postgresql")
async def test_a_queue_deleted_under_its_consumer(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    queue = f"user.{person.id}"
    async with connected(stack.system.notify_urls[0], person.access) as device:
        await backend.send_to(person.id, "before")
        await device.take(1)
        await asyncio.to_thread(stack.node.ctl, "delete_queue", queue)

        async def consumers() -> int:
            listed = await asyncio.to_thread(stack.node.ctl, "list_queues", "name", "consumers")
            return next((int(line.split("\t")[1]) for line in listed.splitlines() if line.startswith(queue)), 0)

        await eventually(consumers, is_good=lambda number: number == 1, within_s=10)
        sent = await backend.send_to(person.id, "after")
        assert (await device.next("notification"))["id"] == sent
    assert await are_consumers_alive(stack)


@pytest.mark.req("I13")
async def test_the_intake_deleted_under_its_consumers(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    async with connected(stack.system.notify_urls[0], person.access) as device:
        await asyncio.to_thread(stack.node.ctl, "delete_queue", "intake")
        # Accepted while the queue does not exist, or has just been made again: in the database either way.
        answer = await rest.notify(
            "POST",
            "/api/v1/notifications/send",
            token=token,
            json={"title": "over rest", "recipients": {"users": [person.id]}},
        )
        assert answer.status_code == 202
        frame = await device.next("notification", within_s=30)
        assert frame["id"] == answer.json()["id"]
        sent = await backend.send_to(person.id, "by the queue again")
        assert (await device.next("notification"))["id"] == sent

    async def alive() -> bool:
        return await are_consumers_alive(stack)

    await eventually(alive, is_good=bool, within_s=30)


@pytest.mark.req("I18")
@pytest.mark.only_on("sqlite")
async def test_a_missing_dead_letter_queue_loses_nothing(stack: Stack, rest: Rest, backend: Backend) -> None:
    admin = await rest.log_in("admin")
    (person,) = await rest.make_people(1)
    await asyncio.to_thread(stack.node.ctl, "delete_queue", "notifications.dead")
    poison = await backend.publish(b"{", message_id=str(uuid.uuid4()))

    async def letters() -> list[dict[str, object]]:
        answer = await rest.notify("GET", "/api/v1/dead-letters?limit=200", token=admin.access)
        return [item for item in answer.json()["items"] if item["message_id"] == poison]

    found = await eventually(letters, is_good=bool)
    assert [letter["reason"] for letter in found] == ["invalid_json"]
    async with connected(stack.system.notify_urls[0], person.access) as device:
        sent = await backend.send_to(person.id, "the consumer lives")
        assert (await device.next("notification"))["id"] == sent

    async def copies() -> set[str]:
        connection = await aio_pika.connect(stack.node.url)
        async with connection:
            channel = await connection.channel()
            try:
                queue = await channel.get_queue("notifications.dead")
            except aio_pika.exceptions.ChannelNotFoundEntity:
                return set()
            taken = set()
            while (message := await queue.get(fail=False)) is not None:
                taken.add(str(message.headers.get("x-herald-message-id")))
            return taken  # not acknowledged: back in the queue with the end of the connection

    # The queue is made again, and what it missed is in it.
    await eventually(copies, is_good=lambda ids: poison in ids, within_s=30)


@pytest.mark.req("I21")
@pytest.mark.only_on("sqlite")
async def test_workers_ended_while_they_process(stack: Stack, rest: Rest) -> None:
    admin = await rest.log_in("admin")
    tenancy = await rest.make_tenancy(4)
    before = (await rest.notify("GET", "/api/v1/dead-letters?limit=200", token=admin.access)).json()["items"]
    codes: list[int] = []
    names = list(stack.worker_names)

    def fault() -> None:
        name = names[len(codes) % len(names)]
        codes.append(stack.stop(name))
        stack.start(name)

    await run_ledger(stack, rest, tenancy, fault, messages=120, rounds=2, name="worker-stopped", checks_quiet=False)
    assert codes == [0, 0]
    after = (await rest.notify("GET", "/api/v1/dead-letters?limit=200", token=admin.access)).json()["items"]
    assert json.dumps(after) == json.dumps(before)


@pytest.mark.req("J01")
@pytest.mark.only_on("sqlite")
async def test_without_the_broker_everything_lives_and_nothing_is_ready(stack: Stack, rest: Rest) -> None:
    names = [*stack.notify_names, *stack.worker_names, "scheduler"]

    async def ask(page: str) -> set[int]:
        answers = await asyncio.gather(
            *(asyncio.to_thread(stack.get_status, f"{stack.url_of(name)}/health/{page}") for name in names)
        )
        return set(answers)

    async def readiness() -> set[int]:
        return await ask("ready")

    assert await readiness() == {200}
    await asyncio.to_thread(stack.node.kill)
    try:
        await eventually(readiness, is_good=lambda codes: codes == {503}, within_s=30)
        assert await ask("live") == {200}
        assert await ask("database") == {200}
    finally:
        await asyncio.to_thread(stack.node.start)
    await eventually(readiness, is_good=lambda codes: codes == {200}, within_s=30)
    assert await read_metric(stack, "amqp_reconnects_total", stack.notify_names) >= 2
