"""Changing and resetting passwords, proving addresses (requirements A21, B03, B09)."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from datetime import timedelta
from email.message import Message
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from auth_kit import PASSWORD, Answer, Api, Device, is_active, log_in, make_user, with_settings
from django.test import Client
from pydantic import SecretStr

from auth_service import clock
from auth_service.accounts import link_actions, mail_actions
from auth_service.accounts.mail import SMTP_TIMEOUT_S
from auth_service.accounts.mail_actions import MAX_ATTEMPTS, do_prune_links, do_send_due_mails
from auth_service.accounts.models import LinkPurpose, MailedLink, MailJob, MailKind, User
from auth_service.audit.models import AuditEvent
from auth_service.config.background import LEASE_LIFETIME
from auth_service.identity_events.models import OutboxEvent
from herald_local.ports import find_free_ports
from shared_contracts.identity_events import IdentityEventType

RESET = "/api/v1/auth/password/reset"
CONFIRM = "/api/v1/auth/password/reset/confirm"
VERIFY = "/api/v1/auth/email/verify"
RESEND = "/api/v1/auth/email/verify/resend"
NEW = "a brand new phrase"


class Sink:
    """A mail server that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.recipients: list[list[str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - the library's name
        self.mails.append(email.message_from_bytes(envelope.content))
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    def last(self) -> str:
        payload = self.mails[-1].get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode()

    def token(self) -> str:
        found = re.search(r"token=(\S+)", self.last())
        assert found, self.last()
        return found[1]


@pytest.fixture
def sink(db: None) -> Iterator[Sink]:
    handler = Sink()
    controller = Controller(handler, hostname="127.0.0.1", port=find_free_ports(1)[0])
    controller.start()
    with with_settings(email_url=SecretStr(f"smtp://127.0.0.1:{controller.port}"), link_base_url="https://app.example"):
        yield handler
    controller.stop()


def ask(address: str, path: str = RESET) -> Answer:
    answer = Api().post(path, {"email": address})
    do_send_due_mails()
    return answer


def confirm(token: str, password: str = NEW) -> Answer:
    return Api().post(CONFIRM, {"token": token, "new_password": password})


@pytest.mark.req("A21")
def test_a_changed_password_ends_every_other_session(device: Device, alice: User) -> None:
    other = log_in(alice)

    answer = device.post("/api/v1/users/me/password", {"current_password": PASSWORD, "new_password": NEW})

    assert answer.status == 204
    assert is_active(device.token or "")
    assert device.renew().status == 200
    assert not is_active(other.token or "")
    assert other.renew().status == 401
    assert OutboxEvent.objects.get(type=IdentityEventType.SESSION_REVOKED).data == {
        "user_id": str(alice.id),
        "session_ids": None,
        "except_session_id": device.session_id,
        "reason": "password_changed",
    }
    assert log_in(alice, password=NEW).token
    assert AuditEvent.objects.filter(action="password.changed", subject_id=str(alice.id)).count() == 1


def test_a_wrong_current_password_is_403_and_limited(device: Device, alice: User) -> None:
    body = {"current_password": "wrong", "new_password": NEW}
    answers = [device.post("/api/v1/users/me/password", body) for _ in range(6)]
    assert [answer.status for answer in answers] == [403] * 5 + [429]
    right = {"current_password": PASSWORD, "new_password": NEW}
    assert device.post("/api/v1/users/me/password", right).status == 429


@pytest.mark.parametrize("password", ["short", "password", "alice", "x" * 300])
def test_new_passwords_follow_the_rules(device: Device, password: str) -> None:
    answer = device.post("/api/v1/users/me/password", {"current_password": PASSWORD, "new_password": password})
    assert (answer.status, answer.fields) == (422, {"new_password"})


@pytest.mark.req("A21", "B09")
def test_a_mailed_link_sets_a_new_password_once_and_ends_every_session(sink: Sink, device: Device, alice: User) -> None:
    assert ask("Alice@Example.org").status == 202
    assert sink.recipients == [["alice@example.org"]]
    assert sink.mails[0]["Subject"] == "Set a new password for alice"
    assert "https://app.example/account/reset-password?token=" in sink.last()
    token = sink.token()

    assert confirm(token).status == 204

    assert not is_active(device.token or "")
    assert log_in(alice, password=NEW).token
    again = confirm(token, "yet another phrase")
    assert (again.status, again.code) == (400, "invalid_token_link")
    do_send_due_mails()
    assert sink.mails[-1]["Subject"] == "Your password was changed"


@pytest.mark.req("B09")
def test_links_that_do_not_count_are_refused_with_one_text(sink: Sink, frozen: clock.FrozenClock, alice: User) -> None:
    ask("alice@example.org")
    late = sink.token()
    frozen.advance(timedelta(hours=1))
    answers = [confirm(late), confirm("unknown"), confirm("hml_" + "x" * 43)]

    ask("alice@example.org")
    first = sink.token()
    ask("alice@example.org")
    second = sink.token()
    assert confirm(second).status == 204
    answers.append(confirm(first))  # after a change of the password

    ask("alice@example.org")
    moved = sink.token()
    log_in(alice, password=NEW).patch("/api/v1/users/me", {"email": "new@example.org"})
    answers.append(confirm(moved))  # the address is not the account's any more

    make_user("carol", email="carol@example.org")
    ask("carol@example.org", RESEND)
    answers.append(confirm(sink.token()))  # a link for something else

    assert {answer.status for answer in answers} == {400}
    assert len({(answer.body["detail"], answer.code) for answer in answers}) == 1


@pytest.mark.req("B09")
def test_a_poisoned_host_does_not_reach_the_link(sink: Sink, alice: User) -> None:
    Api().post(RESET, {"email": "alice@example.org"}, Host="evil.example", X_Forwarded_Host="evil.example")
    do_send_due_mails()
    assert "evil" not in sink.last()


def test_a_weak_password_does_not_use_the_link_up(sink: Sink, alice: User) -> None:
    ask("alice@example.org")
    token = sink.token()
    assert confirm(token, "password").fields == {"new_password"}
    assert Api().post(CONFIRM, {"token": token, "password": NEW}).status == 204


@pytest.mark.req("B03")
@pytest.mark.parametrize("path", [RESET, RESEND])
def test_known_unknown_and_inactive_addresses_are_answered_alike(sink: Sink, alice: User, path: str) -> None:
    make_user("sleeper", is_active=False)
    answers = [ask(f"{name}@example.org", path) for name in ("alice", "nobody", "sleeper")]
    assert {(answer.status, answer.text, answer.headers["Content-Length"]) for answer in answers} == {
        (202, answers[0].text, answers[0].headers["Content-Length"])
    }
    assert sink.recipients == [["alice@example.org"]]


@pytest.mark.req("B04")
def test_asking_for_a_mail_costs_the_same_statements_for_anyone(db: None, alice: User) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = []
    for address in ("alice@example.org", "nobody@example.org"):
        with CaptureQueriesContext(connection) as queries:
            Api().post(RESET, {"email": address})
        counts.append([query["sql"].split()[0] for query in queries])
    assert counts[0] == counts[1]


def test_a_registered_address_is_proved_by_a_mailed_link(sink: Sink) -> None:
    body = {"username": "ada", "email": "ada@example.org", "password": PASSWORD}
    assert Api().post("/api/v1/auth/register", body).body["email_verified"] is False
    do_send_due_mails()
    token = sink.token()

    assert Api().post(VERIFY, {"token": token}).status == 204

    assert User.objects.get(username="ada").email_verified
    assert OutboxEvent.objects.get(type=IdentityEventType.USER_UPDATED).data["email_verified"] is True
    assert Api().post(VERIFY, {"token": token}).status == 400
    assert MailJob.objects.count() == 0


@pytest.mark.req("B09")
@pytest.mark.parametrize("path", [RESEND, RESET])
def test_a_link_does_nothing_for_an_account_that_got_another_address_meanwhile(
    sink: Sink, device: Device, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    make_user("owner", email="owner@example.org")
    ask("alice@example.org", path)
    token = sink.token()

    def check_then_change(token: str, purpose: LinkPurpose) -> MailedLink:
        found = link_actions_check(token, purpose)
        assert device.patch("/api/v1/users/me", {"email": "owner@example.org"}).status == 200
        return found

    link_actions_check = link_actions.check_link
    monkeypatch.setattr(link_actions, "check_link", check_then_change)

    body = {"token": token} if path == RESEND else {"token": token, "new_password": f"{PASSWORD}, new"}
    answer = Api().post(VERIFY if path == RESEND else CONFIRM, body)

    assert (answer.status, answer.code) == (400, "invalid_token_link")
    assert not User.objects.get(username="alice").email_verified
    assert Api().post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD}).status == 200


@pytest.mark.req("B03")
def test_who_proved_an_address_is_told_when_someone_else_uses_it(sink: Sink) -> None:
    make_user("owner", email="owner@example.org", email_verified=True)
    body = {"username": "thief", "email": "owner@example.org", "password": PASSWORD}
    assert Api().post("/api/v1/auth/register", body).status == 201
    do_send_due_mails()
    assert sink.mails[-1]["Subject"] == "Someone used your e-mail address"
    assert "token=" not in sink.last()
    assert not User.objects.get(username="thief").email_verified


def test_a_changed_address_is_told_to_the_old_one_and_proved_by_the_new_one(sink: Sink, device: Device) -> None:
    device.patch("/api/v1/users/me", {"email": "new@example.org"})
    do_send_due_mails()
    told = {recipients[0]: mail["Subject"] for recipients, mail in zip(sink.recipients, sink.mails, strict=True)}
    assert told == {
        "alice@example.org": "Your e-mail address was changed",
        "new@example.org": "Confirm your e-mail address",
    }


def test_mails_are_limited_per_address_and_per_account(sink: Sink, alice: User) -> None:
    statuses = [Api().post(RESET, {"email": "alice@example.org"}).status for _ in range(6)]
    assert statuses == [202] * 5 + [429]
    others = [Api().post(RESET, {"email": f"x{number}@example.org"}).status for number in range(15)]
    assert others == [202] * 14 + [429]


def test_mails_wait_while_the_mail_server_is_away_and_are_given_up_in_the_end(
    frozen: clock.FrozenClock, alice: User
) -> None:
    nowhere = SecretStr(f"smtp://127.0.0.1:{find_free_ports(1)[0]}")
    with with_settings(email_url=nowhere):
        Api().post(RESET, {"email": "alice@example.org"})
        for attempt in range(1, MAX_ATTEMPTS):
            assert do_send_due_mails() == 0
            assert MailJob.objects.get().attempts == attempt
            assert do_send_due_mails() == 0  # not due yet: nothing is tried
            frozen.advance(timedelta(hours=2))
        do_send_due_mails()
    assert not MailJob.objects.exists()


def test_a_slow_mail_server_keeps_nobody_longer_than_the_lease(
    frozen: clock.FrozenClock, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another background process sends what is left; what both had in hand would come twice."""
    for _ in range(20):
        mail_actions.do_ask_for_mail(MailKind.PASSWORD_RESET, "alice@example.org")

    def send_slowly(*_: object) -> bool:
        frozen.advance(SMTP_TIMEOUT_S)
        return True

    monkeypatch.setattr(mail_actions, "_do_send", send_slowly)
    assert do_send_due_mails() == 4
    assert timedelta(seconds=4 * SMTP_TIMEOUT_S) < LEASE_LIFETIME


def test_mails_are_files_in_development(db: None, alice: User, run_folder: Any) -> None:
    folder = run_folder / "auth-mail"
    before = len(list(folder.glob("*.log"))) if folder.exists() else 0
    ask("alice@example.org")
    assert len(list(folder.glob("*.log"))) == before + 1


def test_old_links_are_pruned(sink: Sink, frozen: clock.FrozenClock, alice: User) -> None:
    ask("alice@example.org")
    assert do_prune_links() == 0
    frozen.advance(timedelta(hours=2))
    assert do_prune_links() == 1
    assert not MailedLink.objects.exists()


def page(path: str, body: dict[str, str] | None = None) -> tuple[int, str]:
    """A page, as a browser without scripts uses it: the form's secret goes back with the cookie it came with."""
    browser = Client(enforce_csrf_checks=True)
    shown = browser.get(path)
    if body is None:
        return shown.status_code, shown.content.decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', shown.content.decode())
    assert found
    answer = browser.post(path, {**body, "csrfmiddlewaretoken": found[1]})
    return answer.status_code, answer.content.decode()


def test_the_page_behind_a_reset_link_works_without_scripts(sink: Sink, alice: User) -> None:
    ask("alice@example.org")
    path = f"/account/reset-password?token={sink.token()}"
    assert page(path)[0] == 200  # looking at it uses nothing up
    status, text = page(path, {"new_password": "short"})
    assert (status, "too short" in text) == (422, True)
    status, text = page(path, {"new_password": NEW})
    assert (status, "The password is set" in text) == (200, True)
    assert log_in(alice, password=NEW).token
    assert page(path)[0] == 400


def test_the_page_behind_a_verification_link_asks_for_a_click(sink: Sink, alice: User) -> None:
    ask("alice@example.org", RESEND)
    path = f"/account/verify-email?token={sink.token()}"
    page(path)
    assert not User.objects.get(id=alice.id).email_verified
    assert page(path, {})[0] == 200
    assert User.objects.get(id=alice.id).email_verified


def test_the_page_for_a_forgotten_password_sends_the_mail(sink: Sink, alice: User) -> None:
    assert page("/account/forgot-password", {"email": "no address"})[0] == 422
    assert "a mail is on its way" in page("/account/forgot-password", {"email": "alice@example.org"})[1]
    do_send_due_mails()
    assert sink.recipients == [["alice@example.org"]]


def test_a_form_from_elsewhere_is_refused(sink: Sink, alice: User) -> None:
    answer = Client(enforce_csrf_checks=True).post("/account/forgot-password", {"email": "alice@example.org"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "permission_denied"
    assert not MailJob.objects.exists()
