"""The inbox over REST: filters that find exactly theirs, pages that stay put, counts that agree (E07)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from service import Person, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

INBOX = "/api/v1/inbox"


async def titles(service: Service, person: Person, **parameters: Any) -> list[str]:
    answer = await service.get(INBOX, person, params=parameters)
    assert answer.status_code == 200, answer.text
    return [item["title"] for item in answer.json()["items"]]


async def counts(service: Service, person: Person) -> dict[str, int]:
    answer = await service.get(f"{INBOX}/counts", person)
    body = answer.json()
    return {name: body[name] for name in ("unread", "unseen", "total")}


async def deliver_many(service: Service, ada: Person, titles_: list[str], **fields: Any) -> list[str]:
    """In this order; answers their ids."""
    sender = service.add_person("publisher", tenant=ada.tenant)
    items = [{"title": title, "recipients": {"users": [str(ada.id)]}, **fields} for title in titles_]
    ids: list[str] = []
    if items[:-1]:
        answer = await service.post("/api/v1/notifications/send/batch", sender, {"items": items[:-1]})
        ids = [item["id"] for item in answer.json()["items"]]
    return [*ids, str(await service.deliver(sender, ada, **items[-1]))]


async def test_an_empty_inbox(service: Service) -> None:
    person = service.add_person()
    answer = await service.get(INBOX, person)
    assert answer.json() == {"items": [], "next_cursor": None}
    assert await counts(service, person) == {"unread": 0, "unseen": 0, "total": 0}


async def test_pages_cover_everything_once_while_new_items_arrive(service: Service) -> None:
    tenant = service.add_tenant()
    ada, staff = service.add_person(tenant=tenant), service.add_person("staff", tenant=tenant)
    await deliver_many(service, ada, [f"own {number}" for number in range(7)])
    for number in range(3):
        await service.deliver(staff, title=f"all {number}", recipients={"all": True})
    await deliver_many(service, ada, [f"own {number}" for number in range(7, 10)])
    expected = await titles(service, ada)
    assert expected == [
        *(f"own {number}" for number in (9, 8, 7)),
        *(f"all {number}" for number in (2, 1, 0)),
        *(f"own {number}" for number in range(6, -1, -1)),
    ]
    for limit in (1, 2, 3, 5, 13, 200):
        found: list[str] = []
        cursor: str | None = None
        while True:
            answer = await service.get(INBOX, ada, params={"limit": limit, **({"cursor": cursor} if cursor else {})})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [item["title"] for item in page["items"]]
            assert len(page["items"]) <= limit
            cursor = page["next_cursor"]
            if cursor is None:
                break
            if limit == 5 and len(found) == 5:
                await deliver_many(service, ada, ["new"])
        assert found == (expected if limit <= 5 else ["new", *expected])


@pytest.mark.req("X-4")
async def test_broadcasts_before_a_user_was_there_are_not_theirs(service: Service) -> None:
    tenant = service.add_tenant()
    staff = service.add_person("staff", tenant=tenant)
    early = service.add_person(tenant=tenant)
    sent = await service.deliver(staff, title="all", recipients={"all": True})
    # One whose first sign is a look into the inbox, and one the mirror knows.
    late, named = service.add_person(tenant=tenant), service.add_person(tenant=tenant)
    own = await service.deliver(staff, named)
    assert await titles(service, early) == ["all"]
    assert await counts(service, early) == {"unread": 1, "unseen": 1, "total": 1}
    assert await titles(service, late) == []
    assert await counts(service, late) == {"unread": 0, "unseen": 0, "total": 0}
    assert (await service.get(f"{INBOX}/{sent}", late)).status_code == 404
    assert [item["id"] for item in (await service.get(INBOX, named)).json()["items"]] == [str(own)]
    assert await counts(service, named) == {"unread": 1, "unseen": 1, "total": 1}
    asked = await service.get(f"{INBOX}/counts", late, params={"state": ["unread"]})
    assert asked.json()["filtered"] == [0]


async def test_every_filter_finds_exactly_its_own(service: Service) -> None:
    tenant = service.add_tenant()
    ada, sender = service.add_person(tenant=tenant), service.add_person("publisher", tenant=tenant)
    group = service.add_group(ada, tenant=tenant)
    await service.deliver(sender, ada, title="plain")
    await service.deliver(sender, ada, title="order", category="orders", tags=["ship", "eu"], priority="high")
    await service.deliver(sender, ada, title="bill", category="bills", tags=["shipping"], priority="low")
    await service.deliver(sender, ada, title="task", event_type="task.assigned", body="Do it")
    await service.deliver(sender, title="team", recipients={"groups": [str(group)]})
    newest = (await service.get(INBOX, ada)).json()["items"]
    at = {item["title"]: item["created_at"] for item in newest}
    for parameters, found in (
        ({"category": "orders"}, ["order"]),
        ({"category": "none"}, []),
        ({"tag": "ship"}, ["order"]),
        ({"tag": "shipping"}, ["bill"]),
        ({"priority": "high"}, ["order"]),
        ({"event_type": "task.assigned"}, ["task"]),
        ({"group_id": str(group)}, ["team"]),
        ({"group_id": str(uuid4())}, []),
        ({"q": "ORDER"}, ["order"]),
        ({"q": "do it"}, ["task"]),
        ({"from": at["task"]}, ["team", "task"]),
        ({"to": at["order"]}, ["plain"]),
        ({"from": at["order"], "to": at["task"]}, ["bill", "order"]),
        ({"category": "orders", "priority": "low"}, []),
        ({"category": "orders", "tag": "eu", "q": "ord"}, ["order"]),
    ):
        assert await titles(service, ada, **parameters) == found, parameters


@pytest.mark.req("E07")
async def test_search_takes_every_character_as_itself(service: Service) -> None:
    ada = service.add_person()
    await deliver_many(service, ada, ["100% sure", "100 sure", "a_b", "axb", "back\\slash", "quote'd", 'tag "x"'])
    for text, found in (
        ("%", ["100% sure"]),
        ("_", ["a_b"]),
        ("\\", ["back\\slash"]),
        ("a_b", ["a_b"]),
        ("'", ["quote'd"]),
        ('"x"', ['tag "x"']),
        ("100", ["100 sure", "100% sure"]),
    ):
        assert await titles(service, ada, q=text) == found, text
    assert (await service.get(INBOX, ada, params={"q": "x" * 201})).status_code == 422
    assert await titles(service, ada, tag='%"') == []


async def test_states_move_items_between_lists_and_every_count_agrees(service: Service) -> None:
    ada = service.add_person()
    first, second, third = await deliver_many(service, ada, ["1", "2", "3"])

    async def patch(notification_id: str, **changes: Any) -> dict[str, Any]:
        answer = await service.call("PATCH", f"{INBOX}/{notification_id}", ada, json=changes)
        assert answer.status_code == 200, answer.text
        item: dict[str, Any] = answer.json()
        return item

    assert await counts(service, ada) == {"unread": 3, "unseen": 3, "total": 3}
    read = await patch(first, read=True)
    assert read["read_at"] is not None
    assert read["state"]["read_at"] == read["read_at"]
    assert read["seen_at"] is not None  # whoever has read it has seen it
    await patch(second, seen=True)
    archived = await patch(third, archived=True)
    assert archived["archived_at"] is not None
    for state, found in (
        ("unread", ["2"]),
        ("read", ["1"]),
        ("seen", ["2", "1"]),
        ("unseen", []),
        ("archived", ["3"]),
        ("snoozed", []),
    ):
        assert await titles(service, ada, state=state) == found, state
    assert await titles(service, ada) == ["2", "1"]
    assert await counts(service, ada) == {"unread": 1, "unseen": 0, "total": 2}
    asked = await service.get(f"{INBOX}/counts", ada, params={"state": ["unread", "archived", "read"]})
    assert asked.json()["filtered"] == [1, 1, 1]
    await patch(first, read=False)
    await patch(third, archived=False)
    assert await titles(service, ada, state="unread") == ["3", "2", "1"]
    assert (await service.call("DELETE", f"{INBOX}/{first}", ada)).status_code == 204
    assert (await service.call("DELETE", f"{INBOX}/{first}", ada)).status_code == 404
    assert (await service.get(f"{INBOX}/{first}", ada)).status_code == 404
    assert await titles(service, ada) == ["3", "2"]
    assert (await counts(service, ada))["total"] == 2


@pytest.mark.parametrize(
    "body", [{}, {"read": None}, {"read": "maybe"}, {"seen": False}, {"archived": 5}, [], {"unknown": True}]
)
async def test_changes_that_are_none(service: Service, body: Any) -> None:
    ada = service.add_person()
    (item,) = await deliver_many(service, ada, ["1"])
    answer = await service.call("PATCH", f"{INBOX}/{item}", ada, json=body)
    assert answer.status_code == 422
    assert await counts(service, ada) == {"unread": 1, "unseen": 1, "total": 1}


async def test_one_action_on_many(service: Service) -> None:
    tenant = service.add_tenant()
    ada, staff = service.add_person(tenant=tenant), service.add_person("staff", tenant=tenant)
    ids = await deliver_many(service, ada, ["1", "2", "3", "4"], category="a")
    await deliver_many(service, ada, ["5"], category="b")
    await service.deliver(staff, title="all", recipients={"all": True})

    async def batch(**body: Any) -> tuple[int, dict[str, int]]:
        answer = await service.post(f"{INBOX}/batch", ada, body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["changed"], {name: found["counts"][name] for name in ("unread", "unseen", "total")}

    assert await batch(action="read", ids=ids[:2]) == (2, {"unread": 4, "unseen": 4, "total": 6})
    assert await batch(action="read", ids=[*ids[:2], str(uuid4())]) == (0, {"unread": 4, "unseen": 4, "total": 6})
    assert await batch(action="read", filter={"category": "b"}) == (1, {"unread": 3, "unseen": 3, "total": 6})
    assert await batch(action="archive", filter={"category": "a", "state": "unread"}) == (
        2,
        {"unread": 1, "unseen": 1, "total": 4},
    )
    assert (await batch(action="seen", filter={}))[1] == {"unread": 1, "unseen": 0, "total": 4}
    assert (await batch(action="read", filter={}))[1] == {"unread": 0, "unseen": 0, "total": 4}
    assert (await batch(action="unread", ids=[ids[0]]))[1]["unread"] == 1
    assert (await batch(action="unarchive", filter={"state": "archived"}))[1]["total"] == 6
    assert (await batch(action="delete", ids=ids))[1]["total"] == 2
    assert await counts(service, ada) == (await batch(action="seen", ids=[ids[0]]))[1]
    for body in (
        {"action": "read"},
        {"action": "read", "ids": []},
        {"action": "read", "ids": ids, "filter": {}},
        {"action": "burn", "ids": ids},
        {"action": "read", "ids": ["x"]},
        {"action": "read", "ids": [str(uuid4())] * 501},
        {"action": "read", "filter": {"state": "odd"}},
    ):
        assert (await service.post(f"{INBOX}/batch", ada, body)).status_code == 422, body


@pytest.mark.parametrize(
    "parameters",
    [
        {"state": "odd"},
        {"priority": "urgent"},
        {"group_id": "x"},
        {"from": "yesterday"},
        {"to": "2026-01-01T00:00:00"},
        {"category": "x" * 65},
    ],
)
async def test_filters_that_are_none(service: Service, parameters: dict[str, str]) -> None:
    answer = await service.get(INBOX, service.add_person(), params=parameters)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == next(iter(parameters))


@pytest.mark.req("I08")
async def test_synchronising_without_a_socket(service: Service) -> None:
    ada = service.add_person()
    ids = await deliver_many(service, ada, ["1", "2", "3"])
    first = (await service.get(f"{INBOX}/sync", ada)).json()
    # A device that was never there begins with what is there now.
    start = first["position"]
    more = await deliver_many(service, ada, ["4", "5"])
    found = (await service.get(f"{INBOX}/sync", ada, params={"position": start})).json()
    assert [frame["id"] for frame in found["items"]] == more
    assert [frame["type"] for frame in found["items"]] == ["notification"] * 2
    assert (found["resume"], found["has_more"]) == ("recovered", False)
    acknowledged = await service.post(f"{INBOX}/ack", ada, {"position": found["position"]})
    assert acknowledged.status_code == 204
    assert (await service.get(f"{INBOX}/sync", ada)).json()["items"] == []
    # What changes comes too, and the position moves on.
    await service.call("PATCH", f"{INBOX}/{ids[0]}", ada, json={"read": True})
    changed = (await service.get(f"{INBOX}/sync", ada)).json()
    assert [frame["type"] for frame in changed["items"]] == ["state"]
    assert changed["position"] != found["position"]
    for odd in ("x", "1.2.3", found["position"] + "9", "x" * 201):
        answer = await service.post(f"{INBOX}/ack", ada, {"position": odd})
        assert answer.status_code in (400, 422), odd
    reset = (await service.get(f"{INBOX}/sync", ada, params={"position": "nonsense"})).json()
    assert reset["resume"] == "reset"


async def test_what_has_expired_is_gone(service: Service) -> None:
    ada = service.add_person()
    await deliver_many(service, ada, ["stays"])
    answer = (await service.get(INBOX, ada)).json()["items"][0]
    assert answer["expires_at"] is None
    sender = service.add_person("publisher")
    await service.deliver(sender, ada, title="brief", ttl_seconds=3600)
    until_ = datetime.fromisoformat((await service.get(INBOX, ada)).json()["items"][0]["expires_at"])
    assert timedelta(minutes=50) < until_ - datetime.fromisoformat(answer["created_at"]) < timedelta(minutes=70)
