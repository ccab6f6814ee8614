"""What a long run must not make grow: memory and descriptors of processes, and what they hold of the broker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from harness.stack import Stack

# One call for all: each starts an Erlang program.
_LOOK = """
io:format("connections ~p~nchannels ~p~nconsumers ~p~natoms ~p~n", [
    length(rabbit_networking:connections()), length(rabbit_channel:list()),
    length(rabbit_amqqueue:consumers_all(<<"/">>)), erlang:system_info(atom_count)]).
"""


@dataclass(frozen=True)
class Limits:
    """How much more there may be at the end than in the middle of a run.

    Attributes:
        memory_share, memory_kb: Of each process: this share of it, and so much besides.
        descriptors: Of each process; a pool opens another connection now and then.
        atoms: Of the broker; `rabbitmqctl` itself makes some.
        others: Connections, channels and consumers: a device may be between two connections.
    """

    memory_share: float
    memory_kb: int
    descriptors: int = 6
    atoms: int = 300
    others: int = 2


Sample = dict[str, int]


def take_sample(stack: Stack) -> Sample:
    """Figures of this moment; compare those of moments when nothing is on its way."""
    sample: Sample = {}
    for name in stack.names:
        tree = psutil.Process(stack.pid_of(name))
        parts = [tree, *tree.children(recursive=True)]
        sample[f"{name} rss_kb"] = sum(_read_rss_kb(part.pid) for part in parts)
        sample[f"{name} descriptors"] = sum(part.num_fds() for part in parts)
    for figure, value in re.findall(r"^(\w+) (\d+)$", stack.node.ctl("eval", _LOOK), re.MULTILINE):
        sample[f"broker {figure}"] = int(value)
    return sample


def find_growth(samples: Sequence[Sample], limits: Limits) -> dict[str, tuple[float, float]]:
    """What is more in the last third than in the second, beyond the limits: from how much to how much."""
    third = len(samples) // 3
    grown: dict[str, tuple[float, float]] = {}
    for figure in samples[0]:
        before = median(each[figure] for each in samples[third : 2 * third])
        after = median(each[figure] for each in samples[2 * third :])
        if after > before + _allowance(figure, before, limits):
            grown[figure] = before, after
    return grown


def _allowance(figure: str, before: float, limits: Limits) -> float:
    match figure.rpartition(" ")[2]:
        case "rss_kb":
            return before * limits.memory_share + limits.memory_kb
        case "descriptors":
            return limits.descriptors
        case "atoms":
            return limits.atoms
        case _:
            return limits.others


def _read_rss_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
