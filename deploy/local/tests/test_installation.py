"""An installation as docker-compose.yml describes it, without Docker: the same settings, commands, databases, broker
definitions and proxy, in production mode, on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
import yaml
from compose_file import MADE_UP, ROOT, read_compose

from herald_local import rabbitmq
from herald_local.packages import SystemPackage, get_program
from herald_local.ports import find_free_ports
from herald_local.postgresql import PostgresCluster
from herald_local.rabbitmq import RabbitNode

PASSWORD = "quiet-otters-swim-upstream"
READY_LIMIT_S = 180.0
pytestmark = pytest.mark.timeout(600)  # the set-up starts ten programs, on a machine that may be busy
IMAGE_COMMAND = ["serve", "--host", "0.0.0.0", "--port", "8000"]  # noqa: S104 - of auth_service/Dockerfile


def find_nginx() -> Path | None:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/opt/homebrew/bin:/usr/local/sbin")
    return Path(found) if found else None


NGINX = SystemPackage(
    name="nginx",
    find=find_nginx,
    apt=("nginx-light",),
    brew="nginx",
    otherwise="Install nginx 1.18 or newer so that it is on PATH.",
)


@dataclass(frozen=True)
class Installation:
    """Where it answers."""

    url: str
    api_url: str
    node: RabbitNode


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def make_nginx_configuration(ports: dict[str, int], folder: Path) -> Path:
    """The file of production with the addresses of this machine."""
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    replacements = {
        "server auth:8000;": f"server 127.0.0.1:{ports['auth']};",
        "server api:8001;": f"server 127.0.0.1:{ports['api']};",
        "server gateway:8001;": f"server 127.0.0.1:{ports['gateway']};",
        "listen 8080 default_server": f"listen 127.0.0.1:{ports['nginx']} default_server",
        "pid /tmp/nginx.pid;": f"pid {folder}/nginx.pid;",
        "include mime.types;": "types { text/html html; }\n"
        + "".join(
            f"  {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


def wait_until(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            if httpx.get(url, trust_env=False, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, f"{url} does not answer 200\n{log.read_text()[-4000:]}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    nginx = get_program(NGINX)
    folder = Path(tempfile.mkdtemp(prefix="herald-installation-"))
    folder.chmod(0o755)  # PostgreSQL's own user must get through
    names = ("auth", "api", "gateway", "worker", "scheduler", "nginx")
    ports = dict(zip(names, find_free_ports(len(names)), strict=True))
    url = f"http://localhost:{ports['nginx']}"
    compose = read_compose({**MADE_UP, "PUBLIC_URL": url, "ALLOWED_ORIGINS": url})
    cluster = PostgresCluster(folder / "postgresql", settings={"fsync": "off"})
    node = RabbitNode(folder / "rabbitmq")
    definitions = json.loads(compose["configs"]["rabbitmq-definitions"]["content"])
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(rabbitmq, "make_definitions", lambda _user, _password: definitions)
        stack.callback(cluster.stop)
        cluster.start()
        stack.callback(node.stop)
        node.start()
        create_databases(compose, cluster)
        moved = {
            "rabbitmq:5672": f"127.0.0.1:{node.settings.amqp_port}",
            "postgresql:5432": f"127.0.0.1:{cluster.port}",
            "http://auth:8000": f"http://localhost:{ports['auth']}",
        }

        def environment(service: str) -> dict[str, str]:
            own = {name: str(value) for name, value in compose["services"][service]["environment"].items()}
            for old, new in moved.items():
                own = {name: value.replace(old, new) for name, value in own.items()}
            inherited = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "PYTHON"))}
            return {**inherited, "HERALD_RUN_DIR": str(folder / "run"), **own}

        (folder / "run").mkdir()
        for service, program in (("auth-migrate", "herald-auth"), ("notify-migrate", "herald-notify")):
            command = [script(program), *compose["services"][service]["command"]]
            done = subprocess.run(command, env=environment(service), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        started = []
        for service in ("auth", "auth-background", "api", "gateway", "worker", "scheduler"):
            given = compose["services"][service].get("command") or IMAGE_COMMAND
            port = str(ports.get(service, 0))
            here = {"0.0.0.0": "127.0.0.1", "8000": port, "8001": port}  # noqa: S104 - what is replaced
            arguments = [here.get(each, each) for each in given]
            program = script("herald-auth" if service.startswith("auth") else "herald-notify")
            log = folder / f"{service}.log"
            process = stack.enter_context(running([program, *arguments], environment(service), log))
            started.append((service, process, log))
        for service, process, log in started:
            if service in ports:
                wait_until(f"http://127.0.0.1:{ports[service]}/health/ready", process, log)
        proxy = [str(nginx), "-p", str(folder), "-c", str(make_nginx_configuration(ports, folder)), "-g", "daemon off;"]
        log = folder / "nginx.log"
        process = stack.enter_context(running(proxy, dict(os.environ), log))
        wait_until(f"{url}/nginx-health", process, log)
        started.append(("nginx", process, log))

        def end_all() -> None:
            for _, each, _ in started:
                each.terminate()

        stack.callback(end_all)  # together, not one after another
        yield Installation(url, f"http://127.0.0.1:{ports['api']}", node)


def create_databases(compose: dict[str, Any], cluster: PostgresCluster) -> None:
    """What the image of PostgreSQL does with the mounted script."""
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "postgresql" / "create-databases.sh")],
        env={
            **{name: str(value) for name, value in compose["services"]["postgresql"]["environment"].items()},
            "PATH": os.environ["PATH"],
            "POSTGRES_USER": "herald",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(cluster.port),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@pytest.fixture
def visitor(installation: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=installation.url, trust_env=False, timeout=60) as client:
        yield client


def register(visitor: httpx.Client, name: str) -> dict[str, Any]:
    account = {"username": name, "email": f"{name}@herald.example", "password": PASSWORD}
    answer = visitor.post("/api/v1/auth/register", json=account)
    assert answer.status_code == 201, answer.text
    answer = visitor.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def next_frame(socket: websockets.ClientConnection, wanted: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == wanted:
                return frame


@pytest.mark.req("J01")
@pytest.mark.req("J02")
def test_a_message_goes_from_one_browser_to_another_through_the_proxy(
    installation: Installation, visitor: httpx.Client
) -> None:
    ada, ben = register(visitor, "ada"), register(visitor, "ben")
    address = installation.url.replace("http", "ws", 1) + "/ws"

    def connect(who: dict[str, Any]) -> Any:
        return websockets.connect(
            address,
            origin=installation.url,  # type: ignore[arg-type]  # a NewType of str
            subprotocols=["herald.v1", f"bearer.{who['access']}"],  # type: ignore[list-item]
            proxy=None,
        )

    async def talk() -> dict[str, Any]:
        async with connect(ada) as from_ada, connect(ben) as to_ben:
            assert (from_ada.subprotocol, to_ben.subprotocol) == ("herald.v1", "herald.v1")
            await next_frame(to_ben, "welcome")
            await next_frame(from_ada, "welcome")
            message = {"type": "send", "to": {"user": ben["user"]["id"]}, "title": "Hello", "body": "Ben", "ref": "1"}
            await from_ada.send(json.dumps(message))
            sent = await next_frame(from_ada, "sent")
            received = await next_frame(to_ben, "notification")
            assert received["id"] == sent["id"]
            await to_ben.send(json.dumps({"type": "ack", "position": received["position"]}))
            return received

    received = asyncio.run(talk())
    assert (received["title"], received["body"], received["seq"]) == ("Hello", "Ben", 1)
    inbox = visitor.get("/api/v1/inbox", headers={"Authorization": f"Bearer {ben['access']}"})
    assert [item["id"] for item in inbox.json()["items"]] == [received["id"]]


def test_the_proxy_sends_every_address_where_it_belongs(visitor: httpx.Client) -> None:
    assert "keys" in visitor.get("/.well-known/jwks.json").json()
    for path, status in {
        "/api/v1/users/me": 401,  # the auth service
        "/api/v1/inbox": 401,  # the notification service
        "/api/v1/notifications/status/0198c0de-0010-7000-8000-000000001042": 401,
        "/api/openapi.json": 401,
        "/internal/v1/users": 404,
        "/metrics": 404,
        "/metrics/": 404,
        "/sse/x": 404,
    }.items():
        assert visitor.get(path).status_code == status, path


@pytest.mark.req("G04")
def test_the_internal_key_is_worth_nothing_from_outside(installation: Installation, visitor: httpx.Client) -> None:
    key = {"X-Internal-Key": MADE_UP["INTERNAL_SERVICE_KEY"]}
    assert (
        httpx.get(f"{installation.api_url}/api/openapi.json", headers=key, trust_env=False, timeout=60).status_code
        == 200
    )
    assert visitor.get("/api/openapi.json", headers=key).status_code == 401
    assert visitor.get("/internal/v1/users", headers=key).status_code == 404


def test_a_foreign_page_cannot_open_a_socket_through_the_proxy(installation: Installation) -> None:
    async def connect() -> None:
        async with websockets.connect(
            installation.url.replace("http", "ws", 1) + "/ws",
            origin="http://elsewhere.example",  # type: ignore[arg-type]
            proxy=None,
        ):
            pass

    with pytest.raises(websockets.InvalidStatus) as refused:
        asyncio.run(connect())
    assert refused.value.response.status_code == 403


def test_a_body_over_the_limit_is_refused_by_the_proxy(visitor: httpx.Client) -> None:
    answer = visitor.post("/api/v1/notifications/send/batch", content=b"x" * (9 * 1024 * 1024))
    assert answer.status_code == 413


@pytest.mark.req("D17")
def test_headers_that_dribble_in_are_cut_off(installation: Installation) -> None:
    host, port = installation.url.removeprefix("http://").split(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(1024) == b""
    assert time.monotonic() - started < 15


def test_the_broker_has_the_policies(installation: Installation) -> None:
    policies = installation.node.ctl("list_policies")
    expected = yaml.safe_load((ROOT / "deploy" / "rabbitmq" / "definitions.json").read_text())["policies"]
    for policy in expected:
        assert policy["name"] in policies
