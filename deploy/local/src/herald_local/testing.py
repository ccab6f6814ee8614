"""`make test`: start a RabbitMQ node and a PostgreSQL cluster of its own, run every suite against them, end them.

Each suite is one pytest run. Arguments are passed on to pytest; `--only NAME` picks suites.
"""

from __future__ import annotations

import argparse
import os
import shutil
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


SUITES = (
    Suite("contracts", ("shared_contracts/tests", "deploy/local/tests")),
    Suite("auth-sqlite", ("auth_service/tests",)),
    Suite("auth-postgresql", ("auth_service/tests",), on_postgres="AUTH_DATABASE_URL"),
    Suite("notification", ("notification_service/tests",)),
    Suite("e2e", ("tests_e2e",)),
)


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
        starting.join()
        say("test", f"RabbitMQ and PostgreSQL are up after {time.monotonic() - started:.0f} s, in {folder}")
        yield {RABBIT_FOLDER: str(node.folder), POSTGRES_URL: cluster.url("postgres")}
    finally:
        starting.join()
        node.stop()
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def made_virtual_hosts(node: RabbitNode) -> Iterator[Iterator[str]]:
    """Virtual hosts that user `herald` may use, each name given out once; removed when the block ends.

    Made 2, 4, 8 and at most 32 at a time: every call of rabbitmqctl costs half a second of an Erlang start, a virtual
    host 50 ms.
    """
    made: list[str] = []

    def give_out() -> Iterator[str]:
        count = 2
        while True:
            names = [f"test-{uuid.uuid4().hex[:12]}" for _ in range(count)]
            made.extend(names)
            node.ctl("eval", _for_each(names, _ADD_VIRTUAL_HOST))
            yield from names
            count = min(2 * count, 32)

    try:
        yield give_out()
    finally:
        if made:
            node.ctl("eval", _for_each(made, 'rabbit_vhost:delete(V, <<"tests">>)'))


_ADD_VIRTUAL_HOST = (
    'rabbit_vhost:add(V, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
    '<<"herald">>, V, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
)


def _for_each(names: list[str], expression: str) -> str:
    listed = ", ".join(f'<<"{name}">>' for name in names)
    return f"lists:foreach(fun(V) -> {expression} end, [{listed}])."


def run_suite(suite: Suite, services: dict[str, str], pytest_arguments: list[str]) -> int:
    """Run one suite; answer pytest's exit code."""
    environment = {**os.environ, **services, **suite.environment}
    if suite.on_postgres:
        environment[suite.on_postgres] = services[POSTGRES_URL]
    paths = [path for path in suite.paths if any((ROOT / path).glob("**/test_*.py"))]
    if not paths:
        return 0
    say("test", f"--- {suite.name}")
    runner = ["-m", "coverage", "run", "-m", "pytest"] if os.environ.get("HERALD_COVERAGE") else ["-m", "pytest"]
    return subprocess.run(
        [sys.executable, *runner, *paths, *pytest_arguments], cwd=ROOT, env=environment, check=False
    ).returncode


def main() -> None:
    """Run the suites; the exit code is the number of suites that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[suite.name for suite in SUITES], help="run just this suite")
    options, pytest_arguments = parser.parse_known_args()
    chosen = [suite for suite in SUITES if not options.only or suite.name in options.only]
    started = time.monotonic()
    with backing_services() as services:
        # Exit code 5: no test was selected, which happens with -k over several suites.
        failed = [suite.name for suite in chosen if run_suite(suite, services, pytest_arguments) not in (0, 5)]
    say(
        "test",
        f"{len(chosen)} suites in {time.monotonic() - started:.0f} s; "
        + (f"failed: {failed}" if failed else "all passed"),
    )
    sys.exit(len(failed))


if __name__ == "__main__":
    main()
