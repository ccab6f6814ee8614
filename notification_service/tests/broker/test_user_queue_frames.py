"""What is written for many users at once is, for each of them, what the library writes for one."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from aiormq import spec
from aiormq.channel import Channel
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame

from notification_service.broker.user_queue_frames import (
    consume_user_queues,
    declare_user_queues,
    make_consumer_tag,
    read_consumer_tag,
)
from shared_contracts.topology import user_queue


class WrittenChannel:
    """Keeps what is written, and answers the question at the end."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.consumers: dict[str, Any] = {}
        self.write_queue = self
        self.written = b""
        self.prefetch_counts: list[int] = []

    async def put(self, piece: Any) -> None:
        self.written += piece.payload

    async def basic_qos(self, *, prefetch_count: int) -> None:
        assert self.written
        self.prefetch_counts.append(prefetch_count)


def read(data: bytes) -> list[tuple[int, Any]]:
    frames = []
    while data:
        used, channel, read_frame = frame.unmarshal(data)
        frames.append((channel, read_frame))
        data = data[used:]
    return frames


def fields(each: Any) -> tuple[str, dict[str, Any]]:
    return each.name, dict(each)


USERS = st.lists(st.uuids(), min_size=1, max_size=5, unique=True)
CHANNELS = st.integers(1, 2047)


@given(user_ids=USERS, number=CHANNELS, places=st.sets(st.integers(0, 4)))
def test_declarations_are_those_of_the_library(user_ids: list[UUID], number: int, places: set[int]) -> None:
    channel = WrittenChannel(number)
    bound = {each for place, each in enumerate(user_ids) if place in places}
    run(declare_user_queues(cast("Channel", channel), user_ids, bound=bound))
    expected: list[Any] = []
    for user_id in user_ids:
        queue = user_queue(user_id)
        if user_id in bound:
            expected.append(spec.Queue.Declare(queue=queue.name, passive=True, nowait=True))
            continue
        expected += [
            spec.Queue.Declare(queue=queue.name, durable=True, nowait=True, arguments=dict(queue.arguments)),
            spec.Queue.Bind(queue=queue.name, exchange="delivery.direct", routing_key=queue.name, nowait=True),
        ]
    found = read(channel.written)
    assert [fields(each) for _, each in found] == [fields(each) for each in expected]
    assert {each for each, _ in found} == {number}
    assert channel.prefetch_counts == [1]


@given(user_ids=USERS, number=CHANNELS, turn=st.integers(0, 2**40))
def test_consumers_are_those_of_the_library_and_known_to_it(user_ids: list[UUID], number: int, turn: int) -> None:
    channel = WrittenChannel(number)
    tags = [make_consumer_tag(each, turn) for each in user_ids]
    run(consume_user_queues(cast("Channel", channel), tags, prefetch_count=64))
    expected = [
        spec.Basic.Consume(queue=user_queue(each).name, consumer_tag=tag, nowait=True)
        for each, tag in zip(user_ids, tags, strict=True)
    ]
    found = read(channel.written)
    assert [fields(each) for _, each in found] == [fields(each) for each in expected]
    assert {each for each, _ in found} == {number}
    assert channel.prefetch_counts == [64]
    assert list(channel.consumers) == tags
    assert [read_consumer_tag(each) for each in tags] == user_ids


def test_a_foreign_consumer_tag_is_nobodys() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        read_consumer_tag("ctag1.0")


def test_consumers_of_one_user_are_told_apart() -> None:
    user_id = uuid4()
    assert len({make_consumer_tag(user_id, turn) for turn in range(100)}) == 100


def run(work: Any) -> None:
    """To its end; nothing in it waits."""
    with pytest.raises(StopIteration):
        work.send(None)
