"""The inbox beyond reading: snooze, pin, filters, counts for several filters, batches (IN)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from house import House
from service import Person
from waiting import until

from notification_service.entrypoints.rolling_up import RollingUp

pytestmark = pytest.mark.asyncio(loop_scope="session")


def soon(seconds: float = 3600) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_snooze_and_return(house: House) -> None:
    ada = house.person()
    await house.make_type()
    first, second = await house.send(ada), await house.send(ada)
    away = await house.ask("PATCH", f"/inbox/{first}", ada, {"snoozed_until": soon(2)})
    assert away["snoozed_until"] is not None
    assert [item["id"] for item in await house.inbox(ada)] == [str(second)]
    assert [item["id"] for item in await house.inbox(ada, "?state=snoozed")] == [str(first)]
    assert (await house.ask("GET", "/inbox/counts", ada))["unread"] == 1

    async def is_back() -> bool:
        return len(await house.inbox(ada)) == 2

    await until(is_back)
    assert (await house.ask("GET", "/inbox/counts", ada))["unread"] == 2
    await house.ask("PATCH", f"/inbox/{first}", ada, {"snoozed_until": soon()})
    back = await house.ask("PATCH", f"/inbox/{first}", ada, {"snoozed_until": None})
    assert (back["snoozed_until"], back["read_at"]) == (None, None)
    refused = await house.ask("PATCH", f"/inbox/{first}", ada, {"snoozed_until": soon(-5)}, status=422)
    assert refused["errors"][0]["field"] == "snoozed_until"


async def test_pins_and_filters(house: House) -> None:
    ada = house.person()
    await house.make_type()
    ship = await house.send(ada, tags=["ship", "50%"], category="a_b")
    other = await house.send(ada, tags=["shipping"], title="100% off", category="axb")
    pinned = await house.ask("PATCH", f"/inbox/{ship}", ada, {"pinned": True})
    assert pinned["pinned_at"] is not None
    assert [item["id"] for item in await house.inbox(ada, "?pinned=true")] == [str(ship)]
    assert [item["id"] for item in await house.inbox(ada, "?tag=ship")] == [str(ship)]
    assert [item["id"] for item in await house.inbox(ada, "?tag=50%25")] == [str(ship)]
    assert [item["id"] for item in await house.inbox(ada, "?category=a_b")] == [str(ship)]
    assert [item["id"] for item in await house.inbox(ada, "?q=100%25")] == [str(other)]
    assert await house.inbox(ada, "?q=_00%25") == []
    filters = [{"tag": "ship"}, {"state": "unread", "q": "OFF"}, {"state": "read"}]
    query = "&".join(f"filter={json.dumps(each)}" for each in filters)
    counts = await house.ask("GET", f"/inbox/counts?state=unread&{query}", ada)
    assert (counts["unread"], counts["filtered"]) == (2, [2, 1, 1, 0])
    await house.ask("GET", "/inbox/counts?filter=nonsense", ada, status=422)
    await house.ask("PATCH", f"/inbox/{ship}", ada, {"pinned": False})
    assert await house.inbox(ada, "?pinned=true") == []


@pytest.mark.req("E07")
async def test_words_are_found_as_the_reader_sees_them(house: House) -> None:
    ada, ben = house.person(locale="de"), house.person(locale="en")
    await house.make_type()
    path = "/event-types/order.shipped/templates/in_app"
    for locale, title in (
        ("en", "Your order left the warehouse"),
        ("de", "Ihre Bestellung ist unterwegs, Frau Müller"),
    ):
        await house.ask("PUT", f"{path}/{locale}", house.admin, {"title": title, "body": "No. {{ data.n }}"})
    sent = await house.send(ada, ben, data={"n": 1042})
    all_ = await house.send(recipients={"all": True}, title="Wartung am Sonntag", body="Um acht")

    async def found(person: Person, text: str) -> list[str]:
        page = await house.ask("GET", f"/inbox?{urlencode({'q': text})}", person)
        return [item["id"] for item in page["items"]]

    for person, text, expected in (
        (ben, "warehouse order", [sent]),
        (ben, "ORD 104", [sent]),
        (ben, "bestellung", []),
        (ada, "muller bestell", [sent]),
        (ada, "MÜLLER", [sent]),
        (ada, "warehouse", []),
        (ada, "house", []),
        (ada, "sonntag wartung", [all_]),
        (ben, "sonntag order", []),
    ):
        assert await found(person, text) == [str(each) for each in expected], (text, expected)
    await house.ask("PATCH", f"/notifications/{sent}", house.shop, {"title": "Neuer Titel: 50%"})
    for person in (ada, ben):
        assert await found(person, "titel neu") == [str(sent)]
        assert await found(person, "50%") == [str(sent)]
        assert await found(person, "order") == []
        assert await found(person, "1042") == [str(sent)]
    history = await house.ask("GET", "/notifications/history?q=sonn", house.shop)
    assert [each["id"] for each in history["items"]] == [str(all_)]


async def test_batches_by_ids_and_by_filter(house: House) -> None:
    ada = house.person()
    await house.make_type()
    sent = [await house.send(ada, tags=["x"] if number else []) for number in range(3)]
    body = {"action": "snooze", "filter": {"tag": "x"}, "snoozed_until": soon()}
    done = await house.ask("POST", "/inbox/batch", ada, body)
    assert (done["changed"], done["counts"]["total"]) == (2, 1)
    done = await house.ask("POST", "/inbox/batch", ada, {"action": "unsnooze", "ids": [str(each) for each in sent]})
    assert (done["changed"], done["counts"]["unread"]) == (2, 3)
    await house.ask("POST", "/inbox/batch", ada, {"action": "snooze", "ids": [str(sent[0])]}, status=422)
    done = await house.ask("POST", "/inbox/batch", ada, {"action": "archive", "filter": {}})
    assert (done["changed"], done["counts"]) == (3, {"unread": 0, "unseen": 0, "total": 0, "filtered": None})


@pytest.mark.req("C04")
async def test_another_users_items_are_not_there(house: House) -> None:
    ada, ben = house.person(), house.person()
    await house.make_type()
    sent = await house.send(ada)
    await house.send(ben)
    await house.ask("PATCH", f"/inbox/{sent}", ben, {"pinned": True}, status=404)
    done = await house.ask("POST", "/inbox/batch", ben, {"action": "pin", "ids": [str(sent)]})
    assert done["changed"] == 0
    assert (await house.inbox(ada))[0]["pinned_at"] is None


@pytest.mark.req("X-8")
async def test_update_and_recall_with_one_call_and_a_version(house: House) -> None:
    ada, ben = house.person(), house.person()
    await house.make_type()
    sent = await house.send(ada, ben, title="Old", body="b")
    await house.ask("PATCH", f"/notifications/{sent}", ada, {"title": "x"}, status=404)
    changed = await house.ask(
        "PATCH", f"/notifications/{sent}", house.shop, {"title": "New", "tags": ["t"], "version": 1}
    )
    assert (changed["version"], changed["items"]) == (2, 2)
    (item,) = await house.inbox(ben)
    assert (item["title"], item["body"], item["tags"]) == ("New", "b", ["t"])
    conflict = await house.ask("PATCH", f"/notifications/{sent}", house.shop, {"title": "x", "version": 1}, status=409)
    assert conflict["code"] == "conflict"
    done = await house.ask("POST", f"/notifications/{sent}/recall", house.admin)
    assert (done["status"], done["version"], done["items"]) == ("recalled", 3, 2)
    for person in (ada, ben):
        assert await house.inbox(person) == []
        counts = await house.ask("GET", "/inbox/counts", person)
        assert (counts["unread"], counts["total"]) == (0, 0)
        frames = (await house.ask("GET", "/inbox/sync", person))["items"]
        assert [(frame["type"], frame["id"]) for frame in frames] == [("recalled", str(sent))]
    again = await house.ask("POST", f"/notifications/{sent}/recall", house.shop)
    assert (again["version"], again["items"]) == (3, 0)
    await house.ask("PATCH", f"/notifications/{sent}", house.shop, {"title": "x"}, status=409)
    status = await house.ask("GET", f"/notifications/status/{sent}", house.shop)
    assert status["counts_by_channel_and_state"] == {"in_app": {"recalled": 2}}


@pytest.mark.req("X-8")
async def test_a_broadcast_is_recalled_everywhere_too(house: House) -> None:
    ada, ben = house.person(), house.person()
    await house.make_type()
    await house.send(ada, ben)
    sent = await house.send(recipients={"all": True}, title="To all")
    await house.ask("PATCH", f"/inbox/{sent}", ada, {"read": True})
    assert len(await house.inbox(ben)) == 2
    await house.ask("PATCH", f"/notifications/{sent}", house.shop, {"title": "To everybody"})
    assert (await house.inbox(ben))[0]["title"] == "To everybody"
    position = (await house.ask("GET", "/inbox/sync", ben))["position"]
    await house.ask("POST", f"/notifications/{sent}/recall", house.shop)
    frames = (await house.ask("GET", f"/inbox/sync?position={position}", ben))["items"]
    assert [(frame["type"], frame["id"]) for frame in frames] == [("recalled", str(sent))]
    for person in (ada, ben):
        assert len(await house.inbox(person)) == 1
        counts = await house.ask("GET", "/inbox/counts", person)
        assert (counts["unread"], counts["total"]) == (1, 1)


async def test_history_is_the_senders(house: House) -> None:
    ada, ben = house.person("publisher"), house.person()
    await house.make_type()
    await house.make_type("order.paid", name="Paid")
    first = await house.send(ben, title="One")
    second = await house.send(ada, event_type="order.paid", title="Two")
    newest = await house.ask("GET", "/notifications/history", house.shop)
    assert [each["id"] for each in newest["items"]] == [str(second), str(first)]
    for query, expected in (
        ("event_type=order.paid", [second]),
        (f"user_id={ben.id}", [first]),
        ("q=ONE", [first]),
        ("q=%25", []),
        ("status=recalled", []),
        ("channel=in_app", [second, first]),
        ("channel=sms", []),
        (f"to={datetime(2026, 1, 1, tzinfo=UTC).isoformat().replace('+00:00', 'Z')}", []),
    ):
        found = await house.ask("GET", f"/notifications/history?{query}", house.shop)
        assert [each["id"] for each in found["items"]] == [str(each) for each in expected], query
    page = await house.ask("GET", "/notifications/history?limit=1", house.shop)
    following = await house.ask("GET", f"/notifications/history?limit=1&cursor={page['next_cursor']}", house.shop)
    assert [each["id"] for each in following["items"]] == [str(first)]
    assert (await house.ask("GET", "/notifications/history", ada))["items"] == []
    assert len((await house.ask("GET", "/notifications/history", house.admin))["items"]) == 2


async def test_schedules_over_rest(house: House) -> None:
    ada, other = house.person(), house.person("publisher")
    await house.make_type()
    await house.send(ada)
    request = {"event_type": "order.shipped", "recipients": {"users": [str(ada.id)]}, "title": "Later"}
    made = await house.ask("POST", "/schedules", house.shop, {"request": request, "first_at": soon(1)}, status=201)
    rule = {"every": "week", "at": "08:30", "days": ["tue"], "timezone": "Asia/Tokyo"}
    weekly = await house.ask("POST", "/schedules", house.shop, {"request": request, "recurrence": rule}, status=201)
    assert weekly["next_at"].endswith("23:30:00Z")
    for wrong in ({"request": request}, {"request": {**request, "event_type": "no.such"}, "first_at": soon()}):
        await house.ask("POST", "/schedules", house.shop, wrong, status=422)
    found = await house.ask("GET", "/schedules", house.shop)
    assert [each["id"] for each in found["items"]] == [made["id"], weekly["id"]]
    assert (await house.ask("GET", "/schedules", other))["items"] == []
    await house.ask("DELETE", f"/schedules/{weekly['id']}", other, status=404)
    await house.ask("DELETE", f"/schedules/{weekly['id']}", house.shop, status=204)

    async def has_fired() -> bool:
        return [item["title"] for item in await house.inbox(ada)][:1] == ["Later"]

    await until(has_fired)
    left = await house.ask("GET", "/schedules", house.shop)
    assert [(each["next_at"], each["fired_count"]) for each in left["items"]] == [(None, 1)]


async def test_the_analytics_summary_adds_up(house: House) -> None:
    ada, ben = house.person(), house.person()
    await house.make_type(channels=["in_app", "email"])
    sent = await house.send(ada, ben)
    await house.send(ada)
    await house.ask("PATCH", f"/inbox/{sent}", ada, {"read": True})
    parts = house.service.parts["scheduler"]

    async def is_counted() -> bool:
        return await RollingUp(parts.database).roll_up(datetime.now(UTC)) > 0

    await until(is_counted)
    found = await house.ask("GET", "/analytics/summary", house.admin)
    in_app, email = found["by_channel"]["in_app"], found["by_channel"]["email"]
    assert (in_app["sent"], in_app["read"], in_app["acked"]) == (3, 1, 1)
    assert (email["sent"], email["suppressed"]) == (0, 3)
    assert found["by_event_type"]["order.shipped"]["sent"] == 3
    assert found["latency_by_channel"]["in_app"]["p95_ms"] is not None
    assert sum(each["sent"] for each in found["buckets"]) == found["totals"]["sent"] == 3
    await house.ask("GET", "/analytics/summary", house.person("staff"), status=403)
    await house.ask(
        "GET", "/analytics/summary?from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z", house.admin, status=422
    )
