"""The Django admin, as a support person uses it."""

from __future__ import annotations

from typing import Any

import pyotp
import pytest
from auth_kit import PASSWORD, Device, is_active, log_in, make_user, with_settings
from django.test import Client
from pydantic import SecretStr

from auth_service import clock
from auth_service.accounts.models import MailJob, User
from auth_service.accounts.otp_actions import do_confirm, do_enrol
from auth_service.audit.models import AuditEvent
from auth_service.audit.origin import SYSTEM
from auth_service.config.environment import Environment
from auth_service.groups.models import Group, Membership
from auth_service.identity_events.models import OutboxEvent
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.models import Session
from auth_service.tenants.models import Tenant
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role, Scope

LOGIN = "/admin/login/?next=/admin/"
USERS = "/admin/accounts/user/"


def enter(user: User, **more: str) -> tuple[Client, Any]:
    browser = Client()
    answer = browser.post(LOGIN, {"username": user.username, "password": PASSWORD, **more})
    return browser, answer


@pytest.fixture
def boss(db: None) -> User:
    return make_user("boss", Role.USER, Role.ADMIN)


@pytest.fixture
def browser(boss: User) -> Client:
    return enter(boss)[0]


@pytest.fixture
def looker(db: None) -> Client:
    """Someone with the role `staff`: looks, and changes nothing."""
    return enter(make_user("sam", Role.USER, Role.STAFF))[0]


def act(browser: Client, page: str, action: str, *ids: object) -> str:
    answer = browser.post(page, {"action": action, "_selected_action": [str(each) for each in ids]}, follow=True)
    assert answer.status_code == 200
    return answer.content.decode().lower()  # Django capitalises messages


def test_only_staff_and_administrators_get_in(boss: User) -> None:
    assert enter(boss)[1].status_code == 302
    browser, answer = enter(make_user("plain"))
    assert "no access" in answer.content.decode()
    assert browser.get(USERS).status_code == 302
    wrong = Client().post(LOGIN, {"username": "boss", "password": "wrong"})
    assert "Name or password is wrong" in wrong.content.decode()
    assert AuditEvent.objects.filter(action="login.succeeded", details__admin_site=True).count() == 1


@pytest.mark.req("B01")
def test_the_admin_login_has_the_limits_of_every_login(boss: User) -> None:
    for _ in range(5):
        Client().post(LOGIN, {"username": "boss", "password": "wrong"})
    browser, answer = enter(boss)
    assert "Too many tries" in answer.content.decode()
    assert browser.get(USERS).status_code == 302


def test_the_admin_login_asks_for_the_second_factor(frozen: clock.FrozenClock, boss: User) -> None:
    secret = do_enrol(boss).secret
    totp = pyotp.TOTP(secret)
    do_confirm(boss, totp.at(clock.timestamp_s() - 30), SYSTEM)
    assert "second factor" in enter(boss)[1].content.decode()
    assert enter(boss, otp=totp.at(clock.timestamp_s()))[1].status_code == 302


def test_a_form_without_its_secret_is_refused(boss: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    assert browser.post(LOGIN, {"username": "boss", "password": PASSWORD}).status_code == 403


def test_every_page_shows(browser: Client, boss: User, device: Device) -> None:
    Group.objects.create(tenant_id="default", slug="g", name="G")
    for page in (
        "/admin/",
        USERS,
        f"{USERS}?q=ALI&is_active__exact=1&role=user",
        f"{USERS}{device.user.id}/change/",
        f"{USERS}add/",
        "/admin/groups/group/",
        "/admin/groups/group/add/",
        f"/admin/groups/group/{Group.objects.get().id}/change/",
        "/admin/user_sessions/session/?q=alice&ended_at__isempty=1",
        f"/admin/user_sessions/session/{device.session_id}/change/",
        "/admin/service_accounts/serviceaccount/",
        "/admin/tenants/tenant/",
        "/admin/tenants/tenant/default/change/",
        f"/admin/audit/auditevent/?q={boss.id}",
        f"/admin/audit/auditevent/{AuditEvent.objects.first().id}/change/",  # type: ignore[union-attr]
        "/admin/identity_events/outboxevent/",
    ):
        answer = browser.get(page)
        assert answer.status_code == 200, page
        assert "Content-Security-Policy" in answer.headers
    assert browser.get("/admin").status_code == 200
    assert browser.get("/admin/nowhere/").status_code == 404


def test_search_finds_by_name_address_and_external_id(browser: Client) -> None:
    make_user("needle", email="hay@example.org", external_id="c-42")
    make_user("other")
    for text in ("NEED", "hay@", "c-42"):
        shown = browser.get(f"{USERS}?q={text}").content.decode()
        assert "needle" in shown
        assert ">other<" not in shown


def test_support_shuts_users_out_and_lets_them_in_again(browser: Client, device: Device, alice: User) -> None:
    assert "shut out: 1" in act(browser, USERS, "deactivate_users", alice.id)
    assert not is_active(device.token or "")
    assert OutboxEvent.objects.filter(type=IdentityEventType.USER_DEACTIVATED, subject_id=alice.id).exists()
    assert "let in: 1" in act(browser, USERS, "activate_users", alice.id)
    assert log_in(alice).token


def test_support_ends_sessions_and_mails_reset_links(browser: Client, boss: User, device: Device, alice: User) -> None:
    other = log_in(alice)
    assert "ended: 1" in act(browser, "/admin/user_sessions/session/", "end_sessions", device.session_id)
    assert not is_active(device.token or "")
    assert is_active(other.token or "")
    assert "logged out everywhere: 1" in act(browser, USERS, "end_sessions", alice.id)
    assert not is_active(other.token or "")
    addressless = make_user("addressless", email=None)
    text = act(browser, USERS, "send_reset_mail", alice.id, addressless.id)
    assert "mails on their way: 1" in text
    assert "has no e-mail address" in text
    assert MailJob.objects.get().address == "alice@example.org"
    ended = AuditEvent.objects.filter(action="session.ended", actor_id=boss.id)
    assert ended.count() == 2


@pytest.mark.req("B10")
def test_the_last_administrator_stays_here_too(browser: Client, boss: User) -> None:
    assert "last active administrator" in act(browser, USERS, "deactivate_users", boss.id)
    assert User.objects.get(id=boss.id).is_active


def fields_of(user: User, **changes: object) -> dict[str, object]:
    empty = {f"{name}-{key}": "0" for name in ("sessions", "memberships") for key in ("TOTAL_FORMS", "INITIAL_FORMS")}
    return {
        "username": user.username,
        "email": user.email or "",
        "locale": user.locale,
        "timezone": user.timezone,
        "roles": list(user.roles),
        **empty,
        **changes,
    }


def test_changing_a_user_goes_through_the_actions(browser: Client, boss: User, alice: User) -> None:
    page = f"{USERS}{alice.id}/change/"
    changed = browser.post(page, fields_of(alice, phone="+4930123456", roles=["user", "staff"]))
    assert changed.status_code == 302
    alice.refresh_from_db()
    assert (alice.phone, alice.roles) == ("+4930123456", ("user", "staff"))
    kinds = set(AuditEvent.objects.filter(actor_id=boss.id).values_list("action", flat=True))
    assert {"user.updated", "user.roles_changed"} <= kinds
    twin = make_user("twin", external_id="1")
    refused = browser.post(page, fields_of(alice, username="TWIN"), follow=True)
    assert "This username is taken" in refused.content.decode()
    assert "may have letters" in browser.post(page, fields_of(alice, username="<x>")).content.decode()
    assert User.objects.get(id=alice.id).username == "alice"
    assert twin.username == "twin"


def test_a_user_is_made_and_erased(browser: Client) -> None:
    fields = {
        **fields_of(User(username="ada", email="ada@example.org", roles=("user",))),
        "locale": "de",
        "timezone": "UTC",
        "tenant": "default",
    }
    assert browser.post(f"{USERS}add/", fields).status_code == 302
    ada = User.objects.get(username="ada")
    assert OutboxEvent.objects.filter(type=IdentityEventType.USER_CREATED, subject_id=ada.id).exists()
    assert browser.post(f"{USERS}{ada.id}/delete/", {"post": "yes"}).status_code == 302
    assert AuditEvent.objects.filter(action="user.erased", subject_id=str(ada.id)).count() == 1
    bea = make_user("bea")
    browser.post(USERS, {"action": "delete_selected", "_selected_action": [str(bea.id)], "post": "yes"})
    assert not User.objects.filter(id=bea.id).exists()


def test_groups_and_tenants_change_through_the_actions(browser: Client, alice: User) -> None:
    members = {"memberships-TOTAL_FORMS": "1", "memberships-INITIAL_FORMS": "0", "memberships-0-user": str(alice.id)}
    fields = {"name": "Ops", "slug": "ops", "description": "", "tenant": "default", **members}
    assert browser.post("/admin/groups/group/add/", fields).status_code == 302
    group = Group.objects.get()
    member = Membership.objects.get()
    assert member.user_id == alice.id
    kinds = [event.type for event in OutboxEvent.objects.filter(type__startswith="group.").order_by("revision")]
    assert kinds == ["group.created", "group.members_changed"]
    leaving = {
        "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": str(member.id),
        "memberships-0-group": str(group.id),
        "memberships-0-user": str(alice.id),
        "memberships-0-DELETE": "on",
    }
    page = f"/admin/groups/group/{group.id}"
    assert browser.post(f"{page}/change/", {**fields, **leaving, "name": "Operations"}).status_code == 302
    assert not Membership.objects.exists()
    assert browser.post(f"{page}/delete/", {"post": "yes"}).status_code == 302
    assert browser.post("/admin/tenants/tenant/add/", {"slug": "acme", "name": "Acme"}).status_code == 302
    off = browser.post("/admin/tenants/tenant/acme/change/", {"name": "Acme"})
    assert off.status_code == 302
    assert Tenant.objects.get(slug="acme").is_active is False


def test_service_accounts_are_switched_off_and_on(browser: Client, admin: Device) -> None:
    made = admin.post("/api/v1/service-accounts", {"name": "s", "scopes": [Scope.USERS_READ]}).body
    page = "/admin/service_accounts/serviceaccount/"
    shown = browser.get(f"{page}{made['id']}/change/").content.decode()
    assert "secret_hash" not in shown
    assert "switched off: 1" in act(browser, page, "switch_off", made["id"])
    assert not ServiceAccount.objects.get().is_active
    assert "switched on: 1" in act(browser, page, "switch_on", made["id"])


def test_staff_looks_and_changes_nothing(looker: Client, device: Device, alice: User) -> None:
    assert looker.get(USERS).status_code == 200
    assert looker.get(f"{USERS}{alice.id}/change/").status_code == 200
    assert looker.post(f"{USERS}{alice.id}/change/", fields_of(alice, username="x")).status_code == 403
    assert looker.get(f"{USERS}add/").status_code == 403
    assert looker.post(f"{USERS}{alice.id}/delete/", {"post": "yes"}).status_code == 403
    act(looker, USERS, "deactivate_users", alice.id)
    act(looker, "/admin/user_sessions/session/", "end_sessions", device.session_id)
    assert User.objects.get(id=alice.id).is_active
    assert is_active(device.token or "")


def test_the_audit_log_is_for_looking_only(browser: Client, boss: User) -> None:
    event = AuditEvent.objects.filter(actor_id=boss.id)[0]
    page = f"/admin/audit/auditevent/{event.id}"
    assert browser.post(f"{page}/change/", {"action": "x"}).status_code == 403
    assert browser.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    assert browser.get("/admin/audit/auditevent/add/").status_code == 403


def test_an_administrator_of_another_tenant_sees_that_tenant_only(db: None, alice: User, device: Device) -> None:
    Tenant.objects.create(slug="acme", name="Acme")
    browser, _ = enter(make_user("keeper", Role.ADMIN, tenant="acme"))
    shown = browser.get(USERS).content.decode()
    assert "keeper" in shown
    assert "alice" not in shown
    assert browser.get(f"{USERS}{alice.id}/change/").status_code == 302
    assert "0 sessions" in browser.get("/admin/user_sessions/session/").content.decode()
    assert str(alice.id) not in browser.get("/admin/audit/auditevent/").content.decode()
    assert browser.get("/admin/tenants/tenant/add/").status_code == 403


def test_who_is_shut_out_leaves_the_admin_at_once(browser: Client, boss: User) -> None:
    make_user("second", Role.ADMIN)
    User.objects.filter(id=boss.id).update(is_active=False)
    assert browser.get(USERS).status_code == 302


@pytest.mark.req("G04")
def test_in_production_operators_alone_reach_admin_metrics_and_documents(boss: User) -> None:
    key = "an-internal-key-of-enough-characters"
    production = with_settings(
        environment=Environment.PRODUCTION, internal_service_key=SecretStr(key), operator_networks=()
    )
    with production:
        for path in ("/admin/", "/admin/login/", "/metrics", "/api/schema", "/api/docs"):
            assert Client().get(path).status_code == 404, path
            assert Client().get(path, headers={"X-Internal-Key": key}).status_code in {200, 302}, path
            assert Client().get(path, headers={"X-Internal-Key": "wrong"}).status_code == 404, path
    with with_settings(environment=Environment.PRODUCTION):  # loopback is the default network
        assert Client().get("/metrics").status_code == 200
        assert Client().get("/metrics", REMOTE_ADDR="192.0.2.1").status_code == 404
    assert Session.objects.count() == 0
