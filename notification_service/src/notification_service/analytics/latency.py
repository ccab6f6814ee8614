"""Latency classes and what percentiles can be read from them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

CLASSES_MS: Final = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 3_600_000)
"""Upper bounds; what took longer than the last is in a class of its own, named `more`."""

MORE: Final = "more"


def add(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """Two histograms as one."""
    return {name: left.get(name, 0) + right.get(name, 0) for name in {*left, *right}}


def percentile(histogram: Mapping[str, int], share: float) -> int | None:
    """The upper bound, in milliseconds, of the class in which this share of all lies.

    None when there is nothing, or it took longer than the last class.
    """
    total = sum(histogram.values())
    seen = 0
    for bound in CLASSES_MS if total else ():
        seen += histogram.get(str(bound), 0)
        if seen >= share * total:
            return bound
    return None


def name_classes(counts: Sequence[int]) -> dict[str, int]:
    """A histogram from counts in the order of the classes, `more` last; classes without any are left out."""
    names = (*(str(bound) for bound in CLASSES_MS), MORE)
    return {name: count for name, count in zip(names, counts, strict=True) if count}
