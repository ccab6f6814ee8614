"""Deliveries that were given up: listed with their reason, replayed once each, ten times at most, discarded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from channel_kit import HttpSink, Reply
from prometheus_client import REGISTRY
from service import Person, Service
from sqlalchemy import update
from waiting import until

from notification_service import metrics
from notification_service.channels.models import deliveries
from notification_service.channels.queueing import MAX_REPLAYS
from notification_service.dead_letters.depth import Depth

PATH = "/api/v1/dead-letters"
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def give_up(site: Service, endpoint: HttpSink, admin: Person) -> tuple[UUID, dict[str, Any]]:
    """A delivery its endpoint refused; answers the notification and the dead letter."""
    endpoint.script = lambda _: Reply(400, body=b"no")
    person = site.add_person(tenant=admin.tenant)
    answer = await site.post("/api/v1/contacts", person, {"channel": "webhook", "address": endpoint.url + "/hook"})
    assert answer.status_code == 201, answer.text
    notification_id = await site.send(admin, person, channels=["webhook"])
    return notification_id, await find_letter(site, admin, notification_id, 1)


async def find_letter(site: Service, admin: Person, notification_id: UUID, count: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        nonlocal found
        items = (await site.get(PATH, admin)).json()["items"]
        found = [item for item in items if item["message_id"] == str(notification_id)]
        return len(found) == count

    await until(is_there)
    return found[0]


async def read_delivery(site: Service, admin: Person, notification_id: UUID) -> dict[str, Any]:
    answer = await site.get(f"/api/v1/deliveries?notification_id={notification_id}&channel=webhook", admin)
    (item,) = answer.json()["items"]
    found: dict[str, Any] = item
    return found


@pytest.mark.req("F11")
async def test_a_delivery_is_listed_with_its_history_and_replayed_once(site: Service, endpoint: HttpSink) -> None:
    admin = site.add_person("admin")
    notification_id, letter = await give_up(site, endpoint, admin)
    assert (letter["reason"], letter["routing_key"], letter["attempts"]) == ("provider_rejected", "channel.webhook", 1)
    delivery = await read_delivery(site, admin, notification_id)
    assert (delivery["status"], delivery["reason"], delivery["id"]) == (
        "failed",
        "provider_rejected",
        letter["payload"]["delivery_id"],
    )
    one = await site.get(f"/api/v1/deliveries/{delivery['id']}?user_id={delivery['user_id']}", admin)
    assert [(each["number"], each["outcome"]) for each in one.json()["history"]] == [(1, "permanent")]
    shown = (await site.get(f"{PATH}/{letter['id']}", admin)).json()
    assert [(each["number"], each["outcome"], each["detail"]) for each in shown["history"]] == [
        (1, "permanent", "status 400: no")
    ]
    assert (shown["notification"]["id"], shown["notification"]["title"]) == (str(notification_id), "Hello")
    endpoint.script = lambda _: Reply()
    answers = await asyncio.gather(*(site.post(f"{PATH}/{letter['id']}/replay", admin) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]

    async def is_sent() -> bool:
        return bool((await read_delivery(site, admin, notification_id))["status"] == "sent")

    await until(is_sent)
    assert (await read_delivery(site, admin, notification_id))["attempts"] == 2
    assert len(endpoint.seen) == 2
    assert len({seen.headers["x-herald-delivery"] for seen in endpoint.seen}) == 1

    def replays() -> int:
        return sum(
            (line["action"], line["subject_id"]) == ("dead_letter.replayed", letter["id"])
            for line in site.auth.audit_lines
        )

    await until(lambda: replays() > 0)
    assert replays() == 1


async def test_a_replay_that_fails_again_is_a_new_letter_until_it_is_enough(site: Service, endpoint: HttpSink) -> None:
    admin = site.add_person("admin")
    notification_id, letter = await give_up(site, endpoint, admin)
    assert (await site.post(f"{PATH}/replay", admin, {"ids": [letter["id"]]})).json() == {"replayed": 1}
    again = await find_letter(site, admin, notification_id, 2)
    assert again["attempts"] == 2
    async with site.parts["api"].database.write() as connection:
        mine = update(deliveries).where(deliveries.c.notification_id == notification_id)
        await connection.execute(mine.values(replays=MAX_REPLAYS))
    refused = await site.post(f"{PATH}/{again['id']}/replay", admin)
    assert refused.status_code == 409
    shown = (await site.get(f"{PATH}/{again['id']}", admin)).json()
    assert shown["replayed_at"] is None


async def measured(depth: Depth) -> float:
    # Other services of this process measure themselves; what is read now is what was measured now.
    metrics.dead_letters_waiting.labels("provider_rejected").set(0)
    await depth.measure(datetime.now(UTC))
    return REGISTRY.get_sample_value("dead_letters_waiting", {"reason": "provider_rejected"}) or 0


async def test_letters_are_found_and_replayed_by_filters(site: Service, endpoint: HttpSink) -> None:
    admin = site.add_person("admin", tenant=site.add_tenant())
    depth = Depth(site.parts["scheduler"].database)
    before = await measured(depth)
    ids = [(await give_up(site, endpoint, admin))[0] for _ in range(3)]
    assert await measured(depth) == before + 3

    async def find(**parameters: str) -> list[str]:
        answer = await site.get(PATH, admin, params=parameters)
        assert answer.status_code == 200, answer.text
        return [item["message_id"] for item in answer.json()["items"]]

    everything = [str(each) for each in reversed(ids)]
    assert await find(channel="webhook", replayed="false", reason="provider_rejected") == everything
    assert await find(message_id=str(ids[1])) == [str(ids[1])]
    for nothing in (
        {"channel": "email"},
        {"replayed": "true"},
        {"source": "nobody"},
        {"to": "2000-01-01T00:00:00Z"},
        {"from": "2100-01-01T00:00:00Z"},
    ):
        assert await find(**nothing) == []
    endpoint.script = lambda _: Reply()
    answer = await site.post(f"{PATH}/replay", admin, {"filter": {"channel": "webhook"}, "limit": 2})
    assert answer.json() == {"replayed": 2}
    # The oldest first.
    assert await find(replayed="false") == [str(ids[2])]
    everybody_elses = {"filter": {}, "limit": 500}
    stranger = site.add_person("admin", tenant=site.add_tenant())
    assert (await site.post(f"{PATH}/replay", stranger, everybody_elses)).json() == {"replayed": 0}
    assert (await site.post(f"{PATH}/replay", admin, {"filter": {}})).json() == {"replayed": 1}
    assert (await site.post(f"{PATH}/replay", admin, {"filter": {}})).json() == {"replayed": 0}
    for odd in ({}, {"ids": [str(ids[0])], "filter": {}}, {"filter": {}, "limit": 501}, {"filter": {"channel": "fax"}}):
        assert (await site.post(f"{PATH}/replay", admin, odd)).status_code == 422
    assert await measured(depth) == before


async def test_other_tenants_and_roles_see_nothing(site: Service, endpoint: HttpSink) -> None:
    admin = site.add_person("admin")
    notification_id, letter = await give_up(site, endpoint, admin)
    stranger = site.add_person("admin", tenant=site.add_tenant())
    assert (await site.post(f"{PATH}/{letter['id']}/replay", stranger)).status_code == 404
    assert (await site.post(f"{PATH}/replay", stranger, {"ids": [letter["id"]]})).json() == {"replayed": 0}
    assert (await site.get(PATH, site.add_person("staff"))).status_code == 403
    listed = await site.get(f"/api/v1/deliveries?notification_id={notification_id}", stranger)
    assert listed.json()["items"] == []
    assert (await site.get("/api/v1/deliveries", site.add_person())).status_code == 403
    publisher = site.add_person("publisher")
    assert (await site.get("/api/v1/deliveries", publisher)).json()["items"] == []
    assert (await site.call("DELETE", f"{PATH}/{letter['id']}", admin)).status_code == 204
    assert (await site.get(f"{PATH}/{letter['id']}", admin)).status_code == 404


async def test_deliveries_of_all_channels_come_in_pages_and_by_filters(site: Service, endpoint: HttpSink) -> None:
    admin = site.add_person("admin")
    person = site.add_person()
    assert (
        await site.post("/api/v1/contacts", person, {"channel": "webhook", "address": endpoint.url + "/hook"})
    ).status_code == 201
    sent = [await site.send(admin, person, channels=["in_app", "webhook", "sms"]) for _ in range(4)]

    async def all_sent() -> bool:
        answer = await site.get(f"/api/v1/deliveries?user_id={person.id}&channel=webhook&status=sent", admin)
        return len(answer.json()["items"]) == 4

    await until(all_sent)
    seen: list[tuple[str, str]] = []
    cursor = ""
    while True:
        page = (await site.get(f"/api/v1/deliveries?user_id={person.id}&limit=5{cursor}", admin)).json()
        seen += [(item["notification_id"], item["channel"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 12
    assert {each[0] for each in seen} == {str(each) for each in sent}
    for channel, status in (("in_app", None), ("webhook", "sent"), ("sms", "suppressed")):
        answer = await site.get(f"/api/v1/deliveries?user_id={person.id}&channel={channel}", admin)
        states = {item["status"] for item in answer.json()["items"]}
        assert len(answer.json()["items"]) == 4
        assert status is None or states == {status}
    later = await site.get("/api/v1/deliveries?from=2100-01-01T00:00:00Z", admin)
    assert later.json()["items"] == []
