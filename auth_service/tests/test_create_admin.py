"""`herald-auth create_admin`: how an installation gets its first administrator (J02)."""

from __future__ import annotations

import io

import pytest
from auth_kit import Api
from django.core.management import CommandError, call_command

from auth_service.accounts.models import User
from auth_service.identity_events.models import OutboxEvent

PASSWORD = "quiet-otters-swim-upstream"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))


@pytest.mark.req("J02")
def test_the_first_administrator_logs_in(db: None, typed: None) -> None:
    call_command("create_admin", "root", email="root@herald.example", verbosity=0)

    answer = Api().post("/api/v1/auth/token", {"username": "root", "password": PASSWORD})
    assert answer.status == 200, answer.text
    assert answer.body["user"]["roles"] == ["user", "admin"]
    assert OutboxEvent.objects.filter(type="user.created").count() == 1


def test_a_user_who_exists_gets_the_role_and_keeps_the_password(db: None, typed: None) -> None:
    call_command("create_admin", "root", verbosity=0)
    User.objects.update(roles=("user",), announced_roles=("user",))

    call_command("create_admin", "Root", verbosity=0)

    assert User.objects.get().roles == ("user", "admin")
    assert Api().post("/api/v1/auth/token", {"username": "root", "password": PASSWORD}).status == 200


@pytest.mark.parametrize(("password", "problem"), [("short", "password"), ("", "password"), ("password1", "password")])
def test_a_weak_password_is_refused_and_nothing_is_written(
    db: None, monkeypatch: pytest.MonkeyPatch, password: str, problem: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    with pytest.raises(CommandError, match=problem):
        call_command("create_admin", "root", verbosity=0)
    assert not User.objects.exists()


def test_a_name_that_cannot_be_one_is_refused(db: None, typed: None) -> None:
    with pytest.raises(CommandError, match="username"):
        call_command("create_admin", "r\noot", verbosity=0)
