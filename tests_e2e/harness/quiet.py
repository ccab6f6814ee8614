"""No hot loop: what processes use and write while a fault lasts and after it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from harness.stack import Stack

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_S = 3.0
_IDLE_SHARE = 0.25
"""Of one processor, with nothing to do. A loop that spins takes a whole one; a busy machine charges a little extra."""

_LINES_PER_S = 40.0
"""Written by one process, on average, while faults strike: connections that come and go are not written down."""


class Quiet:
    """Begins when it is made; `check` looks at every process of the installation."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._began = time.monotonic()
        self._lines = {name: self._count_lines(name) for name in self._names}
        self._idle: dict[str, float] = {}

    @property
    def _names(self) -> list[str]:
        return [*self._stack.notify_names, *self._stack.worker_names]

    async def check(self) -> None:
        """Fail if a process wrote without end, or still uses a processor when all is done."""
        lasted_s = max(5.0, time.monotonic() - self._began)
        rates = {name: (self._count_lines(name) - before) / lasted_s for name, before in self._lines.items()}
        assert max(rates.values()) < _LINES_PER_S, rates
        deadline = time.monotonic() + 60
        while True:
            before = {name: self._cpu_s(name) for name in self._names}
            await asyncio.sleep(_LOOK_S)
            self._idle = {name: (self._cpu_s(name) - used) / _LOOK_S for name, used in before.items()}
            if max(self._idle.values()) < _IDLE_SHARE or time.monotonic() > deadline:
                break
        assert max(self._idle.values()) < _IDLE_SHARE, self._idle

    def describe(self) -> str:
        """The figures."""
        lasted_s = time.monotonic() - self._began
        idle = f"busiest process idle at {100 * max(self._idle.values()):.0f} %" if self._idle else "idle not measured"
        return f"{lasted_s:.0f} s, {idle}"

    def _count_lines(self, name: str) -> int:
        return self._stack.log_of(name).count("\n")

    def _cpu_s(self, name: str) -> float:
        fields = Path(f"/proc/{self._stack.pid_of(name)}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
