"""Read, seen, archived, removed: on one device, on all of them, whichever node; and over REST."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from harness.broker import Backend
from harness.people import Rest
from harness.sockets import connected
from harness.stack import Stack


@pytest.mark.req("I22", "MD-1", "MD-4", "MD-6", "MD-9")
async def test_a_change_on_one_device_is_on_every_other(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    first_url, second_url = stack.system.notify_urls
    async with (
        connected(first_url, person.access, device_id="phone") as phone,
        connected(second_url, person.access, device_id="laptop") as laptop,
    ):
        first = await backend.send_to(person.id, "one")
        second = await backend.send_to(person.id, "two")
        await phone.take(2)
        await laptop.take(2)
        steps = [
            ("read", "read", {"unread": 1, "unseen": 1}),
            ("unread", "unread", {"unread": 2, "unseen": 1}),
            ("archive", "archived", {"unread": 1, "unseen": 1}),
            ("unarchive", "unarchived", {"unread": 2, "unseen": 1}),
            ("delete", "deleted", {"unread": 1, "unseen": 1}),
        ]
        for number, (command, label, counts) in enumerate(steps, start=3):
            await phone.send(type=command, ids=[first], ref=f"r{number}")
            own, other = await phone.next("state"), await laptop.next("state")
            for frame in (own, other):
                assert (frame["state"], frame["ids"], frame["seq"], frame["counts"]) == (label, [first], number, counts)
            assert own["ref"] == f"r{number}"
            assert "ref" not in other
        await laptop.send(type="read", all=True)
        for device in (phone, laptop):
            frame = await device.next("state")
            assert (frame["all"], frame["state"], frame["counts"]) == (True, "read", {"unread": 0, "unseen": 0})
    answer = await rest.notify("GET", "/api/v1/inbox", token=person.access)
    assert [item["id"] for item in answer.json()["items"]] == [second]
    assert answer.json()["items"][0]["read_at"]


@pytest.mark.req("MD-1", "MD-8")
async def test_a_device_that_was_away_learns_what_changed(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    async with connected(url, person.access, device_id="laptop") as laptop:
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(4)]
        frames = await laptop.take(4)
        await rest.wait_for_acknowledgements(person, "laptop")
    async with connected(url, person.access, device_id="phone") as phone:
        await phone.send(type="read", ids=sent[:2])
        await phone.next("state")
        await phone.send(type="delete", ids=[sent[3]])
        await phone.next("state")
    async with connected(url, person.access, device_id="laptop", position=frames[-1]["position"]) as laptop:
        read, deleted = await laptop.next("state"), await laptop.next("state")
        assert (read["state"], set(read["ids"])) == ("read", set(sent[:2]))
        assert (deleted["state"], deleted["ids"]) == ("deleted", [sent[3]])
        assert deleted["counts"] == {"unread": 1, "unseen": 1}
        await laptop.synced()
        assert laptop.notifications == []


async def test_broadcasts_have_a_state_for_each_user(stack: Stack, rest: Rest, backend: Backend) -> None:
    ada, ben = await rest.make_people(2)
    url = stack.system.notify_urls[0]
    async with connected(url, ada.access) as first, connected(url, ben.access) as second:
        sent = await backend.publish({"title": "to all"}, exchange="notifications.fanout", key="")
        await first.take(1)
        await second.take(1)
        await first.send(type="read", ids=[sent])
        frame = await first.next("state")
        assert (frame["ids"], frame["counts"]) == ([sent], {"unread": 0, "unseen": 0})
        await second.expect_nothing("state")
    for person, unread in ((ada, 0), (ben, 1)):
        counts = (await rest.notify("GET", "/api/v1/inbox/counts", token=person.access)).json()
        assert (counts["unread"], counts["total"]) == (unread, 1)
        item = (await rest.notify("GET", f"/api/v1/inbox/{sent}", token=person.access)).json()
        assert (item["read_at"] is None) == (unread == 1)


async def test_rest_changes_reach_the_sockets(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access) as device:
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(3)]
        await device.take(3)
        # By the other node's API, so that the frame crosses the broker.
        answer = await rest.notify(
            "PATCH", f"/api/v1/inbox/{sent[0]}", token=person.access, node=1, json={"read": True}
        )
        assert answer.status_code == 200
        assert answer.json()["read_at"]
        assert (await device.next("state"))["ids"] == [sent[0]]
        answer = await rest.notify(
            "POST", "/api/v1/inbox/batch", token=person.access, node=1, json={"action": "archive", "ids": sent[1:]}
        )
        assert answer.json() == {"changed": 2, "counts": {"unread": 0, "unseen": 0, "total": 1, "filtered": None}}
        frame = await device.next("state")
        assert (frame["state"], set(frame["ids"])) == ("archived", set(sent[1:]))
        answer = await rest.notify("DELETE", f"/api/v1/inbox/{sent[0]}", token=person.access, node=1)
        assert answer.status_code == 204
        assert (await device.next("state"))["state"] == "deleted"
    archived = await rest.notify("GET", "/api/v1/inbox?state=archived", token=person.access)
    assert [item["id"] for item in archived.json()["items"]] == sent[:0:-1]
    assert (await rest.notify("GET", "/api/v1/inbox", token=person.access)).json()["items"] == []


@pytest.mark.req("C04")
async def test_foreign_and_unknown_items_do_not_exist(stack: Stack, rest: Rest, backend: Backend) -> None:
    owner, other = await rest.make_people(2)
    async with (
        connected(stack.system.notify_urls[0], owner.access) as device,
        connected(stack.system.notify_urls[0], other.access) as foreign,
    ):
        sent = await backend.send_to(owner.id, "mine")
        await device.take(1)
        await foreign.send(type="read", ids=[sent, str(uuid.uuid4())], ref="x")
        answer = await foreign.next("state")
        assert (answer["ids"], answer["ref"], answer["counts"]) == ([], "x", {"unread": 0, "unseen": 0})
        await device.expect_nothing("state")
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("GET", {}),
        ("PATCH", {"json": {"read": True}}),
        ("DELETE", {}),
    )
    for method, options in attempts:
        refused = await rest.notify(method, f"/api/v1/inbox/{sent}", token=other.access, **options)
        assert refused.status_code == 404
    item = (await rest.notify("GET", f"/api/v1/inbox/{sent}", token=owner.access)).json()
    assert item["read_at"] is None


async def test_inbox_pages_stay_put_while_items_arrive(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access) as device:
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(7)]
        await device.take(7)
        sent.append(await backend.publish({"title": "to all"}, exchange="notifications.fanout", key=""))
        await device.take(1)
        seen: list[str] = []
        cursor = None
        while True:
            query = f"?limit=3&cursor={cursor}" if cursor else "?limit=3"
            page = (await rest.notify("GET", f"/api/v1/inbox{query}", token=person.access)).json()
            seen += [item["id"] for item in page["items"]]
            await backend.send_to(person.id, "meanwhile")
            await device.take(1)
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == sent[::-1]
    answer = await rest.notify("GET", "/api/v1/inbox?cursor=AAAA", token=person.access)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_sync_over_rest_is_the_same_as_the_sockets_resume(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    async with connected(stack.system.notify_urls[0], person.access, device_id="phone") as device:
        for number in range(3):
            await backend.send_to(person.id, f"n{number}")
        frames = await device.take(3)
    answer = (
        await rest.notify("GET", f"/api/v1/inbox/sync?position={frames[0]['position']}", token=person.access)
    ).json()
    assert [item["id"] for item in answer["items"]] == [frame["id"] for frame in frames[1:]]
    assert [item["position"] for item in answer["items"]] == [frame["position"] for frame in frames[1:]]
    assert (answer["position"], answer["has_more"], answer["resume"]) == (frames[-1]["position"], False, "recovered")
