"""What the disk beneath an installation does while something else is measured: it explains latencies, or does not."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.load.results import percentiles

_GAP_S = 0.025
# As PostgreSQL writes its log: a block, waited for.
_BLOCK = b"\0" * 8192
_STALL_S = 0.05


class DiskProbe:
    """Writes a block to the same file and waits for it, forty times a second, while the block of code runs.

    The place in the file stays the same, so that nothing but the disk is waited for.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "disk-probe"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._took_s: list[float] = []
        self._elapsed_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._path.unlink()

    def figures(self) -> dict[str, float]:
        """Percentiles of one write, and the share of the time in which one took longer than 50 ms."""
        found = percentiles([each * 1e9 for each in self._took_s])
        stalled_s = sum(each for each in self._took_s if each > _STALL_S)
        return {
            "disk_write_p50_ms": found["p50"],
            "disk_write_p99_ms": found["p99"],
            "disk_write_max_ms": found["max"],
            "disk_stalled_percent": stalled_s / self._elapsed_s * 100,
        }

    def _write(self) -> None:
        began = time.monotonic()
        file = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            while not self._ended.wait(_GAP_S):
                started = time.monotonic()
                os.pwrite(file, _BLOCK, 0)
                os.fdatasync(file)
                self._took_s.append(time.monotonic() - started)
        finally:
            os.close(file)
            self._elapsed_s = time.monotonic() - began
