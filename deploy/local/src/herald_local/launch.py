"""Become the program that a file describes: `python -m herald_local.launch worker.json`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Replace this process."""
    described = json.loads(Path(sys.argv[1]).read_text())
    os.execvpe(described["command"][0], described["command"], described["environment"])  # noqa: S606 - no shell meant


if __name__ == "__main__":
    main()
