"""What of a channel is settled: everything once, as few as can be, never a number the broker has had (H01, I06)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notification_service.broker.settling import Settled


class BrokersView:
    """Which tags RabbitMQ waits for; it closes the channel on a tag it does not know."""

    def __init__(self, count: int) -> None:
        self.waiting = set(range(1, count + 1))

    def acknowledge(self, last: int | None, ahead: list[int]) -> None:
        if last is not None:
            assert last in self.waiting
            self.waiting -= set(range(1, last + 1))
        for tag in ahead:
            assert tag in self.waiting
            self.waiting.discard(tag)

    def take_back(self, tags: list[int]) -> None:
        assert self.waiting >= set(tags)
        self.waiting -= set(tags)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
    st.randoms(),
    st.lists(st.booleans(), max_size=12),
    st.sets(st.integers(0, 11), max_size=4),
)
def test_whatever_the_order_all_are_acknowledged_and_no_other(
    sizes: list[int], order: object, told: list[bool], returned: set[int]
) -> None:
    """Batches end in any order, some are given back, and they are told of in between or not."""
    batches, first = [], 1
    for size in sizes:
        batches.append(list(range(first, first + size)))
        first += size
    order.shuffle(batches)  # type: ignore[attr-defined]
    settled, broker, done = Settled(), BrokersView(first - 1), set[int]()
    for place, batch in enumerate(batches):
        done.update(batch)
        if place in returned:
            broker.take_back(batch)
            settled.pass_over(batch)
        else:
            settled.add(batch)
        if place < len(told) and told[place]:
            broker.acknowledge(*settled.take())
            assert broker.waiting == set(range(1, first)) - done
    broker.acknowledge(*settled.take())
    assert not broker.waiting
    assert settled.take() == (None, [])
    assert not settled._done  # nothing is kept of what is over


def test_in_order_one_acknowledgement_is_enough() -> None:
    settled = Settled()
    settled.add([1, 2, 3])
    settled.add([4])
    assert settled.take() == (4, [])
    settled.add([6])
    assert settled.take() == (None, [6])
    settled.add([5, 7])
    assert settled.take() == (7, [])


def test_what_is_done_twice_is_told_once() -> None:
    settled = Settled()
    settled.add([1, 3])
    assert settled.take() == (1, [3])
    settled.add([1, 3])
    settled.pass_over([1])
    assert settled.take() == (None, [])
    settled.add([2])
    assert settled.take() == (2, [])
