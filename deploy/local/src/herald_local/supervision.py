"""Supervising processes by supervisord: a crash is visible and restarts the process, a stop leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from supervisor.xmlrpc import SupervisorTransport

from herald_local.system import Process

# RabbitMQ needs the longest; the services end within their own limit of 15 s.
_STOP_WAIT_S: Final = 25
_ANSWER_LIMIT_S: Final = 20.0
_USER: Final = "herald"


class Supervisor:
    """supervisord in a session of its own. Processes that start first run at once, the others after `start_all`.

    Commands and settings are in files that only the owner can read, not in arguments: those are visible to everybody.
    """

    def __init__(self, processes: Sequence[Process], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for process in processes:
            path = folder / f"{process.name}.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps({"command": process.command, "environment": process.environment}))
        # A path of a Unix socket has 107 characters at most; the run folder may be anywhere.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="herald-"))
        configuration = folder / "supervisord.conf"
        self._password = secrets.token_urlsafe(16)
        configuration.touch(mode=0o600)
        configuration.write_text(_configure(processes, folder, self._socket, self._password))
        self._program = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(configuration)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._program.poll()

    def start_all(self) -> None:
        """Start everything that does not run yet."""
        deadline = time.monotonic() + _ANSWER_LIMIT_S
        transport = SupervisorTransport(_USER, self._password, f"unix://{self._socket}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        while True:
            try:
                server.supervisor.startAllProcesses(False)  # noqa: FBT003 - do not wait for each
            except OSError:
                if time.monotonic() > deadline or self.exit_code is not None:
                    raise
                time.sleep(0.1)
            else:
                return

    def wait(self) -> int:
        """Return when it has ended."""
        return self._program.wait()

    def stop(self) -> None:
        """End it and everything it runs."""
        if self._program.poll() is None:
            self._program.send_signal(signal.SIGTERM)
            try:
                self._program.wait(_STOP_WAIT_S + 10)
            except subprocess.TimeoutExpired:
                os.killpg(self._program.pid, signal.SIGKILL)
                self._program.wait()
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._socket_folder / "supervisor.sock"


def _configure(processes: Sequence[Process], folder: Path, socket: Path, password: str) -> str:
    lines = [
        "[supervisord]",
        "nodaemon=true",
        "silent=false",
        "user=root" if os.geteuid() == 0 else "",  # said aloud, or supervisord warns of it
        "logfile=/dev/null",
        "logfile_maxbytes=0",
        f"pidfile={folder}/supervisord.pid",
        f"directory={folder}",
        "minfds=1024",
        "[unix_http_server]",
        f"file={socket}",
        f"username={_USER}",
        f"password={password}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for order, process in enumerate(processes):
        lines += [
            f"[program:{process.name}]",
            f"command={sys.executable} -m herald_local.launch {folder}/{process.name}.json",
            f"priority={order + 1}",
            f"autostart={str(process.starts_first).lower()}",
            "autorestart=true",
            "startsecs=1",
            # Practically for ever, with a pause that grows by a second each time.
            "startretries=1000000",
            f"stopwaitsecs={_STOP_WAIT_S}",
            "stopasgroup=true",
            "killasgroup=true",
            f"stdout_logfile={process.log_file or '/dev/fd/1'}",
            "stdout_logfile_maxbytes=0",
            "redirect_stderr=true",
        ]
    return "\n".join(line for line in lines if line) + "\n"
