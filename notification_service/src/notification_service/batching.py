"""Answering many questions with few calls: what is asked while a call is under way goes into the next one.

A lone question is asked at once, a thousand at the same time become a few calls. A second call beside the first is
begun only when there is enough for a full one, or when the first takes long: calls beside one another as a rule, of a
few questions each, cost connecting devices half as much again (docs/decisions/0076).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_PATIENCE_S: Final = 0.5
"""A call that takes longer is not waited for: another one begins beside it."""


class Batcher(Generic[Question, Answer]):
    """Collects questions for `call`, which answers them in the same order.

    Args:
        call: Answers in the order of the questions.
        max_batch: Questions in one call.
        calls_at_once: Calls under way, at most.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int,
        calls_at_once: int,
    ) -> None:
        self._call = call
        self._max_batch = max_batch
        self._calls_at_once = calls_at_once
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """The answer; raises what the call raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if not self._calls or len(self._waiting) >= self._max_batch:
            self._start_call()
        return await future

    def _start_call(self) -> None:
        if not self._waiting or len(self._calls) >= self._calls_at_once:
            return
        call = asyncio.create_task(self._answer_some())
        self._calls.add(call)
        call.add_done_callback(self._end_call)
        if len(self._calls) < self._calls_at_once:
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._lose_patience, call)

    def _end_call(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._start_call()

    def _lose_patience(self, call: asyncio.Task[None]) -> None:
        if call in self._calls:
            self._start_call()

    async def _answer_some(self) -> None:
        await asyncio.sleep(0)  # whoever asks in the same turn of the loop shares the call
        taken, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
        # Whoever gave up meanwhile needs no answer.
        taken = [(question, future) for question, future in taken if not future.done()]
        if not taken:
            return
        try:
            answers = await self._call([question for question, _ in taken])
        except Exception as error:  # noqa: BLE001 - it is raised again where the question was asked
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)
