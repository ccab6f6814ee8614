"""A whole installation for measuring: own RabbitMQ node, own database, every process; nothing is left afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from benchmarks.accounting import CpuClock
from herald_local.console import give_up, say
from herald_local.ports import find_free_ports
from herald_local.postgresql import PostgresCluster
from herald_local.rabbitmq import RabbitNode
from herald_local.system import Process, System

_KEY = "benchmark-internal-key-0123456789"
# Long, because the machine may be busy with other things: several processes import large programs at once.
_READY_LIMIT_S = 180.0
_STOP_LIMIT_S = 25.0


@dataclass
class Installation:
    """Running processes and where they answer.

    Attributes:
        cluster: None on SQLite, whose work is done inside the other processes.
    """

    system: System
    node: RabbitNode
    cluster: PostgresCluster | None
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def gateway_url(self) -> str:
        """The process with the sockets."""
        return self.system.notify_urls[0]

    def pids(self) -> dict[str, int]:
        """Roots of the process trees whose CPU time is told apart."""
        pids = {_SHOWN_AS.get(name, name): process.pid for name, process in self.running.items()}
        if self.node.pid is not None:
            pids["broker"] = self.node.pid
        if self.cluster is not None and self.cluster.pid is not None:
            pids["database"] = self.cluster.pid
        return pids

    def clock(self, load_pid: int) -> CpuClock:
        """Counts the CPU time of every process from now on, the load's own included."""
        return CpuClock({**self.pids(), "load": load_pid})

    def count_queries(self) -> int:
        """Queries the notification service has made so far; 0 on SQLite."""
        url = self.system.notify_database
        if url is None:
            return 0
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            row = connection.execute(
                "SELECT sum(calls) FROM pg_stat_statements JOIN pg_database ON oid = dbid"
                " WHERE datname = current_database()"
            ).fetchone()
        return int(row[0] or 0) if row else 0

    def analyze(self) -> None:
        """Give PostgreSQL's planner its statistics, as autovacuum does within the first minute of a new database.

        Without them, statements over rows go through whole tables, which is 6 % of everything at 500 messages a second.
        """
        url = self.system.notify_database
        if url is not None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")

    def start(self) -> None:
        """Prepare the databases and start every process."""
        for _, command in self.system.preparations():
            done = subprocess.run(
                command, env=self.system.environment("setup"), capture_output=True, text=True, check=False
            )
            if done.returncode:
                give_up("bench", f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        processes = self.system.processes()
        for process in processes:
            self.running[process.name] = self._spawn(process)
        for process in processes:
            self._wait_until_ready(process)

    def stop(self) -> None:
        """End every process, in order where possible."""
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_LIMIT_S
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _spawn(self, process: Process) -> subprocess.Popen[bytes]:
        with (self.folder / f"{process.name}.log").open("ab") as log:
            return subprocess.Popen(
                process.command,
                env=process.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _wait_until_ready(self, process: Process) -> None:
        if process.ready_url is None:
            return
        deadline = time.monotonic() + _READY_LIMIT_S
        with httpx.Client(trust_env=False, timeout=2) as client:
            while time.monotonic() < deadline and self.running[process.name].poll() is None:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(process.ready_url).status_code == 200:
                        return
                time.sleep(0.1)
        give_up("bench", f"{process.name} is not ready:\n{(self.folder / f'{process.name}.log').read_text()[-3000:]}")


_SHOWN_AS = {"notify": "gateway"}


@contextlib.contextmanager
def installed(
    *, database: str, fsync: bool, settings: dict[str, str], keep_logs: bool = False
) -> Iterator[Installation]:
    """A fresh installation, ended with the block.

    Args:
        database: `sqlite` or `postgresql`.
        fsync: Whether PostgreSQL waits for the disk, as it does in production.
        settings: Further variables for all processes.
        keep_logs: Leave the folder, for whoever looks for a fault.
    """
    folder = Path(tempfile.mkdtemp(prefix="herald-bench-"))
    folder.chmod(0o755)  # PostgreSQL's own user must get through
    node = RabbitNode(folder / "rabbitmq")
    cluster = None
    if database == "postgresql":
        # Counts queries, begin and commit not among them; it costs the database a microsecond of each.
        counting = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "off"}
        cluster = PostgresCluster(folder / "postgresql", settings=counting if fsync else {**counting, "fsync": "off"})
    ports = find_free_ports(4)
    found: Installation | None = None
    try:
        with ThreadPoolExecutor() as pool:
            broker = pool.submit(node.start)
            if cluster is not None:
                cluster.start()
            broker.result()
        system = System(
            run_dir=folder,
            amqp_url=node.url,
            internal_key=_KEY,
            auth_port=ports[0],
            notify_ports=(ports[1],),
            worker_ports=(ports[2],),
            scheduler_ports=(ports[3],),
            auth_database=cluster.create_database("auth") if cluster else None,
            notify_database=cluster.create_database("notify") if cluster else None,
            settings=settings,
        )
        found = Installation(system, node, cluster, folder)
        found.start()
        yield found
    finally:
        if found is not None:
            found.stop()
        if node.pid is not None:
            node.stop()
        if cluster is not None:
            cluster.stop()
        if keep_logs:
            say("bench", f"logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
