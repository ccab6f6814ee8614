"""The engine as devices see it: preferences on every device, recalls and updates live, a digest whose closer dies."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import connected
from harness.stack import Stack


async def make_type(rest: Rest, admin: Person, **fields: Any) -> str:
    code = f"e2e.{uuid.uuid4().hex[:12]}"
    body = {"code": code, "name": "Order shipped", "category": code, **fields}
    answer = await rest.notify("POST", "/api/v1/event-types", token=admin.access, json=body)
    assert answer.status_code == 201, answer.text
    return code


async def send(rest: Rest, token: str, code: str, *people: Person, **fields: Any) -> str:
    body = {"event_type": code, "recipients": {"users": [each.id for each in people]}, **fields}
    answer = await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@pytest.mark.req("X-14")
async def test_a_new_type_is_usable_at_once_on_every_node(stack: Stack, rest: Rest) -> None:
    admin, shop = await rest.log_in("admin"), await rest.shop_token()
    (ada,) = await rest.make_people(1)
    for node in (0, 1):
        code = await make_type(rest, admin)
        async with connected(stack.system.notify_urls[node], ada.access) as socket:
            body = {"event_type": code, "recipients": {"users": [ada.id]}}
            answer = await rest.notify("POST", "/api/v1/notifications/send", token=shop, node=1 - node, json=body)
            assert answer.status_code == 202, answer.text
            assert (await socket.next("notification"))["title"] == "Order shipped"


async def test_preferences_reach_every_device(stack: Stack, rest: Rest) -> None:
    (ada,) = await rest.make_people(1)
    urls = stack.system.notify_urls
    async with (
        connected(urls[0], ada.access, device_id="phone") as phone,
        connected(urls[1], ada.access, device_id="desk") as desk,
    ):
        await phone.send(type="preferences.get", ref="g")
        answer = await phone.next("preferences")
        assert (answer["ref"], answer["preferences"]["channels"]) == ("g", {})
        await phone.send(type="preferences.patch", preferences={"channels": {"email": False}}, ref="p")
        frame = await desk.next("preferences")
        assert frame["preferences"]["channels"] == {"email": False}
        assert (await phone.next("preferences"))["preferences"]["channels"] == {"email": False}
        patched = await rest.notify("PATCH", "/api/v1/preferences", token=ada.access, json={"locale": "de"})
        assert patched.status_code == 200
        for socket in (phone, desk):
            while (await socket.next("preferences"))["preferences"]["locale"] != "de":
                pass
        await phone.send(
            type="preferences.patch", preferences={"event_types": {"login.alert": {"email": False}}}, ref="m"
        )
        refused = await phone.next("error")
        assert (refused["code"], refused["ref"]) == ("mandatory_event_type", "m")


@pytest.mark.req("X-8")
async def test_update_and_recall_reach_every_device_and_one_that_was_away(stack: Stack, rest: Rest) -> None:
    admin, shop = await rest.log_in("admin"), await rest.shop_token()
    (ada,) = await rest.make_people(1)
    code = await make_type(rest, admin)
    urls = stack.system.notify_urls
    async with connected(urls[0], ada.access, device_id="phone") as phone:
        async with connected(urls[1], ada.access, device_id="desk") as desk:
            sent = await send(rest, shop, code, ada, title="Old")
            await desk.next("notification")
        await phone.next("notification")
        changed = await rest.notify("PATCH", f"/api/v1/notifications/{sent}", token=shop, json={"title": "New"})
        assert changed.status_code == 200, changed.text
        updated = await phone.next("updated")
        assert (updated["id"], updated["title"], updated["seq"]) == (sent, "New", 2)
        recalled = await rest.notify("POST", f"/api/v1/notifications/{sent}/recall", token=shop)
        assert recalled.status_code == 200, recalled.text
        gone = await phone.next("recalled")
        assert (gone["id"], gone["seq"], gone["counts"]) == (sent, 3, {"unread": 0, "unseen": 0})
        first = await send(rest, shop, code, ada, collapse_key=code)
        await phone.next("notification")
        second = await send(rest, shop, code, ada, collapse_key=code)
        assert (await phone.next("recalled"))["id"] == first
        newest = await phone.next("notification")
        assert (newest["id"], newest["counts"]["unread"]) == (second, 1)
    async with connected(urls[1], ada.access, device_id="desk") as desk:
        await desk.synced()
        assert [frame["id"] for frame in desk.frames if frame["type"] == "recalled"] == [sent, first]
        assert [frame["id"] for frame in desk.notifications] == [second]


@pytest.mark.req("X-8")
async def test_a_recalled_broadcast_leaves_every_device(stack: Stack, rest: Rest) -> None:
    shop = await rest.shop_token()
    ada, ben = await rest.make_people(2)
    urls = stack.system.notify_urls
    async with connected(urls[0], ada.access) as here, connected(urls[1], ben.access) as there:
        title = f"All {uuid.uuid4().hex}"
        body = {"title": title, "recipients": {"all": True}}
        answer = await rest.notify("POST", "/api/v1/notifications/send", token=shop, json=body)
        sent = answer.json()["id"]
        for socket in (here, there):
            while (await socket.next("notification"))["id"] != sent:
                pass
        recalled = await rest.notify("POST", f"/api/v1/notifications/{sent}/recall", token=shop)
        assert recalled.status_code == 200, recalled.text
        for socket in (here, there):
            frame = await socket.next("recalled")
            assert (frame["id"], frame["reason"], "seq" in frame) == (sent, "recalled", False)


@pytest.mark.req("X-11")
@pytest.mark.parametrize(
    "point",
    [
        pytest.param("before_digest_commit", marks=pytest.mark.only_on("postgresql")),
        pytest.param("after_digest_commit", marks=pytest.mark.only_on("sqlite")),
    ],
)
async def test_a_digest_whose_closer_dies_is_told_once(stack: Stack, rest: Rest, backend: Backend, point: str) -> None:
    admin = await rest.log_in("admin")
    (ada,) = await rest.make_people(1)
    code = await make_type(rest, admin, digest={"window_seconds": 25, "channels": ["in_app"]})
    await asyncio.to_thread(lambda: stack.restart("scheduler", settings={"HERALD_FAIL_POINT": point}))
    body = {"event_type": code, "recipients": {"users": [ada.id]}}
    sent = [await backend.publish(body, key="event")]
    sent += await asyncio.gather(*(backend.publish(body, key="event") for _ in range(199)))
    assert len(set(sent)) == 200
    await asyncio.to_thread(stack.wait_for_end, "scheduler", 60)
    await asyncio.to_thread(stack.start, "scheduler")
    async with connected(stack.system.notify_urls[0], ada.access) as socket:
        summary = await socket.next("notification", within_s=40)
        assert (summary["event_type"], summary["data"]["count"]) == ("digest.summary", 200)
        await socket.expect_nothing(for_s=3)
