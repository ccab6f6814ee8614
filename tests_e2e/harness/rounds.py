"""How often the tests of faults repeat their fault."""

from __future__ import annotations

import os
from typing import Final

THOROUGH: Final = "HERALD_THOROUGH"
IS_THOROUGH: Final = bool(os.environ.get(THOROUGH))
"""Whether this is the long form: every round, on both databases. `make ledger` sets it."""


def rounds(full: int, short: int) -> int:
    """`full` in the long form, else `short`.

    Most of a fault's time is waiting for processes to start again: with all rounds a run takes half an hour more. A few
    show that the way through a fault is whole; many, that no moment for it is a bad one.
    """
    return full if IS_THOROUGH else short
