from __future__ import annotations

from typing import Any

import pytest
from auth_kit import Device, log_in, make_user, pages_of

from auth_service.accounts.models import User
from auth_service.groups.models import Group, Membership
from auth_service.identity_events.models import OutboxEvent
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role

GROUPS = "/api/v1/groups"


@pytest.fixture
def ops(admin: Device) -> str:
    answer = admin.post(GROUPS, {"name": "Ops", "slug": "ops", "description": "who is on call"})
    assert answer.status == 201, answer.text
    return str(answer.body["id"])


def test_a_group_is_made_read_changed_and_deleted(admin: Device, ops: str) -> None:
    shown = admin.get(f"{GROUPS}/{ops}").body
    assert set(shown) == {"id", "name", "slug", "description", "tenant", "created_at", "updated_at"}
    assert admin.patch(f"{GROUPS}/{ops}", {"name": "Operations"}).body["name"] == "Operations"
    assert admin.delete(f"{GROUPS}/{ops}").status == 204
    assert admin.get(f"{GROUPS}/{ops}").status == 404
    kinds = [event.type for event in OutboxEvent.objects.filter(type__startswith="group.").order_by("revision")]
    assert kinds == ["group.created", "group.updated", "group.deleted"]


def test_slugs_are_unique_and_plain(admin: Device, ops: str) -> None:
    assert admin.post(GROUPS, {"name": "Again", "slug": "ops"}).status == 409
    for slug in ("", "Ops", "a b", "-a", "a/b", "x" * 101, "ä"):
        assert admin.post(GROUPS, {"name": "X", "slug": slug}).fields == {"slug"}
    other = admin.post(GROUPS, {"name": "Other", "slug": "other"}).body["id"]
    assert admin.patch(f"{GROUPS}/{other}", {"slug": "ops"}).status == 409


def test_a_slug_that_is_left_out_comes_from_the_name(admin: Device) -> None:
    made = admin.post(GROUPS, {"name": "Night  Shift_2 (Köln)", "description": None})
    assert (made.status, made.body["slug"], made.body["description"]) == (201, "night-shift-2-koln", "")
    assert admin.post(GROUPS, {"name": "東京"}).fields == {"slug"}


def test_members_join_and_leave_with_events(admin: Device, ops: str, alice: User) -> None:
    path = f"{GROUPS}/{ops}/members/{alice.id}"

    added = admin.put(path)
    assert (added.status, added.body["user_id"], added.body["username"]) == (200, str(alice.id), "alice")
    assert admin.put(path).status == 200
    listed = admin.get(f"{GROUPS}/{ops}/members").body["items"]
    assert [set(row) for row in listed] == [{"user_id", "username", "joined_at"}]
    assert admin.delete(path).status == 204
    assert admin.delete(path).status == 404

    changes = [event.data for event in OutboxEvent.objects.filter(type=IdentityEventType.GROUP_MEMBERS_CHANGED)]
    assert changes == [
        {"group_id": ops, "added": [str(alice.id)], "removed": []},
        {"group_id": ops, "added": [], "removed": [str(alice.id)]},
    ]


def test_a_batch_of_members_is_one_change_and_one_event(admin: Device, ops: str) -> None:
    users = [make_user() for _ in range(30)]
    ids = [str(user.id) for user in users]
    stranger = str(new_id())

    answer = admin.post(f"{GROUPS}/{ops}/members/batch", {"add": [*ids, stranger], "remove": []})
    assert answer.status == 200
    assert (sorted(answer.body["added"]), answer.body["unknown"]) == (sorted(ids), [stranger])
    answer = admin.post(f"{GROUPS}/{ops}/members/batch", {"add": ids[:2], "remove": ids[1:]})
    assert (answer.body["added"], sorted(answer.body["removed"])) == ([], sorted(ids[1:]))

    assert Membership.objects.filter(group_id=ops).count() == 1
    assert OutboxEvent.objects.filter(type=IdentityEventType.GROUP_MEMBERS_CHANGED).count() == 2
    assert len(list(pages_of(admin, f"{GROUPS}/{ops}/members?limit=1"))) == 1


@pytest.mark.parametrize("body", [{"add": "x"}, {"add": ["x"]}, {"remove": [1]}, {"add": [str(new_id())] * 1_001}])
def test_wrong_batches_of_members_are_refused(admin: Device, ops: str, body: Any) -> None:
    assert admin.post(f"{GROUPS}/{ops}/members/batch", body).status == 422


def test_unknown_users_and_groups_are_not_found(admin: Device, ops: str, alice: User) -> None:
    assert admin.put(f"{GROUPS}/{ops}/members/{new_id()}").status == 404
    assert admin.put(f"{GROUPS}/{new_id()}/members/{alice.id}").status == 404
    assert admin.get(f"{GROUPS}/not-an-id").status == 404


@pytest.mark.req("C01")
def test_members_read_and_strangers_see_nothing(admin: Device, ops: str, alice: User, device: Device) -> None:
    for path in (f"{GROUPS}/{ops}", f"{GROUPS}/{ops}/members"):
        assert device.get(path).status == 404
    assert device.get(GROUPS).body["items"] == []

    admin.put(f"{GROUPS}/{ops}/members/{alice.id}")

    assert [group["id"] for group in device.get(GROUPS).body["items"]] == [ops]
    assert device.get(f"{GROUPS}/{ops}/members").status == 200
    for answer in (
        device.post(GROUPS, {"name": "X", "slug": "x"}),
        device.patch(f"{GROUPS}/{ops}", {"name": "X"}),
        device.delete(f"{GROUPS}/{ops}"),
        device.put(f"{GROUPS}/{ops}/members/{alice.id}"),
        device.delete(f"{GROUPS}/{ops}/members/{alice.id}"),
        device.post(f"{GROUPS}/{ops}/members/batch", {"add": []}),
    ):
        assert answer.status == 403
    assert Group.objects.get().name == "Ops"


def test_staff_reads_all_groups_and_filters_them(admin: Device, ops: str, alice: User) -> None:
    admin.post(GROUPS, {"name": "Sales", "slug": "sales"})
    admin.put(f"{GROUPS}/{ops}/members/{alice.id}")
    staff = log_in(make_user("sam", Role.STAFF))

    def slugs(query: str) -> list[str]:
        return [group["slug"] for group in pages_of(staff, f"{GROUPS}?{query}")]

    assert slugs("limit=1") == ["ops", "sales"]
    assert slugs("q=AL") == ["sales"]
    assert slugs("q=%25") == []
    assert slugs("slug=ops") == ["ops"]
    assert slugs(f"member={alice.id}") == ["ops"]
