"""Identity events and audit lines through the whole service: what follows from each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from service import Person, Service
from waiting import until

from shared_contracts.topology import IDENTITY_EVENTS, NOTIFICATIONS_DIRECT

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def tell(service: Service, type_: str, data: dict[str, Any], *, tenant: str = "default", **fields: Any) -> UUID:
    """An identity event, as the relay publishes it."""
    service.auth.revision += 1
    event = {
        "event_id": str(uuid4()),
        "revision": service.auth.revision,
        "type": type_,
        "occurred_at": datetime.now(UTC).isoformat(),
        "tenant": tenant,
        "data": data,
        **fields,
    }
    await service.outside.publish(json.dumps(event).encode(), exchange=IDENTITY_EVENTS.name)
    return UUID(event["event_id"])


async def inbox(service: Service, person: Person) -> list[dict[str, Any]]:
    answer = await service.get("/api/v1/inbox", person)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def login_of(person: Person) -> dict[str, Any]:
    return {
        "user_id": str(person.id),
        "session_id": str(uuid4()),
        "device_name": "Ada's phone",
        "ip": "192.0.2.9",
        "user_agent": "Browser 1.0",
    }


async def test_a_login_from_a_new_device_is_told_once(service: Service) -> None:
    ada = service.add_person()
    event_id = await tell(service, "login.new_device", login_of(ada))

    async def is_there() -> bool:
        return bool(await inbox(service, ada))

    await until(is_there)
    (item,) = await inbox(service, ada)
    assert (item["id"], item["event_type"]) == (str(event_id), "login.alert")
    assert item["data"]["device_name"] == "Ada's phone"
    assert item["data"]["ip"] == "192.0.2.9"
    # The event comes again: the relay died before it had noted the confirm.
    again: dict[str, Any] = {"event_id": str(event_id), "revision": service.auth.revision}
    service.auth.revision -= 1
    await tell(service, "login.new_device", login_of(ada), **again)
    await tell(service, "login.new_device", login_of(ada))

    async def are_two() -> bool:
        return len(await inbox(service, ada)) == 2

    await until(are_two)
    assert len({each["id"] for each in await inbox(service, ada)}) == 2


async def test_a_welcome_is_sent_only_where_somebody_switched_it_on(service: Service) -> None:
    silent, friendly = service.add_tenant(), service.add_tenant()
    admin = service.add_person("admin", tenant=friendly)
    answer = await service.call("PATCH", "/api/v1/event-types/user.welcome", admin, json={"is_active": True})
    assert answer.status_code == 200, answer.text
    greeted, other = service.add_person(tenant=friendly), service.add_person(tenant=silent)
    for person, tenant in ((other, silent), (greeted, friendly)):
        (row,) = [row for row in service.auth.users if row["id"] == str(person.id)]
        await tell(service, "user.created", row, tenant=tenant)

    async def is_there() -> bool:
        return bool(await inbox(service, greeted))

    await until(is_there)
    assert [item["event_type"] for item in await inbox(service, greeted)] == ["user.welcome"]
    assert await inbox(service, other) == []


@pytest.mark.req("C06", "G06")
async def test_every_change_of_the_tools_leaves_one_line(service: Service) -> None:
    tenant = service.add_tenant()
    admin = service.add_person("admin", tenant=tenant)
    staff = service.add_person("staff", tenant=tenant)
    code = f"thing.{uuid4().hex[:8]}"
    template = f"/api/v1/event-types/{code}/templates/in_app/en"
    calls: list[tuple[str, str, Any, str, str]] = [
        ("POST", "/api/v1/event-types", {"code": code, "name": "Thing"}, "event_type.created", code),
        ("PATCH", f"/api/v1/event-types/{code}", {"name": "Another"}, "event_type.updated", code),
        ("PUT", template, {"title": "t", "body": "b"}, "template.updated", f"{code}/in_app/en"),
        ("POST", f"{template}/rollback", {"version": 1}, "template.updated", f"{code}/in_app/en"),
        ("DELETE", template, None, "template.deleted", f"{code}/in_app/en"),
        ("PUT", "/api/v1/preferences/defaults", {"channels": {"email": False}}, "preference_defaults.updated", tenant),
        ("PATCH", "/api/v1/settings", {"default_locale": "de"}, "settings.updated", tenant),
        ("DELETE", f"/api/v1/event-types/{code}", None, "event_type.deleted", code),
    ]
    for method, path, body, _, _ in calls:
        refused = await service.call(method, path, staff, json=body)
        assert refused.status_code == 403, (method, path, refused.text)
    headers = {"User-Agent": "Console 1.0", "X-Correlation-Id": "a" * 32}
    for method, path, body, _, _ in calls:
        options = {} if body is None else {"json": body}
        answer = await service.call(method, path, admin, headers=headers, **options)
        assert answer.is_success, (method, path, answer.text)

    def own() -> list[dict[str, Any]]:
        return sorted(
            (line for line in service.auth.audit_lines if line["tenant"] == tenant), key=lambda line: line["id"]
        )

    await until(lambda: len(own()) == len(calls))
    assert [(line["action"], line["subject_id"]) for line in own()] == [call[3:] for call in calls]
    for line in own():
        assert (line["actor_type"], line["actor_id"]) == ("user", str(admin.id))
        assert (line["ip"], line["user_agent"]) == ("127.0.0.1", "Console 1.0")
        assert line["correlation_id"] == "a" * 32


@pytest.mark.req("C06", "G06")
async def test_dead_letters_replayed_and_discarded_leave_one_line_each(service: Service) -> None:
    tenant = service.add_tenant()
    admin = service.add_person("admin", tenant=tenant)
    nobody = str(uuid4())
    for title in ("one", "two"):
        request = {"title": title, "recipients": {"users": [nobody]}, "tenant": tenant}
        await service.outside.publish(json.dumps(request).encode(), exchange=NOTIFICATIONS_DIRECT.name, key="private")

    async def letters() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await service.get("/api/v1/dead-letters", admin)).json()["items"]
        # Others' unreadable letters are everybody's, and their payload is text.
        return [item for item in items if isinstance(item["payload"], dict) and item["payload"].get("tenant") == tenant]

    async def are_two() -> bool:
        return len(await letters()) == 2

    await until(are_two)
    first, second = [item["id"] for item in await letters()]
    assert (await service.post(f"/api/v1/dead-letters/{first}/replay", admin)).status_code == 200
    assert (await service.call("DELETE", f"/api/v1/dead-letters/{second}", admin)).status_code == 204

    def own() -> set[tuple[str, str, str]]:
        return {
            (line["action"], line["subject_id"], line["actor_id"])
            for line in service.auth.audit_lines
            if line["subject_id"] in {first, second}
        }

    await until(lambda: len(own()) == 2)
    assert own() == {
        ("dead_letter.replayed", first, str(admin.id)),
        ("dead_letter.discarded", second, str(admin.id)),
    }


@pytest.mark.req("A20", "I14")
async def test_an_erased_user_leaves_nothing_and_is_shown_nothing(service: Service) -> None:
    tenant = service.add_tenant()
    sender = service.add_person("publisher", tenant=tenant)
    ada, bob = service.add_person(tenant=tenant), service.add_person(tenant=tenant)
    await service.deliver(sender, ada, title="Only for Ada")
    shared = await service.deliver(sender, ada, bob, title="For both")
    key = {"X-Internal-Key": "test-internal-key-0123456789"}
    path = f"/internal/v1/users/{ada.id}/export"

    async def export() -> dict[str, Any]:
        answer = await service.get(path, headers=key)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    before = await export()
    assert {item["title"] for item in before["inbox"]} == {"Only for Ada", "For both"}
    assert str(bob.id) not in json.dumps(before)
    for headers in ({}, {"X-Internal-Key": "wrong"}, {"Authorization": f"Bearer {ada.token}"}):
        assert (await service.get(path, headers=headers)).status_code == 401

    service.auth.users = [row for row in service.auth.users if row["id"] != str(ada.id)]
    await tell(service, "user.deleted", {"id": str(ada.id)}, tenant=tenant)

    def told() -> list[dict[str, Any]]:
        return [line for line in service.auth.audit_lines if line["subject_id"] == str(ada.id)]

    await until(lambda: len(told()) == 1)
    (line,) = told()
    assert (line["action"], line["tenant"]) == ("user.data_erased", tenant)
    assert line["details"]["mailbox_items"] == 2
    after = await export()
    assert {name: rows for name, rows in after.items() if rows and name != "exported_at"} == {}
    status = await service.get(f"/api/v1/notifications/status/{shared}", sender)
    assert status.status_code == 200
    assert str(ada.id) not in status.text
    assert [item["title"] for item in await inbox(service, bob)] == ["For both"]
