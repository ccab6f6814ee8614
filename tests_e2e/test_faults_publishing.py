"""Faults between accepting and the broker: nothing that was accepted is lost, nobody gets it twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import aio_pika
import httpx
import pytest

from harness.broker import Backend, backend_of
from harness.metrics import are_consumers_alive, read_metric
from harness.people import Rest
from harness.rounds import rounds
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually
from notification_service.failpoints import VARIABLE as FAIL_POINT

SCHEDULER = "scheduler"
# Stored and answered without the broker; a machine that runs tests may be busy with other things.
SLOWEST_ANSWER_S = 5.0
HANG_S = rounds(20, 12)  # longer than the 10 s a publish waits for its confirm


def request_to(user_id: str, title: str) -> dict[str, object]:
    return {"title": title, "recipients": {"users": [user_id]}}


@pytest.mark.req("H01")
@pytest.mark.timeout(300)
async def test_an_api_killed_after_its_answer_loses_nothing(stack: Stack, rest: Rest) -> None:
    kills, side_by_side = rounds(50, 2), rounds(5, 2)
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    names = stack.add("api", side_by_side, {FAIL_POINT: "after_answer"})
    accepted: list[str] = []

    async def send(name: str, client: httpx.AsyncClient) -> None:
        answer = await client.post(
            f"{stack.url_of(name)}/api/v1/notifications/send",
            json=request_to(person.id, f"before the end of {name}"),
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 202
        accepted.append(answer.json()["id"])
        assert await asyncio.to_thread(stack.wait_for_end, name) == -9

    async with connected(stack.system.notify_urls[0], person.access) as device:
        for _ in range(kills // side_by_side):
            await asyncio.to_thread(stack.start, *names)
            async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
                await asyncio.gather(*(send(name, client) for name in names))
        stack.remove(*names)
        received = Counter(frame["id"] for frame in await device.take(kills, within_s=60))
    assert received == Counter(accepted)


@pytest.mark.req("H02")
@pytest.mark.timeout(300)
async def test_while_the_broker_is_away_requests_are_taken_and_come_in_their_order(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    titles = [str(number) for number in range(60)]
    answered_in_s: list[float] = []

    async def send(title: str) -> None:
        started = time.monotonic()
        body = request_to(person.id, title)
        answer = await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)
        assert answer.status_code == 202
        answered_in_s.append(time.monotonic() - started)

    for title in titles[:5]:
        await send(title)
    await asyncio.to_thread(stack.node.stop)
    try:
        for title in titles[5:25]:
            await send(title)
        await asyncio.sleep(rounds(30, 3))
    finally:
        starting = asyncio.create_task(asyncio.to_thread(stack.node.start))
    # Some before the API is connected again, some at that moment, some after it.
    for title in titles[25:]:
        await send(title)
        await asyncio.sleep(0.2)
    await starting
    async with connected(stack.system.notify_urls[0], person.access) as device:
        received = [frame["title"] for frame in await device.take(60, within_s=60)]
    assert received == titles
    assert max(answered_in_s) < SLOWEST_ANSWER_S


@pytest.mark.req("H03")
@pytest.mark.only_on("postgresql")
async def test_what_no_queue_takes_stays_pending_and_is_handed_over_when_the_binding_is_back(
    stack: Stack, rest: Rest
) -> None:
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    returned_before = await read_metric(stack, "publish_total", stack.notify_names, outcome="returned")
    connection = await aio_pika.connect(stack.node.url)
    channel = await connection.channel()
    intake = await channel.get_queue("intake", ensure=False)
    async with connection, connected(stack.system.notify_urls[0], person.access) as device:
        await intake.unbind("notifications.direct", "private")
        try:
            answer = await rest.notify(
                "POST", "/api/v1/notifications/send", token=token, json=request_to(person.id, "nowhere to go")
            )
            assert answer.status_code == 202

            async def returned() -> float:
                found = await read_metric(stack, "publish_total", stack.notify_names, outcome="returned")
                return found - returned_before

            await eventually(returned, is_good=lambda number: number == 1)

            async def pending() -> float:
                return await read_metric(stack, "outbox_pending", [SCHEDULER])

            await eventually(pending, is_good=lambda number: number == 1)
            await device.expect_nothing()
        finally:
            await intake.bind("notifications.direct", "private")
        frame = await device.next("notification", within_s=30)
        assert frame["id"] == answer.json()["id"]
        await eventually(pending, is_good=lambda number: number == 0, within_s=30)


@pytest.mark.req("H05")
@pytest.mark.only_on("sqlite")
@pytest.mark.timeout(120)
async def test_a_broker_that_hangs(stack: Stack, rest: Rest) -> None:
    people = await rest.make_people(2)
    token = await rest.shop_token()
    answered_s: list[float] = []
    over_rest: list[str] = []

    async def send_while_it_hangs() -> None:
        for number in range(10):
            started = time.monotonic()
            answer = await rest.notify(
                "POST",
                "/api/v1/notifications/send",
                token=token,
                node=number % 2,
                json=request_to(people[0].id, f"while it hangs {number}"),
            )
            answered_s.append(time.monotonic() - started)
            assert answer.status_code == 202
            over_rest.append(answer.json()["id"])
            await asyncio.sleep(0.5)

    async with connected(stack.system.notify_urls[0], people[0].access) as device:

        def hang() -> None:
            stack.node.pause()
            time.sleep(HANG_S)
            stack.node.resume()

        hanging = asyncio.create_task(asyncio.to_thread(hang))
        await send_while_it_hangs()
        await hanging
        async with connected(stack.system.notify_urls[1], people[1].access) as other, backend_of(stack) as backend:
            sent = await backend.send_to(people[1].id, "over AMQP again")
            assert (await other.next("notification"))["id"] == sent
        received = Counter(frame["id"] for frame in await device.take(len(over_rest), within_s=60))
        await device.expect_nothing()
    assert received == Counter(over_rest)
    assert max(answered_s) < 5  # a publish waits up to 10 s for its confirm: nobody waited for that
    assert await are_consumers_alive(stack)


@pytest.mark.req("H13")
@pytest.mark.only_on("postgresql")
@pytest.mark.timeout(120)
async def test_a_relay_killed_between_confirm_and_mark(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    quick = {"NOTIFY_RELAY_GRACE": "1", "NOTIFY_RELAY_HOLD": "2"}
    async with connected(stack.system.notify_urls[0], person.access) as device:
        # A worker dies with the item stored and not published; its message comes back, and is known.
        stack.kill(SCHEDULER)
        for name in stack.worker_names:
            stack.kill(name)
        dying, *others = stack.worker_names
        await asyncio.to_thread(stack.start, dying, settings={FAIL_POINT: "after_db_commit", **quick})
        sent = await backend.send_to(person.id, "once")
        assert await asyncio.to_thread(stack.wait_for_end, dying) == -9
        await asyncio.to_thread(stack.start, dying, *others, settings=quick)
        before = await read_metric(stack, "duplicates_suppressed_total", stack.notify_names)
        # A relay publishes it and dies before it has noted that.
        dying_there = {FAIL_POINT: "after_confirm_before_mark", **quick}
        await asyncio.to_thread(stack.start, SCHEDULER, settings=dying_there, wait=False)
        assert await asyncio.to_thread(stack.wait_for_end, SCHEDULER, 30) == -9
        frame = await device.next("notification", within_s=30)
        assert frame["id"] == sent
        await asyncio.to_thread(stack.start, SCHEDULER, settings=quick)

        async def suppressed() -> float:
            return await read_metric(stack, "duplicates_suppressed_total", stack.notify_names) - before

        # One more for each relay that took the row over in turn, on a machine that is slow.
        await eventually(suppressed, is_good=lambda number: number >= 1, within_s=30)
        await device.expect_nothing()
    inbox = (await rest.notify("GET", "/api/v1/inbox", token=person.access)).json()["items"]
    assert [item["id"] for item in inbox] == [sent]
