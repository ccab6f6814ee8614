"""Schemathesis over the whole OpenAPI document, with tokens of two roles, against the running service.

The ordinary run is short, and the same each time. `NOTIFY_FUZZ_EXAMPLES=300` tries that many of each operation,
`NOTIFY_FUZZ_SEED` others.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from service import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = os.environ.get("NOTIFY_FUZZ_EXAMPLES", "4")
# Not cut by time: each run would have tried something else.
PHASES = os.environ.get("NOTIFY_FUZZ_PHASES", "fuzzing")
LIMIT_S = 120 + 30 * int(EXAMPLES)
SEED = os.environ.get("NOTIFY_FUZZ_SEED", "1")
# A well-formed id may be nobody's: whether good data is taken depends on more than its form. Which problems a route
# documents is looked at, route by route, in test_openapi.
NOT_CHECKED = "positive_data_acceptance,status_code_conformance"


async def fuzz(url: str, token: str, folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        "run",
        f"{url}/api/openapi.json",
        "--no-color",
        *("--seed", SEED, "--max-examples", EXAMPLES),
        *("--continue-on-failure", "--no-shrink"),
        *("--phases", PHASES, "--workers", "2", "--generation-database", "none", "--warnings", "off"),
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
    code, output = await fuzz(service.urls["api"], person.token, tmp_path)
    assert code == 0, output[-8000:]
    assert "Tested: " in output
