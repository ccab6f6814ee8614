"""Settings that cannot work end the process, naming the setting and never its value (requirements A28, J02)."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from notification_service.entrypoints.cli import load_settings
from notification_service.settings import Settings

GOOD = {
    "HERALD_ENV": "production",
    "INTERNAL_SERVICE_KEY": "k" * 24,
    "NOTIFY_DATABASE_URL": "postgresql://herald:s3cr3t@db/herald",
    "AMQP_URL": "amqp://herald:s3cr3t@broker/",
    "PATH": "/usr/bin:/bin",
}


def start(environment: dict[str, str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from notification_service.entrypoints.cli import load_settings; load_settings(); print('loaded')"
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.req("A28")
@pytest.mark.req("J02")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"INTERNAL_SERVICE_KEY": None}, "INTERNAL_SERVICE_KEY"),
        ({"INTERNAL_SERVICE_KEY": "development-only-internal-key"}, "INTERNAL_SERVICE_KEY"),
        ({"INTERNAL_SERVICE_KEY": "s3cr3t-but-short"}, "INTERNAL_SERVICE_KEY"),
        ({"INTERNAL_SERVICE_KEY": "k" * 24 + ",s3cr3t"}, "INTERNAL_SERVICE_KEY"),
        ({"INTERNAL_SERVICE_KEY": ","}, "INTERNAL_SERVICE_KEY"),
        ({"NOTIFY_DATABASE_URL": None}, "NOTIFY_DATABASE_URL"),
        ({"AMQP_URL": None}, "AMQP_URL"),
        ({"AMQP_URL": "amqp://guest:s3cr3t@broker/"}, "AMQP_URL"),
        ({"AMQP_URL": "amqp://herald@broker/"}, "AMQP_URL"),
        ({"HERALD_FAIL_POINT": "after_answer"}, "HERALD_FAIL_POINT"),
        ({"HERALD_ENV": "prod"}, "HERALD_ENV"),
        ({"NOTIFY_MAX_UNACKED": "s3cr3t"}, "NOTIFY_MAX_UNACKED"),
        ({"NOTIFY_INTROSPECTION_TTL": "31"}, "NOTIFY_INTROSPECTION_TTL"),
    ],
)
def test_production_refuses_to_start(
    changes: dict[str, str | None], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("HERALD_", "NOTIFY_", "AUTH_", "AMQP_", "INTERNAL_")):
            monkeypatch.delenv(name)
    for name, value in {**GOOD, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load_settings()
    # A sentence as the exit code: Python prints it to stderr and ends with 1.
    sentence = ended.value.code
    assert isinstance(sentence, str)
    assert named in sentence
    assert "s3cr3t" not in sentence


@pytest.mark.req("J02")
def test_the_process_ends_with_the_sentence_and_nothing_else(tmp_path: Path) -> None:
    done = start({**GOOD, "AMQP_URL": "amqp://guest:s3cr3t@broker/"}, folder=tmp_path)
    assert done.returncode == 1
    assert "AMQP_URL" in done.stderr
    assert "s3cr3t" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_production_starts_when_everything_is_there(tmp_path: Path) -> None:
    assert start(GOOD, folder=tmp_path).stdout == "loaded\n"


def test_a_fresh_machine_needs_no_settings(tmp_path: Path) -> None:
    assert start({"PATH": "/usr/bin:/bin"}, folder=tmp_path).stdout == "loaded\n"


def test_a_dotenv_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("NOTIFY_MAX_UNACKED=7\nAUTH_ISSUER=https://auth.example\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTH_ISSUER", raising=False)
    settings = Settings()
    assert (settings.max_unacked, settings.auth_base_url) == (7, "https://auth.example")


def test_durations_origins_keys_and_addresses_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_ACK_TIMEOUT", "2.5")
    monkeypatch.setenv("NOTIFY_RETENTION", "P7D")
    monkeypatch.setenv("NOTIFY_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("INTERNAL_SERVICE_KEY", "one, two")
    monkeypatch.setenv("NOTIFY_DATABASE_URL", "postgres://herald@db/herald")
    settings = Settings()
    assert settings.ack_timeout == timedelta(seconds=2.5)
    assert settings.retention == timedelta(days=7)
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.internal_keys == ("one", "two")
    assert settings.sqlalchemy_url == "postgresql+asyncpg://herald@db/herald"
    monkeypatch.setenv("NOTIFY_DATABASE_URL", "sqlite:////tmp/x.sqlite3")
    assert Settings().sqlalchemy_url == "sqlite+aiosqlite:////tmp/x.sqlite3"
    monkeypatch.delenv("NOTIFY_DATABASE_URL")
    assert Settings().sqlalchemy_url.endswith("/.run/notify.sqlite3")
