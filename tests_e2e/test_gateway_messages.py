"""Messages from clients, and live events that are never stored."""

from __future__ import annotations

import asyncio
import json
import uuid

import aio_pika
import pytest
import websockets

from harness.broker import Backend, queue_counts
from harness.people import Rest
from harness.sockets import Frame, Socket, connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("sqlite")


async def send_until_taken(socket: Socket, **frame: object) -> Frame:
    """A group made a moment ago is known within moments."""

    async def attempt() -> Frame:
        await socket.send(type="send", **frame)
        while (answer := await socket.next())["type"] not in ("sent", "error"):
            pass
        return answer

    return await eventually(attempt, is_good=lambda answer: answer["type"] == "sent")


@pytest.mark.req("DG-18")
async def test_the_sender_hears_it_or_not_by_choice(stack: Stack, rest: Rest) -> None:
    ada, ben = await rest.make_people(2)
    group_id = await rest.make_group([ada, ben])
    first, second = stack.system.notify_urls
    async with (
        connected(first, ada.access, device_id="a1") as sender,
        connected(second, ada.access, device_id="a2") as other_device,
        connected(second, ben.access) as receiver,
    ):
        # Live events say when the mirror knows the group.
        await send_until_taken(sender, to={"group": group_id}, live=True, echo=False)
        assert (await receiver.next("notification"))["live"]
        expected: list[tuple[dict[str, object], bool]] = [
            ({"to": {"user": ben.id}}, False),
            ({"to": {"user": ben.id}, "echo": True}, True),
            ({"to": {"group": group_id}}, True),
            ({"to": {"group": group_id}, "echo": False}, False),
            ({"to": {"group": group_id}, "echo": True}, True),
        ]
        for fields, is_echoed in expected:
            await asyncio.sleep(0.25)  # five a second
            await sender.send(type="send", body="hello", **fields)
            sent = (await sender.next("sent"))["id"]
            assert (await receiver.next("notification"))["id"] == sent
            if is_echoed:
                assert (await other_device.next("notification"))["id"] == sent
            await other_device.expect_nothing(for_s=0.3)


@pytest.mark.req("CP-4")
async def test_messages_have_a_rate_of_their_own(stack: Stack, rest: Rest) -> None:
    ada, ben = await rest.make_people(2)
    async with connected(stack.system.notify_urls[0], ada.access) as sender:
        for number in range(15):
            await sender.send(type="send", to={"user": ben.id}, body="b", ref=str(number))
        answers = [await sender.next() for _ in range(16)]
        refused = [each for each in answers if each["type"] == "error"]
        assert 2 <= len(refused) <= 5
        assert {(each["code"], each["temporary"]) for each in refused} == {("rate_limited", True)}
        assert all(1 <= each["retry_after_ms"] <= 1000 for each in refused)
        await sender.send(type="ping")
        await sender.next("pong")


async def test_live_events_from_a_client_reach_every_device_and_no_store(stack: Stack, rest: Rest) -> None:
    ada, ben, eve = await rest.make_people(3)
    group_id = await rest.make_group([ada, ben])
    first, second = stack.system.notify_urls
    async with (
        connected(first, ada.access) as sender,
        connected(first, ben.access, device_id="b1") as one,
        connected(second, ben.access, device_id="b2") as two,
        connected(second, eve.access) as outside,
    ):
        await one.synced()
        await two.synced()
        to = {"group": group_id}
        sent = await send_until_taken(sender, to=to, live=True, event_type="typing", data={"in": "room"}, ref="t")
        assert sent["ref"] == "t"
        for device in (one, two):
            frame = await device.next("notification")
            assert (frame["id"], frame["event_type"], frame["live"]) == (sent["id"], "typing", True)
            assert (frame["kind"], frame["group_id"], frame["data"]) == ("group", group_id, {"in": "room"})
            assert frame["sender"]["id"] == ada.id
            assert not {"seq", "position", "counts"} & frame.keys()
        await outside.send(type="send", to=to, live=True, ref="x")
        assert (await outside.next("error"))["code"] == "not_found"
        for wrong in ({"to": {"all": True}, "live": True}, {"to": {"user": ben.id}}):
            await sender.send(type="send", **wrong)
            assert (await sender.next("error"))["code"] == "invalid_frame"
        await sender.send(type="send", to={"user": str(uuid.uuid4())}, live=True)
        assert (await sender.next("error"))["code"] == "not_found"
    listed = await rest.notify("GET", "/api/v1/inbox", token=ben.access)
    assert listed.json()["items"] == []


async def test_live_events_from_a_backend_pass_what_waits_and_expire(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    connection = await aio_pika.connect(stack.node.url)
    channel = await connection.channel()
    exchange = await channel.get_exchange("delivery.direct", ensure=False)

    async def publish(event: dict[str, object] | bytes, expiration: float = 5) -> str:
        event_id = str(uuid.uuid4())
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        message = aio_pika.Message(
            body,
            message_id=event_id,
            headers={"x-herald-ephemeral": True},
            expiration=expiration,
            delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,
        )
        await exchange.publish(message, f"user.{person.id}", mandatory=False)
        return event_id

    async with connected(stack.system.notify_urls[0], person.access, device_id="d", acks=False) as device:
        await device.synced()
        kept = await backend.send_to(person.id, "kept")
        assert (await device.next("notification"))["id"] == kept
        await publish(b"no json")
        event_id = await publish({"event_type": "import.progress", "data": {"percent": 40}})
        frame = await device.next("notification")
        assert (frame["id"], frame["data"], frame.get("seq")) == (event_id, {"percent": 40}, None)
        after = await backend.send_to(person.id, "after")
        frame = await device.next("notification")
        assert (frame["id"], frame["seq"]) == (after, 2)
        # Live events hold nothing up and are settled at once.
        await eventually(
            lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"),
            is_good=lambda counts: counts == (0, 2),
        )
    await publish({"event_type": "too.late"}, expiration=0.5)
    await asyncio.sleep(1)
    async with connected(stack.system.notify_urls[1], person.access, device_id="d") as device:
        await device.synced()
        assert [frame["id"] for frame in device.notifications] == [kept, after]
    await connection.close()


async def test_a_connection_by_ticket_may_send_too(stack: Stack, rest: Rest) -> None:
    ada, ben = await rest.make_people(2)
    ticket = (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=ada.access)).json()["ticket"]
    url = stack.system.notify_urls[0].replace("http", "ws", 1)
    socket = Socket(await websockets.connect(f"{url}/ws?ticket={ticket}", compression=None), acks=True)
    # Before the welcome: it is read once the ticket is redeemed.
    await socket.send(type="send", to={"user": ben.id}, body="b", ref="1")
    await socket.next("welcome")
    assert (await socket.next("sent"))["ref"] == "1"
    await socket.close()
