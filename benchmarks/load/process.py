"""The load in a process of its own, so that its CPU time is told apart: calls go through a pipe."""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import uvloop

from benchmarks.load.agent import Agent

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class LoadProcess:
    """Runs an `Agent`; every call waits for its answer."""

    def __init__(self, *, gateway_url: str, amqp_url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, gateway_url, amqp_url), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def call(
        self,
        method: Callable[Concatenate[Agent, Arguments], Coroutine[Any, Any, Answer]],
        *_: Arguments.args,
        **arguments: Arguments.kwargs,
    ) -> Answer:
        """Call a method of the agent, with arguments by name.

        Raises:
            RuntimeError: The call failed there; the message is its traceback.
        """
        self._pipe.send((method.__name__, arguments))
        is_good, answer = self._pipe.recv()
        if not is_good:
            raise RuntimeError(answer)
        return cast("Answer", answer)

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(pipe: Connection, gateway_url: str, amqp_url: str) -> None:
    uvloop.run(_serve(pipe, gateway_url, amqp_url))


async def _serve(pipe: Connection, gateway_url: str, amqp_url: str) -> None:
    agent = Agent(gateway_url, amqp_url)
    loop = asyncio.get_running_loop()
    while True:
        try:
            name, arguments = await loop.run_in_executor(None, pipe.recv)
        except (EOFError, OSError):
            return
        try:
            pipe.send((True, await getattr(agent, name)(**arguments)))
        except Exception:  # noqa: BLE001 - raised again in the other process
            pipe.send((False, traceback.format_exc()))
