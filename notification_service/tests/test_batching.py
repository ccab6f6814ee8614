"""Many questions, few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from notification_service.batching import Batcher


async def test_what_is_asked_together_is_one_call_and_answered_in_order() -> None:
    calls: list[list[int]] = []

    async def call(questions: Sequence[int]) -> list[int]:
        calls.append(list(questions))
        return [question * 10 for question in questions]

    batcher = Batcher(call, max_batch=100, calls_at_once=1)
    assert await asyncio.gather(*(batcher.ask(number) for number in range(5))) == [0, 10, 20, 30, 40]
    assert calls == [[0, 1, 2, 3, 4]]


async def test_what_is_asked_during_a_call_goes_into_the_next() -> None:
    calls: list[int] = []
    gate = asyncio.Event()

    async def call(questions: Sequence[int]) -> Sequence[int]:
        calls.append(len(questions))
        await gate.wait()
        return questions

    batcher = Batcher(call, max_batch=3, calls_at_once=1)
    first = asyncio.create_task(batcher.ask(0))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(batcher.ask(number)) for number in range(1, 5)]
    await asyncio.sleep(0.01)
    gate.set()
    assert await asyncio.gather(first, *others) == [0, 1, 2, 3, 4]
    assert calls == [1, 3, 1]


async def test_a_failed_call_fails_its_questions_only() -> None:
    async def call(questions: Sequence[int]) -> Sequence[int]:
        if 1 in questions:
            raise ValueError("one")
        return questions

    batcher = Batcher(call, max_batch=1, calls_at_once=2)
    results = await asyncio.gather(*(batcher.ask(number) for number in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [int, ValueError, int]


async def test_whoever_gave_up_is_not_asked_for() -> None:
    calls: list[list[int]] = []

    async def call(questions: Sequence[int]) -> Sequence[int]:
        calls.append(list(questions))
        return questions

    batcher = Batcher(call, max_batch=10, calls_at_once=1)
    gone = asyncio.create_task(batcher.ask(1))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await batcher.ask(2) == 2
    assert calls == [[2]]


async def test_beside_a_call_that_takes_long_another_one_begins() -> None:
    calls: list[list[int]] = []
    gate = asyncio.Event()

    async def call(questions: Sequence[int]) -> Sequence[int]:
        calls.append(list(questions))
        if 0 in questions:
            await gate.wait()
        return questions

    batcher = Batcher(call, max_batch=10, calls_at_once=2)
    first = asyncio.create_task(batcher.ask(0))
    while not calls:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    others = [asyncio.create_task(batcher.ask(number)) for number in (1, 2)]
    assert await asyncio.gather(*others) == [1, 2]
    assert (calls, first.done()) == ([[0], [1, 2]], False)
    gate.set()
    assert await first == 0


async def test_a_full_call_does_not_wait_for_the_one_under_way() -> None:
    gate = asyncio.Event()
    sizes: list[int] = []

    async def call(questions: Sequence[int]) -> Sequence[int]:
        sizes.append(len(questions))
        await gate.wait()
        return questions

    batcher = Batcher(call, max_batch=2, calls_at_once=2)
    asked = [asyncio.create_task(batcher.ask(number)) for number in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sizes == [2, 2]
    gate.set()
    assert await asyncio.gather(*asked) == [0, 1, 2, 3, 4]
    assert sizes == [2, 2, 1]
