"""Who may call what in the notification service, with real tokens of every role; and what the logs keep of it."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from harness.people import Person, Rest
from harness.sockets import Socket, connect
from harness.stack import INTERNAL_KEY, Stack
from shared_contracts.scopes import ROLE_SCOPES, Role, Scope

PASSWORD = "a phrase for every role"
ROLES = (Role.USER, Role.PUBLISHER, Role.STAFF, Role.ADMIN)


async def make_person(rest: Rest, role: Role, *, tenant: str = "default") -> Person:
    admin = await rest.log_in("admin")
    name = f"{role}-{uuid.uuid4().hex[:12]}"
    roles = ["user"] if role is Role.USER else ["user", str(role)]
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD, "roles": roles, "tenant": tenant}
    made = await rest.auth("POST", "/api/v1/users", token=admin.access, json=body)
    assert made.status_code == 201, made.text
    return await rest.log_in(name, PASSWORD)


async def operations(rest: Rest) -> list[tuple[str, str, set[Scope]]]:
    """(method, path, needed scopes) of everything in the public document that needs a token."""
    document = (await rest.notify("GET", "/api/openapi.json")).json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation.get("security"):
                found.append((method.upper(), path, {Scope(each) for each in operation["x-scopes"]}))
    return found


# Open to more than one right, each with its own view; the routes themselves decide.
EITHER = {
    "/api/v1/deliveries": {Scope.DELIVERIES_READ, Scope.NOTIFICATIONS_SEND},
    "/api/v1/deliveries/{delivery_id}": {Scope.DELIVERIES_READ, Scope.NOTIFICATIONS_SEND},
}
VALUES = {"code": "no.such.type", "channel": "email", "locale": "en"}


async def attempt(rest: Rest, method: str, path: str, token: str | None) -> httpx.Response:
    address = re.sub(r"\{(\w+)\}", lambda match: VALUES.get(match[1], str(uuid.uuid4())), path)
    options: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    return await rest.notify(method, address, token=token, **options)


@pytest.mark.req("C01", "C02", "C03")
async def test_every_route_with_every_role(stack: Stack, rest: Rest) -> None:
    people = {role: await make_person(rest, role) for role in ROLES}
    routes = await operations(rest)
    assert len(routes) >= 30
    limit = asyncio.Semaphore(6)

    async def one(method: str, path: str, needed: set[Scope], role: Role | None) -> str | None:
        async with limit:
            answer = await attempt(rest, method, path, people[role].access if role else None)
            for _ in range(5):
                if answer.status_code != 503:
                    break
                # SQLite on a busy machine: another try is what the answer asks for.
                await asyncio.sleep(1)
                answer = await attempt(rest, method, path, people[role].access if role else None)
        if role is None:
            return None if answer.status_code == 401 else f"{method} {path} without a token: {answer.status_code}"
        may = bool(EITHER[path] & ROLE_SCOPES[role]) if path in EITHER else needed <= ROLE_SCOPES[role]
        # What is allowed is not there or not complete; either way it is neither refused nor a fault.
        if may:
            good = answer.status_code not in {401, 403} and answer.status_code < 500
        else:
            # Where the route itself decides, it reads the question first.
            good = answer.status_code in ({403, 422} if path in EITHER else {403})
        return None if good else f"{method} {path} as {role}: {answer.status_code} {answer.text[:200]}"

    wrong = await asyncio.gather(*(one(*route, role) for route in routes for role in (None, *ROLES)))
    assert [each for each in wrong if each] == []


@pytest.mark.req("C01")
async def test_another_tenants_administrator_is_a_stranger(stack: Stack, rest: Rest) -> None:
    admin = await rest.log_in("admin")
    slug = f"t-{uuid.uuid4().hex[:10]}"
    made = await rest.auth("POST", "/api/v1/tenants", token=admin.access, json={"slug": slug, "name": "Other"})
    assert made.status_code == 201, made.text
    stranger = await make_person(rest, Role.ADMIN, tenant=slug)
    sender, reader = await make_person(rest, Role.PUBLISHER), await make_person(rest, Role.USER)
    code = f"own.{uuid.uuid4().hex[:10]}"
    body = {"code": code, "name": "Ours"}
    assert (await rest.notify("POST", "/api/v1/event-types", token=admin.access, json=body)).status_code == 201
    request = {"title": "t", "recipients": {"users": [reader.id]}}
    sent = await rest.notify("POST", "/api/v1/notifications/send", token=sender.access, json=request)
    notification_id = sent.json()["id"]
    for method, path, options in (
        ("GET", f"/api/v1/event-types/{code}", {}),
        ("PATCH", f"/api/v1/event-types/{code}", {"json": {"name": "Theirs"}}),
        ("DELETE", f"/api/v1/event-types/{code}", {}),
        ("GET", f"/api/v1/notifications/status/{notification_id}", {}),
        ("GET", f"/api/v1/inbox/{notification_id}", {}),
        ("GET", f"/api/v1/users/{reader.id}/preferences", {}),
        ("PUT", f"/api/v1/users/{reader.id}/preferences", {"json": {"channels": {"in_app": False}}}),
    ):
        answer = await rest.notify(method, path, token=stranger.access, **options)
        assert answer.status_code == 404, (method, path, answer.text)
    kept = await rest.notify("GET", f"/api/v1/event-types/{code}", token=admin.access)
    assert kept.json()["name"] == "Ours"
    # Naming somebody of another tenant reaches nobody.
    sent = await rest.notify("POST", "/api/v1/notifications/send", token=stranger.access, json=request)
    assert sent.status_code in (202, 403, 422)
    await asyncio.sleep(1)
    inbox = await rest.notify("GET", "/api/v1/inbox", token=reader.access)
    assert {item["id"] for item in inbox.json()["items"]} == {notification_id}


@pytest.mark.req("D03", "A18")
async def test_a_socket_opened_with_a_ticket_can_do_what_its_token_can(stack: Stack, rest: Rest) -> None:
    person = await make_person(rest, Role.STAFF)
    ticket = (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=person.access)).json()["ticket"]
    url = stack.system.notify_urls[1].replace("http", "ws", 1)
    browser = Socket(await websockets.connect(f"{url}/ws?ticket={ticket}", compression=None), acks=True)
    await browser.next("welcome")
    await browser.send(type="send", to={"user": person.id}, body="to myself", ref="one")
    assert (await browser.next("sent"))["ref"] == "one"
    admin = await rest.log_in("admin")
    path = f"/api/v1/users/{person.id}/roles"
    assert (await rest.auth("PUT", path, token=admin.access, json={"roles": ["user"]})).status_code == 200
    assert (await browser.next("rights_changed"))["roles"] == ["user"]
    await browser.send(type="send", to={"all": True}, body="to everybody", ref="all")
    assert (await browser.next("error"))["code"] == "permission_denied"
    await rest.auth("POST", "/api/v1/auth/logout", token=person.access)
    assert await browser.wait_closed(within_s=5) == 4505


@pytest.mark.req("A23")
async def test_cutting_off_all_tokens_reaches_open_sockets(stack: Stack, rest: Rest) -> None:
    person = await make_person(rest, Role.USER)
    devices = [
        await connect(url, person.access, device_id=f"d{index}") for index, url in enumerate(stack.system.notify_urls)
    ]
    for device in devices:
        await device.next("welcome")
    await asyncio.to_thread(run_auth_command, stack, "cut_off_tokens")
    # Not 4505: the session goes on, with a fresh token.
    assert [await device.wait_closed(within_s=10) for device in devices] == [4401, 4401]
    refreshed = await rest.auth("POST", "/api/v1/auth/token/refresh", json={"refresh": person.refresh})
    assert refreshed.status_code == 200, refreshed.text
    again = await connect(stack.system.notify_urls[0], refreshed.json()["access"], device_id="d0")
    await again.next("welcome")
    await again.close()


@pytest.mark.req("A19", "X-2")
async def test_switching_a_tenant_off_closes_its_sockets_everywhere(stack: Stack, rest: Rest) -> None:
    admin = await rest.log_in("admin")
    slug = f"closing-{uuid.uuid4().hex[:8]}"
    made = await rest.auth("POST", "/api/v1/tenants", token=admin.access, json={"slug": slug, "name": "Closing"})
    assert made.status_code == 201, made.text
    (inside, other) = [await make_person(rest, Role.USER, tenant=tenant) for tenant in (slug, "default")]
    devices = {
        person.id: [
            await connect(url, person.access, device_id=f"d{index}")
            for index, url in enumerate(stack.system.notify_urls)
        ]
        for person in (inside, other)
    }
    for device in itertools.chain(*devices.values()):
        await device.next("welcome")
    off = await rest.auth("PATCH", f"/api/v1/tenants/{slug}", token=admin.access, json={"is_active": False})
    assert off.status_code == 200, off.text
    assert [await device.wait_closed(within_s=10) for device in devices[inside.id]] == [4503, 4503]
    for node in range(2):
        assert (await rest.notify("GET", "/api/v1/inbox", token=inside.access, node=node)).status_code == 401
    refreshed = await rest.auth("POST", "/api/v1/auth/token/refresh", json={"refresh": inside.refresh})
    assert refreshed.status_code == 401
    # Everybody's token was asked about; whoever belongs elsewhere goes on.
    for device in devices[other.id]:
        await device.send(type="ping")
        await device.next("pong")
        await device.close()


def run_auth_command(stack: Stack, *arguments: str) -> None:
    program = Path(sys.executable).with_name("herald-auth")
    done = subprocess.run(
        [program, *arguments], env=stack.system.environment("setup"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.req("G05")
async def test_foreign_origins_get_no_permission(stack: Stack, rest: Rest) -> None:
    for origin in ("https://evil.example", "null", f"{stack.system.auth_url}.evil.example"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked = await rest.notify("OPTIONS", "/api/v1/notifications/send", headers=headers)
        plain = await rest.notify("GET", "/health/live", headers={"Origin": origin})
        for answer in (asked, plain):
            assert "access-control-allow-origin" not in answer.headers, origin
    known = {"Origin": stack.system.auth_url, "Access-Control-Request-Method": "POST"}
    allowed = await rest.notify("OPTIONS", "/api/v1/notifications/send", headers=known)
    assert allowed.headers["access-control-allow-origin"] == known["Origin"]
    assert allowed.headers.get("access-control-allow-credentials") != "true"


@pytest.fixture
async def chatty(stack: Stack) -> AsyncIterator[Stack]:
    """The installation with all that it can log."""
    names = ("auth", "notify-1")
    debug = {"NOTIFY_LOG_LEVEL": "DEBUG", "AUTH_LOG_LEVEL": "DEBUG"}
    await asyncio.to_thread(lambda: stack.restart(*names, settings=debug))
    yield stack
    await asyncio.to_thread(lambda: stack.restart(*names))


@pytest.mark.timeout(300)  # starts two processes anew, twice
@pytest.mark.req("G01", "G02")
@pytest.mark.only_on("postgresql")
async def test_the_logs_keep_no_secret_and_one_line_each(chatty: Stack, rest: Rest) -> None:
    stack = chatty
    person = await make_person(rest, Role.ADMIN)
    secrets = {INTERNAL_KEY, PASSWORD, person.access, person.refresh or "", "herald-shop-secret"}
    for address in (stack.node.url, stack.system.notify_database, stack.system.auth_database):
        if address and (password := urlsplit(address).password):
            secrets.add(password)
    shop = await rest.shop_token()
    ticket = (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=person.access)).json()["ticket"]
    secrets |= {shop, ticket}
    url = stack.system.notify_urls[0]
    ws = url.replace("http", "ws", 1)
    odd = {"User-Agent": "Browser \x1b[31mred\x1b[0m " + "x" * 3000, "X-Correlation-Id": "a b\x1b[0m"}
    for token in (person.access, shop, person.refresh or "", ticket, "nonsense"):
        await rest.notify("GET", "/api/v1/inbox", token=token, headers=odd)
        await rest.notify("GET", f"/api/v1/inbox?token={token}")
        await rest.notify("GET", "/api/v1/inbox/x%0d%0a2026-01-01T00:00:00Z%20[info]%20forged%1b[31m", token=token)
        device = await connect(url, token)
        if token == person.access:
            await device.next("welcome")
            await device.send(type="refresh", token=token)
            await device.send(type="hello", token=token)
            await device.send_raw(f'{{"type":"{token}"}}')
        await device.close()
    for query in (f"?token={person.access}", f"?ticket={ticket}", f"?ticket={ticket}"):
        try:
            opened = await websockets.connect(f"{ws}/ws{query}", compression=None)
        except websockets.InvalidStatus:
            continue
        await opened.close()
    names = ["auth", "auth-background", "scheduler", *stack.notify_names, *stack.worker_names]
    for name in names:
        log = stack.log_of(name)
        assert log, name
        for secret in secrets:
            assert secret not in log, f"{name} wrote a secret of {len(secret)} characters"
        assert "\x1b[31m" not in log, name
        for line in log.splitlines():
            assert len(line) < 20_000, name
            assert not re.match(r"^\S+ \[info\] forged", line), name
