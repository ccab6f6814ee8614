"""A private PostgreSQL cluster in a folder of its own, for tests and benchmarks."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

from herald_local.console import give_up
from herald_local.packages import SystemPackage, get_program
from herald_local.ports import find_free_ports

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0


def find_postgresql() -> Path | None:
    """The folder with initdb and postgres (the newest version), or None."""
    patterns = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin")
    found = [Path(folder) for pattern in patterns for folder in sorted(glob.glob(pattern), reverse=True)]  # noqa: PTH207 - absolute patterns
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


POSTGRESQL = SystemPackage(
    name="PostgreSQL",
    find=find_postgresql,
    apt=("postgresql",),
    brew="postgresql@17",
    otherwise="Install PostgreSQL 14 or newer (https://www.postgresql.org/download/) so that initdb is on PATH.",
)


class PostgresCluster:
    """One PostgreSQL server on 127.0.0.1 with user `herald` (trust: it listens on loopback, in a throw-away folder).

    PostgreSQL refuses to run as root; then the cluster belongs to the system's `postgres` user, or to `nobody`.
    """

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        self.folder = folder.resolve()
        self.port = find_free_ports(1)[0]
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """The address of one database of this cluster."""
        return f"postgresql://herald@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Create the cluster if the folder is new, start it, return once it answers."""
        binaries = get_program(POSTGRESQL)
        data = self.folder / "data"
        if not data.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if (owner := _other_user()) is not None:
                shutil.chown(self.folder, owner)
            self._run(
                [
                    f"{binaries}/initdb",
                    "-D",
                    str(data),
                    "-U",
                    "herald",
                    "-A",
                    "trust",
                    "-E",
                    "UTF8",
                    "--locale=C.UTF-8",
                    "-N",
                ]
            )
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "timezone": "UTC",
            **self._settings,
        }
        command = [
            f"{binaries}/postgres",
            "-D",
            str(data),
            *(part for k, v in options.items() for part in ("-c", f"{k}={v}")),
        ]
        log = (self.folder / "postgres.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                _as_other_user(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        deadline = time.monotonic() + _START_LIMIT_S
        ready = [
            f"{binaries}/pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "herald",
            "-d",
            "postgres",
        ]
        while subprocess.run(ready, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                give_up("postgres", f"did not start; see {self.folder}/postgres.log")
            time.sleep(0.1)

    def create_database(self, name: str) -> str:
        """Create an empty database and answer its address."""
        self.psql("postgres", f'CREATE DATABASE "{name}"')
        return self.url(name)

    def psql(self, database: str, sql: str) -> str:
        """Run one statement; answer its rows, unaligned."""
        binaries = get_program(POSTGRESQL)
        command = [f"{binaries}/psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "herald", "-d", database]
        done = subprocess.run(
            [*command, "-v", "ON_ERROR_STOP=1", "-XAtqc", sql], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None when it is not running."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Stop the server, closing its connections (fast shutdown)."""
        if self._process is None:
            return
        os.kill(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.kill(self._process.pid, signal.SIGQUIT)
            self._process.wait()
        self._process = None

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(_as_other_user(command), capture_output=True, text=True, check=False, cwd="/")
        if done.returncode:
            give_up("postgres", f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def _other_user() -> str | None:
    """Whom the server runs as when this process is root; None when it may run as ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _as_other_user(command: list[str]) -> list[str]:
    owner = _other_user()
    if owner is None:
        return command
    account = pwd.getpwnam(owner)
    # setpriv replaces itself with the program, so that signals reach the server itself.
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]
