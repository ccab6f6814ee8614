"""Presence over two nodes: who is there, who may know, and what administrators see."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from harness.people import Person, Rest
from harness.sockets import Frame, Socket, connect, connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("postgresql")


async def presence_of(rest: Rest, token: str, *user_ids: str, node: int = 0) -> list[Frame]:
    answer = await rest.notify("GET", f"/api/v1/presence?user_ids={','.join(user_ids)}", token=token, node=node)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_cursor"] is None
    found: list[Frame] = answer.json()["items"]
    return found


async def next_status(socket: Socket, wanted: str, *, within_s: float = 15.0) -> Frame:
    while (frame := await socket.next("presence", within_s=within_s))["status"] != wanted:
        pass
    return frame


async def friends(rest: Rest, count: int = 2) -> list[Person]:
    people = await rest.make_people(count)
    await rest.make_group(people)
    return people


@pytest.mark.req("PR-3")
@pytest.mark.req("PR-2")
@pytest.mark.req("PR-4")
async def test_a_friend_comes_goes_away_and_leaves(stack: Stack, rest: Rest) -> None:
    ada, ben = await friends(rest)
    first, second = stack.system.notify_urls
    async with connected(first, ada.access, device_id="desk") as watcher:
        # The mirror learns of a new group within moments.
        async def subscribe() -> Frame:
            await watcher.send(type="presence.subscribe", user_ids=[ben.id], ref="s1")
            while (frame := await watcher.next())["type"] not in ("presence", "error"):
                pass
            return frame

        frame = await eventually(subscribe, is_good=lambda found: found["type"] == "presence")
        assert (frame["user_id"], frame["status"], frame["last_seen_at"], frame["ref"]) == (
            ben.id,
            "offline",
            None,
            "s1",
        )
        phone = await connect(second, ben.access, device_id="phone")
        await phone.next("welcome")
        assert (await next_status(watcher, "online"))["user_id"] == ben.id
        await phone.send(type="presence.set", status="away", ref="p1")
        own = await phone.next("presence")
        assert (own["ref"], own["user_id"], own["status"]) == ("p1", ben.id, "away")
        away = await next_status(watcher, "away")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(away["last_seen_at"])).total_seconds()) < 10
        async with connected(first, ben.access, device_id="laptop"):
            await next_status(watcher, "online")
            (seen,) = await presence_of(rest, ada.access, ben.id)
            assert (seen["status"], seen["device_count"]) == ("online", 2)
            assert {each["device_id"]: each["status"] for each in seen["devices"]} == {
                "phone": "away",
                "laptop": "online",
            }
        await next_status(watcher, "away")
        # A short drop on one node, back on the other: nobody notices.
        await phone.drop()
        phone = await connect(first, ben.access, device_id="phone")
        await phone.next("welcome")
        await next_status(watcher, "online")
        await watcher.expect_nothing("presence", for_s=3.0)
        await phone.close()
        gone = await next_status(watcher, "offline")
        assert gone["last_seen_at"] is not None

        async def look() -> Frame:
            return (await presence_of(rest, ada.access, ben.id, node=1))[0]

        def has_left(found: Frame) -> bool:
            return found["last_seen_at"] is not None and (found["status"], found["device_count"]) == ("offline", 0)

        # The other node waits for the short drop's end by itself.
        await eventually(look, is_good=has_left)
        await watcher.send(type="presence.unsubscribe", user_ids=[ben.id], ref="u1")
        assert (await watcher.next("presence.unsubscribed"))["following"] == 0
        async with connected(second, ben.access):
            await watcher.expect_nothing("presence", for_s=1.0)


@pytest.mark.req("C04")
async def test_strangers_are_not_shown(stack: Stack, rest: Rest) -> None:
    ada, eve = await rest.make_people(2)
    async with connected(stack.system.notify_urls[0], eve.access) as socket:
        for wanted in ([ada.id], [eve.id, ada.id], [str(uuid.uuid4())]):
            await socket.send(type="presence.subscribe", user_ids=wanted, ref="s")
            refused = await socket.next("error")
            assert (refused["code"], refused["ref"], refused["temporary"]) == ("permission_denied", "s", False)
        await socket.send(type="presence.subscribe", user_ids=[eve.id], ref="own")
        assert (await socket.next("presence"))["status"] == "online"
        async with connected(stack.system.notify_urls[1], ada.access):
            await asyncio.sleep(1.0)  # what would come, comes within this time
            await socket.send(type="ping")
            await socket.next("pong")
        assert {frame["user_id"] for frame in socket.frames if frame["type"] == "presence"} == {eve.id}
    for node in (0, 1):
        answer = await rest.notify("GET", f"/api/v1/presence?user_ids={ada.id}", token=eve.access, node=node)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    (own,) = await presence_of(rest, eve.access, eve.id)
    assert own["user_id"] == eve.id
    admin = await rest.log_in("admin")
    found = await presence_of(rest, admin.access, ada.id, str(uuid.uuid4()), eve.id)
    assert [each["user_id"] for each in found] == [ada.id, eve.id]


async def test_presence_takes_one_to_500_uuids(stack: Stack, rest: Rest) -> None:
    admin = await rest.log_in("admin")
    many = ",".join(str(uuid.uuid4()) for _ in range(501))
    for query in ("", "?user_ids=", "?user_ids=nobody", f"?user_ids={many}"):
        answer = await rest.notify("GET", f"/api/v1/presence{query}", token=admin.access)
        assert answer.status_code == 422, (query, answer.text)
        assert answer.json()["errors"][0]["field"] == "user_ids"
    assert (await rest.notify("GET", "/api/v1/presence?user_ids=x")).status_code == 401


@pytest.mark.req("C05")
async def test_who_leaves_the_group_is_followed_no_longer(stack: Stack, rest: Rest) -> None:
    ada, ben = await rest.make_people(2)
    group_id = await rest.make_group([ada, ben])
    admin = await rest.log_in("admin")
    async with connected(stack.system.notify_urls[0], ada.access) as watcher:

        async def subscribe() -> Frame:
            await watcher.send(type="presence.subscribe", user_ids=[ben.id])
            while (frame := await watcher.next())["type"] not in ("presence", "error"):
                pass
            return frame

        await eventually(subscribe, is_good=lambda found: found["type"] == "presence")
        answer = await rest.auth("DELETE", f"/api/v1/groups/{group_id}/members/{ben.id}", token=admin.access)
        assert answer.status_code == 204, answer.text

        async def still_followed() -> str:
            await watcher.send(type="presence.unsubscribe", user_ids=[ada.id])
            return str((await watcher.next("presence.unsubscribed"))["following"])

        await eventually(still_followed, is_good=lambda count: count == "0", within_s=30)
        async with connected(stack.system.notify_urls[1], ben.access):
            await watcher.expect_nothing("presence", for_s=1.0)


@pytest.mark.req("PR-7")
async def test_connections_over_all_nodes_are_listed_and_ended(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    admin = await rest.log_in("admin")
    sockets = [
        await connect(url, person.access, device_id=f"d{number}")
        for number, url in enumerate(stack.system.notify_urls * 2)
    ]
    welcomes = [await socket.next("welcome") for socket in sockets]
    path = f"/api/v1/connections?user_id={person.id}"

    async def missing() -> int:
        answers = [await rest.notify("GET", path, token=admin.access, node=node) for node in range(2)]
        return sum(answer.json()["missing_nodes"] for answer in answers)

    # Nodes that other tests have killed are asked until they have been silent for long enough.
    await eventually(missing, is_good=lambda count: count == 0, within_s=60)
    listed: list[Frame] = []
    cursor = ""
    while True:
        answer = await rest.notify("GET", f"{path}&limit=3{cursor}", token=admin.access, node=len(listed) % 2)
        assert answer.status_code == 200, answer.text
        assert answer.json()["missing_nodes"] == 0
        listed += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            break
        cursor = f"&cursor={answer.json()['next_cursor']}"
    assert [each["id"] for each in listed] == [each["connection_id"] for each in welcomes]
    assert [each["device_id"] for each in listed] == ["d0", "d1", "d2", "d3"]
    assert len({each["node"] for each in listed}) == 2
    assert {(each["transport"], each["remote_address"]) for each in listed} == {("websocket", "127.0.0.1")}
    assert all(each["user_agent"].startswith("Python") for each in listed)
    # From the other node than the one it is on.
    ended = await rest.notify("DELETE", f"/api/v1/connections/{listed[1]['id']}", token=admin.access, node=0)
    assert ended.status_code == 204, ended.text
    assert await sockets[1].wait_closed() == 4505
    again = await rest.notify("DELETE", f"/api/v1/connections/{listed[1]['id']}", token=admin.access, node=0)
    assert again.status_code == 404
    for method, target in (("GET", path), ("DELETE", f"/api/v1/connections/{listed[0]['id']}")):
        assert (await rest.notify(method, target, token=person.access)).status_code == 403
    for index in (0, 2, 3):
        assert sockets[index].close_code is None
        await sockets[index].close()
