#!/usr/bin/env python3
"""Resolve all dependencies and pin them with hashes: one file for development, and what the images are built from.

The files hold names, versions and hashes only, no address of an index: they work with any mirror.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN = ["herald-shared-contracts", "herald-auth-service", "herald-notification-service", "herald-local"]
PROJECTS = [
    f"{member}/pyproject.toml"
    for member in ("shared_contracts", "auth_service", "notification_service", "deploy/local")
]


def compile_lock(target: str, *sources: str, constraint: str | None = None) -> None:
    """Write one lock file from its sources, within the versions of `constraint`."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--upgrade", "--custom-compile-command", "make lock"]
    command += [part for name in OWN for part in ("--no-emit-package", name)]
    if constraint:
        command += ["--constraint", constraint]
    subprocess.run([*command, *sources, "--output-file", target], cwd=ROOT, check=True)
    print(f"lock     | {target}")


if __name__ == "__main__":
    compile_lock("requirements/uv.txt", "requirements/uv.in")
    compile_lock("requirements/dev.txt", *PROJECTS, "requirements/dev.in")
    compile_lock("requirements/build.txt", "requirements/build.in", constraint="requirements/dev.txt")
    for service in ("auth_service", "notification_service"):
        compile_lock(f"{service}/requirements.txt", f"{service}/pyproject.toml", constraint="requirements/dev.txt")
    compile_lock("benchmarks/compare/requirements.txt", "benchmarks/compare/requirements.in")
