"""Starts one of the systems Herald is compared with, on this machine, and ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from typing_extensions import override

from herald_local.console import give_up, say
from herald_local.ports import find_free_ports
from herald_local.rabbitmq import RabbitNode

_HERE = Path(__file__).parent
_ENVIRONMENT = Path(".run/compare-venv")
_READY_LIMIT_S = 60.0


@dataclass
class OtherSystem:
    """A running system.

    Attributes:
        kind: `bare`, `channels`, `socketio` or `web_mqtt`.
        url: Where its devices connect.
        publish_url: AMQP for `web_mqtt`; for the others, where their publisher takes lines.
        pids: Roots of its process trees by name.
    """

    kind: str
    url: str
    publish_url: str
    pids: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def running(kind: str) -> Iterator[OtherSystem]:
    """One system, ended with the block."""
    folder = Path(tempfile.mkdtemp(prefix=f"herald-bench-{kind}-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        begin = {"web_mqtt": _web_mqtt, "bare": _bare}.get(kind) or partial(_with_redis, kind)
        yield stack.enter_context(begin(folder))


@contextlib.contextmanager
def _with_redis(kind: str, folder: Path) -> Iterator[OtherSystem]:
    server = shutil.which("redis-server")
    if server is None:
        give_up("bench", "redis-server is needed for the comparison (Debian: apt-get install redis-server)")
    python = _make_environment()
    redis_port, site_port, publisher_port = find_free_ports(3)
    environment = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
    commands = {
        # As Channels and Socket.IO use it: nothing is kept.
        "redis": [server, "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        "site": [
            *(str(python), "-m", "uvicorn", f"{kind}_site:application", "--port", str(site_port)),
            *("--loop", "uvloop", "--ws", "websockets-sansio", "--log-level", "warning", "--lifespan", "off"),
        ],
        "publisher": [str(python), "publisher.py", kind, str(publisher_port)],
    }
    ports = {"redis": redis_port, "site": site_port, "publisher": publisher_port}
    with _processes(commands, ports, folder, environment) as pids:
        yield OtherSystem(kind, f"http://127.0.0.1:{site_port}", f"lines://127.0.0.1:{publisher_port}", pids)


@contextlib.contextmanager
def _bare(folder: Path) -> Iterator[OtherSystem]:
    site_port, line_port = find_free_ports(2)
    commands = {"site": [sys.executable, "bare_site.py", str(site_port), str(line_port)]}
    with _processes(commands, {"site": line_port}, folder, dict(os.environ)) as pids:
        yield OtherSystem("bare", f"http://127.0.0.1:{site_port}", f"lines://127.0.0.1:{line_port}", pids)


@contextlib.contextmanager
def _processes(
    commands: Mapping[str, Sequence[str]], ports: Mapping[str, int], folder: Path, environment: dict[str, str]
) -> Iterator[dict[str, int]]:
    """Processes that answer at their ports, started one after the other; their ids by name."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    command, cwd=_HERE / "sites", env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            _wait_for(ports[name], processes[name], folder / f"{name}.log")
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in reversed(processes.values()):
            process.terminate()
        for process in processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _MqttNode(RabbitNode):
    """A RabbitMQ node with the Web MQTT plugin."""

    @override
    def prepare(self) -> tuple[list[str], dict[str, str]]:
        command = super().prepare()
        self.mqtt_port, self.web_port = find_free_ports(2)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_web_mqtt].\n")
        with (self.folder / "rabbitmq.conf").open("a") as settings:
            settings.write(
                f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.mqtt_port}\nmqtt.allow_anonymous = false\n"
                f"mqtt.prefetch = 64\nweb_mqtt.tcp.ip = 127.0.0.1\nweb_mqtt.tcp.port = {self.web_port}\n"
            )
        return command


@contextlib.contextmanager
def _web_mqtt(folder: Path) -> Iterator[OtherSystem]:
    node = _MqttNode(folder / "rabbitmq")
    try:
        node.start()
        deadline = time.monotonic() + _READY_LIMIT_S
        while not _answers(node.web_port):
            if time.monotonic() > deadline:
                give_up("bench", "the Web MQTT plugin does not answer")
            time.sleep(0.1)
        assert node.pid is not None
        url = f"http://herald:{node.settings.password}@127.0.0.1:{node.web_port}"
        yield OtherSystem("web_mqtt", url, node.url, {"broker": node.pid})
    finally:
        if node.pid is not None:
            node.stop()


def _make_environment() -> Path:
    """An environment of their own, so that nothing of it is ever among the services' packages."""
    python = _ENVIRONMENT / "bin" / "python"
    wanted = (_HERE / "requirements.txt").read_text()
    installed = _ENVIRONMENT / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        say("bench", f"installing what Herald is compared with into {_ENVIRONMENT}")
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(_ENVIRONMENT)], check=True)
        install = ["pip", "install", "--python", str(python), "--require-hashes", "-r", str(_HERE / "requirements.txt")]
        subprocess.run([*uv, *install], check=True)
        installed.write_text(wanted)
    return python.absolute()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_LIMIT_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            give_up("bench", f"{log.stem} is not ready:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
