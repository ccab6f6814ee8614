"""Erasing an account and exporting what is held about it, in both services and in RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import connect
from harness.stack import Stack
from harness.waiting import eventually

PASSWORD = "a phrase to be erased"


async def register(rest: Rest) -> Person:
    name = f"ada-{uuid.uuid4().hex[:12]}"
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    made = await rest.auth("POST", "/api/v1/auth/register", json=body)
    assert made.status_code == 201, made.text
    return await log_in(rest, name)


async def log_in(rest: Rest, name: str, **more: str) -> Person:
    answer = await rest.auth("POST", "/api/v1/auth/token", json={"username": name, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return Person(body["user"]["id"], name, body["access"], body["refresh"])


def dump(stack: Stack) -> dict[str, str]:
    """Every row of both databases as text, by table."""
    rows: dict[str, str] = {}
    for service, address in (("auth", stack.system.auth_database), ("notify", stack.system.notify_database)):
        for table, text in (_dump_postgres(address) if address else _dump_sqlite(stack, service)).items():
            rows[f"{service}.{table}"] = text
    return rows


def _dump_postgres(address: str) -> dict[str, str]:
    with psycopg.connect(address) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {
            name: "\n".join(
                bytes(value).decode(errors="replace") if isinstance(value, memoryview | bytes) else str(value)
                for row in connection.execute(f'SELECT * FROM "{name}"').fetchall()  # noqa: S608
                for value in row
            )
            for (name,) in names
        }


def _dump_sqlite(stack: Stack, service: str) -> dict[str, str]:
    path: Path = stack.system.run_dir / f"{service}.sqlite3"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: "\n".join(
                value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                for row in connection.execute(f'SELECT * FROM "{name}"').fetchall()  # noqa: S608
                for value in row
            )
            for (name,) in names
        }
    finally:
        connection.close()


def find(stack: Stack, *needles: str) -> dict[str, list[str]]:
    """Which tables hold which of these."""
    held = {table: [each for each in needles if each in text] for table, text in dump(stack).items()}
    return {table: found for table, found in held.items() if found}


@pytest.mark.req("A20", "I14", "X-15")
async def test_nothing_of_an_erased_person_is_left_but_the_trail(  # noqa: PLR0915 - a whole life
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    person, other = await register(rest), await register(rest)
    secret_word = f"word{uuid.uuid4().hex}"
    device = await connect(stack.system.notify_urls[0], person.access, device_id=f"phone-{secret_word}")
    await device.next("welcome")
    await backend.send_to(person.id, f"private {secret_word}")
    await device.next("notification")
    both = {"title": "for both", "body": "b", "recipients": {"users": [person.id, other.id]}}
    await backend.publish(both)
    await device.next("notification")
    await device.send(type="send", to={"user": other.id}, body="from Ada", ref="s")
    await device.next("sent")
    broken = {"title": f"broken {secret_word}", "recipients": {"users": [person.id]}, "event_type": "no.such.type"}
    await backend.publish(broken, key="event")
    changes = {"locale": "de", "digest": {"email": "daily"}}
    await rest.notify("PATCH", "/api/v1/preferences", token=person.access, json=changes)
    # In a digest, and in the outbox until its time comes.
    digested = {"title": f"later {secret_word}", "recipients": {"users": [person.id]}, "channels": ["email"]}
    await backend.publish(digested)
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await backend.publish({**digested, "title": f"outbox {secret_word}", "deliver_at": at})

    async def waiting() -> list[int]:
        found = await rest.notify("GET", "/api/v1/digests/pending", token=person.access)
        return [each["count"] for each in found.json()["items"]]

    await eventually(waiting, is_good=lambda counts: counts == [1])

    async def letters() -> str:
        return str(await asyncio.to_thread(lambda: dump(stack)["notify.dead_letters"]))

    await eventually(letters, is_good=lambda text: secret_word in text)
    exported = await rest.auth("GET", "/api/v1/users/me/export", token=person.access)
    assert exported.status_code == 200, exported.text
    held = exported.json()
    assert held["profile"]["username"] == person.username
    titles = {item["title"] for item in held["notifications"]["inbox"]}
    assert titles == {f"private {secret_word}", "for both"}
    assert [item["body"] for item in held["notifications"]["sent_notifications"]] == ["from Ada"]
    assert [item["channel"] for item in held["notifications"]["digests"]] == ["email"]
    assert other.username not in exported.text
    await device.close()

    answer = await rest.auth("DELETE", "/api/v1/users/me", token=person.access)
    assert answer.status_code in (200, 204), answer.text

    admin = await rest.log_in("admin")

    async def trail() -> dict[str, Any]:
        page = await rest.auth("GET", f"/api/v1/audit-events?subject_id={person.id}&limit=200", token=admin.access)
        assert page.status_code == 200, page.text
        return {each["action"]: each for each in page.json()["items"]}

    told = await eventually(trail, is_good=lambda found: "user.data_erased" in found, within_s=30)
    assert told["user.erased"]["details"]["sessions"] == 1
    counts = told["user.data_erased"]["details"]
    assert counts["mailbox_items"] == 2
    assert counts["dead_letters"] == 1
    assert counts["notifications_sent"] == 1

    async def traces() -> dict[str, list[str]]:
        return await asyncio.to_thread(find, stack, person.username, secret_word, person.refresh or "")

    assert await eventually(traces, is_good=lambda found: not found, within_s=30) == {}
    # The id alone stays in the trail and in the notes of the erasure, as text or as SQLite writes UUIDs.
    plain = uuid.UUID(person.id)
    named = set(await asyncio.to_thread(find, stack, str(plain), plain.hex))
    assert {table for table in named if not table.startswith(("auth.audit", "auth.identity_events"))} <= {
        "notify.personal_data_erasures",
        "notify.audit_outbox",
    }
    listed = await asyncio.to_thread(stack.node.ctl, "list_queues", "name")
    assert f"user.{person.id}" not in listed
    inbox = await rest.notify("GET", "/api/v1/inbox", token=other.access)
    assert {item["title"] for item in inbox.json()["items"]} >= {"for both", "Message"}
    assert person.username not in inbox.text
    # Whoever writes to the address later is told that there is nobody, and nothing is kept for them.
    late = await backend.send_to(person.id, f"too late {secret_word}")

    async def outcome() -> Any:
        answer = await rest.notify("GET", f"/api/v1/notifications/status/{late}", token=admin.access)
        return answer.json() if answer.status_code == 200 else {}

    status = await eventually(outcome, is_good=lambda found: found.get("recipients_count") is not None)
    assert (status["recipients_count"], status["problems"]) == (
        0,
        [{"recipient": person.id, "reason": "unknown_recipient"}],
    )
    late_deliveries = [(each["user_id"], each["status"], each["reason"]) for each in status["deliveries"]["items"]]
    assert late_deliveries == [(None, "failed", "unknown_recipient")]


async def test_an_export_without_the_other_service_is_refused(stack: Stack, rest: Rest) -> None:
    person = await register(rest)
    await asyncio.to_thread(stack.stop, "notify-1")
    try:
        answer = await rest.auth("GET", "/api/v1/users/me/export", token=person.access)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "notification service" in answer.json()["detail"]
    finally:
        await asyncio.to_thread(stack.start, "notify-1")
    answer = await rest.auth("GET", "/api/v1/users/me/export", token=person.access)
    assert answer.status_code == 200
    # Not for anybody who is not the other service.
    path = f"/internal/v1/users/{person.id}/export"
    assert (await rest.notify("GET", path, token=person.access)).status_code == 401


async def test_a_login_on_a_new_device_is_told_on_the_others(stack: Stack, rest: Rest) -> None:
    person = await register(rest)
    device = await connect(stack.system.notify_urls[0], person.access, device_id="phone")
    await device.next("welcome")
    assert device.notifications == []
    await log_in(rest, person.username, device_id="tablet", device_name="Ada's tablet")
    alert = await device.next("notification")
    assert (alert["event_type"], alert["category"], alert["priority"]) == ("login.alert", "security", "high")
    assert alert["data"]["device_name"] == "Ada's tablet"
    await log_in(rest, person.username, device_id="tablet")
    await device.expect_nothing(for_s=1.5)
    await device.close()


@pytest.mark.req("G06", "C06")
async def test_one_log_tells_of_both_services(stack: Stack, rest: Rest) -> None:
    admin = await rest.log_in("admin")
    code = f"thing.{uuid.uuid4().hex[:10]}"
    headers = {"X-Correlation-Id": uuid.uuid4().hex, "User-Agent": "Console 2.0"}
    body = {"code": code, "name": "Thing"}
    made = await rest.notify("POST", "/api/v1/event-types", token=admin.access, json=body, headers=headers)
    assert made.status_code == 201, made.text

    async def lines() -> list[dict[str, Any]]:
        page = await rest.auth("GET", f"/api/v1/audit-events?subject_id={code}", token=admin.access)
        found: list[dict[str, Any]] = page.json()["items"]
        return found

    (line,) = await eventually(lines, is_good=bool, within_s=20)
    assert (line["action"], line["actor_id"], line["subject_type"]) == ("event_type.created", admin.id, "event_type")
    assert (line["ip"], line["user_agent"]) == ("127.0.0.1", "Console 2.0")
    assert line["correlation_id"] == headers["X-Correlation-Id"]
    assert json.dumps(line).count(code) == 1
