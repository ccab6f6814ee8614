"""CORS, security headers, metadata, health: what every caller meets first."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from auth_kit import Api, Device, with_settings
from django.conf import settings
from django.db import OperationalError, connection
from django.test import override_settings

from auth_service.config import health
from shared_contracts.error_codes import ErrorCode

KNOWN = "https://app.example"


@pytest.fixture
def cors() -> Iterator[None]:
    with override_settings(CORS_ALLOWED_ORIGINS=[KNOWN]):
        yield


@pytest.mark.req("G05")
@pytest.mark.usefixtures("cors")
def test_a_known_origin_may_call_and_an_unknown_one_gets_no_header(api: Api) -> None:
    known = api.get("/.well-known/jwks.json", Origin=KNOWN)
    assert known.headers["Access-Control-Allow-Origin"] == KNOWN
    assert "Access-Control-Allow-Credentials" not in known.headers
    for origin in ("https://evil.example", "null", "http://app.example", f"{KNOWN}.evil.example", f"{KNOWN}:8443"):
        answer = api.get("/.well-known/jwks.json", Origin=origin)
        assert "Access-Control-Allow-Origin" not in answer.headers, origin
        assert "origin" in answer.headers["Vary"].lower()


@pytest.mark.req("G05")
@pytest.mark.usefixtures("cors")
def test_a_preflight_of_a_known_origin_is_answered(api: Api) -> None:
    asked = {"Access_Control_Request_Method": "PATCH", "Access_Control_Request_Headers": "authorization"}
    answer = api.call("OPTIONS", "/api/v1/users/me", Origin=KNOWN, **asked)
    assert answer.status == 200
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in api.call("OPTIONS", "/internal/v1/users", Origin=KNOWN, **asked).headers


@pytest.mark.req("G05")
def test_no_origin_is_known_by_default(api: Api) -> None:
    assert settings.CORS_ALLOWED_ORIGINS == []
    assert "Access-Control-Allow-Origin" not in api.get("/.well-known/jwks.json", Origin=KNOWN).headers


@pytest.mark.parametrize("path", ["/api/v1/users/me", "/nowhere", "/admin/login/", "/api/docs", "/health/live"])
def test_every_answer_has_the_security_headers(api: Api, path: str) -> None:
    headers = api.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "X-Powered-By" not in headers


def test_tokens_and_profiles_are_never_cached(device: Device) -> None:
    assert device.get("/api/v1/users/me").headers["Cache-Control"] == "no-store"
    assert Api().post("/api/v1/auth/token", {}).headers["Cache-Control"] == "no-store"


def test_metadata_names_the_issuer_exactly(api: Api) -> None:
    body = api.get("/.well-known/oauth-authorization-server").body
    assert body["issuer"] == settings.HERALD.issuer
    assert body["jwks_uri"] == "http://127.0.0.1:8000/.well-known/jwks.json"
    assert body["token_endpoint"].startswith(body["issuer"])
    assert "tokens:issue" in body["scopes_supported"]


@pytest.mark.req("J01")
def test_a_process_lives_while_its_parts_are_down(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(health.CHECKS, "broker", lambda: health.Check(ok=False, detail="the broker does not answer"))
    assert api.get("/health/live").status == 200
    for path in ("/health", "/health/ready", "/health/broker"):
        answer = api.get(path)
        assert (answer.status, answer.body["status"], answer.headers["Retry-After"]) == (503, "unavailable", "5")
    assert api.get("/health/database").status == 200


@pytest.mark.req("J01", "G03")
def test_health_tells_nothing_of_the_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("connection to server at 10.0.0.1 failed")

    monkeypatch.setattr(connection, "cursor", fail)
    answer = api.get("/health/database")
    assert (answer.status, answer.body["checks"]) == (503, {"database": "the database does not answer"})


@contextmanager
def locked_database(url: str) -> Iterator[None]:
    """Someone else holds the table of users, or on SQLite the whole file."""
    if connection.vendor == "postgresql":
        with psycopg.connect(url.rsplit("/", 1)[0] + f"/{connection.settings_dict['NAME']}") as outside:
            outside.execute("LOCK TABLE accounts_user IN ACCESS EXCLUSIVE MODE")
            yield
            outside.rollback()
        return
    outside_file = sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)
    outside_file.execute("BEGIN EXCLUSIVE")
    yield
    outside_file.rollback()
    outside_file.close()


@pytest.mark.req("H17")
@pytest.mark.django_db(transaction=True)
def test_a_locked_database_is_503_within_the_timeout(device: Device, postgres_url: str) -> None:
    with locked_database(postgres_url):
        started_s = time.monotonic()
        answer = device.patch("/api/v1/users/me", {"locale": "de"})
        took_s = time.monotonic() - started_s
    assert (answer.status, answer.code) == (503, ErrorCode.UNAVAILABLE)
    assert "Retry-After" in answer.headers
    assert took_s < 10
    assert device.patch("/api/v1/users/me", {"locale": "de"}).status == 200


def test_the_settings_of_a_test_are_those_it_asked_for(tmp_path: Path) -> None:
    with with_settings(run_dir=tmp_path):
        assert settings.HERALD.run_dir == tmp_path
    assert settings.HERALD.run_dir != tmp_path
