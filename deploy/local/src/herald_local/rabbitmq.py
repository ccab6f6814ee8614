"""A private RabbitMQ node: own name, ports, data folder, user and Erlang name server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from herald_local.console import give_up
from herald_local.packages import SystemPackage, get_program
from herald_local.ports import find_free_ports, is_free

_BIN_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
# A broker that may open only 1,024 files needs 225 s instead of 0.7 s for a fan-out to 10,000 queues. Without end is no
# better: Erlang's helper goes through all of them at every start of a program.
_OPEN_FILES = 200_000
_START_LIMIT_S = 90.0
_STOP_LIMIT_S = 30.0
_COOKIE = ".erlang.cookie"
# Policies that production sets too (deploy/rabbitmq/definitions.json holds the same, a test compares them).
USER_QUEUE_POLICY = {
    "vhost": "/",
    "name": "herald-user-queues",
    "pattern": "^user\\.",
    "apply-to": "queues",
    "priority": 10,
    # 30 days without a device: the queue goes, the mailbox stays. 10,000 messages: the oldest goes, the mailbox has it.
    "definition": {
        "expires": 30 * 24 * 3_600_000,
        "message-ttl": 30 * 24 * 3_600_000,
        "max-length": 10_000,
        "overflow": "drop-head",
    },
}


def find_rabbitmq() -> Path | None:
    """The folder with rabbitmq-server and rabbitmqctl, or None."""
    for folder in _BIN_FOLDERS:
        if Path(folder, "rabbitmq-server").exists():
            return Path(folder)
    on_path = shutil.which("rabbitmq-server")
    return Path(on_path).resolve().parent if on_path else None


RABBITMQ = SystemPackage(
    name="RabbitMQ",
    find=find_rabbitmq,
    apt=("rabbitmq-server",),
    brew="rabbitmq",
    otherwise=(
        "Install RabbitMQ 3.10 or newer (https://www.rabbitmq.com/docs/download) so that rabbitmq-server is on PATH, "
        "or set AMQP_URL to a broker you have, for example one started by "
        "'docker run -d -p 5672:5672 rabbitmq:4-management'."
    ),
)


@dataclass(frozen=True)
class RabbitSettings:
    """What makes one private node different from another; kept in its folder, so that a second start finds its data."""

    amqp_port: int
    dist_port: int
    epmd_port: int
    password: str


class RabbitNode:
    """One RabbitMQ server process and its data folder.

    Stopping and starting again keeps durable queues; deleting the folder forgets everything.

    Args:
        folder: Takes everything the node has.
        amqp_port: Where it answers; a free one unless given, and from then on the same.
        beside: A node it may form a cluster with (`join`): name server, password and Erlang cookie are that one's.
    """

    def __init__(self, folder: Path, *, amqp_port: int | None = None, beside: RabbitNode | None = None) -> None:
        self.folder = folder.resolve()
        self._wanted_port = amqp_port
        self._beside = beside
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: RabbitSettings | None = None

    @property
    def settings(self) -> RabbitSettings:
        """Ports and password, made on first use and read from the folder afterwards."""
        if self._settings is None:
            self._settings = self._load_or_make_settings()
        return self._settings

    @property
    def name(self) -> str:
        """The Erlang node's name."""
        return f"herald-{self.settings.amqp_port}@localhost"

    @property
    def url(self) -> str:
        """The AMQP address with user and password."""
        return f"amqp://herald:{self.settings.password}@127.0.0.1:{self.settings.amqp_port}/"

    @property
    def pid(self) -> int | None:
        """The process id of the running Erlang VM; None when this object did not start it."""
        return self._process.pid if self._process else None

    def prepare(self) -> tuple[list[str], dict[str, str]]:
        """Write the node's files; answer the command that runs it in the foreground, and its environment."""
        binaries = get_program(RABBITMQ)
        settings = self.settings
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{settings.amqp_port}\n"
            f"load_definitions = {self.folder}/definitions.json\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.console = false\n"
            "log.file.level = info\n"
        )
        cookie = self.folder / _COOKIE
        if self._beside is not None and not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_bytes((self._beside.folder / _COOKIE).read_bytes())
            cookie.chmod(0o400)  # Erlang insists on it
        definitions = self.folder / "definitions.json"
        definitions.touch(mode=0o600)
        definitions.write_text(json.dumps(make_definitions("herald", settings.password), indent=1))
        (self.folder / "enabled_plugins").write_text("[].\n")
        hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # root may go beyond the hard limit; everybody else gets as much as there is.
        limits = f"ulimit -n {_OPEN_FILES} 2>/dev/null || ulimit -n {hard_limit}"
        command = ["/bin/sh", "-c", f'{limits}; exec "{binaries}/rabbitmq-server"']
        return command, self.environment()

    def environment(self) -> dict[str, str]:
        """What makes every RabbitMQ and Erlang program talk to this node and no other."""
        settings = self.settings
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")},
            "HOME": str(self.folder),  # the Erlang cookie lives here
            "ERL_EPMD_PORT": str(settings.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(settings.amqp_port),
            "RABBITMQ_DIST_PORT": str(settings.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none.conf"),
            # Idle schedulers sleep at once, and none is bound to a core (RabbitMQ's own start script binds them): on
            # cores that everything shares, spinning takes time from the others, and waiting for one's own core while
            # the other is free cost a tenth of the broker's time.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none +stbt u",
            # The start script then becomes the Erlang VM itself, so that signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def start(self) -> None:
        """Start the node and return once it answers AMQP. Ends the run with the log's place if it does not."""
        command, environment = self.prepare()
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=console,
                stderr=console,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.wait_until_ready()

    def wait_until_ready(self, limit_s: float = _START_LIMIT_S) -> None:
        """Return once the node answers AMQP."""
        deadline = time.monotonic() + limit_s
        while not answers_amqp(self.settings.amqp_port):
            if self._process is not None and self._process.poll() is not None:
                give_up(
                    "rabbitmq", f"ended at start with code {self._process.returncode}; see {self.folder}/console.log"
                )
            if time.monotonic() > deadline:
                give_up("rabbitmq", f"did not answer within {limit_s:.0f} s; see {self.folder}/log")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the node in order, with the Erlang name server it started."""
        self._end(signal.SIGTERM)
        self.stop_name_server()

    def kill(self) -> None:
        """End the node as a crash would (`kill -9`)."""
        self._end(signal.SIGKILL)

    def discard(self) -> None:
        """End a node whose data nobody wants: at once, where stopping in order takes seconds."""
        if self._process is not None:
            self.kill()
        self.stop_name_server()

    def pause(self) -> None:
        """Freeze the node: its sockets stay open and nothing answers."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen node go on."""
        os.kill(self._running().pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and answer what it printed."""
        command = [str(get_program(RABBITMQ) / "rabbitmqctl"), "--quiet", *arguments]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def join(self, other: RabbitNode) -> None:
        """Become a member of the other node's cluster; both run, and what this one had is forgotten."""
        self.ctl("stop_app")
        self.ctl("reset")
        self.ctl("join_cluster", other.name)
        self.ctl("start_app")

    def lift_reservations(self) -> None:
        """Let the running node take connections however many quorum queues it has.

        RabbitMQ up to 3.13 sets three file handles aside for each and takes no connection when none is left: with
        20,000 files the node goes silent at 6,660 quorum queues, which a run of all tests makes. It does not open them.
        """
        self.ctl("eval", "catch file_handle_cache:set_limit(1000000).")

    def stop_name_server(self) -> None:
        """End the private epmd, which the Erlang VM starts as a daemon and never ends."""
        epmd = shutil.which("epmd")
        if epmd:
            subprocess.run(
                [epmd, "-port", str(self.settings.epmd_port), "-kill"], capture_output=True, check=False, timeout=10
            )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this RabbitMQ node is not running")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, how)
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # The VM's helper processes (erl_child_setup, inet_gethost) end with it, a moment later.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self._process = None

    def _load_or_make_settings(self) -> RabbitSettings:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "node.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        amqp_port = self._wanted_port or known.get("amqp_port") or find_free_ports(1)[0]
        dist_port, epmd_port = known.get("dist_port"), known.get("epmd_port")
        # Taken ports are another program's, unless this very node is running: then it is its own.
        is_running = answers_amqp(amqp_port)
        if dist_port is None or epmd_port is None or not (is_running or is_free(dist_port)):
            dist_port, epmd_port = find_free_ports(2)
        password = known.get("password") or secrets.token_urlsafe(24)
        if self._beside is not None:
            epmd_port, password = self._beside.settings.epmd_port, self._beside.settings.password
        settings = RabbitSettings(amqp_port, dist_port, epmd_port, password)
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings.__dict__))
        return settings


def make_definitions(user: str, password: str) -> Mapping[str, object]:
    """The definitions a node loads at start: one administrator of the default virtual host, and the policies."""
    salt = secrets.token_bytes(4)
    password_hash = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user,
                "password_hash": password_hash,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"],
            }
        ],
        "permissions": [{"user": user, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
        "policies": [USER_QUEUE_POLICY],
    }


def answers_amqp(port: int) -> bool:
    """Whether a broker answers the AMQP 0-9-1 protocol header with its first frame (an open port is not enough)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(8)[:1] == b"\x01"
    except OSError:
        return False
