"""A process that hears the gateway nodes without being one: the REST API alone, for presence and connections."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from notification_service.background import keep_running
from notification_service.broker.consumer import Incoming
from notification_service.broker.node_queue import NodeQueue
from notification_service.broker.publisher import Publisher
from notification_service.clock import Clock
from notification_service.gateway.connection_list import NodesPort
from notification_service.gateway.gossip import SILENCE_S, TYPE_GOSSIP, Gossip, Hooks
from notification_service.presence.board import Board
from shared_contracts import topology

_TICK: Final = timedelta(milliseconds=500)


class Observer:
    """See the module."""

    def __init__(self, *, url: str, node_id: str, publisher: Publisher, clock: Clock, grace_s: float) -> None:
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self.board = Board(silence_s=SILENCE_S, grace_s=grace_s)
        self.node_queue = NodeQueue(
            url,
            node_id=node_id,
            name=node_id,
            exchanges=(topology.GATEWAY_GOSSIP,),
            on_message=self._on_message,
            on_connected=self._on_connected,
            clock=clock,
        )
        self.gossip = Gossip(
            node_id=node_id,
            publisher=publisher,
            clock=clock,
            board=self.board,
            has_sockets=False,
            hooks=Hooks(own_queue=lambda: self.node_queue.queue_name),
        )
        self.nodes = NodesPort(self.gossip, self.board, clock, is_listening=lambda: self.node_queue.link.is_ready)

    def start(self) -> None:
        """Begin to listen."""
        self.node_queue.start()
        self.gossip.start()
        self._task = keep_running(self._tick_for_ever, name="observer")

    async def stop(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.gossip.stop()
        await self.node_queue.close()

    def _on_connected(self) -> None:
        self.gossip.on_connected()

    def _on_message(self, message: Incoming) -> None:
        if message.type == TYPE_GOSSIP:
            self.gossip.on_message(message)

    async def _tick_for_ever(self) -> None:
        while True:
            await self._clock.sleep(_TICK)
            # Nobody follows anybody here: what changed is taken so that it does not pile up.
            self.board.take_changed()
            self.board.on_tick(self._clock.monotonic())
