"""Tables for a person, JSON for a program, and the comparison with the targets."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accounting import OTHERS
from benchmarks.scenarios import Figures

Runs = Mapping[str, Sequence[Figures]]


@dataclass(frozen=True)
class Target:
    """A figure to reach. `first` is the release's floor, `next` where it should go."""

    scenario: str
    figure: str
    first: float
    next: float
    higher_is_better: bool = False

    def is_met(self, value: float, limit: float) -> bool:
        """Whether the value is good enough."""
        return value >= limit if self.higher_is_better else value <= limit


TARGETS = (
    Target("private", "messages_per_s", 1500, 2500, higher_is_better=True),
    Target("private", "paced_p50_ms", 10, 6),
    Target("private", "paced_p99_ms", 60, 30),
    Target("private", "gateway_cpu_us", 200, 120),
    Target("private", "lost", 0, 0),
    Target("broadcast", "deliveries_per_gateway_cpu_s", 60_000, 110_000, higher_is_better=True),
    Target("broadcast", "deliveries_per_s", 60_000, 110_000, higher_is_better=True),
    Target("broadcast", "gateway_cpu_us", 16.6, 9),
    Target("broadcast", "last_receipt_p99_ms", 100, 30),
    Target("idle", "gateway_kb_per_connection", 35, 12),
    Target("idle", "gateway_cpu_us", 1000, 250),
    Target("resume", "resumes_per_s", 500, 1200, higher_is_better=True),
    Target("resume", "queries_per_resume", 0.5, 0.1),
    Target("resume", "lost", 0, 0),
)


def medians(runs: Runs) -> dict[str, Figures]:
    """The median of every figure over the runs."""
    return {
        name: {figure: statistics.median(run[figure] for run in each) for figure in each[0]}
        for name, each in runs.items()
    }


def describe_machine() -> dict[str, object]:
    """What the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kb / 1024 / 1024, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def print_table(name: str, figures: Figures) -> None:
    """One scenario: what was reached, then who spent which CPU time."""
    print(f"\n{name}")
    for figure, value in figures.items():
        if not figure.endswith("_cpu_us"):
            print(f"  {figure:<34}{value:>12,.1f}")
    for prefix, title in (("", "CPU us per unit"), ("paced_", "CPU us per unit, at a steady rate")):
        shares = {
            figure.removeprefix(prefix).removesuffix("_cpu_us"): value
            for figure, value in figures.items()
            if figure.endswith("_cpu_us") and figure.startswith("paced_") == bool(prefix)
        }
        if shares:
            total = sum(value for share, value in shares.items() if share not in ("load", OTHERS))
            parts = ", ".join(f"{share} {value:,.1f}" for share, value in shares.items())
            print(f"  {title}: {parts}; all without load {total:,.1f}", flush=True)


def compare(found: Mapping[str, Figures], *, level: str) -> list[str]:
    """Print every target beside what was measured; answers those that were missed at this level."""
    missed = []
    print(f"\n{'target':<48}{'measured':>12}{'first':>10}{'next':>10}")
    for target in TARGETS:
        if target.scenario not in found:
            continue
        value = found[target.scenario][target.figure]
        verdict = (
            "next reached"
            if target.is_met(value, target.next)
            else "first reached"
            if target.is_met(value, target.first)
            else "missed"
        )
        name = f"{target.scenario}.{target.figure}"
        print(f"{name:<48}{value:>12,.1f}{target.first:>10,g}{target.next:>10,g}  {verdict}")
        if not target.is_met(value, target.next if level == "next" else target.first):
            missed.append(name)
    return missed


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
