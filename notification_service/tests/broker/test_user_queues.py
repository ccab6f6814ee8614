"""Users' queues over a few channels: declared, consumed, left, and taken up again (I06, I13, I14, I15)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from amqp import Bystander, bystander
from clocks import SetClock
from waiting import until

from herald_local.rabbitmq import RabbitNode
from notification_service.broker import user_queues as user_queues_module
from notification_service.broker.settling import Settled
from notification_service.broker.user_queue_frames import consume_user_queues, declare_user_queues
from notification_service.broker.user_queues import QueuedFrame, Receipt, UserQueues
from notification_service.errors import Unavailable
from shared_contracts import headers
from shared_contracts.topology import user_queue_name

LIMIT = timedelta(seconds=20)


class Listener:
    def __init__(self) -> None:
        self.frames: list[tuple[UUID, QueuedFrame]] = []
        self.lost: list[UUID] = []

    def on_frame(self, user_id: UUID, frame: QueuedFrame) -> None:
        self.frames.append((user_id, frame))

    def on_consumer_lost(self, user_id: UUID) -> None:
        self.lost.append(user_id)

    def bodies(self, user_id: UUID) -> list[bytes]:
        return [frame.body for owner, frame in self.frames if owner == user_id]

    def receipts(self, user_id: UUID) -> list[Receipt]:
        return [frame.receipt for owner, frame in self.frames if owner == user_id]


@contextlib.asynccontextmanager
async def user_queues(
    url: str, listener: Listener, clock: SetClock, *, prefetch_count: int = 64
) -> AsyncIterator[UserQueues]:
    queues = UserQueues(url, name="test", prefetch_count=prefetch_count, listener=listener, clock=clock)
    queues.start()
    try:
        await queues.link.wait_ready(LIMIT)
        yield queues
    finally:
        await queues.close()


async def join(queues: UserQueues, *user_ids: UUID) -> None:
    for user_id in user_ids:
        await queues.declare(user_id)
        await queues.consume(user_id)


async def send(outside: Bystander, user_id: UUID, *bodies: bytes, seq: int | None = None) -> None:
    for body in bodies:
        await outside.publish(
            body,
            exchange="delivery.direct",
            key=user_queue_name(user_id),
            headers={headers.SEQ: seq} if seq is not None else None,
            message_type="notification",
        )


async def test_frames_reach_their_owner_with_number_and_type(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    ada, bob = uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada, bob)
        await join(queues, ada)  # again: harmless
        assert queues.consumer_count == 2
        assert await outside.consumers(user_queue_name(ada)) == 1
        await send(outside, ada, b"1", seq=7)
        await send(outside, bob, b"2")
        await until(lambda: len(listener.frames) == 2)
    (frame,) = [frame for owner, frame in listener.frames if owner == ada]
    assert (frame.seq, frame.type, frame.body, frame.is_redelivered) == (7, "notification", b"1", False)
    (foreign,) = [frame for owner, frame in listener.frames if owner == bob]
    assert foreign.seq is None


@pytest.mark.req("I06")
async def test_what_is_not_settled_stays_in_the_broker_beyond_the_prefetch(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    ada = uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock, prefetch_count=3) as queues:
        await join(queues, ada)
        await send(outside, ada, *(b"%d" % number for number in range(8)))
        await until(lambda: len(listener.frames) == 3)
        assert await outside.depth(user_queue_name(ada)) == 5
        await queues.settle(listener.receipts(ada)[:2])
        await until(lambda: len(listener.frames) == 5)
        assert listener.bodies(ada) == [b"0", b"1", b"2", b"3", b"4"]
    # Closing returns what is unsettled: 2 to 7.
    await until(lambda: _has(outside, ada, 6))
    assert [message.body for message in await _take_all(outside, ada)] == [b"2", b"3", b"4", b"5", b"6", b"7"]


async def _has(outside: Bystander, user_id: UUID, depth: int) -> bool:
    return await outside.depth(user_queue_name(user_id)) == depth


async def _take_all(outside: Bystander, user_id: UUID) -> list[Any]:
    taken: list[Any] = []
    async with outside.channel() as channel:
        depth = await outside.depth(user_queue_name(user_id))

        async def note(message: object) -> None:
            taken.append(message)

        await channel.basic_consume(user_queue_name(user_id), note, no_ack=True)
        await until(lambda: len(taken) == depth)
    return taken


async def test_leaving_returns_what_is_unsettled_in_its_order(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    ada = uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada)
        await send(outside, ada, *(b"%d" % number for number in range(5)))
        await until(lambda: len(listener.frames) == 5)
        receipts = listener.receipts(ada)
        await queues.settle(receipts[:1])
        await queues.leave(ada, receipts[1:])
        assert queues.consumer_count == 0
        await until(lambda: _has(outside, ada, 4))
        assert await outside.consumers(user_queue_name(ada)) == 0
        await queues.leave(ada, [])  # again: harmless
        await queues.consume(ada)
        await until(lambda: len(listener.frames) == 9)
        assert listener.bodies(ada)[5:] == [b"1", b"2", b"3", b"4"]
        assert all(frame.is_redelivered for _, frame in listener.frames[5:])
        assert listener.lost == []


async def test_a_user_on_two_nodes_is_served_by_one_and_taken_over_by_the_other(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    ada = uuid4()
    first, second = Listener(), Listener()
    async with user_queues(amqp_url, second, clock) as standby:
        async with user_queues(amqp_url, first, clock) as active:
            await join(active, ada)
            await join(standby, ada)
            await send(outside, ada, b"1", b"2", b"3")
            await until(lambda: len(first.frames) == 3)
            assert second.frames == []
            await active.settle(first.receipts(ada)[:1])
        await until(lambda: second.bodies(ada) == [b"2", b"3"])


@pytest.mark.req("I13")
async def test_a_queue_deleted_under_the_consumer_is_told_to_its_owner(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    ada, bob = uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada, bob)
        await outside.delete(user_queue_name(ada))
        await until(lambda: listener.lost == [ada])
        assert queues.consumer_count == 1
        await join(queues, ada)
        await send(outside, ada, b"new")
        await send(outside, bob, b"as before")
        await until(lambda: len(listener.frames) == 2)
        assert listener.bodies(bob) == [b"as before"]
        assert listener.lost == [ada]


@pytest.mark.req("I14")
async def test_a_queue_once_left_stays_deleted_after_reconnects(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    ada, bob = uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada, bob)
        await queues.leave(ada, [])
        await outside.delete(user_queue_name(ada))
        await _close_connections(rabbit, amqp_url, outside)
        await until(lambda: listener.lost == [bob])
        await queues.link.wait_ready(LIMIT)
        await join(queues, bob)
    async with _fresh(amqp_url) as looking:
        assert await looking.depth(user_queue_name(ada)) == -1
        assert await looking.depth(user_queue_name(bob)) == 0


async def _close_connections(rabbit: RabbitNode, url: str, outside: Bystander) -> None:
    await asyncio.to_thread(rabbit.ctl, "close_all_connections", "--vhost", url.rpartition("/")[2], "for a test")
    await until(lambda: outside.connection.is_closed)


@contextlib.asynccontextmanager
async def _fresh(url: str) -> AsyncIterator[Bystander]:
    async with bystander(url) as connected:
        yield connected


@pytest.mark.req("H09")
async def test_after_a_lost_connection_every_consumer_is_told_and_old_receipts_are_void(
    amqp_url: str, outside: Bystander, rabbit: RabbitNode, clock: SetClock
) -> None:
    people = [uuid4() for _ in range(9)]
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, *people)
        for user_id in people:
            await send(outside, user_id, b"x")
        await until(lambda: len(listener.frames) == 9)
        void = [frame.receipt for _, frame in listener.frames]
        await _close_connections(rabbit, amqp_url, outside)
        await until(lambda: set(listener.lost) == set(people))
        assert len(listener.lost) == 9
        assert queues.consumer_count == 0
        await queues.link.wait_ready(LIMIT)
        await queues.settle(void)  # passed over: their channel is gone
        await join(queues, *people)
        await until(lambda: len(listener.frames) == 18)
        assert all(frame.is_redelivered for _, frame in listener.frames[9:])
        await queues.settle(frame.receipt for _, frame in listener.frames[9:])
    async with _fresh(amqp_url) as looking:
        assert [await looking.depth(user_queue_name(user_id)) for user_id in people] == [0] * 9


@pytest.mark.req("I15")
@pytest.mark.req("H11")
async def test_a_refused_declaration_hurts_nobody_else(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    ada, odd = uuid4(), uuid4()
    await outside.declare(user_queue_name(odd), queue_type="quorum")
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada)
        await send(outside, ada, b"kept")
        await until(lambda: len(listener.frames) == 1)
        # More often than there are channels to declare on: each refusal closes one, and each is replaced.
        for _ in range(10):
            with pytest.raises(Unavailable, match="user's queue"):
                await queues.declare(odd)
        await outside.delete(user_queue_name(odd))
        await join(queues, odd)
        await send(outside, odd, b"now")
        await until(lambda: len(listener.frames) == 2)
        assert listener.lost == []
        assert not any(frame.is_redelivered for _, frame in listener.frames)


@pytest.mark.req("I15")
async def test_consuming_a_queue_that_is_not_there_is_refused_and_everybody_comes_back(
    amqp_url: str, clock: SetClock
) -> None:
    ada, nobody = uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada)
        with pytest.raises(Unavailable):
            await queues.consume(nobody)
        # 404 closes a consuming channel; the link begins again and every owner is told.
        await until(lambda: ada in listener.lost)
        await queues.link.wait_ready(LIMIT)
        await join(queues, ada)
        assert queues.consumer_count == 1


@pytest.mark.req("I15", "H11")
async def test_one_refused_among_many_that_come_together_hurts_nobody_else(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    people, odd = [uuid4() for _ in range(60)], uuid4()
    await outside.declare(user_queue_name(odd), queue_type="quorum")
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        together = [*people[:40], odd, *people[40:]]
        outcomes = await asyncio.gather(*(queues.declare(each) for each in together), return_exceptions=True)
        refused = [user_id for user_id, each in zip(together, outcomes, strict=True) if each is not None]
        assert refused == [odd]
        await asyncio.gather(*(queues.consume(user_id) for user_id in people))
        for user_id in people:
            await send(outside, user_id, b"x")
        await until(lambda: len(listener.frames) == len(people))
        assert listener.lost == []


@pytest.mark.req("I15", "D19")
async def test_waiting_behind_others_is_no_time_out(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_queues_module, "_RPC_LIMIT_S", 1.0)
    ada, bob, gone = uuid4(), uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues, contextlib.AsyncExitStack() as others:
        for _, turn in queues._consuming:
            await others.enter_async_context(turn)
        for user_id in (ada, bob, gone):
            await queues.declare(user_id)
        waiting = [asyncio.create_task(queues.consume(user_id)) for user_id in (ada, bob, gone)]
        await asyncio.sleep(1.2)
        leaving = asyncio.create_task(queues.leave(gone, []))
        await asyncio.sleep(0)
        await others.aclose()
        await asyncio.gather(*waiting, leaving)
        # A time-out would have closed the channel, and everybody on it would have had to begin again.
        assert (listener.lost, queues.consumer_count) == ([], 2)


async def test_many_users_are_declared_and_consumed_at_once(amqp_url: str, outside: Bystander, clock: SetClock) -> None:
    people = [uuid4() for _ in range(200)]
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await asyncio.gather(*(join(queues, user_id) for user_id in people))
        assert queues.consumer_count == 200
        async with outside.channel() as channel:
            for user_id in people:
                await channel.basic_publish(b"x", exchange="delivery.direct", routing_key=user_queue_name(user_id))
        await until(lambda: {owner for owner, _ in listener.frames} == set(people))
        await queues.settle(frame.receipt for _, frame in listener.frames)
        await asyncio.gather(*(queues.leave(user_id, []) for user_id in people))
    assert listener.lost == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many acknowledgements each write had."""
    told: list[int] = []
    take = Settled.take

    def note(settled: Settled) -> tuple[int | None, list[int]]:
        last, ahead = take(settled)
        told.append((last is not None) + len(ahead))
        return last, ahead

    monkeypatch.setattr(Settled, "take", note)
    return told


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many queues each question was about, and how many of them were only looked for."""
    declared: list[tuple[int, int]] = []
    declare = declare_user_queues

    async def note(channel: Any, user_ids: Any, *, bound: Any) -> None:
        declared.append((len(user_ids), len(bound)))
        await declare(channel, user_ids, bound=bound)

    monkeypatch.setattr(user_queues_module, "declare_user_queues", note)
    return declared


@pytest.mark.req("I06", "I07")
async def test_what_many_users_acknowledged_is_settled_together_and_nothing_else(
    amqp_url: str, outside: Bystander, clock: SetClock, told: list[int]
) -> None:
    people = [uuid4() for _ in range(20)]
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await asyncio.gather(*(join(queues, user_id) for user_id in people))
        for number in range(5):
            for user_id in people:
                await send(outside, user_id, b"%d" % number)
        await until(lambda: len(listener.frames) == 100)
        # One keeps everything, one gives back what it has, everybody else acknowledges.
        keeps, gives = people[7], people[12]
        await queues.leave(gives, listener.receipts(gives))
        await queues.settle(frame.receipt for owner, frame in listener.frames if owner not in (keeps, gives))
        for user_id in people:
            await until(lambda user_id=user_id: _has(outside, user_id, 5 if user_id is gives else 0))
        # What came behind the first of the one that keeps its own goes one by one, on one channel of four.
        assert sum(told) < 90
        told.clear()
        await queues.settle(listener.receipts(keeps))
        assert told == [1]
        # The broker knew every number it was told, or the channels would be closed.
        for user_id in (keeps, people[0]):
            await send(outside, user_id, b"5")
            await until(lambda user_id=user_id: listener.bodies(user_id)[-1] == b"5")
        await queues.settle([listener.receipts(keeps)[-1], listener.receipts(people[0])[-1]])
        assert listener.lost == []
    assert [message.body for message in await _take_all(outside, gives)] == [b"0", b"1", b"2", b"3", b"4"]
    assert await outside.depth(user_queue_name(keeps)) == 0


@pytest.mark.req("I15")
async def test_a_deleted_queue_is_made_again_and_what_was_settled_of_it_holds_nobody_up(
    amqp_url: str, outside: Bystander, clock: SetClock, told: list[int], declared: list[tuple[int, int]]
) -> None:
    ada, bob = uuid4(), uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await asyncio.gather(*(queues.declare(user_id) for user_id in (ada, bob)))
        # Together, and so on one channel.
        await asyncio.gather(*(queues.consume(user_id) for user_id in (ada, bob)))
        await send(outside, ada, b"1", b"2")
        await until(lambda: len(listener.receipts(ada)) == 2)
        await send(outside, bob, b"1", b"2", b"3")
        await until(lambda: len(listener.receipts(bob)) == 3)
        await outside.delete(user_queue_name(ada))
        await until(lambda: listener.lost == [ada])
        await queues.declare(ada)
        assert declared == [(2, 0), (1, 0)]
        await queues.settle(listener.receipts(ada))
        await queues.settle(listener.receipts(bob))
        assert told == [1, 1]
        await send(outside, bob, b"4")
        await until(lambda: len(listener.receipts(bob)) == 4)
        assert listener.lost == [ada]
    assert [message.body for message in await _take_all(outside, bob)] == [b"4"]


@pytest.mark.req("I15")
async def test_one_missing_among_many_that_are_consumed_together_is_refused_and_all_come_back(
    amqp_url: str, outside: Bystander, clock: SetClock
) -> None:
    people, nobody = [uuid4() for _ in range(20)], uuid4()
    listener = Listener()
    async with user_queues(amqp_url, listener, clock) as queues:
        await join(queues, ada := people[0])
        await asyncio.gather(*(queues.declare(user_id) for user_id in people))
        outcomes = await asyncio.gather(
            *(queues.consume(user_id) for user_id in (*people[1:], nobody)), return_exceptions=True
        )
        assert {type(each) for each in outcomes} == {Unavailable}
        await until(lambda: ada in listener.lost)
        assert queues.consumer_count == 0
        await queues.link.wait_ready(LIMIT)
        await asyncio.gather(*(join(queues, user_id) for user_id in people))
        for user_id in people:
            await send(outside, user_id, b"x")
        await until(lambda: {owner for owner, _ in listener.frames} == set(people))


async def test_those_who_come_together_are_consumed_with_few_questions(
    amqp_url: str, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [uuid4() for _ in range(200)]
    asked: list[int] = []
    ask = consume_user_queues

    async def count(channel: Any, tags: Any, *, prefetch_count: int) -> None:
        asked.append(len(tags))
        await ask(channel, tags, prefetch_count=prefetch_count)

    monkeypatch.setattr(user_queues_module, "consume_user_queues", count)
    async with user_queues(amqp_url, Listener(), clock) as queues:
        await asyncio.gather(*(queues.declare(user_id) for user_id in people))
        await asyncio.gather(*(queues.consume(user_id) for user_id in people))
        assert queues.consumer_count == sum(asked) == 200
        assert len(asked) <= 4


async def test_who_comes_back_soon_needs_no_new_binding(
    amqp_url: str, outside: Bystander, clock: SetClock, declared: list[tuple[int, int]]
) -> None:
    people = [uuid4() for _ in range(3)]
    async with user_queues(amqp_url, Listener(), clock) as queues:
        for seconds in (0, 590, 20):
            clock.advance(seconds)
            await asyncio.gather(*(queues.declare(user_id) for user_id in people))
        # Whole, then only looked for, then whole again: ten minutes are over.
        assert declared == [(3, 0), (3, 3), (3, 0)]
        await queues.link.connection.close()  # type: ignore[union-attr]
        await until(lambda: not queues.link.is_ready)
        await queues.link.wait_ready(LIMIT)
        await queues.declare(people[0])
        assert declared[3:] == [(1, 0)]
        await send(outside, people[0], b"x")
        await until(lambda: _has(outside, people[0], 1))


@pytest.mark.req("I15")
async def test_a_queue_that_was_deleted_meanwhile_is_made_and_bound_again(
    amqp_url: str, outside: Bystander, clock: SetClock, declared: list[tuple[int, int]]
) -> None:
    people = [uuid4() for _ in range(5)]
    async with user_queues(amqp_url, Listener(), clock) as queues:
        await asyncio.gather(*(queues.declare(user_id) for user_id in people))
        await outside.delete(user_queue_name(people[3]))
        await asyncio.gather(*(queues.declare(user_id) for user_id in (*people, uuid4())))
        assert declared == [(5, 0), (6, 5), (6, 0)]
        for user_id in people:
            await send(outside, user_id, b"x")
            await until(lambda user_id=user_id: _has(outside, user_id, 1))


async def test_without_a_connection_it_says_so(clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_queues_module, "_TURN_LIMIT_S", 0.05)
    queues = UserQueues("amqp://herald:x@127.0.0.1:1/", name="test", prefetch_count=1, listener=Listener(), clock=clock)
    with pytest.raises(Unavailable):
        await queues.declare(uuid4())
    with pytest.raises(Unavailable):
        await queues.consume(uuid4())
    await queues.leave(uuid4(), [])
    await queues.close()
