"""All of Herald as a list of processes: what runs, with which settings, and how to tell that it is ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One long-running process.

    Attributes:
        environment: Complete: nothing is inherited beside it.
        ready_url: Answers 200 when the process is ready; None: it is ready when it runs.
        log_file: Takes its output in place of the terminal, for programs with many lines of their own.
        starts_first: Starts with the supervisor; the others when they are told to.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_url: str | None = None
    log_file: Path | None = None
    starts_first: bool = False


@dataclass(frozen=True)
class System:
    """One installation on this machine.

    Attributes:
        notify_ports: One process with REST API and gateway for each.
        worker_ports, scheduler_ports: Health pages of the processes without an API; one process for each.
        auth_database, notify_database: Addresses; None: SQLite in the run folder.
        settings: Further variables for all processes.
    """

    run_dir: Path
    amqp_url: str
    internal_key: str
    auth_port: int
    notify_ports: tuple[int, ...]
    worker_ports: tuple[int, ...]
    scheduler_ports: tuple[int, ...]
    auth_database: str | None = None
    notify_database: str | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def auth_url(self) -> str:
        """The auth service."""
        return f"http://127.0.0.1:{self.auth_port}"

    @property
    def notify_urls(self) -> tuple[str, ...]:
        """The processes with REST API and gateway."""
        return tuple(f"http://127.0.0.1:{port}" for port in self.notify_ports)

    def _find_origins(self) -> list[str]:
        ports = (self.auth_port, *self.notify_ports)
        return [f"http://{host}:{port}" for port in ports for host in ("127.0.0.1", "localhost")]

    def environment(self, process: str) -> dict[str, str]:
        """Variables of one process."""
        own = {
            "HERALD_ENV": "development",
            "HERALD_RUN_DIR": str(self.run_dir),
            "HERALD_PROCESS": process,
            "INTERNAL_SERVICE_KEY": self.internal_key,
            "AMQP_URL": self.amqp_url,
            "AUTH_ISSUER": os.environ.get("AUTH_ISSUER") or self.auth_url,
            "NOTIFY_AUTH_URL": self.auth_url,
            "AUTH_NOTIFICATION_URL": self.notify_urls[0],
            "NOTIFY_PUBLIC_URL": os.environ.get("NOTIFY_PUBLIC_URL") or self.notify_urls[0],
            "PYTHONUNBUFFERED": "1",
        }
        # Pages of this installation's own may use both services, whatever the ports are.
        for setting in ("NOTIFY_ALLOWED_ORIGINS", "AUTH_CORS_ORIGINS"):
            own[setting] = os.environ.get(setting) or ",".join(self._find_origins())
        if self.auth_database:
            own["AUTH_DATABASE_URL"] = self.auth_database
        if self.notify_database:
            own["NOTIFY_DATABASE_URL"] = self.notify_database
        return {**os.environ, **own, **self.settings}

    def preparations(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        """What to run once before the processes: a sentence and a command each."""
        return (
            ("migrating the auth service's database", (_script("herald-auth"), "migrate")),
            ("creating the demo accounts", (_script("herald-auth"), "seed_demo")),
            ("migrating the notification service's database", (_script("herald-notify"), "migrate")),
        )

    def processes(self) -> list[Process]:
        """Everything that runs, RabbitMQ apart."""
        found = [
            self._process("auth", ("herald-auth", "serve", "--port", str(self.auth_port)), self.auth_port),
            self._process("auth-background", ("herald-auth", "background"), None),
        ]
        groups = (
            ("notify", "all-in-one", self.notify_ports),
            ("worker", "worker", self.worker_ports),
            ("scheduler", "scheduler", self.scheduler_ports),
        )
        for name, command, ports in groups:
            for number, port in enumerate(ports, start=1):
                own_name = name if len(ports) == 1 else f"{name}-{number}"
                found.append(self.describe(own_name, command, port))
        return found

    def describe(self, name: str, kind: str, port: int, settings: dict[str, str] | None = None) -> Process:
        """One process of the notification service: `api`, `gateway`, `worker`, `scheduler` or `all-in-one`."""
        found = self._process(name, ("herald-notify", kind, "--port", str(port)), port)
        return replace(found, environment={**found.environment, **(settings or {})})

    def _process(self, name: str, command: tuple[str, ...], port: int | None) -> Process:
        ready_url = f"http://127.0.0.1:{port}/health/ready" if port else None
        return Process(name, (_script(command[0]), *command[1:]), self.environment(name), ready_url)


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)
