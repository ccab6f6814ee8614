"""RabbitMQ as three nodes: what it confirmed, and what REST accepted, outlives any of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import aio_pika
import httpx
import pytest

from conftest import make_stack
from harness.broker import Backend, backend_of
from harness.metrics import are_consumers_alive, read_metric
from harness.people import Rest
from harness.sockets import connected
from harness.stack import Stack
from harness.waiting import eventually
from herald_local.rabbitmq import RabbitNode

MESSAGES = 60
SLOWEST_ANSWER_S = 5.0
_MOVE_LEADER = "ra:transfer_leadership({'%2F_{queue}', '{old}'}, {'%2F_{queue}', '{new}'})."

pytestmark = [pytest.mark.only_on("sqlite"), pytest.mark.timeout(300)]


@dataclass
class Cluster:
    """Herald is connected to the first node all the time; the others come and go."""

    stack: Stack
    first: RabbitNode
    others: list[RabbitNode]

    def leader_of(self, queue: str) -> str:
        """The node that leads a quorum queue; nothing while its members agree on one."""
        listed = self.first.ctl("list_queues", "name", "leader").splitlines()
        return dict(line.split("\t") for line in listed).get(queue, "")

    def lead(self, queue: str, node: RabbitNode) -> None:
        """Have this node lead a quorum queue."""
        old = self.leader_of(queue)
        if old != node.name:
            move = _MOVE_LEADER.replace("{queue}", queue).replace("{old}", old).replace("{new}", node.name)
            self.first.ctl("eval", move)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    first = RabbitNode(folder / "first")
    others = [RabbitNode(folder / name, beside=first) for name in ("second", "third")]
    with contextlib.ExitStack() as ending:
        for node in (first, *others):
            node.start()
            ending.callback(node.discard)
        for node in others:
            node.join(first)
        stack = ending.enter_context(make_stack("sqlite", tmp_path_factory.mktemp("herald"), node=first))
        yield Cluster(stack, first, others)


@pytest.fixture
async def rest(cluster: Cluster) -> AsyncIterator[Rest]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        yield Rest(cluster.stack, client)


async def publish_until_confirmed(backend: Backend, user_id: str, title: str) -> str:
    """As a careful backend service does: again with the same id, for as long as there is no confirm."""
    message_id = str(uuid.uuid4())
    body = {"title": title, "recipients": {"users": [user_id]}}
    for _ in range(10):
        with contextlib.suppress(TimeoutError, aio_pika.exceptions.AMQPError):
            return await backend.publish(body, message_id=message_id)
        await asyncio.sleep(0.5)
    raise AssertionError(f"{title} was never confirmed")


@pytest.mark.req("J07")
async def test_a_leader_that_is_killed_loses_nothing(cluster: Cluster, rest: Rest) -> None:
    stack, victim = cluster.stack, cluster.others[0]
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    await asyncio.to_thread(cluster.lead, "intake", victim)
    await eventually(
        lambda: asyncio.to_thread(cluster.leader_of, "intake"), is_good=lambda leader: leader == victim.name
    )
    accepted: list[str] = []

    async def send_all() -> None:
        async with backend_of(stack) as backend:
            for number in range(MESSAGES):
                if number % 2:
                    accepted.append(await publish_until_confirmed(backend, person.id, f"over AMQP {number}"))
                else:
                    body = {"title": f"over REST {number}", "recipients": {"users": [person.id]}}
                    answer = await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)
                    assert answer.status_code == 202, answer.text
                    accepted.append(answer.json()["id"])
                await asyncio.sleep(0.05)

    async with connected(stack.system.notify_urls[0], person.access) as device:
        await device.synced()
        sending = asyncio.create_task(send_all())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(victim.kill)
        await eventually(
            lambda: asyncio.to_thread(cluster.leader_of, "intake"),
            is_good=lambda leader: leader not in ("", victim.name),
            within_s=30,
        )
        await sending
        received = Counter(frame["id"] for frame in await device.take(MESSAGES, within_s=90))
        await device.expect_nothing()
    assert received == Counter(accepted)
    await asyncio.to_thread(victim.start)
    assert await are_consumers_alive(stack)


@pytest.mark.req("J07")
async def test_beside_a_minority_requests_wait_in_the_outbox(cluster: Cluster, rest: Rest) -> None:
    stack = cluster.stack
    (person,) = await rest.make_people(1)
    token = await rest.shop_token()
    answered_s: list[float] = []
    accepted: list[str] = []

    async def count_pending() -> float:
        return await read_metric(stack, "outbox_pending", ["scheduler"])

    async with connected(stack.system.notify_urls[0], person.access) as device:
        await device.synced()
        for node in cluster.others:
            await asyncio.to_thread(node.kill)
        for number in range(MESSAGES):
            started = time.monotonic()
            body = {"title": f"beside a minority {number}", "recipients": {"users": [person.id]}}
            answer = await rest.notify("POST", "/api/v1/notifications/send", token=token, json=body)
            answered_s.append(time.monotonic() - started)
            assert answer.status_code == 202, answer.text
            accepted.append(answer.json()["id"])
        await eventually(count_pending, is_good=lambda pending: pending == MESSAGES, within_s=60)
        await device.expect_nothing()
        with ThreadPoolExecutor() as pool:
            # Both at once: alone, the second would be a minority of the two that were killed.
            list(pool.map(RabbitNode.start, cluster.others))
        received = Counter(frame["id"] for frame in await device.take(MESSAGES, within_s=120))
        await device.expect_nothing()
        await eventually(count_pending, is_good=lambda pending: pending == 0, within_s=60)
    assert received == Counter(accepted)
    assert max(answered_s) < SLOWEST_ANSWER_S
    assert await are_consumers_alive(stack)
