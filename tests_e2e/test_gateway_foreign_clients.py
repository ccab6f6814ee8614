"""Clients of another language and library, and a page in a real browser: the contract is all they know."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.broker import Backend, queue_counts
from harness.people import Rest
from harness.stack import Stack
from harness.waiting import eventually
from herald_local.packages import SystemPackage, get_program

pytestmark = pytest.mark.only_on("sqlite")

HERE = Path(__file__).parent / "clients"


def find_node() -> Path | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    return Path(node) if node and npm else None


def find_chromium() -> Path | None:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return Path(found) if found else None


NODE = SystemPackage("Node.js", find_node, ("nodejs", "npm"), "node", "Install Node.js 18 or newer.")
CHROMIUM = SystemPackage("Chromium", find_chromium, ("chromium",), "chromium", "Install Chromium or Chrome.")


@pytest.fixture(scope="session")
def node() -> str:
    """Node with the libraries."""
    found = str(get_program(NODE))
    if not all((HERE / "node_modules" / name).exists() for name in ("ws", "wscat")):
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=HERE, check=True)
    return found


class Program:
    """A client program: says `ready` on its standard error when it listens, prints JSON at its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *command: str) -> Program:
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        return cls(
            await asyncio.create_subprocess_exec(
                *command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )

    async def wait_ready(self) -> None:
        assert self._process.stderr is not None
        async with asyncio.timeout(60):
            said = b""
            while (line := await self._process.stderr.readline()).strip() != b"ready":
                said += line
                assert line, said.decode()

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            out, errors = await self._process.communicate()
        assert self._process.returncode == 0, errors.decode()
        answer: dict[str, Any] = json.loads(out)
        return answer


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["header", "subprotocol", "hello", "ticket"])
async def test_a_node_program_receives_acknowledges_and_resumes(
    stack: Stack, rest: Rest, backend: Backend, node: str, how: str
) -> None:
    (person,) = await rest.make_people(1)
    secret = person.access
    if how == "ticket":
        secret = (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=person.access)).json()["ticket"]
    url = stack.system.notify_urls[0].replace("http", "ws", 1) + "/ws"
    program = await Program.start(node, "device.mjs", how, url, secret, "10")
    await program.wait_ready()
    sent = [await backend.send_to(person.id, f"n{number}") for number in range(10)]
    seen = await program.read()
    assert seen["ids"] == sent
    assert seen["seqs"] == list(range(1, 11))
    assert seen["pong"]
    assert seen["resumes"] == (["fresh"] if how == "ticket" else ["fresh", "recovered"])
    assert seen["protocol"] == ("herald.v1" if how == "subprotocol" else "")
    await eventually(
        lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (0, 0)
    )


async def run_wscat(node: str, url: str, *options: str, say: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Connect with wscat, type frames, and answer the frames it shows within 3 s."""
    program = [node, "node_modules/wscat/bin/wscat", "--no-color", "--connect", url, *options]
    for frame in say:
        program += ["--execute", json.dumps(frame)]
    pipe = subprocess.PIPE
    # Its standard input stays open: at its end wscat ends, too.
    process = await asyncio.create_subprocess_exec(
        *program, "--wait", "3", cwd=HERE, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(60):
        out, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
        assert await process.wait() == 0, errors.decode()
    return [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["header", "subprotocol", "hello"])
async def test_wscat_from_a_shell_receives_and_acknowledges(
    stack: Stack, rest: Rest, backend: Backend, node: str, how: str
) -> None:
    (person,) = await rest.make_people(1)
    url = stack.system.notify_urls[0].replace("http", "ws", 1) + "/ws?device_id=shell"
    options: tuple[str, ...] = ()
    if how == "header":
        options = ("--header", f"Authorization: Bearer {person.access}")
    elif how == "subprotocol":
        options = ("--subprotocol", "herald.v1", "--subprotocol", f"bearer.{person.access}")
    hello = {"type": "hello", "token": person.access, "device_id": "shell"}
    first = [hello] if how == "hello" else []
    ping = {"type": "ping", "ref": "p"}
    assert (await run_wscat(node, url, *options, say=[*first, ping]))[0]["type"] == "welcome"
    sent = await backend.send_to(person.id, "to the shell")
    shown = await run_wscat(node, url, *options, say=[*first, ping])
    (notification,) = [frame for frame in shown if frame["type"] == "notification"]
    assert (notification["id"], notification["seq"]) == (sent, 1)
    assert {frame["type"] for frame in shown} >= {"welcome", "synced", "pong"}
    await run_wscat(node, url, *options, say=[*first, {"type": "ack", "position": notification["position"]}])
    await eventually(
        lambda: asyncio.to_thread(queue_counts, stack, f"user.{person.id}"), is_good=lambda counts: counts == (0, 0)
    )


@pytest.mark.timeout(300)
async def test_a_page_in_chromium_by_all_its_ways(stack: Stack, rest: Rest, backend: Backend, node: str) -> None:
    browser = str(get_program(CHROMIUM))
    (person,) = await rest.make_people(1)
    tickets = [
        (await rest.auth("POST", "/api/v1/auth/ws-ticket", token=person.access)).json()["ticket"] for _ in range(2)
    ]
    url = stack.system.notify_urls[0]
    program = await Program.start(node, "browser.mjs", browser, stack.system.auth_url, url, person.access, *tickets)
    await program.wait_ready()
    sent = await backend.send_to(person.id, "to the page")
    seen = await program.read()
    assert seen.pop("failed") == 1006  # a token in the query is refused before the upgrade
    assert set(seen) == {"subprotocol", "ticket", "hello", "events"}
    for frames in seen.values():
        assert [frame["type"] for frame in frames] == ["welcome", "synced", "notification"]
        assert (frames[2]["id"], frames[2]["seq"]) == (sent, 1)
    assert seen["events"][2]["lastEventId"] == seen["events"][2]["position"]
