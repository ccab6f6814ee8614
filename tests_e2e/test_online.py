"""Online: what is published reaches every device at once, on whichever node it is."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import Socket, connected
from harness.stack import Stack


@contextlib.asynccontextmanager
async def two_devices(stack: Stack, person: Person) -> AsyncIterator[tuple[Socket, Socket]]:
    """One device on each node, both caught up."""
    first_url, second_url = stack.system.notify_urls
    async with (
        connected(first_url, person.access, device_id="phone") as phone,
        connected(second_url, person.access, device_id="laptop") as laptop,
    ):
        await phone.synced()
        await laptop.synced()
        yield phone, laptop


async def test_private_by_amqp_reaches_two_devices_on_two_nodes(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with two_devices(stack, person) as devices:
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(20)]
        for device in devices:
            frames = await device.take(20)
            assert [frame["id"] for frame in frames] == sent
            assert [frame["seq"] for frame in frames] == list(range(1, 21))
            assert {frame["kind"] for frame in frames} == {"private"}
            assert len({frame["position"] for frame in frames}) == 20
            assert frames[-1]["counts"] == {"unread": 20, "unseen": 20}


async def test_group_by_amqp_reaches_its_members_only(stack: Stack, rest: Rest, backend: Backend) -> None:
    member, other = await rest.make_people(2)
    group_id = await rest.make_group([member])
    async with two_devices(stack, member) as devices, connected(stack.system.notify_urls[0], other.access) as outside:
        await outside.synced()
        sent = await backend.publish({"title": "to the group", "recipients": {"groups": [group_id]}}, key="group")
        for device in devices:
            frame = await device.next("notification")
            assert (frame["id"], frame["kind"], frame["group_id"], frame["seq"]) == (sent, "group", group_id, 1)
        await outside.expect_nothing()


async def test_broadcast_by_amqp_reaches_everyone_once(stack: Stack, rest: Rest, backend: Backend) -> None:
    one, two = await rest.make_people(2)
    async with two_devices(stack, one) as devices, connected(stack.system.notify_urls[1], two.access) as third:
        await third.synced()
        sent = await backend.publish({"title": "to all"}, exchange="notifications.fanout", key="")
        for device in (*devices, third):
            frame = await device.next("notification")
            assert (frame["id"], frame["kind"]) == (sent, "broadcast")
            assert frame.get("seq") is None
            assert frame["position"]
            await device.expect_nothing(for_s=0.3)


async def test_event_by_amqp_may_name_anybody(stack: Stack, rest: Rest, backend: Backend) -> None:
    named, member = await rest.make_people(2)
    group_id = await rest.make_group([member])
    body = {
        "event_type": "order.created",
        "recipients": {"users": [f"ext:{named.username}", named.id], "groups": [group_id]},
        "data": {"order_id": "1042"},
    }
    async with two_devices(stack, named) as devices, connected(stack.system.notify_urls[0], member.access) as other:
        await other.synced()
        sent = await backend.publish(body, key="event")
        for device in (*devices, other):
            frame = await device.next("notification")
            assert (frame["id"], frame["kind"], frame["event_type"]) == (sent, "event", "order.created")
            assert frame["data"] == {"order_id": "1042"}
            assert frame["title"] == "Order received"
            await device.expect_nothing(for_s=0.2)


async def test_rest_reaches_users_groups_and_everyone(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    group_id = await rest.make_group([person])
    shop = await rest.shop_token()
    requests = [
        ({"users": [person.id]}, "private"),
        ({"groups": [group_id]}, "group"),
        ({"all": True}, "broadcast"),
    ]
    async with two_devices(stack, person) as devices:
        for recipients, kind in requests:
            answer = await rest.notify(
                "POST",
                "/api/v1/notifications/send",
                token=shop,
                json={"title": "by REST", "body": "b", "recipients": recipients},
            )
            assert answer.status_code == 202, answer.text
            assert answer.headers["Location"] == f"/api/v1/notifications/status/{answer.json()['id']}"
            for device in devices:
                frame = await device.next("notification")
                assert (frame["id"], frame["kind"]) == (answer.json()["id"], kind)
                assert frame["sender"]["name"] == "shop"


async def test_rest_batch_has_an_outcome_for_each_item(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    shop = await rest.shop_token()
    items = [
        {"title": "good", "recipients": {"users": [person.id]}},
        {"body": "neither title nor event type", "recipients": {"users": [person.id]}},
        {"title": "good too", "recipients": {"users": [person.id]}},
        {"event_type": "no.such.type", "recipients": {"users": [person.id]}},
    ]
    async with two_devices(stack, person) as (phone, _):
        answer = await rest.notify("POST", "/api/v1/notifications/send/batch", token=shop, json={"items": items})
        assert answer.status_code == 202, answer.text
        outcomes = answer.json()["items"]
        assert [(each["index"], each["status"]) for each in outcomes] == [(0, 202), (1, 422), (2, 202), (3, 422)]
        assert outcomes[1]["code"] == "invalid_schema"
        assert outcomes[3]["code"] == "unknown_event_type"
        frames = await phone.take(2)
        assert {frame["id"] for frame in frames} == {outcomes[0]["id"], outcomes[2]["id"]}


async def test_a_client_sends_to_another_user(stack: Stack, rest: Rest) -> None:
    ada, ben = await rest.make_people(2)
    url = stack.system.notify_urls[0]
    async with connected(url, ada.access) as sender, connected(url, ben.access) as receiver:
        await sender.send(type="send", to={"user": ben.id}, body="hello", ref="r1")
        sent = await sender.next("sent")
        assert sent["ref"] == "r1"
        frame = await receiver.next("notification")
        assert (frame["id"], frame["body"], frame["sender"]["id"]) == (sent["id"], "hello", ada.id)
        await sender.send(type="send", to={"all": True}, body="hello all", ref="r2")
        refused = await sender.next("error")
        assert (refused["ref"], refused["code"], refused["temporary"]) == ("r2", "permission_denied", False)


async def test_a_user_created_a_moment_ago_is_known(stack: Stack, rest: Rest, backend: Backend) -> None:
    admin = await rest.log_in("admin")
    name = f"new-{uuid.uuid4().hex[:10]}"
    created = await rest.auth(
        "POST",
        "/api/v1/users",
        token=admin.access,
        json={"username": name, "email": f"{name}@example.org", "password": "correct horse battery"},
    )
    assert created.status_code == 201, created.text
    user_id = created.json()["id"]
    sent = await backend.send_to(user_id, "welcome")
    (token,) = await rest.issue_tokens([user_id])
    async with connected(stack.system.notify_urls[0], token) as device:
        assert (await device.next("notification"))["id"] == sent
