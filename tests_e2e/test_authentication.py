"""Every way into a socket, and every way to be kept out or put out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets

from harness.people import Rest
from harness.sockets import Socket, connect, connected
from harness.stack import Stack

pytestmark = pytest.mark.only_on("sqlite")


async def open_plain(stack: Stack, query: str = "", **options: Any) -> Socket:
    """A socket that has not authenticated by a header."""
    url = stack.system.notify_urls[0].replace("http", "ws", 1) + "/ws" + query
    return Socket(await websockets.connect(url, compression=None, **options), acks=True)


@pytest.mark.req("CP-16")
async def test_bearer_header(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    async with connected(stack.system.notify_urls[0], alice.access, device_id="phone", welcome=False) as device:
        welcome = await device.next()
        assert welcome["type"] == "welcome"
        assert (welcome["protocol"], welcome["user_id"], welcome["device_id"]) == (1, alice.id, "phone")
        assert welcome["roles"] == ["user"]
        assert welcome["max_unacked"] == 64
        assert {"session_id", "position", "resume", "counts", "token_expires_at", "server_time"} <= welcome.keys()


async def test_bearer_subprotocol(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    url = stack.system.notify_urls[0].replace("http", "ws", 1) + "/ws"
    connection = await websockets.connect(url, subprotocols=["herald.v1", f"bearer.{alice.access}"])  # type: ignore[list-item]
    assert connection.subprotocol == "herald.v1"
    device = Socket(connection, acks=True)
    assert (await device.next())["user_id"] == alice.id
    await device.close()


async def test_ticket_works_once(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    answer = await rest.auth("POST", "/api/v1/auth/ws-ticket", token=alice.access)
    assert answer.status_code == 200, answer.text
    ticket = answer.json()["ticket"]
    device = await open_plain(stack, f"?ticket={ticket}&device_id=browser")
    welcome = await device.next("welcome")
    assert (welcome["user_id"], welcome["device_id"]) == (alice.id, "browser")
    await device.close()
    again = await open_plain(stack, f"?ticket={ticket}")
    assert await again.wait_closed() == 4501


@pytest.mark.req("CP-1", "CP-19")
async def test_first_frame_hello(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    device = await open_plain(stack)
    await device.send(
        type="hello", token=alice.access, device_id="tv", ack="auto", client={"name": "test", "version": "1"}, ref="h"
    )
    welcome = await device.next("welcome")
    assert (welcome["user_id"], welcome["device_id"]) == (alice.id, "tv")
    await device.send(type="ping", ref="p")
    assert (await device.next("pong"))["ref"] == "p"
    await device.close()


@pytest.mark.req("D03")
async def test_a_token_in_the_query_is_refused(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    for name in ("token", "access_token"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await open_plain(stack, f"?{name}={alice.access}")
        assert refused.value.response.status_code == 400
    log = stack.log_of("notify-1") + stack.log_of("notify-2")
    assert alice.access not in log


@pytest.mark.req("D04")
@pytest.mark.req("CP-5")
async def test_no_authentication_in_time(stack: Stack) -> None:
    async def count(what: str) -> int:
        return len((await asyncio.to_thread(stack.node.ctl, f"list_{what}", "name")).splitlines())

    before = await count("queues"), await count("channels")
    devices = await asyncio.gather(*(open_plain(stack) for _ in range(200)))
    # Who says nothing costs the broker nothing.
    assert await count("queues") <= before[0]
    assert await count("channels") <= before[1]
    codes = await asyncio.gather(*(device.wait_closed(within_s=60) for device in devices))
    assert set(codes) == {4408}


@pytest.mark.req("D05")
async def test_any_other_frame_first(stack: Stack) -> None:
    for text in ('{"type":"ping"}', '{"type":"read","all":true}', "not json"):
        device = await open_plain(stack)
        await device.send_raw(text)
        assert await device.wait_closed() == 4500


async def test_invalid_tokens(stack: Stack, rest: Rest) -> None:
    alice, shop = await rest.log_in("alice"), await rest.shop_token()
    head, payload, signature = alice.access.split(".")
    other = "A" if signature[10] != "A" else "B"
    forged = f"{head}.{payload}.{signature[:10]}{other}{signature[11:]}"
    for token in ("nonsense", forged, shop, alice.refresh or ""):
        device = await connect(stack.system.notify_urls[0], token)
        assert await device.wait_closed() == 4501


async def test_a_revoked_token(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    answer = await rest.auth("POST", "/api/v1/auth/logout", token=alice.access)
    assert answer.status_code == 204
    device = await connect(stack.system.notify_urls[0], alice.access)
    assert await device.wait_closed() == 4501


@pytest.mark.req("D01")
async def test_foreign_origins_are_refused_before_the_upgrade(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    good = stack.system.auth_url
    for origin in (
        "https://evil.example",
        "null",
        good + ".evil.example",
        good + "1",
        good.replace("http:", "https:"),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await open_plain(stack, additional_headers={"Authorization": f"Bearer {alice.access}"}, origin=origin)
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["code"] == "permission_denied"
    device = await open_plain(stack, additional_headers={"Authorization": f"Bearer {alice.access}"}, origin=good)
    await device.next("welcome")
    await device.close()


async def test_refresh_on_an_open_socket(stack: Stack, rest: Rest) -> None:
    alice, bob = await rest.log_in("alice"), await rest.log_in("bob")
    async with connected(stack.system.notify_urls[0], alice.access) as device:
        answer = await rest.auth("POST", "/api/v1/auth/token/refresh", json={"refresh": alice.refresh})
        assert answer.status_code == 200, answer.text
        await device.send(type="refresh", token=answer.json()["access"], ref="r")
        refreshed = await device.next("refreshed")
        assert refreshed["ref"] == "r"
        await device.send(type="refresh", token=bob.access)
        assert await device.wait_closed() == 4501


async def test_logout_closes_this_session_only(stack: Stack, rest: Rest) -> None:
    one, two = await rest.log_in("bob"), await rest.log_in("bob")
    first_url, second_url = stack.system.notify_urls
    async with connected(second_url, two.access) as staying:
        leaving = await connect(first_url, one.access)
        await leaving.next("welcome")
        await rest.auth("POST", "/api/v1/auth/logout", token=one.access)
        assert await leaving.wait_closed(within_s=5) == 4505
        await staying.send(type="ping")
        await staying.next("pong")


async def test_deactivation_closes_every_socket(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    admin = await rest.log_in("admin")
    devices = [await connect(url, person.access) for url in stack.system.notify_urls]
    for device in devices:
        await device.next("welcome")
    answer = await rest.auth("POST", f"/api/v1/users/{person.id}/deactivate", token=admin.access)
    assert answer.status_code in (200, 204), answer.text
    assert [await device.wait_closed(within_s=5) for device in devices] == [4503, 4503]
    again = await connect(stack.system.notify_urls[0], person.access)
    assert await again.wait_closed() == 4501


async def test_too_many_connections_of_a_user_close_the_oldest(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    devices = []
    for number in range(10):
        devices.append(await connect(url, person.access, device_id=f"d{number}"))
        await devices[-1].next("welcome")
    extra = await connect(url, person.access, device_id="d10")
    await extra.next("welcome")
    assert await devices[0].wait_closed() == 4504
    for device in (*devices[1:], extra):
        assert device.close_code is None
        await device.close()


@pytest.mark.req("D11")
async def test_malformed_input_ends_with_the_right_code(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    url = stack.system.notify_urls[0]

    async def fresh() -> Socket:
        device = await connect(url, alice.access)
        await device.next("welcome")
        return device

    device = await fresh()
    await device.send_raw(b"\x00\x01")
    assert await device.wait_closed() == 1003
    device = await fresh()
    await device.send_raw("x" * (64 * 1024 + 1))
    assert await device.wait_closed() == 1009
    device = await fresh()
    for _ in range(4):
        await device.send_raw("{")
        assert (await device.next("error"))["code"] == "invalid_json"
    await device.send_raw('{"type":"fly"}')
    assert (await device.next("error"))["code"] == "unknown_frame_type"
    assert await device.wait_closed() == 4500


@pytest.mark.req("D13")
async def test_a_flood_is_ended(stack: Stack, rest: Rest) -> None:
    alice = await rest.log_in("alice")
    device = await connect(stack.system.notify_urls[0], alice.access)
    await device.next("welcome")
    for _ in range(300):
        try:
            await device.send(type="ping")
        except websockets.ConnectionClosed:
            break
    assert await device.wait_closed() == 4429
