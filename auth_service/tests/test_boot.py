"""What starts and what refuses to (requirements A08, A24, A28, J02)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from auth_service.config.environment import DEVELOPMENT_SECRET_KEY, AuthSettings

pytestmark = pytest.mark.only_on("sqlite")

PROGRAM = Path(sys.executable).with_name("herald-auth")
GOOD = {
    "HERALD_ENV": "production",
    "INTERNAL_SERVICE_KEY": "a-good-internal-key-of-32-letters",
    "AUTH_SECRET_KEY": "a-good-secret-key-of-more-than-32-letters",
    "AMQP_URL": "amqp://herald:a-good-broker-password@broker/",
    "AUTH_DATABASE_URL": "postgresql://auth:a-good-database-password@database/auth",
    "AUTH_ISSUER": "https://auth.example.org",
    "AUTH_ALLOWED_HOSTS": "auth.example.org",
}
WRONG = [
    ("INTERNAL_SERVICE_KEY", None),
    ("INTERNAL_SERVICE_KEY", ""),
    ("INTERNAL_SERVICE_KEY", "development-only-internal-key"),
    ("INTERNAL_SERVICE_KEY", "too-short-a-key"),
    ("INTERNAL_SERVICE_KEY", "a-good-internal-key-of-32-letters,too-short"),
    ("AUTH_SECRET_KEY", None),
    ("AUTH_SECRET_KEY", "too-short-a-secret"),
    ("AUTH_SECRET_KEY", DEVELOPMENT_SECRET_KEY),
    ("AUTH_SECRET_KEY", "django-insecure-abcdefghijklmnopqrstuvwxyz0123456789"),
    ("AMQP_URL", None),
    ("AMQP_URL", "amqp://guest:guest@broker/"),
    ("AMQP_URL", "amqp://herald@broker/"),
    ("AMQP_URL", "amqp://broker/"),
    ("AUTH_DATABASE_URL", None),
    ("AUTH_ISSUER", None),
    ("AUTH_ISSUER", ""),
    ("AUTH_ALLOWED_HOSTS", None),
    ("AUTH_ALLOWED_HOSTS", "auth.example.org,*"),
]


def settings_from(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> AuthSettings:
    for name in list(os.environ):
        if name.startswith(("AUTH_", "HERALD_", "INTERNAL_", "AMQP_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return AuthSettings(_env_file=None)


def start(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    own = ("AUTH_", "HERALD_", "INTERNAL_", "AMQP_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return subprocess.run(
        [PROGRAM, *arguments], env={**inherited, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.req("A28")
def test_production_starts_with_everything_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_from(monkeypatch, GOOD)
    assert settings.is_production
    assert settings.registrations_per_minute == 20


@pytest.mark.req("A08", "A28", "J02")
@pytest.mark.parametrize(("name", "value"), WRONG)
def test_production_refuses_what_is_missing_default_or_short(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    environment = {**GOOD, name: value or ""}
    if value is None:
        del environment[name]
    with pytest.raises(ValidationError) as caught:
        settings_from(monkeypatch, environment)
    said = str(caught.value)
    assert name in said
    assert not any(secret in said for secret in environment.values() if len(secret) > 12 and secret != "production")


@pytest.mark.req("A28", "J02")
def test_development_starts_with_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_from(monkeypatch, {}).issuer == "http://127.0.0.1:8000"


@pytest.mark.req("A28", "J02")
@pytest.mark.parametrize("command", [("serve", "--port", "1"), ("background",), ("migrate",)])
def test_the_process_ends_with_an_error_that_names_the_setting_and_no_value(command: tuple[str, ...]) -> None:
    secret = "short-but-secret"
    done = start({**GOOD, "AUTH_SECRET_KEY": secret, "AMQP_URL": "amqp://guest:guest@broker/"}, *command)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "AUTH_SECRET_KEY" in said
    assert "AMQP_URL" in said
    assert secret not in said
    assert "guest@" not in said
    assert "Traceback" not in said


@pytest.mark.req("J02")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_ACCESS_LIFETIME", "soon"),
        ("AUTH_ACCESS_LIFETIME", "0"),
        ("AUTH_SIGNING_ALGORITHM", "HS256"),
        ("AUTH_TRUSTED_PROXIES", "everyone"),
        ("AUTH_WORKERS", "0"),
        ("AUTH_TICKET_LIFETIME", "60"),
        ("AUTH_PASSWORD_MIN_LENGTH", "4"),
        ("HERALD_ENV", "staging"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    from auth_service.config.environment import load_environment

    for each in list(os.environ):
        if each.startswith(("AUTH_", "HERALD_ENV")):
            monkeypatch.delenv(each)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_environment()
    assert name in str(caught.value)
    assert value not in str(caught.value) or value in {"0", "4", "60"}


@pytest.mark.parametrize(("text", "seconds"), [("900", 900), ("0.5", 0.5), ("PT15M", 900), ("P1D", 86_400)])
def test_durations_are_seconds_or_iso_8601(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    assert settings_from(monkeypatch, {"AUTH_ACCESS_LIFETIME": text}).access_lifetime.total_seconds() == seconds


@pytest.mark.req("A24")
def test_without_the_token_store_nothing_starts(tmp_path: Path) -> None:
    script = (
        "import os, django; from django.conf import settings; import auth_service.config.settings as s;"
        "s.INSTALLED_APPS.remove('auth_service.sessions.apps.SessionsApp');"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'auth_service.config.settings'; django.setup();"
        "import auth_service.config.wsgi"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HERALD_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "sessions" in done.stderr


def test_a_database_that_is_not_migrated_is_not_ready(tmp_path: Path) -> None:
    script = (
        "import django; django.setup(); from auth_service.config.health import check_database;print(check_database())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "HERALD_RUN_DIR": str(tmp_path),
            "AUTH_DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3",
            "DJANGO_SETTINGS_MODULE": "auth_service.config.settings",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not migrated" in done.stdout
