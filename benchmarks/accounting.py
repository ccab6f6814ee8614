"""CPU time and memory of process trees, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# Of /proc/<pid>/stat, counted after the command's name: parent, own user and system time, that of ended children.
_PARENT, _TIMES = 1, slice(11, 15)
# Of the first line of /proc/stat: idle, and waiting for a disk.
_RESTING = (3, 4)

OTHERS = "others"
"""What is not part of the installation and its load: whether a run counts shows in it."""
_MACHINE = "machine"


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and everything below it, children that ended and were waited for included."""
    return sum(_own_seconds(each) for each in find_tree(pid))


def memory_kb(pid: int) -> int:
    """Proportional set size of a process tree: pages shared by several processes count once in all."""
    return sum(_pss_kb(each) for each in find_tree(pid))


def find_tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _read_stat(int(folder.name))) is not None:
            children.setdefault(int(fields[_PARENT]), []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


class CpuClock:
    """Reads the CPU time of several named process trees together, and of everything else on the machine."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._started = self._read()

    def restart(self) -> None:
        """Count from now on."""
        self._started = self._read()

    def spent(self) -> dict[str, float]:
        """CPU seconds by name since the start; `others` is what ran on this machine besides."""
        now = self._read()
        spent = {name: now[name] - self._started[name] for name in now}
        machine = spent.pop(_MACHINE)
        return {**spent, OTHERS: max(0.0, machine - sum(spent.values()))}

    def _read(self) -> dict[str, float]:
        return {**{name: cpu_seconds(pid) for name, pid in self._pids.items()}, _MACHINE: _machine_seconds()}


def _machine_seconds() -> float:
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    return sum(int(each) for place, each in enumerate(fields[:8]) if place not in _RESTING) * _TICK_S


def _own_seconds(pid: int) -> float:
    fields = _read_stat(pid)
    return sum(int(each) for each in fields[_TIMES]) * _TICK_S if fields else 0.0


def _read_stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None  # ended meanwhile
    return text.rpartition(")")[2].split()


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
