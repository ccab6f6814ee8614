"""What a person at the terminal reads: one line per step, the step's name in front."""

from __future__ import annotations

import sys
from typing import NoReturn


def say(part: str, text: str) -> None:
    """Print one step of progress at once, in the form the supervised processes use too."""
    print(f"{part:<8} | {text}", flush=True)


def give_up(part: str, text: str) -> NoReturn:
    """End the program with a sentence that says what to do."""
    sys.exit(f"{part:<8} | {text}")
