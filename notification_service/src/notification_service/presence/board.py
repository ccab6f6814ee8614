"""Where every user is connected, over all nodes, and what presence follows from it. No I/O.

What nodes tell is state, not change: all connections a user has on that node, or none. Hearing it twice, or late, does
no harm. A user whose last connection went away stays as they were for a grace period: a phone that changes cells, or a
node that restarts, makes nobody blink.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from shared_contracts.ws.frames import PresenceStatus

Attendances = tuple["Attendance", ...]

_RANK: Final = {PresenceStatus.OFFLINE: 0, PresenceStatus.AWAY: 1, PresenceStatus.ONLINE: 2}


@dataclass(frozen=True, slots=True)
class Attendance:
    """One connection of a user. Ids of connections rise with time (UUIDv7): the smallest is the oldest."""

    connection_id: UUID
    device_id: str
    is_away: bool = False


@dataclass(frozen=True, slots=True)
class PresenceView:
    """What others see of a user.

    Attributes:
        last_seen_at: Online: now. Away: since when. Offline: when the last connection went; None: not known here.
        devices: Connected ones with the status of each.
        connection_count: Over all nodes; a device may have several.
    """

    user_id: UUID
    status: PresenceStatus
    last_seen_at: datetime | None
    devices: dict[str, PresenceStatus]
    connection_count: int


@dataclass(slots=True)
class Peer:
    """Another process.

    Attributes:
        queue: Where messages for it alone go.
        has_sockets: Whether clients connect to it; the REST API alone only listens.
        users: Who is connected to it.
        last_heard: When it last said anything.
    """

    queue: str
    has_sockets: bool = True
    users: set[UUID] = field(default_factory=set)
    last_heard: float = 0.0


@dataclass(frozen=True, slots=True)
class _Leaving:
    until: float
    left_at: datetime
    status: PresenceStatus


class Board:
    """See the module. A node that falls silent is forgotten with everybody on it.

    `now` is the monotonic clock, in seconds; `moment` the time of day.
    """

    def __init__(self, *, silence_s: float, grace_s: float) -> None:
        self._silence_s = silence_s
        self._grace_s = grace_s
        self.peers: dict[str, Peer] = {}
        self._at: dict[UUID, dict[str, Attendances]] = {}
        self._leaving: dict[UUID, _Leaving] = {}
        self._away_since: dict[UUID, datetime] = {}
        self._changed: set[UUID] = set()

    # --- other processes ------------------------------------------------------------------------------------------

    def hear(self, node_id: str, queue: str, *, has_sockets: bool, now: float, moment: datetime) -> bool:
        """Note that a process is alive; answers whether it was unknown, or has a new queue and so a new start."""
        peer = self.peers.get(node_id)
        if peer is not None and peer.queue == queue:
            peer.last_heard = now
            return False
        if peer is not None:
            self.forget(node_id, now=now, moment=moment)
        self.peers[node_id] = Peer(queue, has_sockets, last_heard=now)
        return True

    def forget(self, node_id: str, *, now: float, moment: datetime) -> set[UUID]:
        """The process is gone; answers who has no connection left because of it."""
        peer = self.peers.pop(node_id, None)
        users = peer.users if peer is not None else set()
        for user_id in tuple(users):
            self._put(node_id, user_id, (), now=now, moment=moment)
        return {user_id for user_id in users if user_id not in self._at}

    def find_silent(self, now: float) -> list[str]:
        """Processes that have been silent for too long."""
        return [node_id for node_id, peer in self.peers.items() if now - peer.last_heard > self._silence_s]

    def queues_of(self, user_id: UUID) -> list[str]:
        """Queues of the other nodes this user is connected to."""
        nodes = self._at.get(user_id)
        return [self.peers[node_id].queue for node_id in nodes if node_id in self.peers] if nodes else []

    @property
    def socket_queues(self) -> list[str]:
        """Queues of the other nodes clients connect to."""
        return [peer.queue for peer in self.peers.values() if peer.has_sockets]

    # --- users ----------------------------------------------------------------------------------------------------

    def put(self, node_id: str, user_id: UUID, attendances: Attendances, *, now: float, moment: datetime) -> None:
        """These are all connections of the user on this node."""
        peer = self.peers.get(node_id)
        if peer is not None:
            (peer.users.add if attendances else peer.users.discard)(user_id)
        self._put(node_id, user_id, attendances, now=now, moment=moment)

    def find(self, user_id: UUID) -> Iterator[tuple[str, Attendance]]:
        """Every connection of a user, with its node."""
        for node_id, attendances in self._at.get(user_id, {}).items():
            for attendance in attendances:
                yield node_id, attendance

    def find_excess(self, user_id: UUID, limit: int) -> set[UUID]:
        """The user's oldest connections beyond the limit; every node comes to the same answer."""
        ids = [attendance.connection_id for _, attendance in self.find(user_id)]
        return set(sorted(ids)[:-limit]) if len(ids) > limit else set()

    def status_of(self, user_id: UUID) -> PresenceStatus:
        """What others see: `online` if any connection is, `away` if all are."""
        nodes = self._at.get(user_id)
        if nodes is None:
            leaving = self._leaving.get(user_id)
            return leaving.status if leaving else PresenceStatus.OFFLINE
        is_here = any(not each.is_away for attendances in nodes.values() for each in attendances)
        return PresenceStatus.ONLINE if is_here else PresenceStatus.AWAY

    def describe(self, user_id: UUID, moment: datetime) -> PresenceView:
        """What others see of a user."""
        status = self.status_of(user_id)
        seen_at: datetime | None = None
        leaving = self._leaving.get(user_id)
        if leaving is not None:
            seen_at = leaving.left_at
        elif status is PresenceStatus.ONLINE:
            seen_at = moment
        elif status is PresenceStatus.AWAY:
            seen_at = self._away_since.get(user_id)
        devices: dict[str, PresenceStatus] = {}
        count = 0
        for _, each in self.find(user_id):
            count += 1
            own = PresenceStatus.AWAY if each.is_away else PresenceStatus.ONLINE
            devices[each.device_id] = max(own, devices.get(each.device_id, own), key=_RANK.__getitem__)
        return PresenceView(user_id, status, seen_at, devices, count)

    def on_tick(self, now: float) -> list[tuple[UUID, datetime]]:
        """Who has been gone for longer than the grace period, and since when."""
        gone = [(user_id, each.left_at) for user_id, each in self._leaving.items() if each.until <= now]
        for user_id, _ in gone:
            del self._leaving[user_id]
            self._away_since.pop(user_id, None)
        return gone

    def take_changed(self) -> Iterable[UUID]:
        """Users whose status is another one since the last call, those who are gone left out."""
        changed, self._changed = self._changed, set()
        return changed

    def _put(self, node_id: str, user_id: UUID, attendances: Attendances, *, now: float, moment: datetime) -> None:
        before = self.status_of(user_id)
        nodes = self._at.get(user_id)
        was_here = nodes is not None
        if attendances:
            if nodes is None:
                nodes = self._at[user_id] = {}
            nodes[node_id] = attendances
            self._leaving.pop(user_id, None)
        elif nodes is not None:
            nodes.pop(node_id, None)
            if not nodes:
                del self._at[user_id]
        if was_here and user_id not in self._at:
            self._leaving[user_id] = _Leaving(now + self._grace_s, moment, before)
            return
        after = self.status_of(user_id)
        if after is before:
            return
        self._changed.add(user_id)
        if after is PresenceStatus.AWAY:
            self._away_since[user_id] = moment
        else:
            self._away_since.pop(user_id, None)
