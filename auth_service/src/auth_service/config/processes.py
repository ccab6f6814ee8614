"""What processes do before they begin. Imports neither Django nor prometheus-client, which look around only once."""

from __future__ import annotations

import os
import re
from pathlib import Path

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own variable: with it all processes count into files of one folder."""

_COUNTS = re.compile(r".*_(\d+)\.db")


def share_counts(run_dir: Path) -> None:
    """Let this process and its children count into the folder that `/metrics` reads, without what the dead left."""
    folder = run_dir.resolve() / "auth-metrics"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        found = _COUNTS.fullmatch(path.name)
        if found and not Path("/proc", found[1]).exists() and Path("/proc").exists():
            path.unlink(missing_ok=True)
    os.environ[MULTIPROCESS_FOLDER] = str(folder)
