"""Preferences over REST: merge rules, defaults, rights, and what the screen shows (PF)."""

from __future__ import annotations

from typing import Any

import pytest
from house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_put_replaces_and_patch_merges(house: House) -> None:
    ada = house.person(timezone="Europe/Berlin")
    fresh = await house.ask("GET", "/preferences", ada)
    assert (fresh["channels"], fresh["event_types"], fresh["quiet_hours"]["enabled"]) == ({}, {}, False)
    given = {
        "channels": {"email": False},
        "categories": {"orders": {"sms": False}},
        "event_types": {"order.shipped": {"email": True}},
        "quiet_hours": {"enabled": True, "start": "22:00", "end": "07:00", "days": ["mon", "tue"]},
        "digest": {"email": "daily"},
        "locale": "de",
        "timezone": "Europe/Vienna",
    }
    saved = await house.ask("PUT", "/preferences", ada, given)
    assert {name: saved[name] for name in given} == given
    assert {name: (await house.ask("GET", "/preferences", ada))[name] for name in given} == given
    merged = await house.ask("PATCH", "/preferences", ada, {"channels": {"sms": False}, "digest": None})
    assert (merged["channels"], merged["digest"], merged["locale"]) == ({"email": False, "sms": False}, {}, "de")
    # What a client read it may write back.
    assert await house.ask("PUT", "/preferences", ada, merged) == merged
    empty = await house.ask("PUT", "/preferences", ada, {})
    assert (empty["channels"], empty["quiet_hours"]["enabled"]) == ({}, False)


async def test_what_is_mandatory_cannot_be_switched_off(house: House) -> None:
    ada = house.person()
    await house.make_type("pay.failed", mandatory=True)
    for method, body in (
        ("PATCH", {"event_types": {"pay.failed": {"email": False}}}),
        ("PUT", {"event_types": {"login.alert": {"in_app": False}}}),
    ):
        refused = await house.ask(method, "/preferences", ada, body, status=422)
        assert refused["code"] == "mandatory_event_type"
    await house.ask("PATCH", "/preferences", ada, {"event_types": {"pay.failed": {"email": True}}})


@pytest.mark.parametrize(
    "body", [{"channels": {"pigeon": True}}, {"timezone": "Mars"}, {"digest": {"email": "yearly"}}]
)
async def test_what_is_no_preference_is_named(house: House, body: dict[str, Any]) -> None:
    refused = await house.ask("PATCH", "/preferences", house.person(), body, status=422)
    assert refused["errors"][0]["field"].startswith(next(iter(body)))


async def test_defaults_and_other_users_are_for_administrators(house: House) -> None:
    ada, staff = house.person(), house.person("staff")
    stranger = house.service.add_person("admin", tenant=house.service.add_tenant())
    await house.make_type()
    await house.send(ada, staff)
    for person in (ada, staff):
        await house.ask("GET", "/preferences/defaults", person, status=403)
        await house.ask("PUT", "/preferences/defaults", person, {}, status=403)
        await house.ask("PUT", f"/users/{ada.id}/preferences", person, {}, status=403)
    await house.ask("GET", f"/users/{ada.id}/preferences", stranger, status=404)
    await house.ask("PUT", "/preferences/defaults?role=staff", house.admin, {"locale": "fr"})
    assert (await house.ask("GET", "/preferences/defaults?role=staff", house.admin))["locale"] == "fr"
    assert (await house.ask("GET", "/preferences", staff))["locale"] == "fr"
    assert (await house.ask("GET", "/preferences", ada))["locale"] == "en"
    saved = await house.ask("PUT", f"/users/{ada.id}/preferences", house.admin, {"channels": {"email": False}})
    assert saved["channels"] == {"email": False}
    assert (await house.ask("GET", "/preferences", ada))["channels"] == {"email": False}


async def test_the_screen_shows_what_counts_and_whose_it_is(house: House) -> None:
    ada = house.person()
    await house.make_type()
    await house.ask("PUT", "/preferences/defaults", house.admin, {"categories": {"orders": {"email": False}}})
    await house.prefer(ada, event_types={"order.shipped": {"sms": False}})
    screen = await house.ask("GET", "/preferences/effective", ada)
    rows = {row["code"]: row for row in screen["items"]}
    shipped = rows["order.shipped"]["channels"]
    assert (shipped["email"]["enabled"], shipped["email"]["rules"][0]["source"]) == (False, "tenant")
    assert (shipped["sms"]["enabled"], shipped["sms"]["rules"][0]["source"]) == (False, "user")
    assert (shipped["in_app"]["enabled"], rows["login.alert"]["channels"]["email"]["locked"]) == (True, True)


async def test_without_channels_only_the_inbox_and_what_was_asked_for(house: House) -> None:
    ada, ben = house.person(), house.person()
    await house.make_type()
    await house.prefer(ben, event_types={"order.shipped": {"email": True}}, channels={"sms": True})
    sent = await house.send(ada, ben)
    assert [each["channel"] for each in (await house.trace(sent, ada))["channels"]] == ["in_app"]
    assert [each["channel"] for each in (await house.trace(sent, ben))["channels"]] == ["in_app", "email"]
