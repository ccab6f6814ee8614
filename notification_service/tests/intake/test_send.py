"""Sending over REST: rights, keys that make it safe to try again, outcomes per item, what reaches whom (C03, E10)."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY
from service import Person, Service
from sqlalchemy import func, select, text
from waiting import until

from notification_service.entrypoints.parts import Parts
from notification_service.intake.under_way import lock_keys
from notification_service.notifications.models import notifications

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEND = "/api/v1/notifications/send"
BATCH = "/api/v1/notifications/send/batch"


def to(*people: Person, **fields: Any) -> dict[str, Any]:
    return {"title": "Hello", "recipients": {"users": [str(each.id) for each in people]}, **fields}


async def count_notifications(service: Service, tenant: str) -> int:
    async with service.parts["api"].database.read() as connection:
        query = select(func.count()).where(notifications.c.tenant == tenant)
        return int((await connection.execute(query)).scalar_one())


async def inbox_of(service: Service, person: Person) -> list[dict[str, Any]]:
    answer = await service.get("/api/v1/inbox?limit=200", person)
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def has_items(service: Service, person: Person, count: int) -> bool:
    return len(await inbox_of(service, person)) == count


async def test_it_is_accepted_with_a_place_to_look_and_arrives_as_it_was_sent(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    request = to(
        ada,
        body="Order 1042 left the warehouse.",
        data={"order_id": "1042"},
        actions=[{"id": "track", "label": "Track", "url": "https://shop.example/o/1042"}],
        priority="high",
        category="orders",
        tags=["shipping", "eu"],
        collapse_key="order-1042",
        ttl_seconds=604800,
    )
    answer = await service.post(SEND, sender, request)
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["status"] == "accepted"
    assert answer.headers["location"] == f"/api/v1/notifications/status/{accepted['id']}"
    assert UUID(accepted["id"]).version == 7
    await until(lambda: has_items(service, ada, 1))
    (item,) = await inbox_of(service, ada)
    for name in ("title", "body", "data", "actions", "priority", "category", "tags"):
        assert item[name] == request[name], name
    assert (item["id"], item["kind"], item["event_type"], item["seq"]) == (accepted["id"], "private", "message", 1)
    assert item["sender"]["id"] == str(sender.id)
    lived = datetime.fromisoformat(item["expires_at"]) - datetime.fromisoformat(item["created_at"])
    assert abs(lived - timedelta(days=7)) < timedelta(seconds=60)
    status = await service.get(answer.headers["location"], sender)
    assert status.status_code == 200


async def test_a_group_by_its_members_and_a_user_by_an_external_id(service: Service) -> None:
    sender = service.add_person("publisher")
    ada, bob = service.add_person(external_id=f"crm-{uuid4()}"), service.add_person()
    group = service.add_group(ada, bob)
    await service.deliver(sender, ada, bob)  # from here on the mirror knows them
    sent = {"title": "Team", "recipients": {"groups": [str(group)]}}
    assert (await service.post(SEND, sender, sent)).status_code == 202
    external = next(user["external_id"] for user in service.auth.users if user["id"] == str(ada.id))
    named = {"title": "You", "recipients": {"users": [f"ext:{external}", str(ada.id)]}}
    assert (await service.post(SEND, sender, named)).status_code == 202
    await until(lambda: has_items(service, ada, 3))
    await until(lambda: has_items(service, bob, 2))
    team = (await inbox_of(service, bob))[0]
    assert (team["kind"], team["group_id"]) == ("group", str(group))


async def test_a_broadcast_reaches_the_tenant_and_nobody_else(service: Service) -> None:
    tenant = service.add_tenant()
    sender, ada = service.add_person("staff", tenant=tenant), service.add_person(tenant=tenant)
    stranger = service.add_person(tenant=service.add_tenant())
    sent = await service.post(SEND, sender, {"title": "All", "recipients": {"all": True}})
    assert sent.status_code == 202
    await until(lambda: has_items(service, ada, 1))
    (item,) = await inbox_of(service, ada)
    assert (item["kind"], item["seq"], item["id"]) == ("broadcast", None, sent.json()["id"])
    assert await inbox_of(service, stranger) == []


@pytest.mark.req("C03")
async def test_who_may_not_send_leaves_nothing_behind(service: Service) -> None:
    tenant = service.add_tenant()
    user, publisher = service.add_person("user", tenant=tenant), service.add_person("publisher", tenant=tenant)
    inbox_only = service.add_service_account("inbox", tenant=tenant)
    everybody = {"title": "All", "recipients": {"all": True}}
    for person, body in (
        (user, to(user)),
        (user, everybody),
        (inbox_only, to(user)),
        (publisher, everybody),
        (publisher, to(user, tenant="another")),
    ):
        answer = await service.post(SEND, person, body)
        assert answer.status_code == 403, answer.text
        assert answer.json()["code"] == "permission_denied"
        item = (await service.post(BATCH, person, {"items": [body]})).json()
        assert item.get("code") == "permission_denied" or item["items"][0]["status"] == 403
    assert await count_notifications(service, tenant) == 0
    assert await count_notifications(service, "another") == 0
    assert await inbox_of(service, user) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"title": None}, "title"),
        ({"recipients": {}}, "recipients"),
        ({"recipients": {"users": ["not-an-id"]}}, "recipients.users.0"),
        ({"recipients": {"users": "x"}}, "recipients.users"),
        ({"title": ""}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"priority": "urgent"}, "priority"),
        ({"channels": []}, "channels"),
        ({"channels": ["pigeon"]}, "channels.0"),
        ({"data": {"x": "y" * 17_000}}, "data"),
        ({"data": []}, "data"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"deliver_at": "tomorrow"}, "deliver_at"),
        ({"deliver_at": "2026-01-01T00:00:00"}, "deliver_at"),
        ({"actions": [{"id": "a", "label": "b", "url": "javascript:alert(1)"}]}, "actions.0.url"),
        ({"version": 2}, "version"),
        ({"event_type": "Not A Code"}, "event_type"),
        ({"event_type": "no.such.type"}, "event_type"),
    ],
)
async def test_what_is_wrong_is_named(service: Service, changes: dict[str, Any], field: str) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    answer = await service.post(SEND, sender, {**to(ada), **changes})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert field in [error["field"] for error in problem["errors"]]
    assert all(error["message"] for error in problem["errors"])
    batch = await service.post(BATCH, sender, {"items": [to(ada), {**to(ada), **changes}]})
    first, second = batch.json()["items"]
    assert (first["index"], first["status"]) == (0, 202)
    assert (second["index"], second["status"], second["code"]) == (1, 422, problem["code"])
    assert second["errors"] == problem["errors"]


@pytest.mark.req("E10")
async def test_a_key_makes_it_safe_to_try_again(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    before = REGISTRY.get_sample_value("duplicates_suppressed_total") or 0
    headers = {"Idempotency-Key": f"order-{uuid4()}"}
    first = await service.post(SEND, sender, to(ada), headers=headers)
    again = await service.post(SEND, sender, to(ada), headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert REGISTRY.get_sample_value("duplicates_suppressed_total") == before + 1
    # Another body under the same key is a mistake of the caller.
    other = await service.post(SEND, sender, to(ada, title="Other"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # The same key of somebody else is another key.
    stranger = service.add_person("publisher")
    theirs = await service.post(SEND, stranger, to(ada), headers=headers)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != first.json()["id"]
    await until(lambda: has_items(service, ada, 2))


@pytest.mark.req("E10")
async def test_twenty_at_once_under_one_key_are_one(service: Service) -> None:
    """One is taken, and whoever comes while it is being stored is told to ask again."""
    sender, ada = service.add_person("publisher"), service.add_person()
    headers = {"Idempotency-Key": str(uuid4())}
    answers = await asyncio.gather(*(service.post(SEND, sender, to(ada), headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    again = await service.post(SEND, sender, to(ada), headers=headers)
    assert again.status_code == 202
    assert {answer.json()["id"] for answer in answers if answer.status_code == 202} == {again.json()["id"]}
    for refused in (answer for answer in answers if answer.status_code == 409):
        assert (refused.json()["code"], refused.headers["Retry-After"]) == ("idempotency_key_in_use", "1")
    await until(lambda: has_items(service, ada, 1))
    assert await has_items(service, ada, 1)


@pytest.mark.req("E10")
async def test_a_key_whose_first_request_is_being_stored_is_in_use(service: Service) -> None:
    """In the same process and in another one; of somebody else it is another key."""
    parts, other = service.parts["api"], service.parts["worker"]
    sender, stranger, ada = service.add_person("publisher"), service.add_person("publisher"), service.add_person()
    key = f"order-{uuid4()}"
    headers = {"Idempotency-Key": key}
    async with parts.database.write() as held:
        # Nobody stores anything until the block ends.
        if not parts.database.is_sqlite:
            await held.execute(text("LOCK TABLE notifications IN EXCLUSIVE MODE"))
        first = asyncio.create_task(service.post(SEND, sender, to(ada), headers=headers))
        await until(lambda: has_begun(parts, sender, key))
        second = await service.post(SEND, sender, to(ada), headers=headers)
        assert (second.status_code, second.json()["code"]) == (409, "idempotency_key_in_use")
        batch = {"items": [to(ada), to(ada)]}
        theirs = asyncio.create_task(service.post(SEND, stranger, to(ada), headers=headers))
        await until(lambda: has_begun(parts, stranger, key))
        if not parts.database.is_sqlite:
            async with other.database.write() as connection:
                assert await lock_keys(connection, sender.id, {key, "another"}) == {"another"}
    assert (await first).status_code == (await theirs).status_code == 202
    assert (await first).json()["id"] != (await theirs).json()["id"]
    replayed = await service.post(SEND, sender, to(ada), headers=headers)
    assert (replayed.status_code, replayed.json()) == (202, (await first).json())
    taken = await service.post(f"{SEND}/batch", sender, batch, headers=headers)
    assert [item["status"] for item in taken.json()["items"]] == [202, 202]


async def has_begun(parts: Parts, caller: Person, key: str) -> bool:
    if (caller.id, key) not in parts.acceptor._under_way._held:
        return False
    if parts.database.is_sqlite:
        return True
    # Its transaction holds the key against other processes: it has come as far as waiting for the table. Looked at from
    # outside: taking the key here, even for a moment, would be using it.
    async with parts.database.read() as connection:
        waiting = await connection.execute(
            text(
                "SELECT count(*) FROM pg_locks JOIN pg_locks AS held USING (pid) WHERE NOT pg_locks.granted"
                " AND pg_locks.relation = 'notifications'::regclass AND held.locktype = 'advisory' AND held.granted"
            )
        )
        return bool(waiting.scalar_one() >= len(parts.acceptor._under_way._held))


@pytest.mark.req("I16")
async def test_a_key_that_is_a_uuid_is_the_message_id_of_amqp(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    message_id = str(uuid4())
    await service.outside.publish(
        json.dumps(to(ada)).encode(),
        exchange="notifications.direct",
        key="private",
        message_id=message_id,
        content_type="application/json",
    )
    await until(lambda: has_items(service, ada, 1))
    for _ in range(2):
        answer = await service.post(SEND, sender, to(ada), headers={"Idempotency-Key": message_id})
        assert (answer.status_code, answer.json()["id"]) == (202, message_id)
    marker = await service.deliver(sender, ada, title="After")
    assert [item["id"] for item in await inbox_of(service, ada)] == [str(marker), message_id]


@pytest.mark.parametrize("key", ["", "with space", "x" * 251, "tab\there"])
async def test_keys_that_are_none(service: Service, key: str) -> None:
    sender = service.add_person("publisher")
    answer = await service.post(SEND, sender, to(sender), headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["errors"][0]["field"]


async def test_a_batch_has_an_outcome_per_item_and_keeps_its_order(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    items: list[Any] = [to(ada, title=f"{number}") for number in range(50)]
    items[7] = {"title": "nobody"}
    items[8] = to(ada, body="x" * 66_000)
    headers = {"Idempotency-Key": f"batch-{uuid4()}"}
    answer = await service.post(BATCH, sender, {"items": items}, headers=headers)
    assert answer.status_code == 202
    outcomes = answer.json()["items"]
    assert [each["index"] for each in outcomes] == list(range(50))
    assert [each["status"] for each in outcomes] == [202] * 7 + [422, 413] + [202] * 41
    again = await service.post(BATCH, sender, {"items": items}, headers=headers)
    assert again.json() == answer.json()
    await until(lambda: has_items(service, ada, 48))
    arrived = [item["title"] for item in await inbox_of(service, ada)]
    assert arrived[::-1] == [f"{number}" for number in range(50) if number not in (7, 8)]


@pytest.mark.parametrize("items", [None, [], "x", [1], [{}] * 1001])
async def test_batches_that_are_none(service: Service, items: Any) -> None:
    answer = await service.post(BATCH, service.add_person("publisher"), {"items": items})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("items")


async def test_what_is_for_later_waits(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await service.post(SEND, sender, to(ada, deliver_at=at))
    assert (answer.status_code, answer.json()["status"]) == (202, "scheduled")
    status = (await service.get(answer.headers["location"], sender)).json()
    assert status["status"] == "scheduled"
    await service.deliver(sender, ada, title="now")
    assert [item["title"] for item in await inbox_of(service, ada)] == ["now"]


async def test_who_does_not_exist_is_told_and_the_others_get_theirs(service: Service) -> None:
    tenant = service.add_tenant()
    sender, ada = service.add_person("publisher", tenant=tenant), service.add_person(tenant=tenant)
    stranger = service.add_person(tenant=service.add_tenant())
    nobody = str(uuid4())
    named = [str(ada.id), nobody, str(stranger.id), "ext:none"]
    sent = await service.post(SEND, sender, {"title": "t", "recipients": {"users": named}})
    await until(lambda: has_items(service, ada, 1))
    location = sent.headers["location"]

    async def is_routed() -> bool:
        return (await service.get(location, sender)).json()["recipients_count"] is not None

    await until(is_routed)
    status = (await service.get(location, sender)).json()
    assert status["recipients_count"] == 1
    # Another tenant's user is as unknown as one that never was.
    reasons = {each["recipient"]: each["reason"] for each in status["problems"]}
    assert reasons == dict.fromkeys((nobody, "ext:none", str(stranger.id)), "unknown_recipient")
    assert await inbox_of(service, stranger) == []
