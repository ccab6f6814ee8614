"""`make run`: set everything up on this machine and run the whole system in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import httpx

from herald_local.console import give_up, say
from herald_local.ports import find_free_ports, is_free
from herald_local.rabbitmq import RabbitNode
from herald_local.supervision import Supervisor
from herald_local.system import Process, System

_READY_LIMIT_S: Final = 300.0  # 5 s on an idle machine; minutes on one that has twenty other things to do
_KEY_FILE: Final = "internal-key"


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that nothing takes it for a failure."""


def main() -> None:
    """Run until told to stop; the exit code is 0 then."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    run_dir = Path(os.environ.get("HERALD_RUN_DIR", ".run")).resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "env").unlink(missing_ok=True)
    node: RabbitNode | None = None
    supervisor: Supervisor | None = None
    try:
        node = _find_broker(run_dir)
        system = _make_system(run_dir, node)
        processes = [*_broker_process(node), *system.processes()]
        # RabbitMQ boots while the databases are prepared.
        supervisor = Supervisor(processes, run_dir / "supervisor")
        _prepare(system)
        if node is not None:
            node.wait_until_ready()
            say("run", "rabbitmq is ready")
        supervisor.start_all()
        _wait_until_ready(processes, supervisor)
        _announce(system, run_dir)
        code = supervisor.wait()
        give_up("run", f"the supervisor ended by itself with code {code}")
    except Stopped:
        say("run", "stopping")
    finally:
        # A second Ctrl-C must not leave anything half stopped.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (run_dir / "env").unlink(missing_ok=True)
        if supervisor is not None:
            supervisor.stop()
        if node is not None:
            node.stop_name_server()
    say("run", "stopped")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _find_broker(run_dir: Path) -> RabbitNode | None:
    if os.environ.get("AMQP_URL"):
        say("run", "using the RabbitMQ of AMQP_URL")
        return None
    node = RabbitNode(run_dir / "rabbitmq")
    node.prepare()
    say("run", f"RabbitMQ will run as a private node on port {node.settings.amqp_port}, data in {node.folder}")
    return node


def _broker_process(node: RabbitNode | None) -> list[Process]:
    if node is None:
        return []
    command, environment = node.prepare()
    log_file = node.folder / "console.log"
    return [Process("rabbitmq", tuple(command), environment, log_file=log_file, starts_first=True)]


def _make_system(run_dir: Path, node: RabbitNode | None) -> System:
    auth_port = int(os.environ.get("HERALD_AUTH_PORT", "8000"))
    notify_port = int(os.environ.get("HERALD_NOTIFY_PORT", "8001"))
    for variable, port in (("HERALD_AUTH_PORT", auth_port), ("HERALD_NOTIFY_PORT", notify_port)):
        if not is_free(port):
            give_up("run", f"port {port} is taken by another program; set {variable} to a free one")
    worker_port, scheduler_port = find_free_ports(2)
    return System(
        run_dir=run_dir,
        amqp_url=node.url if node else os.environ["AMQP_URL"],
        internal_key=os.environ.get("INTERNAL_SERVICE_KEY") or _load_or_make_key(run_dir),
        auth_port=auth_port,
        notify_ports=(notify_port,),
        worker_ports=(worker_port,),
        scheduler_ports=(scheduler_port,),
        auth_database=os.environ.get("AUTH_DATABASE_URL"),
        notify_database=os.environ.get("NOTIFY_DATABASE_URL"),
    )


def _load_or_make_key(run_dir: Path) -> str:
    path = run_dir / _KEY_FILE
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def _prepare(system: System) -> None:
    for sentence, command in system.preparations():
        say("run", sentence)
        done = subprocess.run(command, env=system.environment("setup"), capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            give_up("run", f"{sentence} failed: {' '.join(command)}")


def _wait_until_ready(processes: list[Process], supervisor: Supervisor) -> None:
    waiting = {process.name: process.ready_url for process in processes if process.ready_url}
    deadline = time.monotonic() + _READY_LIMIT_S
    with httpx.Client(trust_env=False, timeout=2) as client:
        while waiting:
            for name, url in tuple(waiting.items()):
                if _answers(client, url):
                    say("run", f"{name} is ready")
                    del waiting[name]
            if supervisor.exit_code is not None:
                give_up("run", f"the supervisor ended with code {supervisor.exit_code}; its lines above say why")
            if time.monotonic() > deadline:
                give_up("run", f"not ready after {_READY_LIMIT_S:.0f} s: {', '.join(waiting)}; see the lines above")
            time.sleep(0.2)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _announce(system: System, run_dir: Path) -> None:
    notify_url = system.notify_urls[0]
    known = {
        "HERALD_AUTH_URL": system.auth_url,
        "HERALD_NOTIFY_URL": notify_url,
        "AMQP_URL": system.amqp_url,
        "INTERNAL_SERVICE_KEY": system.internal_key,
    }
    # Written whole and then put in place: whoever waits for the file never reads half of it.
    draft = run_dir / "env.new"
    draft.touch(mode=0o600)
    draft.write_text("".join(f"{key}={value}\n" for key, value in known.items()))
    draft.replace(run_dir / "env")
    for line in (
        "Herald is running",
        f"  auth service          {system.auth_url}  (API docs /api/docs, admin /admin/)",
        f"  notification service  {notify_url}  (API docs /api/docs, WebSocket /ws)",
        "  demo accounts         admin / herald-admin, alice / herald-alice, bob / herald-bob; group demo",
        "  service account       shop / herald-shop-secret",
        f"  addresses for scripts {run_dir / 'env'}",
        "Ctrl-C stops everything",
    ):
        say("run", line)


if __name__ == "__main__":
    main()
