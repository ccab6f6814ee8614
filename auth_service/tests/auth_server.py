"""The service as it runs: real server processes on a database of their own, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from auth_kit import PASSWORD

from herald_local.ports import find_free_ports

PROGRAM = Path(sys.executable).with_name("herald-auth")
# Both in one process: starting one costs more than what it does.
PREPARE = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("seed_demo", verbosity=0)
"""


@dataclass
class Server:
    """`herald-auth` with one environment; every process it starts is ended by `stop`."""

    run_dir: Path
    database: str
    amqp_url: str
    more: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: find_free_ports(1)[0])
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        own = ("AUTH_", "HERALD_", "INTERNAL_", "AMQP_", "PROMETHEUS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return {
            **inherited,
            "HERALD_RUN_DIR": str(self.run_dir),
            "AUTH_DATABASE_URL": self.database,
            "AMQP_URL": self.amqp_url,
            "AUTH_ISSUER": self.url,
            "AUTH_NOTIFICATION_URL": os.environ["AUTH_NOTIFICATION_URL"],
            "AUTH_ARGON2_MEMORY_KIB": "64",
            "AUTH_ARGON2_TIME_COST": "1",
            # Two suites may share two processors: a slow answer is no fault of the database there.
            "AUTH_DATABASE_TIMEOUT": "15",
            **self.more,
        }

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.run_dir.glob("*.log")))

    def run(self, *arguments: str) -> str:
        """One command, to its end."""
        return self._finish([str(PROGRAM), *arguments])

    def prepare(self) -> None:
        """Make every table and the demonstration accounts."""
        self._finish([sys.executable, "-c", PREPARE])

    def _finish(self, command: list[str]) -> str:
        environment = {**self.environment, "DJANGO_SETTINGS_MODULE": "auth_service.config.settings"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """One process that goes on."""
        with (self.run_dir / f"{arguments[0]}-{len(self.processes)}.log").open("ab") as log:
            process = subprocess.Popen([PROGRAM, *arguments], env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        """Serve, and return once it answers."""
        process = self.begin("serve", "--port", str(self.port))
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, self.log
            try:
                if self.get("/health/live").status_code == 200:
                    return process
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def stop(self) -> None:
        """End every process in order."""
        self.http.close()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)

    @cached_property
    def http(self) -> httpx.Client:
        """One client for all threads: making one costs more than most requests. A new connection per request, so that
        the workers take turns."""
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        return httpx.Client(base_url=self.url, timeout=60, limits=limits, trust_env=False)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.http.get(path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, json=body, headers=named)

    def log_in(self, username: str, password: str = PASSWORD) -> dict[str, str]:
        answer = self.post("/api/v1/auth/token", {"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, str] = answer.json()
        return tokens


@contextmanager
def running(server: Server, *, background: bool = False) -> Iterator[Server]:
    """The service on a database that is prepared, answering; it ends in order."""
    try:
        if background:
            server.begin("background")
        server.serve()
        yield server
    finally:
        server.stop()
    assert {process.returncode for process in server.processes} == {0}, server.log
