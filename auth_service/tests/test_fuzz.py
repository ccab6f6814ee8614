"""Schemathesis over the whole OpenAPI document, with real tokens of every role, against the running server.

Two looks. One goes through what can be wrong with each call, member by member (`coverage`), as whoever gets through to
its body: where someone is turned away at the door, a wrong body is turned away with them. The other tries every call as
every other role with made-up data (`examples,fuzzing`). Both are the same each time.

`AUTH_FUZZ_PHASES=coverage,fuzzing` does as every role what it names, `AUTH_FUZZ_EXAMPLES=50` looks longer,
`AUTH_FUZZ_SEED=2` elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from auth_server import Server, running

from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY
from herald_local.rabbitmq import RabbitNode

pytestmark = pytest.mark.only_on("postgresql")

EXAMPLES = os.environ.get("AUTH_FUZZ_EXAMPLES", "2")
# Not cut by time: each run would have tried something else.
PHASES = os.environ.get("AUTH_FUZZ_PHASES")
LIMIT_S = 300 + 30 * int(EXAMPLES)
ROLES: tuple[str, ...] = ("visitor", "user", "staff", "admin", "operator", "service", "internal")
AT_ONCE = 4
SEED = os.environ.get("AUTH_FUZZ_SEED", "1")
PASSWORD = "a phrase for the fuzzer"
# They end the session that asks: only somebody who has nothing else to do calls them.
ENDING = ("log_out", "log_out_all", "end_my_session", "erase_me")
# A well-formed name may be taken, a well-formed link used: whether good data is taken depends on more than its form.
NOT_CHECKED = "positive_data_acceptance"
GENEROUS = {
    f"AUTH_{name}": "1000000"
    for name in (
        "LOGIN_FAILURES_PER_ACCOUNT",
        "LOGIN_FAILURES_PER_ADDRESS",
        "REGISTER_PER_ADDRESS",
        "RESET_PER_ADDRESS",
        "RESET_PER_ACCOUNT",
        "INTERNAL_FAILURES_PER_ADDRESS",
    )
}


@dataclass(frozen=True)
class Look:
    """One run: as whom, at what. `calls` left out: every one but those that end the session."""

    role: str
    phases: str
    calls: Collection[str] = ()

    @property
    def filters(self) -> list[str]:
        """The calls, as Schemathesis takes them."""
        if self.calls or self.role == "visitor":
            return [part for name in self.calls for part in ("--include-operation-id", name)]
        return [part for name in ENDING for part in ("--exclude-operation-id", name)]


def plan(document: dict[str, Any]) -> list[Look]:
    """Every call by somebody who gets through, in detail; and every call by everybody else."""
    if PHASES:
        return [*(Look(role, PHASES) for role in ROLES), Look("leaver", PHASES, ENDING)]
    by_door: dict[str, list[str]] = {"visitor": [], "internal": [], "operator": []}
    for operations in document["paths"].values():
        for call in operations.values():
            needs = str(call.get("security", []))
            door = "operator" if "accessToken" in needs else "internal" if "internalKey" in needs else "visitor"
            by_door[door].append(call["operationId"])
    by_door["operator"] = [name for name in by_door["operator"] if name not in ENDING]
    assert all(by_door.values())
    # The longest first.
    half = len(by_door["operator"]) // 2
    details = [("operator", by_door["operator"][:half]), ("operator", by_door["operator"][half:])]
    details += [(role, by_door[role]) for role in ("internal", "visitor")]
    shut = [*by_door["internal"], *by_door["operator"], *ENDING]
    return [
        *(Look(role, "coverage,fuzzing", calls) for role, calls in details),
        *(Look(role, "examples,fuzzing") for role in ("user", "staff", "admin", "service")),
        Look("visitor", "fuzzing", shut),
        Look("leaver", "fuzzing", ENDING),
    ]


def make_accounts(server: Server) -> dict[str, dict[str, str]]:
    """A header for each role. Each role but the operator's has a tenant of its own, so that none can end another's."""
    operator = {"Authorization": f"Bearer {server.log_in('admin', 'herald-admin')['access']}"}
    headers = {"visitor": {}, "operator": operator, "internal": {"X-Internal-Key": DEVELOPMENT_INTERNAL_KEY}}

    def call(path: str, body: object) -> dict[str, str]:
        answer = server.http.post(path, json=body, headers=operator)
        assert answer.status_code == 201, answer.text
        made: dict[str, str] = answer.json()
        return made

    for role in ("user", "staff", "admin", "leaver"):
        tenant = call("/api/v1/tenants", {"slug": f"fuzz-{role}", "name": role})["slug"]
        person = {
            "username": f"fuzz-{role}",
            "password": PASSWORD,
            "roles": ["user" if role == "leaver" else role],
            "tenant": tenant,
        }
        call("/api/v1/users", person)
        headers[role] = {"Authorization": f"Bearer {server.log_in(f'fuzz-{role}', PASSWORD)['access']}"}
    scopes = ["users:read", "users:write", "groups:write", "tokens:issue", "audit:read"]
    account = call("/api/v1/service-accounts", {"name": "fuzz", "scopes": scopes, "tenant": "fuzz-staff"})
    body = {"client_id": account["client_id"], "client_secret": account["client_secret"]}
    token = server.post("/api/v1/auth/service-token", body).json()["access"]
    return {**headers, "service": {"Authorization": f"Bearer {token}"}}


def fuzz(server: Server, look: Look, headers: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()  # what it remembers of one run is nothing to another
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/api/schema", "--no-color"]
    command += ["--seed", SEED, "--max-examples", EXAMPLES]
    command += ["--continue-on-failure", "--no-shrink"]
    command += ["--phases", look.phases, "--generation-database", "none", "--warnings", "off"]
    command += ["--exclude-checks", NOT_CHECKED, *look.filters]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    environment = {**os.environ, "CI": "1"}
    return subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.req("C01", "C02")
def test_no_role_meets_a_fault_a_broken_promise_or_an_open_door(
    tmp_path: Path, own_database: str, rabbit: RabbitNode
) -> None:
    own = Server(tmp_path, own_database, rabbit.url, {**GENEROUS, "AUTH_WORKERS": "1"})
    with running(own):
        headers = make_accounts(own)
        looks = plan(own.get("/api/schema?format=json").json())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            numbered = list(enumerate(looks))
            results = list(pool.map(lambda n: fuzz(own, n[1], headers[n[1].role], tmp_path / f"look{n[0]}"), numbered))
        faults = [line for line in own.log.splitlines() if "request_failed" in line]
    assert faults == []
    failed = [
        f"{look}\n{done.stdout[max(0, done.stdout.find('FAILURES')) :][:8_000]}"
        for look, done in zip(looks, results, strict=True)
        if done.returncode
    ]
    assert not failed, "\n".join(failed)
    assert all("Tested: " in done.stdout for done in results)
