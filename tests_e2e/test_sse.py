"""Server-sent events: the session of a WebSocket over plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from harness.broker import Backend, queue_counts
from harness.people import Rest
from harness.sockets import Frame, connected
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("sqlite")


class Events:
    """What an EventSource sees: the id of each event and its frame."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id: str | None = None

    async def next(self, type_: str | None = None, *, within_s: float = 10.0) -> Frame:
        async with asyncio.timeout(within_s):
            while True:
                frame = await self._next()
                if type_ is None or frame["type"] == type_:
                    return frame

    async def _next(self) -> Frame:
        async for line in self._lines:
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                frame: Frame = json.loads(line.removeprefix("data: "))
                return frame
        raise AssertionError("the stream ended")


@contextlib.asynccontextmanager
async def listening(url: str, token: str | None, query: str = "", **headers: str) -> AsyncIterator[Events]:
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("GET", f"{url}/sse{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


async def ack(rest: Rest, token: str, position: str, device_id: str, *, node: int) -> None:
    body = {"position": position, "device_id": device_id}
    answer = await rest.notify("POST", "/api/v1/inbox/ack", token=token, node=node, json=body)
    assert answer.status_code == 204, answer.text


@pytest.mark.req("CP-11")
async def test_a_stream_has_the_frames_and_the_settling_of_a_socket(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    first, second = stack.system.notify_urls
    async with listening(first, person.access, "?device_id=tv") as events, connected(second, person.access) as socket:
        welcome = await events.next("welcome")
        assert (welcome["user_id"], welcome["device_id"]) == (person.id, "tv")
        await events.next("synced")
        await socket.synced()
        sent = [await backend.send_to(person.id, f"n{number}") for number in range(5)]
        frames = [await events.next("notification") for _ in sent]
        assert [frame["id"] for frame in frames] == sent
        assert [frame["seq"] for frame in frames] == [1, 2, 3, 4, 5]
        assert events.last_id == frames[-1]["position"]
        everyone = await backend.publish({"title": "to all"}, exchange="notifications.fanout", key="")
        while (frame := await events.next("notification"))["id"] != everyone:
            pass
        assert events.last_id == frame["position"]
        # By the other node: it tells the one that has the stream.
        await ack(rest, person.access, frame["position"], "tv", node=1)
        await socket.send(type="read", ids=[sent[0]])
        assert (await events.next("state"))["ids"] == [sent[0]]
    await eventually(
        lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (0, 0)
    )


@pytest.mark.req("CP-11")
async def test_last_event_id_is_the_position(stack: Stack, rest: Rest, backend: Backend) -> None:
    (person,) = await rest.make_people(1)
    first, second = stack.system.notify_urls
    async with listening(first, person.access, "?device_id=tv") as events:
        await events.next("synced")
        seen = await backend.send_to(person.id, "seen")
        assert (await events.next("notification"))["id"] == seen
        last_id = events.last_id
    missed = await backend.send_to(person.id, "missed")
    assert last_id is not None
    headers = {"Last-Event-ID": last_id}
    async with listening(second, person.access, "?device_id=tv&position=stale", **headers) as events:
        assert (await events.next("welcome"))["resume"] == "recovered"
        frame = await events.next("notification")
        assert (frame["id"], frame["redelivered"]) == (missed, False)
        await events.next("synced")


async def test_what_nobody_acknowledges_comes_again_and_auto_does_not(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0]
    async with listening(url, person.access, "?device_id=tv") as events:
        await events.next("synced")
        sent = await backend.send_to(person.id, "n")
        assert not (await events.next("notification"))["redelivered"]
        again = await events.next("notification", within_s=15)
        assert (again["id"], again["redelivered"]) == (sent, True)
    async with listening(url, person.access, "?device_id=radio&ack=auto") as events:
        assert (await events.next("notification"))["id"] == sent
        await events.next("synced")
        await eventually(
            lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"),
            is_good=lambda counts: counts == (0, 0),
        )


async def test_a_ticket_is_for_event_source_and_works_once(stack: Stack, rest: Rest) -> None:
    (person,) = await rest.make_people(1)
    ticket = (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=person.access)).json()["ticket"]
    url = stack.system.notify_urls[0]
    async with listening(url, None, f"?ticket={ticket}&device_id=browser") as events:
        assert (await events.next("welcome"))["user_id"] == person.id
    again = await rest.notify("GET", f"/sse?ticket={ticket}")
    assert (again.status_code, again.json()["code"]) == (401, "invalid_token")


@pytest.mark.req("D01")
@pytest.mark.req("D03")
@pytest.mark.parametrize(
    ("query", "headers", "refusal"),
    [
        ("", {}, (401, "not_authenticated")),
        ("", {"Authorization": "Bearer nonsense"}, (401, "invalid_token")),
        ("?token=x", {}, (400, "bad_request")),
        ("?ack=never", {"Authorization": "Bearer x"}, (400, "bad_request")),
        ("", {"Origin": "https://evil.example", "Authorization": "Bearer x"}, (403, "permission_denied")),
        ("", {"Cookie": "sessionid=x"}, (401, "not_authenticated")),
    ],
)
async def test_refusals_are_http_errors(
    stack: Stack, rest: Rest, query: str, headers: dict[str, Any], refusal: tuple[int, str]
) -> None:
    answer = await rest.notify("GET", f"/sse{query}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == refusal


async def test_an_ended_session_ends_the_stream_with_its_code(stack: Stack, rest: Rest) -> None:
    bob = await rest.log_in("bob")
    async with listening(stack.system.notify_urls[1], bob.access) as events:
        await events.next("welcome")
        await rest.auth("POST", "/api/v1/auth/logout", token=bob.access)
        ended = await events.next("close", within_s=5)
        assert ended["code"] == 4505
