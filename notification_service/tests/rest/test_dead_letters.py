"""Dead letters over REST: listed with their reasons, replayed once, discarded, each tenant its own (I01, C06)."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from service import Person, Service
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LETTERS = "/api/v1/dead-letters"


async def publish(service: Service, body: Any, *, key: str = "private", **properties: Any) -> str:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await service.outside.publish(content, exchange="notifications.direct", key=key, **properties)


async def letters(service: Service, keeper: Person, **parameters: Any) -> list[dict[str, Any]]:
    answer = await service.get(LETTERS, keeper, params={"limit": 200, **parameters})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def find_letter(service: Service, keeper: Person, message_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        found[:] = [each for each in await letters(service, keeper) if each["message_id"] == message_id]
        return bool(found)

    await until(is_there)
    return found[0]


@pytest.mark.req("I01")
async def test_every_kind_of_poison_between_good_ones_ends_with_its_reason(service: Service) -> None:
    keeper, ada = service.add_person("admin"), service.add_person()
    good = {"title": "good", "recipients": {"users": [str(ada.id)]}}
    before = {
        reason: REGISTRY.get_sample_value("dead_letters_total", {"reason": reason}) or 0
        for reason in ("invalid_json", "invalid_schema", "too_large", "missing_message_id", "unknown_event_type")
    }
    poison: list[tuple[str, Any, dict[str, Any]]] = [
        ("invalid_json", b"{", {}),
        ("invalid_json", b"\xff\xfe", {}),
        ("invalid_json", b"[" * 60_000, {}),
        ("invalid_schema", [], {}),
        ("invalid_schema", {"title": 5}, {}),
        ("invalid_schema", {"title": "nobody"}, {}),
        ("invalid_schema", {**good, "title": "a\x00b"}, {}),
        ("invalid_schema", good, {"key": "group"}),
        ("unknown_event_type", {**good, "event_type": "no.such"}, {}),
        ("too_large", {**good, "body": "x" * 70_000}, {}),
        ("missing_message_id", good, {"message_id": f"not-a-uuid-{uuid4()}"}),
    ]
    sent = []
    for reason, body, properties in poison:
        await publish(service, good)
        sent.append((reason, await publish(service, body, **properties)))
    await publish(service, good, headers={"x": "y" * 100_000})
    for reason, message_id in sent:
        letter = await find_letter(service, keeper, message_id)
        assert letter["reason"] == reason
        assert letter["detail"]
        assert (letter["attempts"], letter["replayed_at"]) == (1, None)

    async def are_all_there() -> bool:
        return bool((await service.get("/api/v1/inbox/counts", ada)).json()["total"] == len(poison) + 1)

    await until(are_all_there)
    for reason, count in before.items():
        wanted = sum(1 for each, _, _ in poison if each == reason)
        assert (REGISTRY.get_sample_value("dead_letters_total", {"reason": reason}) or 0) >= count + wanted


async def test_payloads_are_shown_as_what_they_are(service: Service) -> None:
    keeper = service.add_person("admin")
    for body, shown in (
        (b'{"title":5}', {"title": 5}),
        (b"{oops", "{oops"),
        (b"\xff\xfe", {"base64": "//4="}),
    ):
        letter = await find_letter(service, keeper, await publish(service, body))
        assert letter["payload"] == shown
        assert (letter["routing_key"], letter["is_truncated"]) == ("private", False)
    huge = await find_letter(service, keeper, await publish(service, b"x" * 200_000))
    assert huge["is_truncated"]
    assert len(huge["payload"]) == 64 * 1024


async def test_a_replay_goes_the_same_way_again_and_once(service: Service) -> None:
    keeper, ada = service.add_person("admin"), service.add_person()
    body = {"title": "late", "event_type": f"later.{uuid4().hex[:8]}", "recipients": {"users": [str(ada.id)]}}
    letter = await find_letter(service, keeper, await publish(service, body, app_id="shop"))
    assert (letter["reason"], letter["source"]) == ("unknown_event_type", "shop")
    created = await service.post("/api/v1/event-types", keeper, {"code": body["event_type"], "name": "Later"})
    assert created.status_code == 201
    answers = await asyncio.gather(*(service.post(f"{LETTERS}/{letter['id']}/replay", keeper) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]

    async def has_one() -> bool:
        return bool((await service.get("/api/v1/inbox/counts", ada)).json()["total"] == 1)

    await until(has_one)
    shown = (await service.get(f"{LETTERS}/{letter['id']}", keeper)).json()
    assert shown["replayed_at"] is not None
    again = await service.post(f"{LETTERS}/replay", keeper, {"ids": [letter["id"], str(uuid4())]})
    assert again.json() == {"replayed": 0}
    item = (await service.get("/api/v1/inbox", ada)).json()["items"][0]
    assert (item["title"], item["id"]) == ("late", letter["message_id"])


async def test_what_was_cut_off_cannot_be_replayed(service: Service) -> None:
    keeper = service.add_person("admin")
    letter = await find_letter(service, keeper, await publish(service, b'"' + b"x" * 100_000 + b'"'))
    answer = await service.post(f"{LETTERS}/{letter['id']}/replay", keeper)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_recipient_that_came_late_gets_a_replay_of_its_own(service: Service) -> None:
    tenant = service.add_tenant()
    keeper, ada = service.add_person("admin", tenant=tenant), service.add_person(tenant=tenant)
    nobody = str(uuid4())
    message_id = await publish(
        service, {"title": "t", "tenant": tenant, "recipients": {"users": [str(ada.id), nobody]}}
    )
    letter = await find_letter(service, keeper, message_id)
    assert letter["reason"] == "unknown_recipient"
    assert nobody in letter["detail"]
    status = await service.get(f"/api/v1/notifications/status/{message_id}", keeper)
    assert status.json()["recipients_count"] == 1


async def test_discarding(service: Service) -> None:
    keeper = service.add_person("admin")
    letter = await find_letter(service, keeper, await publish(service, b"{"))
    path = f"{LETTERS}/{letter['id']}"
    assert (await service.call("DELETE", path, keeper)).status_code == 204
    assert (await service.call("DELETE", path, keeper)).status_code == 404
    assert (await service.get(path, keeper)).status_code == 404
    assert (await service.post(f"{path}/replay", keeper)).status_code == 404


@pytest.mark.req("C01")
async def test_every_tenant_sees_its_own_and_what_nobody_could_read(service: Service) -> None:
    tenant, other = service.add_tenant(), service.add_tenant()
    keeper, foreign = service.add_person("admin", tenant=tenant), service.add_person("admin", tenant=other)
    body = {"title": "t", "tenant": tenant, "event_type": "no.such", "recipients": {"users": [str(uuid4())]}}
    letter = await find_letter(service, keeper, await publish(service, body))
    assert letter["id"] not in [each["id"] for each in await letters(service, foreign)]
    path = f"{LETTERS}/{letter['id']}"
    assert (await service.get(path, foreign)).status_code == 404
    assert (await service.post(f"{path}/replay", foreign)).status_code == 404
    assert (await service.call("DELETE", path, foreign)).status_code == 404
    assert (await service.post(f"{LETTERS}/replay", foreign, {"ids": [letter["id"]]})).json() == {"replayed": 0}
    assert (await service.get(path, keeper)).json()["replayed_at"] is None
    unread = await find_letter(service, keeper, await publish(service, b"{"))
    assert unread["id"] in [each["id"] for each in await letters(service, foreign)]


async def test_the_list_has_pages_and_a_filter(service: Service) -> None:
    tenant = service.add_tenant()
    keeper = service.add_person("admin", tenant=tenant)
    sent = []
    for _ in range(5):
        body = {"title": "t", "tenant": tenant, "event_type": "no.such", "recipients": {"users": [str(uuid4())]}}
        sent.append(await publish(service, body))
    await find_letter(service, keeper, sent[-1])
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": 2, "reason": "unknown_event_type"}
    while True:
        page = (await service.get(LETTERS, keeper, params=parameters)).json()
        assert len(page["items"]) <= 2
        found += [each["message_id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert found == sent[::-1]
    assert (await service.get(LETTERS, keeper, params={"reason": "odd"})).status_code == 422


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["x"]}, {"ids": [str(uuid4())] * 501}])
async def test_replays_of_nothing(service: Service, body: dict[str, Any]) -> None:
    assert (await service.post(f"{LETTERS}/replay", service.add_person("admin"), body)).status_code == 422
