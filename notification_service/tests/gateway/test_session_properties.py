"""Random frames, deliveries, pages, time and failures: never a gap, nothing out of order, no end of memory.

The model is a store with two numbered streams, a broker that loses, swaps and repeats what it hands over, and a client
that acknowledges when it likes, goes back, vanishes and returns with its last position.
"""

from __future__ import annotations

import json

import pytest
from builders import EPOCH, make_cursor, make_info, open_session, position
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from notification_service.gateway.effects import Acked, Close, Effect, Fetch, SendText
from notification_service.gateway.session import Limits, Session
from notification_service.notifications.pages import Cursor, Entry, FrameType, Page
from shared_contracts.ws.frames import AckMode
from shared_contracts.ws.positions import parse_position

WINDOW = 4
LIMITS = Limits(max_unacked=WINDOW, ack_s=5.0, heartbeat_s=1e9, frames_per_second=10_000)


def body(seq: int, type_: FrameType) -> bytes:
    return b'{"seq":%d,"id":"i%d"}' % (seq, seq) if type_ is FrameType.NOTIFICATION else b'{"seq":%d}' % seq


class OneDevice(RuleBasedStateMachine):
    """See the module."""

    session: Session

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.items: list[FrameType] = []  # item n has number n + 1
        self.broadcasts = 0
        self.on_the_way: list[int] = []
        self.pending: Fetch | None = None
        self.shown: list[tuple[str, int]] = []  # what the client shows, once each
        self.seen: set[tuple[str, int]] = set()
        self.expected_seq = self.expected_broadcast = 0
        self.client_position = position(0)
        self.cursor: Cursor | None = None
        self.closed = False

    @initialize(auto=st.booleans())
    def start(self, *, auto: bool) -> None:
        self.mode = AckMode.AUTO if auto else AckMode.CLIENT
        self.connect(None)

    def connect(self, requested: str | None) -> None:
        info = make_info(top_seq=len(self.items), top_broadcast=self.broadcasts, cursor=self.cursor or make_cursor(0))
        self.session, effects = open_session(info, ack=self.mode, requested=requested, limits=LIMITS, now=self.now)
        self.pending, self.closed = None, False
        welcome = json.loads(next(each.text for each in effects if isinstance(each, SendText)))
        start = parse_position(welcome["position"])
        assert start is not None
        self.expected_seq, self.expected_broadcast = start.seq, start.broadcast
        self.take(effects)

    # --- what the server does -------------------------------------------------------------------------------------

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendText(text):
                    self.on_frame(json.loads(text))
                case Fetch():
                    assert self.pending is None, "asked twice at once"
                    assert 0 < effect.limit <= WINDOW
                    self.pending = effect
                case Acked(seq, broadcast):
                    assert seq <= len(self.items)
                    assert broadcast <= self.broadcasts
                case Close():
                    self.closed = True
                case _:
                    pass
        if self.mode is AckMode.AUTO and not self.closed and (more := self.session.follower.on_flushed(self.now)):
            self.take(more)

    def on_frame(self, frame: dict[str, object]) -> None:
        if frame["type"] not in ("notification", "state"):
            return
        place = parse_position(str(frame["position"]))
        assert place is not None
        assert place.epoch == EPOCH
        if "seq" in frame:
            number = frame["seq"]
            assert isinstance(number, int)
            assert number == self.expected_seq + 1 == place.seq, "a gap, or out of order"
            self.expected_seq = number
            key = ("item", number)
        else:
            number = place.broadcast
            assert number == self.expected_broadcast + 1, "a gap in the broadcasts"
            key = ("broadcast", number)
        self.expected_broadcast = place.broadcast
        assert place.seq == self.expected_seq
        if key in self.seen and frame["type"] == "notification":
            assert frame["redelivered"] is True
        if key not in self.seen:
            self.seen.add(key)
            self.shown.append(key)
        self.client_position = str(frame["position"])

    # --- what may happen ------------------------------------------------------------------------------------------

    @rule(is_state=st.booleans(), is_lost=st.booleans())
    def publish(self, *, is_state: bool, is_lost: bool) -> None:
        self.items.append(FrameType.STATE if is_state else FrameType.NOTIFICATION)
        if not is_lost:
            self.on_the_way.append(len(self.items))

    @rule(is_lost=st.booleans())
    def broadcast(self, *, is_lost: bool) -> None:
        self.broadcasts += 1
        if is_lost or self.closed:
            return
        follower = self.session.follower
        if follower.take_broadcasts(self.broadcasts, self.broadcasts, self.now):
            self.on_frame({"type": "notification", "position": follower.position.decode(), "redelivered": False})
        else:
            self.take(follower.go_on(self.now))

    @precondition(lambda self: self.on_the_way)
    @rule(which=st.integers(0, 3), keep=st.booleans())
    def deliver(self, which: int, *, keep: bool) -> None:
        index = min(which, len(self.on_the_way) - 1)
        seq = self.on_the_way[index]
        if not keep:
            del self.on_the_way[index]
        if not self.closed:
            type_ = self.items[seq - 1]
            self.take(self.session.on_item(seq, type_, body(seq, type_), is_repeat=False, now=self.now))

    @precondition(lambda self: self.pending is not None and not self.closed)
    @rule(fails=st.booleans(), lag=st.integers(0, 2))
    def answer_page(self, lag: int, *, fails: bool) -> None:
        wanted, self.pending = self.pending, None
        assert wanted is not None
        if fails:
            self.take(self.session.follower.on_fetch_failed(self.now))
            return
        # A replica may lag a little behind.
        top_seq = max(wanted.after_seq, len(self.items) - lag)
        top_broadcast = max(wanted.after_broadcast, self.broadcasts - lag)
        entries = [
            Entry(seq, is_broadcast=False, type=self.items[seq - 1], body=body(seq, self.items[seq - 1]))
            for seq in range(wanted.after_seq + 1, top_seq + 1)
        ] + [
            Entry(number, is_broadcast=True, type=FrameType.NOTIFICATION, body=b'{"id":"b"}')
            for number in range(wanted.after_broadcast + 1, top_broadcast + 1)
        ]
        page = entries[: wanted.limit]
        has_more = len(entries) > wanted.limit
        seq = max([wanted.after_seq, *(each.number for each in page if not each.is_broadcast)])
        broadcast = max([wanted.after_broadcast, *(each.number for each in page if each.is_broadcast)])
        if not has_more:
            seq, broadcast = top_seq, top_broadcast
        self.take(self.session.on_page(Page(page, seq, broadcast, has_more), self.now))

    @precondition(lambda self: self.mode is AckMode.CLIENT and not self.closed)
    @rule()
    def acknowledge(self) -> None:
        place = parse_position(self.client_position)
        assert place is not None
        # What was received before the server went back needs no second time.
        self.expected_seq = max(self.expected_seq, place.seq)
        self.expected_broadcast = max(self.expected_broadcast, place.broadcast)
        self.say("ack", self.client_position)

    @precondition(lambda self: not self.closed)
    @rule(back=st.integers(0, 5))
    def go_back(self, back: int) -> None:
        place = parse_position(self.client_position)
        assert place is not None
        seq = max(self.session.follower.acked_seq, place.seq - back)
        broadcast = max(self.session.follower.acked_broadcast, place.broadcast)
        if self.session.follower.knows(place._replace(seq=seq, broadcast=broadcast)):
            self.expected_seq, self.expected_broadcast = seq, broadcast
            self.say("sync", position(seq, broadcast))

    def say(self, type_: str, where: str) -> None:
        self.take(self.session.on_text(b'{"type":"%b","position":"%b"}' % (type_.encode(), where.encode()), self.now))

    @precondition(lambda self: not self.closed)
    @rule()
    def peer_stops_reading(self) -> None:
        self.session.follower.pause()

    @precondition(lambda self: not self.closed)
    @rule()
    def peer_reads_on(self) -> None:
        self.take(self.session.follower.resume(self.now))

    @rule(seconds=st.sampled_from([0.05, 0.11, 1.1, 6.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        if self.closed:
            return
        follower = self.session.follower
        oldest = follower.oldest_unacked_at
        if oldest is not None and self.now - oldest >= LIMITS.ack_s:
            # It will send again what is not acknowledged.
            self.expected_seq, self.expected_broadcast = follower.acked_seq, follower.acked_broadcast
        self.take(self.session.on_tick(self.now))

    @rule()
    def hear_the_top(self) -> None:
        if not self.closed:
            self.take(self.session.follower.on_top(len(self.items), self.now))
        if not self.closed:
            self.take(self.session.follower.on_broadcast_top(self.broadcasts, self.now))

    @rule(knows_position=st.booleans())
    def reconnect(self, *, knows_position: bool) -> None:
        self.cursor = self.session.follower.cursor
        self.connect(self.client_position if knows_position else None)

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def memory_is_bounded(self) -> None:
        if not hasattr(self, "session"):
            return
        follower = self.session.follower
        assert follower.unacked_count <= WINDOW
        assert len(follower._held) <= WINDOW

    @override
    def teardown(self) -> None:
        """However it went: a client that stays and acknowledges ends up with everything, in order."""
        if not hasattr(self, "session"):
            return
        for _ in range(4 * (len(self.items) + self.broadcasts) + 20):
            if self.closed:
                self.reconnect(knows_position=True)
            self.peer_reads_on()
            if self.pending is not None:
                self.answer_page(0, fails=False)
            if self.mode is AckMode.CLIENT:
                self.acknowledge()
            self.tick(1.1)
            self.hear_the_top()
            if len(self.shown) == len(self.items) + self.broadcasts:
                break
        numbers = {"item": 0, "broadcast": 0}
        for kind, number in self.shown:
            assert number == numbers[kind] + 1, "shown out of order"
            numbers[kind] = number
        assert numbers["item"] == len(self.items)
        assert numbers["broadcast"] == self.broadcasts


TestOneDevice = pytest.mark.req("I09")(OneDevice.TestCase)
TestOneDevice.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.generate])
