"""Secrets stay where they belong (requirements A17, G01, G02)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pyotp
import pytest
from auth_kit import PASSWORD, Api, Device, internal, log_in, make_admin, make_user
from django.core import mail as django_mail
from django.db import connection

from auth_service import clock
from auth_service.accounts.mail_actions import do_send_due_mails
from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY
from shared_contracts.scopes import Scope
from shared_contracts.service_log import configure_logging

NAMED_IN_VAIN = "a-made-up-password-that-is-wrong"


@pytest.fixture
def log() -> Iterator[StringIO]:
    """Everything this process logs, at DEBUG, as production would write it."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("auth_service").level)
    configure_logging("auth", level="DEBUG", log_format="json")
    lines = StringIO()
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(lines)
    yield lines
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("auth_service").setLevel(before[2])


def use_everything(run_folder: Path) -> set[str]:
    """Go through every call that hands a secret out or takes one; answer all of them."""
    secrets: set[str] = {PASSWORD, NAMED_IN_VAIN, DEVELOPMENT_INTERNAL_KEY}
    user = make_user("keeper-of-secrets")
    for number in range(10):
        device = log_in(user, device_id=f"d{number}")
        secrets |= {device.token or "", device.refresh}
        device.renew()
        secrets |= {device.token or "", device.refresh}
    device = log_in(user)
    Api().post("/api/v1/auth/token", {"username": user.username, "password": NAMED_IN_VAIN})
    ticket = device.post("/api/v1/auth/ws-ticket").body["ticket"]
    secrets.add(ticket)
    internal().post("/internal/v1/tickets/redeem", {"ticket": ticket})
    internal().post("/internal/v1/tokens/introspect", {"token": device.token})
    admin = make_admin()
    secrets |= {admin.token or "", admin.refresh}
    account = admin.post("/api/v1/service-accounts", {"name": "s", "scopes": [Scope.TOKENS_ISSUE]}).body
    rotated = admin.post(f"/api/v1/service-accounts/{account['id']}/rotate-secret").body
    secrets |= {account["client_secret"], rotated["client_secret"]}
    body = {"client_id": rotated["client_id"], "client_secret": rotated["client_secret"]}
    service = Api(Api().post("/api/v1/auth/service-token", body).body["access"])
    secrets.add(service.token or "")
    issued = service.post("/api/v1/auth/user-tokens", {"items": [{"user_id": str(user.id)}]})
    secrets.add(issued.body["items"][0]["access"])
    begun = device.post("/api/v1/users/me/otp").body
    code = pyotp.TOTP(begun["secret"]).at(clock.timestamp_s())
    secrets.add(begun["secret"])
    secrets |= set(device.post("/api/v1/users/me/otp/confirm", {"otp": code}).body["recovery_codes"])
    Api().post("/api/v1/auth/password/reset", {"email": "keeper-of-secrets@example.org"})
    do_send_due_mails()
    newest = max((run_folder / "auth-mail").glob("*.log"), key=lambda path: path.stat().st_mtime)
    found = re.search(r"token=(?:3D)?(\S+)", newest.read_text().replace("=\n", ""))
    assert found
    secrets.add(found[1])
    Api().post("/api/v1/auth/token/refresh", {"refresh": NAMED_IN_VAIN})
    Api(NAMED_IN_VAIN).get(f"/api/v1/users/me?token={NAMED_IN_VAIN}&ticket={NAMED_IN_VAIN}")
    Api().get(f"/nowhere?access_token={NAMED_IN_VAIN}")
    Api().post("/api/v1/auth/token", b'{"password": "' + NAMED_IN_VAIN.encode())
    assert django_mail is not None
    return {secret for secret in secrets if secret}


def dump() -> str:
    """Every row of every table."""
    tables = connection.introspection.table_names()
    rows: list[str] = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the tables of this database
            rows += [repr(row) for row in cursor.fetchall()]
    return "\n".join(rows)


@pytest.mark.req("A17")
def test_a_dump_of_the_database_holds_no_secret(db: None, run_folder: Path) -> None:
    secrets = use_everything(run_folder)
    held = dump()
    assert "keeper-of-secrets" in held
    leaked = [secret for secret in secrets if secret in held]
    assert leaked == []
    assert len(secrets) > 40


@pytest.mark.req("G01")
def test_no_log_line_holds_a_secret_not_even_at_debug(db: None, run_folder: Path, log: StringIO) -> None:
    secrets = use_everything(run_folder)
    lines = log.getvalue()
    assert lines.count("request_answered") > 30
    assert [secret for secret in secrets if secret in lines] == []


@pytest.mark.req("G02")
@pytest.mark.parametrize("text", ["x\r\nlevel=error forged", "\x1b[31mred", "a" * 1_000_000, '","event":"forged'])
def test_nobody_writes_log_lines_of_their_own(device: Device, log: StringIO, text: str) -> None:
    Api().post("/api/v1/auth/token", {"username": text[:200], "password": "x", "device_name": text[:90]})
    Api().get(f"/{text[:500]}".replace("\r", "%0d").replace("\n", "%0a").replace("\x1b", "%1b"))
    Api().get("/api/v1/users/me", User_Agent=text.replace("\r\n", " ")[:8_000], X_Correlation_Id=text[:64].strip())
    device.patch("/api/v1/users/me", {"locale": text[:300]})

    lines = log.getvalue().splitlines()
    assert lines
    for line in lines:
        event = json.loads(line)  # one event per line, and nothing between them
        assert event["event"] != "forged"
        assert len(line) < 20_000
    assert "\x1b" not in log.getvalue()


@pytest.mark.req("G01")
def test_a_failure_is_logged_with_its_id_and_shown_without_detail(
    device: Device, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"postgresql://auth:{NAMED_IN_VAIN}@database/auth is gone")

    monkeypatch.setattr("auth_service.accounts.views.do_update_user", fail)
    answer = device.patch("/api/v1/users/me", {"locale": "de"})
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    failure = next(event for event in events if event["event"] == "request_failed")
    assert "RuntimeError" in failure["exception"]
    assert NAMED_IN_VAIN not in log.getvalue()
    assert answer.status == 500
    answered = next(event for event in events if event["event"] == "request_answered" and event["status"] == 500)
    assert answered["correlation_id"] == answer.body["correlation_id"]


def test_health_routes_are_logged_only_when_they_fail(api: Api, log: StringIO) -> None:
    api.get("/health/live")
    assert "request_answered" not in log.getvalue()
    api.post("/health/live")
    assert "request_answered" in log.getvalue()
