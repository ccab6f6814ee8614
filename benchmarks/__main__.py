"""`make bench`: start the whole system, load it, print what was reached and who spent which CPU time; end it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from benchmarks.installation import installed
from benchmarks.load.process import LoadProcess
from benchmarks.people import People
from benchmarks.report import compare, describe_machine, medians, print_table
from benchmarks.scenarios import BY_DEFAULT, SCENARIOS, Bench, Figures, Sizes
from herald_local.console import say


def main() -> None:
    """The exit code of `--check` is 1 when a target was missed."""
    options = _read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything is ended
    chosen = options.only or list(BY_DEFAULT)
    settings = dict(pair.split("=", 1) for pair in options.set)
    runs: dict[str, list[Figures]] = {name: [] for name in chosen}
    machine = describe_machine()
    say("bench", ", ".join(f"{key} {value}" for key, value in machine.items()))
    started = time.monotonic()
    with installed(
        database=options.database, fsync=not options.no_fsync, settings=settings, keep_logs=options.keep_logs
    ) as running:
        say("bench", f"running after {time.monotonic() - started:.0f} s on {options.database}")
        load = LoadProcess(gateway_url=running.gateway_url, amqp_url=running.node.url)
        people = People(running.system.auth_url)
        try:
            bench = Bench(running, people, load, Sizes(private_s=options.seconds).scaled(options.scale))
            for number in range(1, options.runs + 1):
                for name in chosen:
                    say("bench", f"{name}, run {number} of {options.runs}")
                    runs[name].append(SCENARIOS[name](bench))
                    print_table(f"{name}, run {number}", runs[name][-1])
        finally:
            load.stop()
            people.close()
    found = medians(runs)
    if options.runs > 1:
        for name, figures in found.items():
            print_table(f"{name}, medians of {options.runs} runs", figures)
    missed = compare(found, level=options.level)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        answer = {"machine": machine, "database": options.database, "runs": runs, "medians": found, "missed": missed}
        options.json.write_text(json.dumps(answer, indent=1) + "\n")
    if options.check and missed:
        sys.exit(1)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="just this scenario; may be repeated")
    parser.add_argument("--runs", type=int, default=1, help="of every scenario; medians are shown")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument(
        "--no-fsync", action="store_true", help="PostgreSQL does not wait for the disk: shows its share"
    )
    parser.add_argument("--json", type=Path, help="write everything here (benchmarks/results/ is not committed)")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--level", choices=("first", "next"), default="first", help="which targets --check means")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for all processes")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of users and sockets")
    parser.add_argument("--seconds", type=float, default=Sizes.private_s, help="of each stretch of private messages")
    parser.add_argument("--keep-logs", action="store_true", help="leave the folder with the processes' output")
    return parser.parse_args()


if __name__ == "__main__":
    main()
