"""A node's own queue: gets what is published while it is there, and says when it may have missed something."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from amqp import Bystander, bystander
from clocks import SetClock
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service.broker.consumer import Incoming
from notification_service.broker.declare import declare_topology
from notification_service.broker.node_queue import NodeQueue
from shared_contracts.topology import DELIVERY_FANOUT, GATEWAY_GOSSIP

LIMIT = timedelta(seconds=20)


class Node:
    def __init__(self, url: str, clock: SetClock, *, node_id: str = "n1") -> None:
        self.seen: list[Incoming] = []
        self.connected = 0
        self.queue = NodeQueue(
            url,
            node_id=node_id,
            name="test",
            exchanges=(DELIVERY_FANOUT, GATEWAY_GOSSIP),
            on_message=self.seen.append,
            on_connected=self._note,
            clock=clock,
        )

    def _note(self) -> None:
        self.connected += 1

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.seen]


async def test_every_node_gets_every_message_in_order(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    nodes = [Node(amqp_url, clock, node_id=f"n{number}") for number in range(2)]
    for node in nodes:
        node.queue.start()
        await node.queue.link.wait_ready(LIMIT)
    async with outside.channel() as channel:
        for number in range(200):
            await channel.basic_publish(b"%d" % number, exchange="delivery.fanout")
    await outside.publish(b"gossip", exchange="gateway.gossip")
    expected = [*(b"%d" % number for number in range(200)), b"gossip"]
    await until(lambda: all(node.bodies == expected for node in nodes))
    assert {each.exchange for each in nodes[0].seen} == {"delivery.fanout", "gateway.gossip"}
    names = {node.queue.queue_name for node in nodes}
    assert len(names) == 2
    # Addressed by its name: what one node sends to another alone.
    assert nodes[1].queue.queue_name is not None
    await outside.publish(b"for you", key=nodes[1].queue.queue_name)
    await until(lambda: nodes[1].bodies[-1] == b"for you")
    assert nodes[0].bodies == expected
    for node in nodes:
        await node.queue.close()


@pytest.mark.req("H09")
async def test_after_a_lost_connection_it_has_a_new_queue_and_says_so(
    amqp_url: str, rabbit: RabbitNode, clock: SetClock
) -> None:
    node = Node(amqp_url, clock)
    node.queue.start()
    await node.queue.link.wait_ready(LIMIT)
    first = node.queue.queue_name
    assert node.connected == 1
    vhost = amqp_url.rpartition("/")[2]
    await asyncio.to_thread(rabbit.ctl, "close_all_connections", "--vhost", vhost, "for a test")
    await until(lambda: node.connected == 2 and node.queue.link.is_ready)
    assert node.queue.queue_name != first
    async with bystander(amqp_url) as outside:
        assert first is not None
        await until(lambda: _is_gone(outside, first))
        await outside.publish(b"x", exchange="delivery.fanout")
        await until(lambda: node.bodies == [b"x"])
        await node.queue.close()
        # Gone with the connection: nothing piles up for a node that has left.
        assert node.queue.queue_name is not None
        await until(lambda: _is_gone(outside, node.queue.queue_name or ""))


async def _is_gone(outside: Bystander, queue: str) -> bool:
    return await outside.depth(queue) == -1


async def test_deleted_from_outside_it_comes_back(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    """An operator who deletes the queue of a living node must not leave it deaf."""
    await declare_topology(outside.connection)
    node = Node(amqp_url, clock)
    node.queue.start()
    await node.queue.link.wait_ready(LIMIT)
    # Exclusive: only its own connection may delete it, as the broker does on its behalf.
    channel = await node.queue.link.connection.channel()  # type: ignore[union-attr]  # it is ready
    await channel.queue_delete(node.queue.queue_name or "")
    await until(lambda: node.connected == 2 and node.queue.link.is_ready, within_s=10)
    await outside.publish(b"heard", exchange="delivery.fanout")
    await until(lambda: node.bodies == [b"heard"])
    await node.queue.close()
