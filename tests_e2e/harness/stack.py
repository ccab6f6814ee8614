"""One whole installation of Herald, started for tests: every process can be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from herald_local.ports import find_free_ports
from herald_local.postgresql import PostgresCluster
from herald_local.rabbitmq import RabbitNode
from herald_local.system import Process, System

INTERNAL_KEY = "end-to-end-internal-key-0123456789"
_READY_LIMIT_S = 180.0


class Stack:
    """Processes of one System, the RabbitMQ node they use, and the PostgreSQL cluster unless they use SQLite."""

    def __init__(self, system: System, node: RabbitNode, cluster: PostgresCluster | None = None) -> None:
        self.system = system
        self.node = node
        self.cluster = cluster
        self._described = {process.name: process for process in system.processes()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def notify_names(self) -> list[str]:
        """Processes with REST API and gateway."""
        return [name for name in self._described if name.startswith("notify")]

    @property
    def worker_names(self) -> list[str]:
        """Workers."""
        return [name for name in self._described if name.startswith("worker")]

    @property
    def names(self) -> list[str]:
        """Every process that runs."""
        return list(self._running)

    def url_of(self, name: str) -> str:
        """The address of one process."""
        ready_url = self._described[name].ready_url
        assert ready_url is not None
        return ready_url.removesuffix("/health/ready")

    def add(self, kind: str, count: int, settings: dict[str, str] | None = None) -> list[str]:
        """Describe further processes of a kind that `herald-notify` knows; answers their names. `start` starts them."""
        names = []
        for port in find_free_ports(count):
            name = f"extra-{kind}-{len(self._described)}"
            self._described[name] = self.system.describe(name, kind, port, settings or {})
            names.append(name)
        return names

    def remove(self, *names: str) -> None:
        """Kill and forget processes that were added."""
        for name in names:
            if name in self._running:
                self.kill(name)
            del self._described[name]

    def prepare(self) -> None:
        """Migrate the databases and make the demo accounts."""
        for _, command in self.system.preparations():
            done = subprocess.run(
                command, env=self.system.environment("setup"), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"

    def start_all(self) -> None:
        """Start every process and return when all are ready."""
        self.start(*self._described)

    def start(self, *names: str, settings: dict[str, str] | None = None, wait: bool = True) -> None:
        """Start processes, with further settings if wanted."""
        for name in names:
            process = self._described[name]
            self._running[name] = self._spawn(process, settings or {})
        if wait:
            with ThreadPoolExecutor() as pool:
                list(pool.map(self.wait_until_ready, names))

    def kill(self, name: str) -> None:
        """End a process as a crash would (`kill -9`), its children with it."""
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> int:
        """End a process in order; answers its exit code."""
        process = self._running.pop(name)
        process.terminate()
        return process.wait(30)

    def wait_for_end(self, name: str, within_s: float = 15) -> int:
        """Return when a process has ended by itself."""
        return self._running.pop(name).wait(within_s)

    def restart(self, *names: str, settings: dict[str, str] | None = None) -> None:
        """Kill and start again."""
        for name in names:
            if name in self._running:
                self.kill(name)
        self.start(*names, settings=settings)

    def is_running(self, name: str) -> bool:
        """Whether the process lives."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def pid_of(self, name: str) -> int:
        """The id of a running process."""
        return self._running[name].pid

    def revive(self) -> list[str]:
        """Start everything that has ended; answers what."""
        dead = [name for name in self._described if not self.is_running(name)]
        self.start(*dead)
        return dead

    def wait_until_ready(self, name: str) -> None:
        """Return when the process says it is ready."""
        url = self._described[name].ready_url
        if url is None:
            return
        deadline = time.monotonic() + _READY_LIMIT_S
        with httpx.Client(trust_env=False, timeout=2) as client:
            while time.monotonic() < deadline:
                if not self.is_running(name):
                    raise AssertionError(f"{name} ended at start:\n{self.log_of(name)[-3000:]}")
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(url).status_code == 200:
                        return
                time.sleep(0.1)
        raise AssertionError(f"{name} is not ready:\n{self.log_of(name)[-3000:]}")

    def get_status(self, url: str) -> int:
        """The status code of a page; 0 when nobody answers."""
        try:
            return httpx.get(url, trust_env=False, timeout=10).status_code
        except httpx.HTTPError:
            return 0

    def log_of(self, name: str) -> str:
        """Everything the process has written."""
        path = self._log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def stop_all(self) -> None:
        """End everything, in order where possible."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _spawn(self, process: Process, settings: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log_path(process.name).open("ab") as log:
            return subprocess.Popen(
                process.command,
                env={**process.environment, **settings},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _log_path(self, name: str) -> Path:
        return self.system.run_dir / f"{name}.log"


@contextlib.contextmanager
def running_stack(
    folder: Path,
    *,
    cluster: PostgresCluster | None = None,
    gateways: int = 2,
    workers: int = 2,
    settings: dict[str, str] | None = None,
    node: RabbitNode | None = None,
) -> Iterator[Stack]:
    """A fresh installation with its own RabbitMQ node; ended with the block.

    Args:
        folder: Empty; takes databases, keys and logs.
        cluster: Takes the databases of both services; None: SQLite.
        node: One that runs already, and is somebody else's to end.
    """
    given, node = node, node or RabbitNode(folder / "rabbitmq")
    ports = find_free_ports(2 + gateways + workers)
    system = System(
        run_dir=folder,
        amqp_url=node.url,
        internal_key=INTERNAL_KEY,
        auth_port=ports[0],
        scheduler_ports=(ports[1],),
        notify_ports=tuple(ports[2 : 2 + gateways]),
        worker_ports=tuple(ports[2 + gateways :]),
        auth_database=cluster.create_database("auth") if cluster else None,
        notify_database=cluster.create_database("notify") if cluster else None,
        settings=settings or {},
    )
    stack = Stack(system, node, cluster)
    try:
        with ThreadPoolExecutor() as pool:
            broker = pool.submit(node.start) if given is None else None
            stack.prepare()
            if broker is not None:
                broker.result()
        stack.start_all()
        yield stack
    finally:
        stack.stop_all()
        if given is None:
            node.discard()
