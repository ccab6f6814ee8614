"""When a failed attempt is made again, and when it is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from notification_service.channels.interface import Failure, FailureKind
from shared_contracts.error_codes import Reason
from shared_contracts.topology import RETRY_JITTER


@dataclass(frozen=True, slots=True)
class Retry:
    """Again, after `delay`.

    Attributes:
        step: Length of the step of the ladder it waits in; None: no step fits, it waits in the table.
    """

    delay: timedelta
    step: timedelta | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No more attempts."""

    reason: Reason


def decide(
    failure: Failure, *, attempt: int, delays: tuple[timedelta, ...], repeats_are_harmless: bool, chance: float
) -> Retry | GiveUp:
    """What follows a failed attempt.

    Args:
        failure: How it failed.
        attempt: Its number, from 1; there are as many retries as delays.
        delays: The ladder.
        repeats_are_harmless: Whether an attempt of unknown outcome may be made again.
        chance: From 0 to 1, at random: spreads retries over 90 % to 110 % of the step, so that what failed together
            does not come back together.
    """
    if failure.kind is FailureKind.PERMANENT:
        return GiveUp(failure.reason)
    if failure.kind is FailureKind.UNKNOWN and not repeats_are_harmless:
        return GiveUp(failure.reason)
    if attempt > len(delays):
        return GiveUp(Reason.BREAKER_OPEN if failure.reason is Reason.BREAKER_OPEN else Reason.ATTEMPTS_EXHAUSTED)
    step = delays[attempt - 1]
    spread = 1 + RETRY_JITTER * (2 * chance - 1)
    if failure.retry_after is not None and failure.retry_after > step * (1 - RETRY_JITTER):
        # Never before the provider wants it, and not in a step's queue, where it would hold shorter waits behind it.
        return Retry(failure.retry_after + step * RETRY_JITTER * chance, None)
    return Retry(step * spread, step)
