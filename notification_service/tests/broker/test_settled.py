"""Acknowledgements of a batch consumer: everything once, as few as can be, never a number the broker has had (H01)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notification_service.broker.consumer import Settled


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


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.randoms(), st.lists(st.booleans(), max_size=12))
def test_whatever_the_order_all_are_acknowledged_and_no_other(
    sizes: list[int], order: object, told: list[bool]
) -> None:
    """Batches end in any order, and are told of in between or not."""
    batches, first = [], 1
    for size in sizes:
        batches.append(list(range(first, first + size)))
        first += size
    order.shuffle(batches)  # type: ignore[attr-defined]
    settled, broker, done = Settled(), BrokersView(first - 1), set[int]()
    for place, batch in enumerate(batches):
        settled.add(batch)
        done.update(batch)
        if place < len(told) and told[place]:
            broker.acknowledge(*settled.take())
            assert broker.waiting == set(range(1, first)) - done
    broker.acknowledge(*settled.take())
    assert not broker.waiting
    assert settled.take() == (None, [])


def test_in_order_one_acknowledgement_is_enough() -> None:
    settled = Settled()
    settled.add([1, 2, 3])
    settled.add([4])
    assert settled.take() == (4, [])
    settled.add([6])
    assert settled.take() == (None, [6])
    settled.add([5, 7])
    assert settled.take() == (7, [])
