"""How often the tests of faults repeat their fault."""

from __future__ import annotations

import os

from harness.stack import Stack

THOROUGH = "HERALD_THOROUGH"


def rounds(stack: Stack, full: int) -> int:
    """All of them on PostgreSQL, where Herald runs in production; a fifth on SQLite, all there too when thorough.

    Most of a fault's time is waiting for processes to start again: with all on both databases a run takes 10 minutes
    more.
    """
    if os.environ.get(THOROUGH) or stack.system.notify_database is not None:
        return full
    return max(2, full // 5)
