#!/usr/bin/env python3
"""`make coverage`: run every suite measuring lines and branches, then judge.

1. The pure modules must be covered whole by the unit and service tests alone: an end-to-end test that happens to pass
   through them proves nothing about their branches. Which modules are pure says import-linter's contract `pure`.
2. Everything together must reach the floor in pyproject.toml (`tool.coverage.report.fail_under`). It only rises.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from herald_local.console import say
from herald_local.testing import SUITES

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
UNIT_SUITES = ("contracts", "notification")
# A floor this far below what is reached holds nothing up.
SLACK_PERCENT = 1.0


def main() -> None:
    """Run and judge; the exit code is 0 when everything holds."""
    coverage("erase")
    failed = run_suites([suite.name for suite in SUITES if suite.family in UNIT_SUITES])
    coverage("combine", "--quiet")
    include = ",".join(pattern for module in pure_modules() for pattern in patterns_of(module))
    say("coverage", "the pure modules, by the unit and service tests alone")
    pure_is_whole = coverage("report", f"--include={include}", "--fail-under=100", "--skip-covered") == 0
    failed += run_suites([suite.name for suite in SUITES if suite.family not in UNIT_SUITES])
    coverage("combine", "--append", "--quiet")
    say("coverage", "everything")
    reaches_floor = coverage("report") == 0
    suggest_floor()
    for holds, problem in (
        (not failed, "tests failed"),
        (pure_is_whole, "a pure module is not covered whole"),
        (reaches_floor, "the total is below the floor in pyproject.toml"),
    ):
        if not holds:
            say("coverage", problem)
    sys.exit(0 if not failed and pure_is_whole and reaches_floor else 1)


def coverage(*arguments: str) -> int:
    """Run coverage.py; answer its exit code."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, check=False).returncode


def run_suites(names: list[str]) -> int:
    """Run suites against a node and a cluster of their own; answer how many failed."""
    chosen = [part for name in names for part in ("--only", name)]
    environment = {**os.environ, "HERALD_COVERAGE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "herald_local.testing", *chosen, *sys.argv[1:]], cwd=ROOT, env=environment, check=False
    ).returncode


def pure_modules() -> list[str]:
    """The modules that do no I/O, as import-linter is told."""
    contracts = CONFIGURATION["importlinter"]["contracts"]
    found: list[str] = next(each["source_modules"] for each in contracts if each["id"] == "pure")
    return found


def patterns_of(module: str) -> list[str]:
    """Files of a module or of a package."""
    path = module.replace(".", "/")
    return [f"*/{path}.py", f"*/{path}/*.py"]


def suggest_floor() -> None:
    """Say when the floor can rise."""
    floor = float(CONFIGURATION["coverage"]["report"]["fail_under"])
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "report", "--format=total", "--precision=1", "--fail-under=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    total = float(done.stdout)
    if total - floor >= SLACK_PERCENT:
        say("coverage", f"{total} % reached: raise fail_under in pyproject.toml from {floor} to {int(total)}")


if __name__ == "__main__":
    main()
