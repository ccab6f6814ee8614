"""What the load answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flow:
    """One stretch of publishing.

    Attributes:
        sent, received: Messages published, and frames received for them.
        elapsed_s: From the first publish to the last receipt.
        latency_ms: Percentiles of the time from publish (from when it was due, at a steady rate) to receipt, by name.
    """

    sent: int
    received: int
    elapsed_s: float
    latency_ms: dict[str, float]


@dataclass(frozen=True)
class Connected:
    """Sockets that were opened together.

    Attributes:
        failed: Those that the server did not take in five attempts.
        refusals: Attempts that failed, by what was said.
        elapsed_s: Until the last one had caught up.
        caught_up_ms: Percentiles of the time from the start to each one's `synced`.
    """

    opened: int
    failed: int
    refusals: dict[str, int]
    elapsed_s: float
    received: int
    caught_up_ms: dict[str, float]


def percentiles(values_ns: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, and maximum of nanoseconds, in milliseconds."""
    if len(values_ns) < 2:
        return dict.fromkeys(("p50", "p95", "p99", "max"), values_ns[0] / 1e6 if values_ns else 0.0)
    cuts = statistics.quantiles(values_ns, n=100)
    return {"p50": cuts[49] / 1e6, "p95": cuts[94] / 1e6, "p99": cuts[98] / 1e6, "max": max(values_ns) / 1e6}
