"""What the benchmarks of the auth service share: one of its own, on a PostgreSQL cluster of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg

from herald_local.ports import find_free_ports
from herald_local.postgresql import PostgresCluster

_PROGRAM = Path(sys.executable).parent / "herald-auth"
_START_LIMIT_S = 60.0


@dataclass(frozen=True)
class AuthSite:
    """The service, answering. `client` is logged in as an administrator."""

    url: str
    client: httpx.Client


@contextlib.contextmanager
def auth_site(fill: Callable[[psycopg.Connection], None] | None = None, **settings: str) -> Iterator[AuthSite]:
    """Start it with the settings it has by default, with the demonstration accounts and what `fill` adds; end it."""
    folder = Path(tempfile.mkdtemp(prefix="herald-bench-"))
    folder.chmod(0o755)  # PostgreSQL's own user must get through
    cluster = PostgresCluster(folder / "postgresql")
    server = None
    try:
        cluster.start()
        address = cluster.create_database("auth")
        port = find_free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        environment = {**os.environ, "AUTH_DATABASE_URL": address, "HERALD_RUN_DIR": str(folder), "AUTH_ISSUER": url}
        environment |= {"AUTH_LOG_LEVEL": "WARNING", **settings}
        for command in ("migrate", "seed_demo"):
            subprocess.run([_PROGRAM, command], env=environment, check=True, capture_output=True)
        with psycopg.connect(address, autocommit=True) as connection:
            if fill is not None:
                fill(connection)
            connection.execute("VACUUM ANALYZE")
        with (folder / "serve.log").open("wb") as log:
            server = subprocess.Popen([_PROGRAM, "serve", "--port", str(port)], env=environment, stdout=log, stderr=log)
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            _wait_until_alive(client)
            login = {"username": "admin", "password": "herald-admin"}
            token = client.post("/api/v1/auth/token", json=login).json()["access"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield AuthSite(url, client)
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_alive(client: httpx.Client) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/live").is_success:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("the auth service does not answer")
        time.sleep(0.1)
