"""What comes in: once, whatever comes twice; or a dead letter with its reason, and the consumer lives on."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from harness.broker import Backend
from harness.people import Rest
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually


async def find_letters(rest: Rest, token: str, message_ids: set[str]) -> dict[str, dict[str, Any]]:
    """Dead letters of these messages, by message id."""
    found: dict[str, dict[str, Any]] = {}
    cursor = None
    for _ in range(5):
        query = f"&cursor={cursor}" if cursor else ""
        page = (await rest.notify("GET", f"/api/v1/dead-letters?limit=200{query}", token=token)).json()
        found |= {item["message_id"]: item for item in page["items"] if item["message_id"] in message_ids}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found


@pytest.mark.req("I16")
@pytest.mark.req("X-5")
@pytest.mark.req("DG-12")
async def test_one_message_id_is_one_notification_by_whatever_way(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    shop = await rest.shop_token()
    body = {"title": "once", "body": "b", "recipients": {"users": [person.id]}}
    message_id = str(uuid.uuid4())
    async with connected(stack.system.notify_urls[0], person.access) as device:
        for _ in range(3):
            await backend.publish(body, message_id=message_id)
        answers = [
            await rest.notify(
                "POST",
                "/api/v1/notifications/send",
                token=shop,
                json=body,
                headers={"Idempotency-Key": message_id},
                node=node,
            )
            for node in (0, 1)
        ]
        await backend.publish(body, message_id=message_id)
        assert (await device.next("notification"))["id"] == message_id
        await device.expect_nothing(for_s=1)
    assert [answer.json()["id"] for answer in answers] == [message_id, message_id]
    assert (await rest.notify("GET", "/api/v1/inbox/counts", token=person.access)).json()["total"] == 1


@pytest.mark.req("E10")
async def test_an_idempotency_key_stands_for_one_request_of_one_caller(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    shop, admin = await rest.shop_token(), (await rest.log_in("admin")).access
    body = {"title": "once", "recipients": {"users": [person.id]}}

    async def send(token: str, key: str, request: dict[str, Any], node: int = 0) -> Any:
        return await rest.notify(
            "POST",
            "/api/v1/notifications/send",
            token=token,
            json=request,
            headers={"Idempotency-Key": key},
            node=node,
        )

    for key in (str(uuid.uuid4()), f"order-{uuid.uuid4().hex}"):
        first = await send(shop, key, body)
        again = await send(shop, key, body, node=1)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json() == again.json()
        other = await send(shop, key, {**body, "title": "another body"})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        foreign = await send(admin, key, body)
        assert foreign.status_code == 202
        assert foreign.json()["id"] != first.json()["id"]
        together = await asyncio.gather(*(send(shop, f"{key}-t", body, node=number % 2) for number in range(10)))
        # Who comes while the first one is being stored, on whichever node, is told to ask again.
        assert {202} <= {answer.status_code for answer in together} <= {202, 409}
        assert len({answer.json()["id"] for answer in together if answer.status_code == 202}) == 1


POISON: list[tuple[str, Any, dict[str, Any]]] = [
    ("invalid_json", b"{", {}),
    ("invalid_json", b"\xff\xfe\x00", {}),
    ("invalid_json", b"", {}),
    ("invalid_json", b"[" * 30_000 + b"]" * 30_000, {}),
    ("too_large", b'{"title":"' + b"x" * 10_000_000 + b'"}', {}),
    ("invalid_schema", {"title": "nobody"}, {}),
    ("invalid_schema", {"recipients": {"users": []}}, {}),
    ("invalid_schema", {"title": 5, "recipients": {"users": ["USER"]}}, {}),
    ("invalid_schema", {"title": "x", "recipients": {"users": ["not an id"]}}, {}),
    ("invalid_schema", {"version": 2, "title": "x", "recipients": {"users": ["USER"]}}, {}),
    ("invalid_schema", {"title": "x", "priority": "urgent", "recipients": {"users": ["USER"]}}, {}),
    ("invalid_schema", {"title": "x", "data": {"a": "\x00"}, "recipients": {"users": ["USER"]}}, {}),
    ("invalid_schema", b"[]", {}),
    ("invalid_schema", b'"text"', {}),
    ("invalid_schema", {"title": "x", "recipients": {"users": ["USER"]}}, {"key": "group"}),
    ("unknown_event_type", {"event_type": "no.such", "recipients": {"users": ["USER"]}}, {}),
    ("unknown_recipient", {"title": "x", "recipients": {"users": ["NOBODY"]}}, {}),
    ("unknown_recipient", {"title": "x", "recipients": {"groups": ["NOBODY"]}}, {"key": "group"}),
    ("unknown_recipient", {"title": "x", "recipients": {"users": ["ext:no-such"]}}, {}),
]


@pytest.mark.req("I01")
@pytest.mark.req("E02")
async def test_poison_becomes_dead_letters_and_the_good_ones_get_through(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    admin = (await rest.log_in("admin")).access
    expected: dict[str, str] = {}
    async with connected(stack.system.notify_urls[0], person.access) as device:
        good = []
        for number, (reason, body, options) in enumerate(POISON):
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            text = text.replace(b"USER", person.id.encode()).replace(b"NOBODY", str(uuid.uuid4()).encode())
            expected[await backend.publish(text, **options)] = reason
            good.append(await backend.send_to(person.id, f"good {number}"))
        assert [frame["id"] for frame in await device.take(len(good))] == good
    letters = await eventually(
        lambda: find_letters(rest, admin, set(expected)), is_good=lambda found: len(found) == len(expected)
    )
    assert {message_id: letter["reason"] for message_id, letter in letters.items()} == expected
    assert all(letter["detail"] and letter["source"] == "backend" for letter in letters.values())
    too_large = next(letter for letter in letters.values() if letter["reason"] == "too_large")
    assert too_large["is_truncated"]
    assert await backend.depth("intake") == 0
    assert await backend.depth("notifications.dead") >= len(expected)


@pytest.mark.req("I01")
async def test_a_message_without_a_usable_id_is_a_dead_letter(stack: Stack, rest: Rest, backend: Backend) -> None:
    admin = (await rest.log_in("admin")).access
    marker = uuid.uuid4().hex
    await backend.publish({"title": marker, "recipients": {"all": True}}, message_id="not-a-uuid")

    async def look() -> list[Any]:
        page = (await rest.notify("GET", "/api/v1/dead-letters?reason=missing_message_id", token=admin)).json()
        return [item for item in page["items"] if marker in str(item["payload"])]

    await eventually(look, is_good=lambda found: len(found) == 1)


async def test_recipients_that_exist_get_theirs_beside_one_that_does_not(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    admin = (await rest.log_in("admin")).access
    nobody = str(uuid.uuid4())
    async with connected(stack.system.notify_urls[0], person.access) as device:
        sent = await backend.publish({"title": "t", "recipients": {"users": [nobody, person.id]}})
        assert (await device.next("notification"))["id"] == sent
        status = await eventually(
            lambda: rest.notify("GET", f"/api/v1/notifications/status/{sent}", token=admin),
            is_good=lambda answer: (
                answer.json()["status"] == "dispatched"
                and answer.json()["counts_by_channel_and_state"] == {"in_app": {"acked": 1, "failed": 1}}
            ),
        )
    body = status.json()
    assert (body["status"], body["recipients_count"]) == ("dispatched", 1)
    assert body["problems"] == [{"recipient": nobody, "reason": "unknown_recipient"}]
    by_user = {each["user_id"]: each for each in body["deliveries"]["items"]}
    assert by_user[person.id]["status"] == "acked"
    assert (by_user[None]["status"], by_user[None]["reason"]) == ("failed", "unknown_recipient")


async def test_a_mended_dead_letter_is_replayed_once(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    admin = (await rest.log_in("admin")).access
    code = f"late.{uuid.uuid4().hex[:8]}"
    async with connected(stack.system.notify_urls[0], person.access) as device:
        sent = await backend.publish({"event_type": code, "recipients": {"users": [person.id]}}, key="event")
        letters = await eventually(lambda: find_letters(rest, admin, {sent}), is_good=bool)
        letter_id = letters[sent]["id"]
        created = await rest.notify("POST", "/api/v1/event-types", token=admin, json={"code": code, "name": "Late one"})
        assert created.status_code == 201, created.text
        answers = await asyncio.gather(
            *(rest.notify("POST", f"/api/v1/dead-letters/{letter_id}/replay", token=admin) for _ in range(5))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        frame = await device.next("notification")
        assert (frame["id"], frame["title"]) == (sent, "Late one")
        await device.expect_nothing()
    assert (await rest.notify("DELETE", f"/api/v1/dead-letters/{letter_id}", token=admin)).status_code == 204
    assert (await rest.notify("GET", f"/api/v1/dead-letters/{letter_id}", token=admin)).status_code == 404


async def test_rest_names_what_is_wrong(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    shop = await rest.shop_token()
    cases: list[tuple[dict[str, Any], int, str, str | None]] = [
        ({"json": {"title": "x"}}, 422, "invalid_schema", "recipients"),
        ({"json": {"title": "", "recipients": {"users": [person.id]}}}, 422, "invalid_schema", "title"),
        ({"json": {"title": "x", "recipients": {"users": ["x"]}}}, 422, "invalid_schema", "recipients.users.0"),
        (
            {"json": {"event_type": "no.such", "recipients": {"users": [person.id]}}},
            422,
            "unknown_event_type",
            "event_type",
        ),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_json", None),
        ({"content": b'{"a":NaN}', "headers": {"Content-Type": "application/json"}}, 400, "invalid_json", None),
        ({"content": b"title=x", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type", None),
        (
            {"content": b'{"title":"' + b"x" * 70_000 + b'"}', "headers": {"Content-Type": "application/json"}},
            413,
            "too_large",
            None,
        ),
        (
            {"content": b'{"title":"' + b"x" * 10_000_000 + b'"}', "headers": {"Content-Type": "application/json"}},
            413,
            "too_large",
            None,
        ),
    ]
    for options, status, code, field in cases:
        answer = await rest.notify("POST", "/api/v1/notifications/send", token=shop, **options)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status)
        assert problem["correlation_id"] == answer.headers["X-Correlation-Id"]
        if field is not None:
            assert field in [error["field"] for error in problem["errors"]]


@pytest.mark.req("C03")
async def test_who_may_not_publish_stores_nothing(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    admin = (await rest.log_in("admin")).access
    body = {"title": "x", "recipients": {"users": [person.id]}}
    assert (await rest.notify("POST", "/api/v1/notifications/send", json=body)).status_code == 401
    refused = await rest.notify("POST", "/api/v1/notifications/send", token=person.access, json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    publisher, _ = await rest.make_people(2)
    answer = await rest.auth(
        "PUT", f"/api/v1/users/{publisher.id}/roles", token=admin, json={"roles": ["user", "publisher"]}
    )
    assert answer.status_code == 200, answer.text
    (token,) = await rest.issue_tokens([publisher.id])
    broadcast = await rest.notify(
        "POST", "/api/v1/notifications/send", token=token, json={"title": "x", "recipients": {"all": True}}
    )
    assert broadcast.status_code == 403
    assert (await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)).status_code == 202
    await eventually(
        lambda: rest.notify("GET", "/api/v1/inbox/counts", token=person.access),
        is_good=lambda answer: answer.json()["total"] == 1,
    )
