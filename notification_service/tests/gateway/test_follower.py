"""The follower: in order, without a gap, within a window, whatever comes in whatever order."""

from __future__ import annotations

import random

import pytest
from builders import body, frames, item, make_cursor, make_info, make_page, others, position, types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notification_service.gateway.effects import Acked, Effect, Fetch, SendText, WakeAfter
from notification_service.gateway.follower import HOLE_WAIT_S, RETRY_WAIT_S, Follower
from notification_service.notifications.pages import Cursor, Entry, FrameType, Page, StreamInfo
from notification_service.notifications.resuming import decide_start
from shared_contracts.ws.frames import AckMode
from shared_contracts.ws.positions import parse_position

NOTE, STATE = FrameType.NOTIFICATION, FrameType.STATE


def follow(
    info: StreamInfo | None = None, *, ack: AckMode = AckMode.CLIENT, window: int = 4, now: float = 0.0
) -> tuple[Follower, list[Effect]]:
    follower = Follower(window)
    info = info or make_info()
    return follower, follower.start(info, decide_start(None, info, max_items=10_000), ack, now)


def live(follower: Follower, seq: int, now: float = 0.0, type_: FrameType = NOTE) -> list[Effect]:
    return follower.on_item(seq, type_, body(seq), is_repeat=False, now=now)


def seqs(effects: list[Effect]) -> list[int]:
    return [frame["seq"] for frame in frames(effects) if "seq" in frame]


# --- starting ------------------------------------------------------------------------------------------------------


def test_with_nothing_to_fetch_it_is_live_at_once() -> None:
    follower, effects = follow()
    assert follower.is_live
    assert types(effects) == ["synced"]


def test_with_something_to_fetch_it_fetches_and_is_live_afterwards() -> None:
    follower, effects = follow(make_info(top_seq=2))
    assert effects == [Fetch(0, 0, 4)]
    effects = follower.on_page(make_page([1, 2], seq=2), 0.0)
    assert types(effects) == ["notification", "notification", "synced"]
    assert follower.is_live
    assert follower.position.decode() == position(2)


def test_before_the_start_nothing_is_written() -> None:
    follower = Follower(4)
    assert live(follower, 1) == []
    assert follower.on_page(make_page([1], seq=1), 0.0) == []
    assert follower.on_fetch_failed(0.0) == []
    assert follower.on_top(5, 0.0) == []
    assert follower.on_broadcast_top(5, 0.0) == []
    assert follower.on_flushed(0.0) == []
    assert not follower.take_broadcasts(1, 1, 0.0)


def test_what_arrives_while_it_fetches_is_fetched_too() -> None:
    follower, _ = follow(make_info(top_seq=1))
    assert live(follower, 2) == []
    effects = follower.on_page(make_page([1], seq=1), 0.0)
    assert seqs(effects) == [1]
    assert others(effects) == [Fetch(1, 0, 3)]
    effects = follower.on_page(make_page([2], seq=2), 0.0)
    assert types(effects) == ["notification", "synced"]


def test_numbers_without_an_entry_were_compacted_and_count_as_sent() -> None:
    follower, _ = follow(make_info(top_seq=10))
    effects = follower.on_page(make_page([3, 9], seq=10), 0.0)
    assert seqs(effects) == [3, 9]
    assert follower.sent_seq == 10
    assert seqs(live(follower, 11)) == [11]


# --- the live path -------------------------------------------------------------------------------------------------


def test_live_frames_are_written_with_their_position() -> None:
    follower, _ = follow()
    (frame,) = frames(live(follower, 1))
    assert frame == {"type": "notification", "position": position(1), "redelivered": False, "seq": 1, "id": "n1"}


def test_a_state_frame_has_no_redelivered() -> None:
    follower, _ = follow()
    (frame,) = frames(live(follower, 1, type_=STATE))
    assert frame == {"type": "state", "position": position(1), "seq": 1, "id": "n1"}


def test_a_frame_the_broker_delivered_before_is_marked() -> None:
    follower, _ = follow()
    (frame,) = frames(follower.on_item(1, NOTE, body(1), is_repeat=True, now=0.0))
    assert frame["redelivered"] is True


def test_a_frame_that_came_before_is_dropped() -> None:
    follower, _ = follow()
    live(follower, 1)
    assert live(follower, 1) == []


def test_swapped_frames_are_put_in_order() -> None:
    follower, _ = follow()
    assert live(follower, 2) == [WakeAfter(HOLE_WAIT_S)]
    assert live(follower, 3) == []
    assert seqs(live(follower, 1)) == [1, 2, 3]
    assert follower.on_tick(10.0) == []


def test_a_second_hole_behind_the_first_is_waited_for_again() -> None:
    follower, _ = follow()
    live(follower, 2)
    live(follower, 4)
    effects = live(follower, 1, now=0.05)
    assert seqs(effects) == [1, 2]
    assert others(effects) == [WakeAfter(HOLE_WAIT_S)]
    assert follower.on_tick(0.11) == []
    assert follower.on_tick(0.15) == [Fetch(2, 0, 2)]


def test_a_hole_that_stays_is_read_from_the_mailbox() -> None:
    follower, _ = follow()
    live(follower, 2)
    assert follower.on_tick(0.05) == []
    assert follower.on_tick(HOLE_WAIT_S) == [Fetch(0, 0, 4)]
    assert not follower.is_live
    assert seqs(follower.on_page(make_page([1, 2], seq=2), 0.2)) == [1, 2]
    assert follower.is_live


def test_too_many_held_frames_are_not_held_but_fetched() -> None:
    follower, _ = follow(window=4)
    for seq in (2, 3, 4, 5):
        live(follower, seq)
    assert live(follower, 6) == [Fetch(0, 0, 4)]


def test_held_frames_beyond_the_window_are_fetched_later() -> None:
    follower, _ = follow(window=2)
    live(follower, 2)
    live(follower, 3)
    effects = live(follower, 1)
    assert seqs(effects) == [1, 2]
    assert not follower.is_live
    assert others(follower.settle(2, 0, 0.0)) == [Acked(2, 0), Fetch(2, 0, 2)]


# --- the window ----------------------------------------------------------------------------------------------------


def test_a_full_window_leaves_the_live_path_until_half_of_it_is_acknowledged() -> None:
    follower, _ = follow(window=4)
    for seq in range(1, 5):
        live(follower, seq)
    assert live(follower, 5) == []
    assert not follower.is_live
    assert follower.settle(1, 0, 0.0) == [Acked(1, 0)]
    assert follower.settle(2, 0, 0.0) == [Acked(2, 0), Fetch(4, 0, 2)]
    assert seqs(follower.on_page(make_page([5], seq=5), 0.0)) == [5]
    assert follower.is_live


def test_state_frames_need_no_room() -> None:
    follower, _ = follow(window=1)
    live(follower, 1)
    assert seqs(live(follower, 2, type_=STATE)) == [2]
    assert follower.unacked_count == 1


def test_a_page_longer_than_the_room_is_cut() -> None:
    follower, _ = follow(make_info(top_seq=4), window=2)
    assert seqs(follower.on_page(make_page([1, 2, 3], seq=4), 0.0)) == [1, 2]
    assert follower.sent_seq == 2
    assert follower.settle(2, 0, 0.0) == [Acked(2, 0), Fetch(2, 0, 2)]


def test_an_old_acknowledgement_changes_nothing() -> None:
    follower, _ = follow()
    live(follower, 1)
    live(follower, 2)
    follower.settle(2, 0, 0.0)
    assert follower.settle(1, 0, 0.0) == []
    assert (follower.acked_seq, follower.unacked_count, follower.oldest_unacked_at) == (2, 0, None)


def test_in_auto_mode_the_kernel_acknowledges() -> None:
    follower, _ = follow(ack=AckMode.AUTO, window=1)
    assert follower.acks_by_itself
    for seq in range(1, 10):
        live(follower, seq)
    assert follower.on_flushed(0.0) == [Acked(9, 0)]
    assert follower.on_flushed(0.0) == []
    assert follower.unacked_count == 0


def test_in_client_mode_the_kernel_does_not() -> None:
    follower, _ = follow()
    live(follower, 1)
    assert follower.on_flushed(0.0) == []


# --- broadcasts ----------------------------------------------------------------------------------------------------


def test_broadcasts_are_taken_in_order() -> None:
    follower, _ = follow()
    assert follower.take_broadcasts(1, 1, 0.0)
    assert follower.position.decode() == position(0, 1)
    assert not follower.take_broadcasts(1, 1, 0.0)
    assert follower.is_live


def test_a_missing_broadcast_is_fetched() -> None:
    follower, _ = follow()
    assert not follower.take_broadcasts(2, 2, 0.0)
    assert follower.go_on(0.0) == [Fetch(0, 0, 4)]
    page = Page([item(1, is_broadcast=True), item(2, is_broadcast=True)], 0, 2, has_more=False)
    effects = follower.on_page(page, 0.0)
    assert [frame["position"] for frame in frames(effects)] == [position(0, 1), position(0, 2)]
    assert follower.take_broadcasts(3, 3, 0.0)


def test_broadcasts_count_in_the_window() -> None:
    follower, _ = follow(window=2)
    assert follower.take_broadcasts(1, 1, 0.0)
    live(follower, 1)
    assert not follower.take_broadcasts(2, 2, 0.0)
    assert follower.go_on(0.0) == []
    # An acknowledgement covers both streams up to the frame that carried it, and not the frame after.
    follower.settle(0, 1, 0.0)
    assert follower.unacked_count == 1


def test_in_auto_mode_broadcasts_need_no_room() -> None:
    follower, _ = follow(ack=AckMode.AUTO, window=1)
    assert all(follower.take_broadcasts(number, number, 0.0) for number in range(1, 5))
    assert follower.on_flushed(0.0) == [Acked(0, 4)]


def test_broadcasts_sent_before_are_marked() -> None:
    info = make_info(top_broadcast=2, cursor=make_cursor(0))
    follower = Follower(4)
    start = decide_start(position(0, 0), info, max_items=100)
    follower.start(info, start, AckMode.CLIENT, 0.0)
    page = Page([item(1, is_broadcast=True), item(2, is_broadcast=True)], 0, 2, has_more=False)
    follower.on_page(page, 0.0)
    assert follower.go_back(0, 0, ask_synced=False, now=0.0) == [Fetch(0, 0, 4)]
    effects = follower.on_page(page, 0.0)
    assert [frame["redelivered"] for frame in frames(effects)] == [True, True]


# --- going back ----------------------------------------------------------------------------------------------------


def test_going_back_sends_again_marked_and_says_when_it_is_done() -> None:
    follower, _ = follow()
    for seq in (1, 2, 3):
        live(follower, seq)
    assert follower.go_back(1, 0, ask_synced=True, now=0.0) == [Fetch(1, 0, 4)]
    effects = follower.on_page(make_page([2, 3], seq=3), 0.0)
    assert [frame.get("redelivered") for frame in frames(effects)] == [True, True, None]
    assert types(effects)[-1] == "synced"


def test_a_page_asked_for_before_going_back_is_thrown_away() -> None:
    follower, _ = follow(make_info(top_seq=6), window=8)
    follower.on_page(make_page([1, 2, 3], seq=3, has_more=True), 0.0)
    assert follower.go_back(1, 0, ask_synced=False, now=0.0) == []
    effects = follower.on_page(make_page([4, 5, 6], seq=6), 0.0)
    assert effects == [Fetch(1, 0, 8)]
    assert seqs(follower.on_page(make_page([2, 3, 4, 5, 6], seq=6), 0.0)) == [2, 3, 4, 5, 6]


def test_an_acknowledgement_from_before_going_back_still_counts() -> None:
    follower, _ = follow()
    for seq in (1, 2, 3):
        live(follower, seq)
    follower.go_back(0, 0, ask_synced=False, now=0.0)
    parsed = parse_position(position(2))
    assert parsed is not None
    assert follower.knows(parsed)
    assert others(follower.settle(2, 0, 0.0)) == [Acked(2, 0)]
    assert seqs(follower.on_page(make_page([1, 2, 3], seq=3), 0.0)) == [3]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (position(2), True),
        (position(0), True),
        (position(3), False),
        (position(2, 1), False),
        (position(2, epoch="deadbeef"), False),
    ],
)
def test_only_positions_that_were_given_out_are_known(text: str, *, known: bool) -> None:
    follower, _ = follow()
    live(follower, 1)
    live(follower, 2)
    parsed = parse_position(text)
    assert parsed is not None
    assert follower.knows(parsed) is known


# --- failures ------------------------------------------------------------------------------------------------------


def test_a_failed_fetch_is_tried_again_after_a_pause() -> None:
    follower, _ = follow(make_info(top_seq=1))
    assert follower.on_fetch_failed(0.0) == [WakeAfter(RETRY_WAIT_S)]
    assert follower.go_on(0.1) == []
    assert follower.on_tick(0.5) == []
    assert follower.on_tick(RETRY_WAIT_S) == [Fetch(0, 0, 4)]


def test_a_page_that_brings_nothing_is_not_asked_for_in_a_circle() -> None:
    follower, _ = follow(make_info(top_seq=1))
    assert follower.on_page(make_page([], seq=0), 0.0) == [WakeAfter(RETRY_WAIT_S)]
    assert follower.on_tick(RETRY_WAIT_S) == [Fetch(0, 0, 4)]


def test_a_long_backlog_comes_in_pages() -> None:
    follower, _ = follow(make_info(top_seq=6), ack=AckMode.AUTO, window=2)
    assert others(follower.on_page(make_page([1, 2], seq=2, has_more=True), 0.0)) == [Fetch(2, 0, 2)]
    assert others(follower.on_page(make_page([3, 4], seq=4, has_more=True), 0.0)) == [Fetch(4, 0, 2)]
    assert types(follower.on_page(make_page([5, 6], seq=6), 0.0))[-1] == "synced"


@pytest.mark.req("DG-6")
def test_a_top_the_store_knows_of_is_caught_up_with() -> None:
    follower, _ = follow()
    live(follower, 1)
    assert follower.on_top(1, 0.0) == []
    assert follower.on_top(3, 0.0) == [Fetch(1, 0, 3)]
    assert follower.on_top(4, 0.0) == []
    assert seqs(follower.on_page(make_page([2, 3, 4], seq=4), 0.0)) == [2, 3, 4]


@pytest.mark.req("H09")
@pytest.mark.req("DG-6")
def test_a_broadcast_the_store_knows_of_is_caught_up_with() -> None:
    follower, _ = follow()
    assert follower.take_broadcasts(1, 1, 0.0)
    assert follower.on_broadcast_top(1, 0.0) == []
    assert follower.on_broadcast_top(2, 0.0) == [Fetch(0, 1, 3)]
    assert follower.on_broadcast_top(3, 0.0) == []
    page = Page([item(2, is_broadcast=True), item(3, is_broadcast=True)], 0, 3, has_more=False)
    assert types(follower.on_page(page, 0.0)) == ["notification", "notification"]
    assert follower.is_live


def test_after_the_stop_nothing_is_written() -> None:
    follower, _ = follow()
    follower.stop()
    assert live(follower, 1) == []
    assert follower.go_on(0.0) == []


# --- everything at once --------------------------------------------------------------------------------------------


class World:
    """A store, a lossy broker that swaps and repeats, and a client that acknowledges when it likes."""

    def __init__(self, chance: random.Random, window: int) -> None:
        self.chance = chance
        self.window = window
        self.now = 0.0
        self.top = self.broadcast_top = 0
        self.flying: list[int] = []
        self.fetch: Fetch | None = None
        self.got: list[tuple[str, int]] = []
        self.unacked: list[str] = []
        self.follower = Follower(window)
        info = make_info()
        self.run(self.follower.start(info, decide_start(None, info, max_items=1000), AckMode.CLIENT, 0.0))

    def run(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendText():
                    (frame,) = frames([effect])
                    if frame["type"] == "notification":
                        kind = "broadcast" if frame["id"].startswith("b") else "item"
                        self.got.append((kind, int(frame["id"][1:])))
                        self.unacked.append(frame["position"])
                case Fetch():
                    assert self.fetch is None, "two fetches at once"
                    assert 1 <= effect.limit <= self.window
                    self.fetch = effect
                case Acked() | WakeAfter():
                    pass
        assert self.follower.unacked_count <= self.window

    def step(self) -> None:
        self.now += self.chance.choice([0.0, 0.01, 0.2, 1.5])
        self.chance.choice(
            [
                self.publish,
                self.publish,
                self.deliver,
                self.deliver,
                self.broadcast,
                self.answer,
                self.fail,
                self.acknowledge,
                self.tick,
                self.go_back,
                self.lose,
            ]
        )()

    def publish(self) -> None:
        self.top += 1
        self.flying.append(self.top)

    def deliver(self) -> None:
        if self.flying:
            seq = self.flying.pop(self.chance.randrange(min(3, len(self.flying))))
            if self.chance.random() < 0.1:
                self.flying.append(seq)
            self.run(self.follower.on_item(seq, NOTE, body(seq), is_repeat=False, now=self.now))

    def lose(self) -> None:
        if self.flying and self.chance.random() < 0.3:
            self.flying.pop()

    def broadcast(self) -> None:
        self.broadcast_top += 1
        if self.chance.random() < 0.2:
            return  # lost
        if self.follower.take_broadcasts(self.broadcast_top, self.broadcast_top, self.now):
            self.got.append(("broadcast", self.broadcast_top))
            self.unacked.append(self.follower.position.decode())
        else:
            self.run(self.follower.go_on(self.now))

    def answer(self) -> None:
        if self.fetch is None:
            return
        fetch, self.fetch = self.fetch, None
        waiting = [(seq, False) for seq in range(fetch.after_seq + 1, self.top + 1)]
        waiting += [(number, True) for number in range(fetch.after_broadcast + 1, self.broadcast_top + 1)]
        taken = waiting[: fetch.limit]
        seq = max((number for number, shared in taken if not shared), default=fetch.after_seq)
        shared_top = max((number for number, shared in taken if shared), default=fetch.after_broadcast)
        entries = [
            Entry(number, is_broadcast=shared, type=NOTE, body=b'{"id":"%b%d"}' % (b"b" if shared else b"n", number))
            for number, shared in taken
        ]
        self.run(self.follower.on_page(Page(entries, seq, shared_top, len(waiting) > len(taken)), self.now))

    def fail(self) -> None:
        if self.fetch is not None:
            self.fetch = None
            self.run(self.follower.on_fetch_failed(self.now))

    def acknowledge(self) -> None:
        if self.unacked:
            index = self.chance.randrange(len(self.unacked))
            parsed = parse_position(self.unacked[index])
            del self.unacked[: index + 1]
            assert parsed is not None
            assert self.follower.knows(parsed)
            self.run(self.follower.settle(parsed.seq, parsed.broadcast, self.now))

    def go_back(self) -> None:
        if self.chance.random() < 0.2:
            follower = self.follower
            effects = follower.go_back(follower.acked_seq, follower.acked_broadcast, ask_synced=False, now=self.now)
            self.run(effects)

    def tick(self) -> None:
        self.run(self.follower.on_tick(self.now))

    def settle_down(self) -> None:
        """No more faults: everything must arrive."""
        for _ in range(20 * (self.top + self.broadcast_top + 10)):
            self.now += 1.5
            self.run(self.follower.on_top(self.top, self.now))
            if not self.follower.take_broadcasts(self.broadcast_top, self.broadcast_top, self.now):
                self.run(self.follower.go_on(self.now))
            else:
                self.got.append(("broadcast", self.broadcast_top))
                self.unacked.append(self.follower.position.decode())
            self.tick()
            self.answer()
            self.acknowledge()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), window=st.integers(1, 8), steps=st.integers(10, 150))
def test_no_interleaving_leaves_a_gap_or_shows_anything_out_of_order(seed: int, window: int, steps: int) -> None:
    world = World(random.Random(seed), window)
    for _ in range(steps):
        world.step()
    world.settle_down()
    for kind, top in (("item", world.top), ("broadcast", world.broadcast_top)):
        first_times: list[int] = []
        for got_kind, number in world.got:
            if got_kind == kind and number not in first_times:
                first_times.append(number)
        assert first_times == list(range(1, top + 1))


# --- a peer that reads slowly --------------------------------------------------------------------------------------


@pytest.mark.req("D15")
def test_a_page_of_long_items_is_written_in_pieces() -> None:
    follower, _ = follow(make_info(top_seq=10), window=64)
    text = b'{"seq":1,"body":"%b"}' % (b"x" * 60_000)
    page = Page([Entry(seq, is_broadcast=False, type=NOTE, body=text) for seq in range(1, 11)], 10, 0, has_more=False)
    effects = follower.on_page(page, 0.0)
    assert len([each for each in effects if isinstance(each, SendText)]) == 5
    assert effects[-1] == Fetch(5, 0, 59)


@pytest.mark.req("D15")
def test_who_does_not_take_what_is_written_is_left_alone_until_they_do() -> None:
    follower, _ = follow(make_info(top_seq=2), window=64)
    follower.pause()
    assert follower.on_page(make_page([1, 2], seq=2), 0.0) == []
    assert follower.on_item(3, FrameType.NOTIFICATION, b"{}", is_repeat=False, now=0.0) == []
    assert not follower.take_broadcasts(1, 1, 0.0)
    assert follower.go_on(0.0) == []
    assert follower.on_top(9, 0.0) == []
    assert follower.resume(1.0) == [Fetch(0, 0, 64)]


def test_a_pause_without_anything_missed_ends_where_it_began() -> None:
    follower, _ = follow()
    assert follower.is_live
    follower.pause()
    assert not follower.is_live
    assert follower.resume(1.0) == []
    assert follower.is_live


def test_the_cursor_knows_what_was_written_before_it_went_back() -> None:
    follower, _ = follow()
    follower.on_item(1, FrameType.NOTIFICATION, b'{"seq":1}', is_repeat=False, now=0.0)
    follower.go_back(0, 0, ask_synced=False, now=1.0)
    assert follower.cursor == Cursor(0, 0, 1, 0)
