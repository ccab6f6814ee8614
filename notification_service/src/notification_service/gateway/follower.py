"""Following a user's stream and the broadcasts to one device: in order, without a gap, within a window. No I/O.

A follower is *live* while the next frame it needs comes from the user's queue and the broadcast log as they happen.
Whenever it cannot go on that way (it resumes, its window is full, a number is missing), it leaves the live path and is
served pages from the mailbox until it has caught up; frames that arrive meanwhile are only noted. So there is one way
to repair anything, and memory stays bounded by the window.
"""

from __future__ import annotations

from typing import Final

from notification_service.gateway.answers import encode
from notification_service.gateway.effects import Acked, Effect, Fetch, SendText, WakeAfter
from notification_service.notifications.frames import add_position
from notification_service.notifications.pages import Cursor, Entry, FrameType, Page, StreamInfo
from notification_service.notifications.resuming import Start
from shared_contracts.ws.frames import AckMode
from shared_contracts.ws.positions import Position

HOLE_WAIT_S: Final = 0.1
"""How long a frame that came too early waits for the one before it, until the mailbox is asked."""

PAGE_BYTES: Final = 256 * 1024
"""Written from one page at most; the rest is fetched again once this is with the peer. A page of long items is 4 MB."""

RETRY_WAIT_S: Final = 1.0
"""Pause before a page is asked for again after a failure, or when it brought nothing new."""


class Follower:
    """See the module. Methods answer what should be done, in order.

    Attributes:
        sent_seq, sent_broadcast: How far frames were written to the device.
        acked_seq, acked_broadcast: How far the device has acknowledged them.
    """

    __slots__ = (
        "_acks",
        "_ask_synced",
        "_fetching",
        "_heard_broadcast",
        "_heard_seq",
        "_held",
        "_high_broadcast",
        "_high_seq",
        "_hole_since",
        "_is_fetch_stale",
        "_is_paused",
        "_live",
        "_max_unacked",
        "_retry_at",
        "_started",
        "_unacked",
        "acked_broadcast",
        "acked_seq",
        "epoch",
        "sent_broadcast",
        "sent_seq",
    )

    def __init__(self, max_unacked: int) -> None:
        self._max_unacked = max_unacked
        self._acks = AckMode.CLIENT
        self.epoch = b""
        self._started = False
        self.sent_seq = self.sent_broadcast = self.acked_seq = self.acked_broadcast = 0
        # How far frames were ever written, on this connection or an earlier one: those are marked when they come again.
        self._high_seq = self._high_broadcast = 0
        # The last numbers heard of: the follower has caught up when it has sent them.
        self._heard_seq = self._heard_broadcast = 0
        self._live = self._fetching = self._is_fetch_stale = self._ask_synced = self._is_paused = False
        self._retry_at: float | None = None
        # Frames that came before their turn, while live.
        self._held: dict[int, tuple[FrameType, bytes, bool]] = {}
        self._hole_since: float | None = None
        # (seq, broadcast, when) after each frame that awaits the client's acknowledgement.
        # A list: an empty deque takes 760 bytes, and the window is short.
        self._unacked: list[tuple[int, int, float]] = []

    # --- what others ask ------------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether the device follows the streams as they happen."""
        return self._live

    @property
    def acks_by_itself(self) -> bool:
        """Whether frames count as received once they are with the kernel."""
        return self._acks is AckMode.AUTO

    @property
    def unacked_count(self) -> int:
        """Frames in flight."""
        return len(self._unacked)

    @property
    def oldest_unacked_at(self) -> float | None:
        """When the oldest frame in flight was written."""
        return self._unacked[0][2] if self._unacked else None

    @property
    def position(self) -> bytes:
        """How far frames were written."""
        return b"%b.%012x.%012x" % (self.epoch, self.sent_broadcast, self.sent_seq)

    @property
    def cursor(self) -> Cursor:
        """What is remembered of this device: how far it acknowledged, and how far frames were ever written to it."""
        high_seq, high_broadcast = max(self.sent_seq, self._high_seq), max(self.sent_broadcast, self._high_broadcast)
        return Cursor(self.acked_seq, self.acked_broadcast, high_seq, high_broadcast)

    def knows(self, position: Position) -> bool:
        """Whether this device can have got this position from here."""
        return (
            position.epoch.encode() == self.epoch
            and position.seq <= max(self.sent_seq, self._high_seq)
            and position.broadcast <= max(self.sent_broadcast, self._high_broadcast)
        )

    # --- the two streams ------------------------------------------------------------------------------------------

    def start(self, info: StreamInfo, start: Start, acks: AckMode, now: float) -> list[Effect]:
        """Begin at a point; what comes after it is fetched, or followed at once when there is nothing."""
        self._acks = acks
        self.epoch = info.epoch.encode()
        self._started = self._ask_synced = True
        self.sent_seq = self.acked_seq = start.seq
        self.sent_broadcast = self.acked_broadcast = start.broadcast
        self._high_seq, self._high_broadcast = start.high_seq, start.high_broadcast
        self._hear(info.top_seq, info.top_broadcast)
        return self.go_on(now)

    def stop(self) -> None:
        """Follow no longer."""
        self._started = self._live = False
        self._held.clear()

    def on_item(self, seq: int, type_: FrameType, body: bytes, *, is_repeat: bool, now: float) -> list[Effect]:
        """A frame of the user's stream arrived from the user's queue, or from the node that consumes it."""
        self._heard_seq = max(self._heard_seq, seq)
        if not self._live or seq <= self.sent_seq:
            return []
        if seq != self.sent_seq + 1:
            return self._hold(seq, (type_, body, is_repeat), now)
        if not self._has_room(type_):
            self._live = False
            return []
        effects = [self._write_item(seq, type_, body, is_repeat=is_repeat, now=now)]
        if self._held:
            effects += self._write_held(now)
        return effects

    def take_broadcasts(self, first: int, last: int, now: float) -> bool:
        """Whether to write these broadcasts to the socket now, all of them; their numbers are then counted as sent.

        The fast path of broadcasts: the frames are the same for every socket but for `position`, so no effect is built.
        When the answer is no for a single one, `go_on` says what to do instead.
        """
        self._heard_broadcast = max(self._heard_broadcast, last)
        if not self._live or first <= self.sent_broadcast:
            return False
        by_client = self._acks is AckMode.CLIENT
        has_room = not by_client or len(self._unacked) + last - first < self._max_unacked
        if first != self.sent_broadcast + 1 or not has_room:
            if first == last:
                self._live = False
            return False
        self.sent_broadcast = last
        if by_client:
            for number in range(first, last + 1):
                self._unacked.append((self.sent_seq, number, now))
        return True

    def on_page(self, page: Page, now: float) -> list[Effect]:
        """The page asked for."""
        self._fetching = False
        if not self._started:
            return []
        if self._is_fetch_stale:
            # The device went back while the page was read: it is not what is needed next.
            self._is_fetch_stale = False
            return self.go_on(now)
        if self._is_paused:
            return []
        before = self.sent_seq, self.sent_broadcast
        effects: list[Effect] = []
        written = 0
        for entry in page.entries:
            if entry.number <= (self.sent_broadcast if entry.is_broadcast else self.sent_seq):
                continue  # acknowledged meanwhile, by an acknowledgement from before the device went back
            if written > PAGE_BYTES:
                return [*effects, *self._fetch_if_room()]
            if not self._has_room(entry.type):
                return effects
            effects.append(self._write_entry(entry, now))
            written += len(entry.body)
        self.sent_seq = max(self.sent_seq, page.seq)
        self.sent_broadcast = max(self.sent_broadcast, page.broadcast)
        if (page.has_more or self._is_behind) and (self.sent_seq, self.sent_broadcast) == before:
            # Heard of, but not in the store yet (a replica that lags). Do not ask in a circle.
            return [*effects, *self._retry_later(now)]
        if page.has_more:
            return [*effects, *self._fetch_if_room()]
        return [*effects, *self.go_on(now)]

    def on_fetch_failed(self, now: float) -> list[Effect]:
        """The mailbox could not be read; it is asked again."""
        self._fetching = self._is_fetch_stale = False
        return self._retry_later(now) if self._started else []

    def on_top(self, top_seq: int, now: float) -> list[Effect]:
        """The store says where the stream ends. Finds frames that were lost between the broker and here."""
        if not self._started or top_seq <= self.sent_seq:
            return []
        self._heard_seq = max(self._heard_seq, top_seq)
        return self._leave_live() if self._live else self.go_on(now)

    def on_broadcast_top(self, top: int, now: float) -> list[Effect]:
        """The store says how far the broadcasts go. Finds those that no queue of this node was there for."""
        if not self._started or top <= self.sent_broadcast:
            return []
        self._heard_broadcast = max(self._heard_broadcast, top)
        return self._leave_live() if self._live else self.go_on(now)

    def settle(self, seq: int, broadcast: int, now: float) -> list[Effect]:
        """The device has everything up to these numbers."""
        unacked, settled = self._unacked, 0
        for sent_seq, sent_broadcast, _ in unacked:
            if sent_seq > seq or sent_broadcast > broadcast:
                break
            settled += 1
        if settled:
            del unacked[:settled]
        self.sent_seq, self.sent_broadcast = max(self.sent_seq, seq), max(self.sent_broadcast, broadcast)
        if seq <= self.acked_seq and broadcast <= self.acked_broadcast:
            return self.go_on(now)
        self.acked_seq = max(self.acked_seq, seq)
        self.acked_broadcast = max(self.acked_broadcast, broadcast)
        return [Acked(self.acked_seq, self.acked_broadcast), *self.go_on(now)]

    def on_flushed(self, now: float) -> list[Effect]:
        """Everything written is with the kernel, which counts as received when the client asked for that."""
        if self._acks is not AckMode.AUTO or not self._started:
            return []
        if self.sent_seq == self.acked_seq and self.sent_broadcast == self.acked_broadcast:
            return []
        return self.settle(self.sent_seq, self.sent_broadcast, now)

    def pause(self) -> None:
        """The peer does not take what is written: follow from afar, as one does who resumes."""
        self._is_paused = True
        self._hear(self.sent_seq, self.sent_broadcast)
        self._stop_live()

    def resume(self, now: float) -> list[Effect]:
        """The peer took what was written."""
        self._is_paused = False
        return self.go_on(now)

    def go_back(self, seq: int, broadcast: int, *, ask_synced: bool, now: float) -> list[Effect]:
        """Send everything after these numbers again."""
        self._high_seq = max(self._high_seq, self.sent_seq)
        self._high_broadcast = max(self._high_broadcast, self.sent_broadcast)
        self._hear(self.sent_seq, self.sent_broadcast)
        self.sent_seq, self.sent_broadcast = seq, broadcast
        self._unacked.clear()
        self._ask_synced = self._ask_synced or ask_synced
        self._is_fetch_stale = self._fetching
        self._stop_live()
        return self.go_on(now)

    # --- time -----------------------------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[Effect]:
        """Time has passed. A little early is fine: timers may fire a moment before their time."""
        if self._hole_since is not None and now - self._hole_since >= 0.9 * HOLE_WAIT_S:
            return self._leave_live()
        if self._retry_at is not None and now >= self._retry_at - 0.1 * RETRY_WAIT_S:
            self._retry_at = None
            return self._fetch_if_room()
        return []

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _is_behind(self) -> bool:
        return self._heard_seq > self.sent_seq or self._heard_broadcast > self.sent_broadcast

    def _hear(self, seq: int, broadcast: int) -> None:
        self._heard_seq = max(self._heard_seq, seq)
        self._heard_broadcast = max(self._heard_broadcast, broadcast)

    def _has_room(self, type_: FrameType) -> bool:
        # Only notifications wait for an acknowledgement: a lost change of state is sent again with the next resume.
        if type_ is not FrameType.NOTIFICATION or self._acks is AckMode.AUTO:
            return True
        return len(self._unacked) < self._max_unacked

    def _write_entry(self, entry: Entry, now: float) -> Effect:
        if not entry.is_broadcast:
            return self._write_item(entry.number, entry.type, entry.body, is_repeat=False, now=now)
        self.sent_broadcast = entry.number
        self._expect_ack(now)
        is_repeat = entry.number <= self._high_broadcast
        return SendText(add_position(FrameType.NOTIFICATION, self.position, entry.body, is_repeat=is_repeat))

    def _write_item(self, seq: int, type_: FrameType, body: bytes, *, is_repeat: bool, now: float) -> Effect:
        self.sent_seq = seq
        if type_ is FrameType.NOTIFICATION:
            self._expect_ack(now)
        return SendText(add_position(type_, self.position, body, is_repeat=is_repeat or seq <= self._high_seq))

    def _expect_ack(self, now: float) -> None:
        if self._acks is AckMode.CLIENT:
            self._unacked.append((self.sent_seq, self.sent_broadcast, now))

    def _hold(self, seq: int, frame: tuple[FrameType, bytes, bool], now: float) -> list[Effect]:
        if len(self._held) >= self._max_unacked:
            return self._leave_live()
        self._held[seq] = frame
        if self._hole_since is not None:
            return []
        self._hole_since = now
        return [WakeAfter(HOLE_WAIT_S)]

    def _write_held(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while (held := self._held.pop(self.sent_seq + 1, None)) is not None:
            type_, body, is_repeat = held
            if not self._has_room(type_):
                return [*effects, *self._leave_live()]
            effects.append(self._write_item(self.sent_seq + 1, type_, body, is_repeat=is_repeat, now=now))
        self._hole_since = now if self._held else None
        return [*effects, WakeAfter(HOLE_WAIT_S)] if self._held else effects

    # --- leaving and joining the live path ------------------------------------------------------------------------

    def go_on(self, now: float) -> list[Effect]:
        """Fetch if the follower is off the live path and able to; join it if there is nothing to fetch."""
        if self._live or self._fetching or self._is_paused or not self._started:
            return []
        if not self._is_behind:
            return self._join_live()
        if self._retry_at is not None and now < self._retry_at:
            return []
        return self._fetch_if_room()

    def _fetch_if_room(self) -> list[Effect]:
        # Half a window of room: otherwise a slow reader would cause a query per acknowledgement.
        if self._fetching or self._is_paused or 2 * len(self._unacked) > self._max_unacked:
            return []
        self._fetching = True
        self._retry_at = None
        return [Fetch(self.sent_seq, self.sent_broadcast, self._max_unacked - len(self._unacked))]

    def _join_live(self) -> list[Effect]:
        self._live = True
        self._retry_at = None
        if not self._ask_synced:
            return []
        self._ask_synced = False
        return [SendText(encode("synced", position=self.position.decode()))]

    def _leave_live(self) -> list[Effect]:
        self._stop_live()
        return self._fetch_if_room()

    def _stop_live(self) -> None:
        self._live = False
        self._held.clear()
        self._hole_since = None

    def _retry_later(self, now: float) -> list[Effect]:
        self._retry_at = now + RETRY_WAIT_S
        return [WakeAfter(RETRY_WAIT_S)]
