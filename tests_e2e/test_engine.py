"""The engine as devices see it: preferences on every device, recalls and updates live, a digest whose closer dies."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import Any

import pytest

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually


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


@pytest.mark.req("X-4")
async def test_who_is_in_a_group_is_asked_when_it_is_sent(stack: Stack, rest: Rest) -> None:
    admin, shop = await rest.log_in("admin"), await rest.shop_token()
    ada, ben = await rest.make_people(2)
    group = await rest.make_group([ada])
    code = await make_type(rest, admin)
    urls = stack.system.notify_urls

    async def change(**who: list[str]) -> None:
        path = f"/api/v1/groups/{group}/members/batch"
        answer = await rest.auth("POST", path, token=admin.access, json=who)
        assert answer.status_code == 200, answer.text

    async def send_to_group() -> str:
        return await send(rest, shop, code, recipients={"groups": [group]})

    async with connected(urls[0], ada.access) as first, connected(urls[1], ben.access) as second:
        # Added, and written to without a pause: received.
        await change(add=[ben.id])
        both = await send_to_group()
        for socket in (first, second):
            assert (await socket.next("notification"))["id"] == both
        # Removed, and written to: not received, not in the inbox either.
        await change(remove=[ben.id])
        alone = await send_to_group()
        assert (await first.next("notification"))["id"] == alone
        marker = await send(rest, shop, code, ben)
        assert (await second.next("notification"))["id"] == marker
    inbox = await rest.notify("GET", "/api/v1/inbox", token=ben.access)
    assert [item["id"] for item in inbox.json()["items"]] == [marker, both]


@pytest.mark.req("I11")
async def test_a_full_queue_drops_its_oldest_and_nobody_misses_them(stack: Stack, rest: Rest, backend: Backend) -> None:
    (ada,) = await rest.make_people(1)
    url, queue = stack.system.notify_urls[0], f"user.{ada.id}"
    async with connected(url, ada.access, device_id="phone") as device:
        await device.synced()
    # Stronger than the policy for all users' queues, and for this one alone.
    policy = ("set_policy", "--priority", "50", "--apply-to", "queues", f"small-{ada.id}", f"^{queue}$")
    await asyncio.to_thread(stack.node.ctl, *policy, '{"max-length":10,"overflow":"drop-head"}')
    try:
        sent = [await backend.send_to(ada.id, f"n{number}") for number in range(30)]
        await eventually(
            lambda: rest.notify("GET", "/api/v1/inbox", token=ada.access),
            is_good=lambda answer: len(answer.json()["items"]) == 30,
        )
        await eventually(lambda: backend.depth(queue), is_good=lambda depth: depth == 10)
        async with connected(url, ada.access, device_id="phone") as device:
            frames = await device.take(30)
            assert [frame["id"] for frame in frames] == sent
            assert [frame["seq"] for frame in frames] == list(range(1, 31))
            await device.synced()
            assert len(device.notifications) == 30
    finally:
        await asyncio.to_thread(stack.node.ctl, "clear_policy", f"small-{ada.id}")


@pytest.mark.req("X-7")
async def test_an_open_socket_is_no_acknowledgement(stack: Stack, rest: Rest) -> None:
    admin, shop = await rest.log_in("admin"), await rest.shop_token()
    # One whose page is open but takes nothing in, one with a phone in the hand, one who is away.
    hidden, awake, away = await rest.make_people(3)
    steps = [{"after_seconds": 2, "channels": ["email"]}]
    code = await make_type(rest, admin, channels=["in_app"], escalation={"steps": steps})
    urls = stack.system.notify_urls
    async with connected(urls[0], hidden.access, acks=False) as tab, connected(urls[1], awake.access) as phone:
        sent = await send(rest, shop, code, hidden, awake, away)
        await tab.next("notification")
        await phone.next("notification")

        async def ask(person: Person) -> list[dict[str, Any]]:
            path = f"/api/v1/notifications/{sent}/trace?user_id={person.id}"
            answer = await rest.notify("GET", path, token=shop)
            found: list[dict[str, Any]] = answer.json()["channels"]
            return [each for each in found if each["channel"] == "email"]

        expected = ((hidden, "channel_not_configured"), (away, "channel_not_configured"), (awake, "already_read"))
        for person, reason in expected:
            (step,) = await eventually(partial(ask, person), is_good=bool, within_s=30)
            assert step["rules"][0]["rule"] == "escalation.step"
            assert step["rules"][0]["value"]["after_seconds"] == 2
            assert step["reason"] == reason
