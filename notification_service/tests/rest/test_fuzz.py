"""Schemathesis over the whole OpenAPI document, with tokens of two roles, against the running service.

As an administrator, who gets through to every body, it goes through what can be wrong with each call, member by member
(`coverage`); as an ordinary user it sends made-up data (`fuzzing`). The ordinary run is the same each time.
`NOTIFY_FUZZ_EXAMPLES=300` tries that many of each operation, `NOTIFY_FUZZ_SEED` others,
`NOTIFY_FUZZ_PHASES=coverage,fuzzing` everything as both.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from service import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = os.environ.get("NOTIFY_FUZZ_EXAMPLES", "3")
# Not cut by time: each run would have tried something else.
PHASES = {"user": "fuzzing", "admin": "coverage"}
LIMIT_S = 300 + 30 * int(EXAMPLES)
SEED = os.environ.get("NOTIFY_FUZZ_SEED", "1")
# A well-formed id may be nobody's: whether good data is taken depends on more than its form.
NOT_CHECKED = "positive_data_acceptance"


async def fuzz(url: str, token: str, phases: str, folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        "run",
        f"{url}/api/openapi.json",
        "--no-color",
        *("--seed", SEED, "--max-examples", EXAMPLES),
        *("--continue-on-failure", "--no-shrink"),
        *("--phases", phases, "--workers", "2", "--generation-database", "none", "--warnings", "off"),
        *("--exclude-checks", NOT_CHECKED, "--exclude-path-regex", "^/(health|metrics)"),
        *("-H", f"Authorization: Bearer {token}"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "CI": "1"},
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


@pytest.mark.req("E08", "C02")
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("role", ["user", "admin"])
async def test_no_role_meets_a_fault_or_a_broken_promise(
    service: Service, service_database: str, tmp_path: Path, role: str
) -> None:
    if "sqlite" not in service_database and "NOTIFY_FUZZ_EXAMPLES" not in os.environ:
        pytest.skip("the ordinary run has one database")
    # A tenant of its own: what the fuzzer makes and deletes is nobody else's.
    person = service.add_person(role, tenant=service.add_tenant())
    phases = os.environ.get("NOTIFY_FUZZ_PHASES", PHASES[role])
    code, output = await fuzz(service.urls["api"], person.token, phases, tmp_path)
    assert code == 0, output[max(0, output.find("FAILURES")) :][:12_000]
    assert "Tested: " in output
