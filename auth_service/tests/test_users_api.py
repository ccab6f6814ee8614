from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from auth_kit import PASSWORD, Api, Device, is_active, log_in, make_admin, make_service, make_user, pages_of

from auth_service import clock
from auth_service.accounts.models import MailJob, User
from auth_service.accounts.serializers import UserOut
from auth_service.audit.models import AuditEvent
from auth_service.identity_events.models import OutboxEvent
from auth_service.sessions.models import Session
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role, Scope

NEW = {"username": "ada", "email": "ada@example.org", "password": PASSWORD}
PROFILE = {
    "id",
    "external_id",
    "username",
    "email",
    "email_verified",
    "phone",
    "locale",
    "timezone",
    "roles",
    "tenant",
    "is_active",
    "created_at",
    "last_login_at",
}


def register(**changes: Any) -> Any:
    return Api().post("/api/v1/auth/register", {**NEW, **changes})


def events(kind: IdentityEventType) -> list[OutboxEvent]:
    return list(OutboxEvent.objects.filter(type=kind).order_by("revision"))


def test_a_visitor_registers_with_the_least_role(api: Api) -> None:
    answer = register(locale="de", timezone="Europe/Berlin")

    assert answer.status == 201
    assert set(answer.body) == PROFILE
    assert answer.body["roles"] == ["user"]
    assert (answer.body["locale"], answer.body["timezone"]) == ("de", "Europe/Berlin")
    assert answer.body["email_verified"] is False
    assert events(IdentityEventType.USER_CREATED)[0].data["username"] == "ada"


@pytest.mark.req("B08")
@pytest.mark.parametrize("twin", ["ada", "ADA", "ada.", "ada ", "\uff41\uff44\uff41", "a\u200bda", "Ada.", "ada. "])
def test_names_that_look_alike_are_refused(api: Api, twin: str) -> None:
    assert register().status == 201
    answer = register(username=twin, email="other@example.org")
    assert answer.status in {409, 422}
    assert User.objects.count() == 1


@pytest.mark.req("B08")
def test_nobody_registers_under_someone_elses_address(api: Api) -> None:
    assert register(username="bob@example.org").fields == {"username"}
    assert register(username="ada@example.org").status == 201


@pytest.mark.req("B03")
def test_a_known_address_is_not_told(api: Api) -> None:
    known = register()
    twin = register(username="ada2")
    fresh = register(username="ada3", email="ada3@example.org")
    assert (known.status, twin.status, fresh.status) == (201, 201, 201)
    shape = [{key: type(value) for key, value in answer.body.items()} for answer in (twin, fresh)]
    assert shape[0] == shape[1]


@pytest.mark.req("B06")
@pytest.mark.parametrize(
    "password", ["short", "1234567", "password", "12345678", "iloveyou", "football1", "ada@example.org", "x" * 257]
)
def test_bad_passwords_are_refused(api: Api, password: str) -> None:
    answer = register(password=password)
    assert (answer.status, answer.fields) == (422, {"password"})
    assert not User.objects.exists()


@pytest.mark.req("B06")
@pytest.mark.parametrize(
    "password", ["aaaaaaab", "only lower case words", "ü" * 64, " leading and trailing ", "x7" * 64]
)
def test_good_passwords_need_no_composition_and_count_whole(api: Api, password: str) -> None:
    assert register(password=password).status == 201
    assert api.post("/api/v1/auth/token", {"username": "ada", "password": password}).status == 200
    assert api.post("/api/v1/auth/token", {"username": "ada", "password": password[:-1]}).status == 401
    assert api.post("/api/v1/auth/token", {"username": "ada", "password": password + "x"}).status == 401


@pytest.mark.req("B06")
def test_a_megabyte_of_password_is_refused_before_hashing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auth_service.accounts.passwords.Argon2Hasher.encode", lambda *_: pytest.fail("hashed"))
    assert register(password="x" * 1_000_000).fields == {"password"}


@pytest.mark.req("B05")
def test_no_one_registers_or_edits_themselves_into_more(api: Api) -> None:
    greedy: dict[str, Any] = {
        **{field.name: True for field in User._meta.get_fields()},
        "is_staff": True,
        "is_superuser": True,
        "roles": ["admin"],
        "groups": ["admins"],
        "user_id": "0192f6a0-c0de-7abc-8def-0123456789ab",
        "token_version": 7,
        "tenant": "other",
        "external_id": "42",
        **NEW,
        "phone": "+4930123456",
        "locale": "de",
        "timezone": "UTC",
    }
    answer = api.post("/api/v1/auth/register", greedy)
    assert answer.status == 201
    user = User.objects.get()
    allowed = {"username", "email", "password", "phone", "locale", "timezone"}
    assert (user.roles, user.tenant_id, user.external_id, user.email_verified) == (("user",), "default", None, False)
    device = log_in(user)
    before = User.objects.values().get()

    answer = device.patch("/api/v1/users/me", {**greedy, "email": "ada@example.org"})

    assert answer.status == 200
    after = User.objects.values().get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= allowed | {"updated_at", "search_text"}
    assert after["password"] == before["password"]
    assert after["username"] == "ada"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", ""),
        ("username", "a b\nc"),
        ("username", "x" * 151),
        ("username", "\x00"),
        ("username", "\ud800"),
        ("username", "<script>"),
        ("email", "not an address"),
        ("email", "a@b\r\nBcc: c@d.example"),
        ("locale", "german please"),
        ("timezone", "Mars/Olympus"),
        ("phone", "12"),
        ("password", ""),
        ("username", None),
        ("username", ["x"]),
        ("email", {"x": 1}),
    ],
)
@pytest.mark.req("E04")
def test_wrong_fields_are_named(api: Api, field: str, value: Any) -> None:
    answer = register(**{field: value})
    assert (answer.status, answer.code, answer.fields) == (422, "invalid_schema", {field})


def test_profile_and_its_changes(device: Device, alice: User) -> None:
    shown = device.get("/api/v1/users/me")
    assert (shown.status, set(shown.body)) == (200, PROFILE)

    answer = device.patch("/api/v1/users/me", {"locale": "pt-BR", "phone": "+49 (30) 123-456", "timezone": "UTC"})

    assert (answer.body["locale"], answer.body["phone"]) == ("pt-BR", "+4930123456")
    assert events(IdentityEventType.USER_UPDATED)[-1].data["phone"] == "+4930123456"
    assert device.patch("/api/v1/users/me", {"locale": "pt-BR"}).status == 200
    assert len(events(IdentityEventType.USER_UPDATED)) == 1


def test_the_fields_of_the_document_are_those_of_the_answer(alice: User) -> None:
    shown = UserOut(alice).data
    assert list(shown) == list(UserOut().fields)
    assert shown["id"] == str(alice.id)


def test_a_new_address_is_unverified(device: Device, alice: User) -> None:
    User.objects.filter(id=alice.id).update(email_verified=True)
    answer = device.patch("/api/v1/users/me", {"email": "new@example.org"})
    assert (answer.body["email"], answer.body["email_verified"]) == ("new@example.org", False)


def test_an_administrator_creates_reads_changes_and_erases_a_user(admin: Device) -> None:
    made = admin.post("/api/v1/users", {"username": "ada", "external_id": "c-42", "roles": ["staff"]})
    assert made.status == 201
    path = f"/api/v1/users/{made.body['id']}"
    assert made.body["roles"] == ["staff"]
    assert admin.get(path).body == made.body

    changed = admin.patch(path, {"email": "ada@example.org", "email_verified": True, "username": "ada.l"})
    assert (changed.body["email_verified"], changed.body["username"]) == (True, "ada.l")
    assert admin.delete(path).status == 204
    assert admin.get(path).status == 404
    assert events(IdentityEventType.USER_DELETED)[0].data == {"id": made.body["id"]}


@pytest.mark.req("A19")
def test_deactivation_ends_everything_and_activation_brings_nothing_back(
    admin: Device, device: Device, alice: User
) -> None:
    path = f"/api/v1/users/{alice.id}"

    assert admin.post(f"{path}/deactivate").body["is_active"] is False

    assert Api().post("/api/v1/auth/token", {"username": "alice", "password": PASSWORD}).status == 401
    assert not is_active(device.token or "")
    assert device.get("/api/v1/users/me").status == 401
    assert device.renew().status == 401
    assert events(IdentityEventType.USER_DEACTIVATED)[0].data["is_active"] is False
    assert admin.post(f"{path}/activate").body["is_active"] is True
    assert not is_active(device.token or "")
    assert log_in(alice).token
    assert events(IdentityEventType.USER_ACTIVATED)[0].data["is_active"] is True


@pytest.mark.req("A18")
def test_roles_take_effect_at_once(admin: Device, device: Device, alice: User) -> None:
    assert device.get("/api/v1/users").status == 403
    answer = admin.put(f"/api/v1/users/{alice.id}/roles", {"roles": ["staff", "user", "staff"]})
    assert answer.body["roles"] == ["user", "staff"]
    assert device.get("/api/v1/users").status == 200
    admin.put(f"/api/v1/users/{alice.id}/roles", {"roles": ["user"]})
    assert device.get("/api/v1/users").status == 403
    changes = events(IdentityEventType.USER_ROLES_CHANGED)
    assert [event.data["roles"] for event in changes] == [["user", "staff"], ["user"]]
    audit = AuditEvent.objects.filter(action="user.roles_changed", subject_id=str(alice.id)).first()
    assert audit is not None
    assert (audit.actor_id, audit.ip) == (admin.user.id, "127.0.0.1")


@pytest.mark.parametrize("roles", [[], ["root"], ["service"], "admin", [1], None])
def test_wrong_roles_are_refused(admin: Device, alice: User, roles: Any) -> None:
    answer = admin.put(f"/api/v1/users/{alice.id}/roles", {"roles": roles})
    assert answer.status == 422
    assert User.objects.get(id=alice.id).roles == ("user",)


@pytest.mark.req("B10")
def test_the_last_administrator_stays(admin: Device) -> None:
    path = f"/api/v1/users/{admin.user.id}"
    tries = [
        admin.put(f"{path}/roles", {"roles": ["user"]}),
        admin.post(f"{path}/deactivate"),
        admin.delete(path),
        admin.delete("/api/v1/users/me"),
        admin.patch(path, {"roles": ["user"]}),
        admin.patch(path, {"is_active": False}),
    ]
    assert [(answer.status, answer.code) for answer in tries] == [(422, "last_admin")] * 6

    make_admin()
    assert admin.put(f"{path}/roles", {"roles": ["user"]}).status == 200


@pytest.mark.req("B10")
def test_nobody_grants_or_touches_what_is_above_them(admin: Device, alice: User) -> None:
    _, service = make_service(Scope.USERS_WRITE, Scope.USERS_READ)
    allowed = service.post("/api/v1/users", {"username": "plain"})
    assert allowed.status == 201
    refused = [
        service.post("/api/v1/users", {"username": "boss", "roles": ["admin"]}),
        service.put(f"/api/v1/users/{alice.id}/roles", {"roles": ["staff"]}),
        service.post(f"/api/v1/users/{admin.user.id}/deactivate"),
        service.patch(f"/api/v1/users/{admin.user.id}", {"password": "another good password"}),
        service.delete(f"/api/v1/users/{admin.user.id}"),
        service.patch(f"/api/v1/users/{alice.id}", {"roles": ["admin"]}),
    ]
    assert [answer.status for answer in refused] == [403] * 6
    batch = service.post("/api/v1/users/batch", {"items": [{"username": "boss", "roles": ["admin"]}]})
    assert batch.body["items"][0]["status"] == 403
    assert not User.objects.filter(username="boss").exists()


def test_an_administrator_sets_a_password_and_ends_all_sessions(admin: Device, device: Device, alice: User) -> None:
    answer = admin.patch(f"/api/v1/users/{alice.id}", {"password": "a brand new password"})
    assert answer.status == 200
    assert not is_active(device.token or "")
    assert log_in(alice, password="a brand new password").token


def test_users_are_filtered_searched_and_ordered(admin: Device) -> None:
    ada = make_user("ada", Role.USER, Role.STAFF, external_id="c-42", phone="+4930123456")
    make_user("bea", is_active=False)

    def names(query: str) -> list[str]:
        return [row["username"] for row in pages_of(admin, f"/api/v1/users?{query}")]

    assert names("q=ADA") == ["ada"]
    assert names("q=c-42") == ["ada"]
    assert names("q=301234") == ["ada"]
    assert names("role=staff") == ["ada"]
    assert names("is_active=false") == ["bea"]
    assert names("external_id=c-42") == ["ada"]
    assert names("ordering=username")[:2] == ["ada", "bea"]
    assert names("ordering=-username")[-2:] == ["bea", "ada"]
    assert names("ordering=created_at&limit=1")[0] == admin.user.username
    assert names("ordering=created_at&limit=1") == [admin.user.username, "ada", "bea"]
    group = admin.post("/api/v1/groups", {"name": "G", "slug": "g"}).body["id"]
    admin.put(f"/api/v1/groups/{group}/members/{ada.id}")
    assert names(f"group={group}") == names("group=g") == ["ada"]
    assert names("group=nobody") == []


@pytest.mark.req("E06", "E08")
@pytest.mark.parametrize(
    "query",
    [
        "role=root",
        "is_active=perhaps",
        "group=No+group",
        "ordering=password",
        "ordering=username'--",
        "limit=0",
        "limit=201",
        "limit=1000000000",
        "limit=-1",
        "limit=x",
        "limit=1e2",
        "q=" + "x" * 101,
        "q=%00",
        "external_id=%00",
    ],
)
def test_wrong_filters_are_422(admin: Device, query: str) -> None:
    answer = admin.get(f"/api/v1/users?{query}")
    assert (answer.status, answer.fields) == (422, {query.split("=", maxsplit=1)[0]})


@pytest.mark.req("E07")
@pytest.mark.parametrize("text", ["%", "_", "\\", "%25", "' OR 1=1 --", "a%b"])
def test_search_is_literal(admin: Device, text: str) -> None:
    make_user("literal", external_id=f"x{text}y")
    make_user("other", external_id="xzy")
    found = admin.get(f"/api/v1/users?q={quote(text)}").body["items"]
    assert [row["username"] for row in found] == ["literal"]


@pytest.mark.req("E08")
def test_cursors_are_good_for_this_list_this_query_and_this_caller(admin: Device) -> None:
    for _ in range(3):
        make_user()
    second = make_admin()
    cursor = admin.get("/api/v1/users?limit=1").body["next_cursor"]
    assert admin.get(f"/api/v1/users?limit=2&cursor={cursor}").status == 200
    assert admin.get(f"/api/v1/users/?limit=2&cursor={cursor}").status == 200

    for bad in (
        admin.get(f"/api/v1/users?limit=1&cursor={cursor}x"),
        admin.get(f"/api/v1/users?limit=1&cursor=x{cursor}"),
        admin.get("/api/v1/users?limit=1&cursor=abc"),
        admin.get("/api/v1/users?limit=1&cursor=%00"),
        admin.get(f"/api/v1/users?limit=1&role=user&cursor={cursor}"),
        admin.get(f"/api/v1/users?ordering=username&cursor={cursor}"),
        admin.get(f"/api/v1/groups?cursor={cursor}"),
        second.get(f"/api/v1/users?limit=1&cursor={cursor}"),
    ):
        assert (bad.status, bad.code) == (400, "invalid_cursor")


@pytest.mark.req("E08")
def test_a_cursor_is_good_for_a_day(frozen: Any, db: None) -> None:
    admin = make_admin()
    make_user()
    cursor = admin.get("/api/v1/users?limit=1").body["next_cursor"]
    frozen.advance(24 * 3600 + 1)
    admin = log_in(admin.user)
    assert admin.get(f"/api/v1/users?limit=1&cursor={cursor}").code == "invalid_cursor"


@pytest.mark.parametrize("ordering", ["created_at", "-created_at", "username", "-username"])
def test_pages_show_every_row_once_while_others_come_and_go(admin: Device, ordering: str) -> None:
    users = [make_user(f"u{number:02d}") for number in range(10)]
    stays = {str(user.id) for user in users} - {str(users[5].id)}
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = admin.get(f"/api/v1/users?limit=3&ordering={ordering}" + (f"&cursor={cursor}" if cursor else ""))
        seen += [row["id"] for row in answer.body["items"]]
        cursor = answer.body["next_cursor"]
        if len(seen) == 3:
            users[5].delete()
            make_user("a-late-one")
    assert len(seen) == len(set(seen))
    assert stays <= set(seen)


def test_erasing_takes_the_person_out_of_everything(admin: Device, device: Device, alice: User) -> None:
    admin.patch(f"/api/v1/users/{alice.id}", {"external_id": "secret-42"})
    log_in(alice, device_id="another")
    # Typed by somebody who has no session: nothing in the row says whose address it is.
    assert Api().post("/api/v1/auth/password/reset", {"email": "Alice@Example.org"}).status == 202
    MailJob.objects.update(due_at=clock.now() + timedelta(hours=1))

    assert device.delete("/api/v1/users/me").status == 204

    assert not MailJob.objects.exists()

    assert not Session.objects.filter(user_id=alice.id).exists()
    dump = str(list(OutboxEvent.objects.filter(subject_id=alice.id).values_list("type", "data")))
    assert "alice" not in dump
    assert "secret-42" not in dump
    assert "127.0.0.1" not in dump
    trail = AuditEvent.objects.filter(actor_id=alice.id)
    assert trail.exists()
    assert not trail.exclude(ip=None, user_agent="").exists()
    erased = AuditEvent.objects.get(action="user.erased")
    assert erased.details["sessions"] == 2
    assert erased.subject_id == str(alice.id)


@pytest.mark.req("C01")
def test_ordinary_users_and_staff_do_not_change_anyone(db: None) -> None:
    victim = make_user("victim")
    for role in (Role.USER, Role.PUBLISHER, Role.STAFF):
        caller = log_in(make_user(f"a-{role}", role))
        path = f"/api/v1/users/{victim.id}"
        for answer in (
            caller.patch(path, {"locale": "de"}),
            caller.delete(path),
            caller.post(f"{path}/deactivate"),
            caller.put(f"{path}/roles", {"roles": ["admin"]}),
            caller.post("/api/v1/users", {"username": "x"}),
            caller.post("/api/v1/users/batch", {"items": [{"username": "x"}]}),
        ):
            assert answer.status == 403
    assert User.objects.get(id=victim.id).locale == "en"
