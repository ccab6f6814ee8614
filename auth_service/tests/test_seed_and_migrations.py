from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from auth_kit import Api, with_settings
from django.core.management import CommandError, call_command
from django.db import connection

from auth_service.accounts.models import User
from auth_service.config.environment import Environment
from auth_service.groups.models import Membership
from auth_service.identity_events.models import OutboxEvent
from shared_contracts.identity_events import IdentityEventType

DOWN_AND_UP = """
import django
django.setup()
from django.core.management import call_command
call_command("seed_demo")
for app in ("tenants", "audit", "identity_events", "rate_limits"):  # everything else hangs on tenants
    call_command("migrate", app, "zero", verbosity=0)
call_command("migrate", verbosity=0)
call_command("seed_demo")
"""


def herald_auth(*arguments: str, database: str, run_dir: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "AUTH_DATABASE_URL": database, "HERALD_RUN_DIR": str(run_dir)}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("herald-auth")), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def empty_database(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database of the kind this run is about, without any table."""
    if connection.vendor == "sqlite":
        return f"sqlite:///{tmp_path}/empty.sqlite3"
    return str(request.getfixturevalue("postgres_database"))


def test_demonstration_accounts_log_in_and_come_only_once(db: None) -> None:
    call_command("seed_demo", verbosity=0)
    count = OutboxEvent.objects.count()
    call_command("seed_demo", verbosity=0)

    assert OutboxEvent.objects.count() == count
    for name, roles in (("admin", ["user", "admin"]), ("alice", ["user"]), ("bob", ["user"])):
        answer = Api().post("/api/v1/auth/token", {"username": name, "password": f"herald-{name}"})
        assert answer.status == 200
        assert answer.body["user"]["roles"] == roles
    members = Membership.objects.filter(group__slug="demo").values_list("user__username", flat=True)
    assert sorted(members) == ["alice", "bob"]
    token = Api().post("/api/v1/auth/service-token", {"client_id": "shop", "client_secret": "herald-shop-secret"})
    assert set(token.body["scope"].split()) == {"notifications:send", "notifications:broadcast", "tokens:issue"}
    assert OutboxEvent.objects.filter(type=IdentityEventType.USER_CREATED).count() == 3


def test_there_are_no_demonstration_accounts_in_production(db: None) -> None:
    with with_settings(environment=Environment.PRODUCTION), pytest.raises(CommandError, match="production"):
        call_command("seed_demo")
    assert not User.objects.exists()


def test_no_migration_is_missing(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.req("J03")
@pytest.mark.only_on("postgresql")
@pytest.mark.django_db(transaction=True)
def test_a_migration_leaves_the_limits_of_its_connection_as_they_were() -> None:
    """It waits as long as it must; a request that gets the connection afterwards must not."""

    def read_limits() -> list[str]:
        with connection.cursor() as cursor:
            return [cursor.execute(f"SHOW {name}").fetchone()[0] for name in ("lock_timeout", "statement_timeout")]

    with connection.cursor() as cursor:
        cursor.execute("RESET ALL")
    before = read_limits()
    assert "0" not in before
    call_command("migrate", verbosity=0)
    assert read_limits() == before


def test_two_starters_migrate_together_and_down_and_up_again_with_data(empty_database: str, tmp_path: Path) -> None:
    starters = [herald_auth("migrate", database=empty_database, run_dir=tmp_path) for _ in range(2)]
    outputs = [finish(starter) for starter in starters]
    assert sum("Applying accounts.0001_initial" in output for output in outputs) == 1

    environment = {**os.environ, "AUTH_DATABASE_URL": empty_database, "HERALD_RUN_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", DOWN_AND_UP], env=environment, check=True, timeout=60)
