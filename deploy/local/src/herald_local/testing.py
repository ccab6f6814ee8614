"""`make test`: start a RabbitMQ node and a PostgreSQL cluster of its own, run every suite against them, end them.

Each suite is one pytest run. Arguments are passed on to pytest; `--only NAME` picks suites. One more than there are
processors run side by side, at most three, because each spends half of its time waiting: then every suite's output is
shown whole when it ends, and a line tells every quarter of a minute how far each is.

The order of tests is shuffled, by a seed that HERALD_TEST_SEED changes: a run can be repeated. A few tests that failed
beside another suite are tried once more with the machine to themselves; one that passes then is listed as unsteady.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from herald_local.console import say
from herald_local.postgresql import PostgresCluster
from herald_local.rabbitmq import RabbitNode

ROOT = Path(__file__).resolve().parents[4]
RABBIT_FOLDER = "HERALD_TEST_RABBITMQ_DIR"
POSTGRES_URL = "HERALD_TEST_POSTGRES_URL"


@dataclass(frozen=True)
class Suite:
    """One pytest run."""

    name: str
    paths: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    on_postgres: str | None = None
    """Name of the variable that takes the address of a fresh PostgreSQL database."""
    options: tuple[str, ...] = ()
    """Further arguments of pytest."""
    on_own_services: bool = False
    """Whether it starts a node and a cluster for itself: a node that has made some ten thousand queues grows slow."""

    @property
    def family(self) -> str:
        """What comes before the first dash: the same tests under other conditions."""
        return self.name.partition("-")[0]


def _notification(*names: str) -> tuple[str, ...]:
    return tuple(f"notification_service/tests/{name}" for name in names)


_CHANNELS = _notification("broker", "channels", "contacts", "dead_letters")
_ENGINE = _notification("db", "dispatch", "engine")
_FUZZ = _notification("rest/test_fuzz.py")
# The longest first: what is left at the end is then short, and those that run side by side end together. The end-to-end
# suites wait more than they work, each on a broker of its own.
SUITES = (
    Suite("notification-channels", _CHANNELS, on_own_services=True),
    Suite("e2e-postgresql", ("tests_e2e",), {"HERALD_E2E_DATABASES": "postgresql"}),
    Suite("e2e-sqlite", ("tests_e2e",), {"HERALD_E2E_DATABASES": "sqlite"}),
    Suite(
        "notification-rest",
        ("notification_service/tests",),
        options=tuple(f"--ignore={path}" for path in (*_CHANNELS, *_ENGINE, *_FUZZ)),
        on_own_services=True,
    ),
    Suite("notification-engine", _ENGINE, on_own_services=True),
    Suite("notification-fuzz", _FUZZ),
    Suite("auth-postgresql", ("auth_service/tests",), on_postgres="AUTH_DATABASE_URL"),
    Suite("contracts", ("shared_contracts/tests", "deploy/local/tests")),
    Suite("auth-sqlite", ("auth_service/tests",)),
)
_SLOWEST = 15
_PROGRESS_S = 15.0
_STOP_LIMIT_S = 60.0
_TESTS_FAILED = 1  # pytest's exit code; others mean that it could not run or was interrupted
# More than this many failures are no accident of a busy machine.
_SECOND_LOOK_COUNT = 4


@contextmanager
def backing_services() -> Iterator[dict[str, str]]:
    """A fresh node and cluster in a temporary folder; answers the variables that tell tests where they are."""
    folder = Path(tempfile.mkdtemp(prefix="herald-test-"))
    folder.chmod(0o755)  # PostgreSQL's own user must get through
    node = RabbitNode(folder / "rabbitmq")
    # Durability against power loss is not what tests need; against kill -9 nothing changes.
    cluster = PostgresCluster(folder / "postgresql", settings={"fsync": "off", "full_page_writes": "off"})
    started = time.monotonic()
    starting = threading.Thread(target=cluster.start)
    try:
        starting.start()
        node.start()
        node.lift_reservations()
        starting.join()
        say("test", f"RabbitMQ and PostgreSQL are up after {time.monotonic() - started:.0f} s, in {folder}")
        yield {RABBIT_FOLDER: str(node.folder), POSTGRES_URL: cluster.url("postgres")}
    finally:
        starting.join()
        node.discard()
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def make_virtual_hosts(node: RabbitNode) -> Iterator[str]:
    """Virtual hosts that user `herald` may use, each name given out once; they end with the node.

    Made 2, 4, 8 and at most 32 at a time: every call of rabbitmqctl costs half a second of an Erlang start, a virtual
    host 50 ms. None is removed: with some fifty quorum queues in each that takes minutes.
    """
    count = 2
    while True:
        names = [f"test-{uuid.uuid4().hex[:12]}" for _ in range(count)]
        listed = ", ".join(f'<<"{name}">>' for name in names)
        node.ctl("eval", f"lists:foreach(fun(V) -> {_ADD_VIRTUAL_HOST} end, [{listed}]).")
        yield from names
        count = min(2 * count, 32)


_ADD_VIRTUAL_HOST = (
    'rabbit_vhost:add(V, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
    '<<"herald">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
)


@dataclass
class Run:
    """One suite under way, or ended.

    Attributes:
        output: Everything it has printed so far.
    """

    suite: Suite
    process: subprocess.Popen[bytes]
    output: bytearray = field(default_factory=bytearray)
    started: float = field(default_factory=time.monotonic)
    took_s: float = 0.0
    unsteady: list[str] = field(default_factory=list)
    """Tests that failed beside another suite and passed alone."""

    @property
    def progress(self) -> str:
        """What pytest last said of how far it is."""
        found = _PERCENT.findall(bytes(self.output))
        return f"{self.suite.name} {found[-1].decode().strip() if found else '0%'}"

    @property
    def has_failed(self) -> bool:
        """Whether a test failed, or the suite could not run."""
        # 5: no test was selected, which happens with -k over several suites.
        return self.process.returncode not in (0, 5)

    def follow(self, *, live: bool) -> None:
        """Take what it prints until it ends; show it at once when `live`, else whole at the end."""
        stream = self.process.stdout
        assert stream is not None
        with stream:
            while piece := stream.read1(65536):  # type: ignore[attr-defined]  # a buffered reader has it
                self.output += piece
                if live:
                    _show(piece)
        self.process.wait()
        self.took_s = time.monotonic() - self.started
        with _printing:
            if not live:
                say("test", f"--- {self.suite.name}")
                _show(self.output)
            outcome = "failed" if self.has_failed else "passed"
            say("test", f"--- {self.suite.name} {outcome} after {self.took_s:.0f} s")

    def find_slow_tests(self) -> list[tuple[float, str]]:
        """(seconds, test) of the tests pytest called its slowest."""
        return [
            (float(match["s"]), f"{match['test'].decode().strip()} ({match['phase'].decode()}, {self.suite.name})")
            for match in _DURATION.finditer(self.output)
        ]


_PERCENT = re.compile(rb"\[ *(\d+%)\]")
_DURATION = re.compile(rb"^(?P<s>\d+\.\d+)s (?P<phase>call|setup|teardown) +(?P<test>\S.*)$", re.MULTILINE)
_printing = threading.Lock()


def _show(text: bytes | bytearray) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.flush()


def start_suite(suite: Suite, services: dict[str, str], pytest_arguments: list[str]) -> Run:
    """Start one suite's pytest. When coverage is measured, every process writes a data file of its own."""
    environment = {**os.environ, **({} if suite.on_own_services else services), **suite.environment}
    if suite.on_postgres:
        environment[suite.on_postgres] = services[POSTGRES_URL]
    runner = ["-m", "coverage", "run", "-m", "pytest"] if os.environ.get("HERALD_COVERAGE") else ["-m", "pytest"]
    # A cache of its own: what failed last is not what failed last in a suite beside it.
    options = [f"--durations={_SLOWEST}", "-o", f"cache_dir={_cache_of(suite)}"]
    options.append(f"--randomly-seed={os.environ.get('HERALD_TEST_SEED', '1')}")
    if sys.stdout.isatty():
        options.append("--color=yes")
    process = subprocess.Popen(
        [sys.executable, "-u", *runner, *suite.paths, *suite.options, *options, *pytest_arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    return Run(suite, process)


def run_suites(
    suites: list[Suite], services: dict[str, str], pytest_arguments: list[str], *, side_by_side: int
) -> list[Run]:
    """Run suites, some at the same time; answer all, in the order they ended."""
    waiting, ended = list(suites), list[Run]()
    running: dict[threading.Thread, Run] = {}
    told = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                run = start_suite(waiting.pop(0), services, pytest_arguments)
                say("test", f"--- {run.suite.name} begins")
                thread = threading.Thread(target=run.follow, kwargs={"live": side_by_side == 1})
                running[thread] = run
                thread.start()
            next(iter(running)).join(0.1)
            for thread in [each for each in running if not each.is_alive()]:
                ended.append(running.pop(thread))
            if side_by_side > 1 and time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                with _printing:
                    say("test", ", ".join(run.progress for run in running.values()) or "nearly done")
    finally:
        for run in running.values():
            run.process.terminate()
        for thread in running:
            thread.join(_STOP_LIMIT_S)
    return ended


def _cache_of(suite: Suite) -> Path:
    return ROOT / ".pytest_cache" / suite.name


def find_failed_tests(suite: Suite) -> list[str]:
    """The tests that failed when the suite ran last."""
    path = _cache_of(suite) / "v" / "cache" / "lastfailed"
    return sorted(json.loads(path.read_text())) if path.exists() else []


def look_again(runs: list[Run], services: dict[str, str], pytest_arguments: list[str]) -> list[Run]:
    """Run a few tests that failed beside another suite once more, alone; answer the runs that count."""
    counting = []
    for run in runs:
        failed = find_failed_tests(run.suite) if run.process.returncode == _TESTS_FAILED else []
        if not 0 < len(failed) <= _SECOND_LOOK_COUNT:
            counting.append(run)
            continue
        say("test", f"--- {run.suite.name}: once more, alone: {', '.join(failed)}")
        again = start_suite(run.suite, services, [*pytest_arguments, "--last-failed", "--last-failed-no-failures=none"])
        again.follow(live=True)
        again.took_s += run.took_s
        again.output[:0] = run.output
        again.unsteady = [] if again.has_failed else failed
        counting.append(again)
    return counting


def choose(names: list[str] | None) -> list[Suite]:
    """The suites of these names; `e2e` means all that begin with `e2e-`. None: every suite that has tests."""
    chosen = [suite for suite in SUITES if not names or suite.name in names or suite.family in names]
    return [suite for suite in chosen if any(_has_tests(ROOT / path) for path in suite.paths)]


def _has_tests(path: Path) -> bool:
    return path.is_file() or any(path.glob("**/test_*.py"))


def main() -> None:
    """Run the suites; the exit code is the number of suites that failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted({name for suite in SUITES for name in (suite.name, suite.family)})
    parser.add_argument("--only", action="append", choices=names, help="run just this suite, or this family of suites")
    parser.add_argument(
        "--side-by-side",
        type=int,
        default=int(os.environ.get("HERALD_TEST_SUITES_AT_ONCE", min(3, 1 + (os.cpu_count() or 1)))),
        metavar="N",
        help="suites at the same time; 1 shows their output as it comes",
    )
    options, pytest_arguments = parser.parse_known_args()
    chosen = choose(options.only)
    side_by_side = max(1, min(options.side_by_side, len(chosen)))
    started = time.monotonic()
    with backing_services() as services:
        runs = run_suites(chosen, services, pytest_arguments, side_by_side=side_by_side)
        if side_by_side > 1:
            runs = look_again(runs, services, pytest_arguments)
    failed = summarise(runs, time.monotonic() - started)
    sys.exit(failed)


def summarise(runs: list[Run], took_s: float) -> int:
    """Say how long what took, and what failed; answer how many suites did."""
    slow = sorted((found for run in runs for found in run.find_slow_tests()), reverse=True)[:_SLOWEST]
    if slow:
        say("test", "the slowest tests:")
    for seconds, test in slow:
        say("test", f"{seconds:7.1f} s  {test}")
    for run in sorted(runs, key=lambda run: run.took_s, reverse=True):
        say("test", f"{run.took_s:7.1f} s  {run.suite.name}{'  FAILED' if run.has_failed else ''}")
    for test in sorted(test for run in runs for test in run.unsteady):
        say("test", f"UNSTEADY: passed only alone, to be mended: {test}")
    failed = [run.suite.name for run in runs if run.has_failed]
    say("test", f"{len(runs)} suites in {took_s:.0f} s; " + (f"failed: {failed}" if failed else "all passed"))
    return len(failed)


if __name__ == "__main__":
    main()
