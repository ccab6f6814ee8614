"""Which users are connected to which other nodes, as gossip tells it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(slots=True)
class Peer:
    """Another node.

    Attributes:
        queue: Where messages for it alone go.
        users: Who is connected to it.
        last_heard: When it last said anything.
    """

    queue: str
    users: set[UUID] = field(default_factory=set)
    last_heard: float = 0.0


class Whereabouts:
    """The map of users to other nodes. A node that falls silent is forgotten with everybody on it."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self.peers: dict[str, Peer] = {}
        self._nodes_of: dict[UUID, set[str]] = {}

    def hear(self, node_id: str, queue: str, now: float) -> bool:
        """Note that a node is alive; answers whether it was unknown, or has a new queue and so a new start."""
        peer = self.peers.get(node_id)
        if peer is not None and peer.queue == queue:
            peer.last_heard = now
            return False
        if peer is not None:
            self.forget(node_id)
        self.peers[node_id] = Peer(queue, last_heard=now)
        return True

    def join(self, node_id: str, users: Iterable[UUID]) -> None:
        """These users are connected to the node."""
        peer = self.peers[node_id]
        for user_id in users:
            peer.users.add(user_id)
            self._nodes_of.setdefault(user_id, set()).add(node_id)

    def leave(self, node_id: str, users: Iterable[UUID]) -> None:
        """These users are no longer connected to it."""
        peer = self.peers[node_id]
        for user_id in users:
            peer.users.discard(user_id)
            self._drop(user_id, node_id)

    def forget(self, node_id: str) -> None:
        """The node is gone."""
        peer = self.peers.pop(node_id, None)
        if peer is not None:
            for user_id in peer.users:
                self._drop(user_id, node_id)

    def forget_silent(self, now: float) -> list[str]:
        """Forget nodes that have been silent for too long; answers which."""
        silent = [node_id for node_id, peer in self.peers.items() if now - peer.last_heard > self._silence_s]
        for node_id in silent:
            self.forget(node_id)
        return silent

    def queues_of(self, user_id: UUID) -> list[str]:
        """Queues of the other nodes this user is connected to."""
        nodes = self._nodes_of.get(user_id)
        return [self.peers[node_id].queue for node_id in nodes] if nodes else []

    def _drop(self, user_id: UUID, node_id: str) -> None:
        nodes = self._nodes_of.get(user_id)
        if nodes is not None:
            nodes.discard(node_id)
            if not nodes:
                del self._nodes_of[user_id]
