"""Schemathesis over the whole OpenAPI document, with real tokens of every role, against the running server.

The ordinary run is short, and the same each time. `AUTH_FUZZ_EXAMPLES=50` looks longer, `AUTH_FUZZ_SEED` elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from auth_server import Server, running

from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY
from herald_local.rabbitmq import RabbitNode

pytestmark = pytest.mark.only_on("postgresql")

EXAMPLES = os.environ.get("AUTH_FUZZ_EXAMPLES", "2")
# Not cut by time: each run would have tried something else.
PHASES = os.environ.get("AUTH_FUZZ_PHASES", "examples,fuzzing")
LIMIT_S = 240 + 30 * int(EXAMPLES)
ROLES: tuple[str, ...] = ("visitor", "user", "staff", "admin", "operator", "service", "internal")
AT_ONCE = 4
SEED = os.environ.get("AUTH_FUZZ_SEED", "1")
PASSWORD = "a phrase for the fuzzer"
# They end the session that asks; what they do has tests of its own.
NOT_WITH_A_TOKEN = ("log_out", "log_out_all", "erase_me", "end_my_session")
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


def make_accounts(server: Server) -> dict[str, dict[str, str]]:
    """A header for each role. Each role but the operator's has a tenant of its own, so that none can end another's."""
    operator = {"Authorization": f"Bearer {server.log_in('admin', 'herald-admin')['access']}"}
    headers = {"visitor": {}, "operator": operator, "internal": {"X-Internal-Key": DEVELOPMENT_INTERNAL_KEY}}

    def call(path: str, body: object) -> dict[str, str]:
        answer = server.http.post(path, json=body, headers=operator)
        assert answer.status_code == 201, answer.text
        made: dict[str, str] = answer.json()
        return made

    for role in ("user", "staff", "admin"):
        tenant = call("/api/v1/tenants", {"slug": f"fuzz-{role}", "name": role})["slug"]
        person = {"username": f"fuzz-{role}", "password": PASSWORD, "roles": [role], "tenant": tenant}
        call("/api/v1/users", person)
        headers[role] = {"Authorization": f"Bearer {server.log_in(f'fuzz-{role}', PASSWORD)['access']}"}
    scopes = ["users:read", "users:write", "groups:write", "tokens:issue", "audit:read"]
    account = call("/api/v1/service-accounts", {"name": "fuzz", "scopes": scopes, "tenant": "fuzz-staff"})
    body = {"client_id": account["client_id"], "client_secret": account["client_secret"]}
    token = server.post("/api/v1/auth/service-token", body).json()["access"]
    return {**headers, "service": {"Authorization": f"Bearer {token}"}}


def fuzz(server: Server, role: str, headers: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/api/schema", "--no-color"]
    command += ["--seed", SEED, "--max-examples", EXAMPLES]
    command += ["--continue-on-failure", "--no-shrink"]
    command += ["--phases", PHASES, "--generation-database", "none", "--warnings", "off"]
    command += ["--exclude-checks", NOT_CHECKED]
    command += [part for name in NOT_WITH_A_TOKEN if headers for part in ("--exclude-operation-id", name)]
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
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda role: fuzz(own, role, headers[role], tmp_path), ROLES))
        faults = [line for line in own.log.splitlines() if "request_failed" in line]
    assert faults == []
    failed = [f"{role}\n{done.stdout[-6000:]}" for role, done in zip(ROLES, results, strict=True) if done.returncode]
    assert not failed, "\n".join(failed)
    assert all("Tested: " in done.stdout for done in results)
