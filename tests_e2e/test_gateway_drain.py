"""A gateway node that leaves, dies or joins while messages flow: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest
import websockets

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import Frame, Socket, connect
from harness.stack import Stack
from harness.waiting import eventually

pytestmark = pytest.mark.only_on("postgresql")


class Wanderer:
    """A client that does what a server tells it: `reconnect`, close codes, positions."""

    def __init__(self, stack: Stack, person: Person, node: int, device_id: str = "d") -> None:
        self._stack, self.person, self._node, self._device_id = stack, person, node, device_id
        self.seen: Counter[str] = Counter()
        self.seqs: list[int] = []
        self.told: list[Frame] = []
        self.codes: list[int | None] = []
        self.connected_to: list[int] = []
        self._position: str | None = None
        self.ready = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                url = self._stack.system.notify_urls[self._node]
                socket = await connect(url, self.person.access, device_id=self._device_id, position=self._position)
            except (OSError, websockets.InvalidHandshake, TimeoutError):
                self._node = 1 - self._node
                await asyncio.sleep(0.1)
                continue
            self.connected_to.append(self._node)
            wait_s = await self._listen(socket)
            self._node = 1 - self._node
            await asyncio.sleep(wait_s)

    async def _listen(self, socket: Socket) -> float:
        wait_s = 0.1
        try:
            while True:
                frame = await socket.next(within_s=120)
                if frame["type"] == "synced":
                    self.ready.set()
                if frame["type"] == "reconnect":
                    self.told.append(frame)
                    wait_s = (frame["after_ms"] + frame["spread_ms"] * 0.5) / 1000
                if frame["type"] == "notification" and not self.seen[frame["id"]]:
                    self.seqs.append(frame["seq"])
                if frame["type"] == "notification":
                    self.seen[frame["id"]] += 1
                self._position = frame.get("position", self._position)
        except AssertionError:
            self.codes.append(socket.close_code)
        finally:
            await socket.drop()
        return wait_s


async def wander(stack: Stack, rest: Rest, count: int) -> list[Wanderer]:
    people = await rest.make_people(count)
    wanderers = [Wanderer(stack, person, node=1) for person in people]
    async with asyncio.timeout(60):
        await asyncio.gather(*(each.ready.wait() for each in wanderers))
    return wanderers


async def publish_while(
    backend: Backend, wanderers: list[Wanderer], during: asyncio.Event, sent: dict[str, list[str]]
) -> None:
    number = 0
    while not during.is_set():
        for each in wanderers:
            person = each.person
            sent.setdefault(person.id, []).append(await backend.send_to(person.id, f"n{number}"))
        number += 1


async def check_complete(wanderers: list[Wanderer], sent: dict[str, list[str]]) -> None:
    async def missing() -> int:
        return sum(len(set(sent[each.person.id]) - set(each.seen)) for each in wanderers)

    await eventually(missing, is_good=lambda count: count == 0, within_s=60)
    for each in wanderers:
        assert each.seqs == sorted(each.seqs)
        assert list(each.seen) == sent[each.person.id]


async def look_where(wanderers: list[Wanderer]) -> set[int]:
    return {each.connected_to[-1] for each in wanderers}


@pytest.mark.req("D18")
@pytest.mark.req("X-12")
@pytest.mark.req("CP-14")
async def test_a_node_that_drains_sends_its_clients_to_the_other_without_a_loss(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    # Three waves of fifty, a quarter of a second apart: meanwhile it still answers.
    wanderers = await wander(stack, rest, 150)
    (late,) = await rest.make_people(1)
    over, sent = asyncio.Event(), dict[str, list[str]]()
    publishing = asyncio.create_task(publish_while(backend, wanderers, over, sent))
    try:
        await asyncio.sleep(0.5)
        started = time.monotonic()
        os.kill(stack.pid_of("notify-2"), signal.SIGTERM)

        async def readiness() -> tuple[int, str]:
            ready = await rest.notify("GET", "/health/ready", node=1)
            return ready.status_code, ready.json()["checks"]["gateway"]

        await eventually(readiness, is_good=lambda seen: seen == (503, "unavailable"))
        assert (await rest.notify("GET", "/health/live", node=1)).status_code == 200
        # It takes nobody in.
        with pytest.raises((websockets.InvalidStatus, OSError)) as refused:
            await connect(stack.system.notify_urls[1], late.access)
        if isinstance(refused.value, websockets.InvalidStatus):
            assert refused.value.response.status_code == 503
        assert await asyncio.to_thread(stack.wait_for_end, "notify-2", 25) == 0
        assert time.monotonic() - started < 20
        over.set()
        await publishing
        await check_complete(wanderers, sent)
        for each in wanderers:
            assert each.codes[0] == 1012
            (told,) = each.told
            assert (told["after_ms"], told["reason"]) == (0, "restarting")
            assert told["spread_ms"] >= 500
            assert each.connected_to[:2] == [1, 0]
    finally:
        over.set()
        await asyncio.gather(publishing, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in wanderers))
        await asyncio.to_thread(stack.revive)


@pytest.mark.req("D19")
async def test_a_killed_node_loses_nothing_and_one_that_joins_takes_part_at_once(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    wanderers = await wander(stack, rest, 60)
    over, sent = asyncio.Event(), dict[str, list[str]]()
    publishing = asyncio.create_task(publish_while(backend, wanderers, over, sent))
    second: list[Wanderer] = []
    try:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stack.kill, "notify-2")
        await eventually(lambda: look_where(wanderers), is_good=lambda nodes: nodes == {0}, within_s=30)
        # The same users with a second device on the node that is new: the first one consumes, and forwards.
        await asyncio.to_thread(stack.start, "notify-2")
        second = [Wanderer(stack, each.person, node=1, device_id="second") for each in wanderers[:30]]
        async with asyncio.timeout(60):
            await asyncio.gather(*(each.ready.wait() for each in second))
        await asyncio.sleep(0.5)
        over.set()
        await publishing
        await check_complete(wanderers, sent)

        async def behind() -> int:
            return sum((each.seqs or [0])[-1] < len(sent[each.person.id]) for each in second)

        await eventually(behind, is_good=lambda count: count == 0, within_s=30)
        for each in second:
            # A new device starts where the others are: nothing twice, and everything after that.
            assert each.connected_to == [1]
            assert each.seqs == list(range(each.seqs[0], each.seqs[0] + len(each.seqs)))
    finally:
        over.set()
        await asyncio.gather(publishing, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in (*wanderers, *second)))
        await asyncio.to_thread(stack.revive)
