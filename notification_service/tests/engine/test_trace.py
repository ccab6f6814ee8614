"""Why somebody did or did not get a notification: twelve set-ups, each with the right answer (X-9)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from house import House
from sqlalchemy import insert, update
from waiting import until

from notification_service.contacts.models import contacts
from notification_service.identity.models import users

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.req("X-9")]

BOTH = ["in_app", "email"]


def of(trace: dict[str, Any], channel: str) -> dict[str, Any]:
    return next(each for each in trace["channels"] if each["channel"] == channel)


async def test_the_ordinary_case_says_what_was_read(house: House) -> None:
    ada = house.person()
    await house.make_type()
    trace = await house.trace(await house.send(ada), ada)
    assert trace["outcome"] in ("pending", "queued")
    assert of(trace, "in_app")["rules"] == [{"rule": "default_enabled", "value": True, "source": "event_type"}]


async def test_a_muted_type(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=BOTH)
    await house.prefer(ada, event_types={"order.shipped": {"email": False, "in_app": False}})
    trace = await house.trace(await house.send(ada), ada)
    assert (trace["outcome"], of(trace, "email")["reason"]) == ("suppressed", "event_type_off")
    assert of(trace, "in_app")["reason"] == "event_type_off"
    assert of(trace, "email")["rules"] == [
        {"rule": "event_types.order.shipped.email", "value": False, "source": "user"}
    ]
    assert await house.inbox(ada) == []


async def test_a_muted_category_and_a_muted_channel(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=BOTH)
    await house.prefer(ada, categories={"orders": {"in_app": False}}, channels={"email": False, "in_app": True})
    trace = await house.trace(await house.send(ada), ada)
    assert of(trace, "in_app")["reason"] == "category_off"
    assert of(trace, "email")["reason"] == "channel_off"
    assert of(trace, "email")["rules"][0] == {"rule": "channels.email", "value": False, "source": "user"}


async def test_a_default_of_the_role_and_of_the_tenant(house: House) -> None:
    ada, boss = house.person(), house.person("staff")
    await house.make_type(channels=BOTH)
    await house.ask("PUT", "/preferences/defaults", house.admin, {"channels": {"email": False}})
    await house.ask(
        "PUT", "/preferences/defaults?role=staff", house.admin, {"categories": {"orders": {"email": False}}}
    )
    sent = await house.send(ada, boss)
    assert of(await house.trace(sent, ada), "email")["rules"] == [
        {"rule": "channels.email", "value": False, "source": "tenant"}
    ]
    assert of(await house.trace(sent, boss), "email")["rules"] == [
        {"rule": "categories.orders.email", "value": False, "source": "role"}
    ]


@pytest.mark.req("X-10")
async def test_quiet_hours(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=BOTH)
    await house.prefer(ada, quiet_hours={"enabled": True, "start": "00:00", "end": "00:00"})
    trace = await house.trace(await house.send(ada), ada)
    assert (of(trace, "email")["reason"], of(trace, "in_app")["reason"]) == ("quiet_hours", None)
    assert of(trace, "email")["rules"][-1]["rule"] == "quiet_hours"
    assert len(await house.inbox(ada)) == 1
    urgent = await house.trace(await house.send(ada, priority="critical"), ada)
    assert of(urgent, "email")["reason"] == "channel_not_configured"


async def test_a_digest(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=BOTH)
    await house.prefer(ada, digest={"email": "daily"})
    trace = await house.trace(await house.send(ada), ada)
    assert of(trace, "email")["reason"] == "digested"
    assert of(trace, "email")["due_at"] is not None


async def test_throttled(house: House) -> None:
    ada = house.person()
    await house.make_type(throttle={"limit": 2, "window_seconds": 86_400})
    sent = [await house.send(ada) for _ in range(3)]
    assert [of(await house.trace(each, ada), "in_app")["reason"] for each in sent] == [None, None, "throttled"]
    assert len(await house.inbox(ada)) == 2


async def test_the_critical_are_neither_throttled_nor_counted(house: House) -> None:
    ada = house.person()
    await house.make_type(throttle={"limit": 1, "window_seconds": 86_400})
    sent = [await house.send(ada, priority=each) for each in ("critical", "critical", "normal", "normal", "critical")]
    reasons = [of(await house.trace(each, ada), "in_app")["reason"] for each in sent]
    assert reasons == [None, None, None, "throttled", None]
    assert len(await house.inbox(ada)) == 4


async def test_what_is_mandatory_is_neither_throttled_nor_collected(house: House) -> None:
    ada = house.person()
    await house.make_type(
        channels=BOTH, mandatory=True, throttle={"limit": 1, "window_seconds": 86_400}, digest={"interval": "daily"}
    )
    await house.prefer(ada, digest={"email": "daily", "in_app": "daily"})
    for _ in range(3):
        trace = await house.trace(await house.send(ada), ada)
        # No mail server is configured here: it would have gone there.
        assert [of(trace, each)["reason"] for each in BOTH] == [None, "channel_not_configured"]
    assert len(await house.inbox(ada)) == 3


async def test_no_address(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=["in_app", "webhook", "telegram"])
    trace = await house.trace(await house.send(ada), ada)
    assert (of(trace, "webhook")["outcome"], of(trace, "webhook")["reason"]) == ("suppressed", "no_address")
    assert of(trace, "telegram")["reason"] == "channel_not_configured"


async def test_an_address_that_is_dead(house: House) -> None:
    ada = house.person()
    await house.make_type(channels=["in_app", "webhook"])
    await house.send(ada)
    parts, now = house.service.parts["api"], datetime.now(UTC)
    async with parts.database.write() as connection:
        await connection.execute(
            insert(contacts).values(
                user_id=ada.id,
                id=uuid4(),
                tenant=house.tenant,
                channel="webhook",
                address=parts.channels.box.seal("https://hooks.example/1"),
                address_hash="0" * 64,
                hint="hooks.example",
                label="",
                verified_at=now,
                disabled_at=now,
                created_at=now,
            )
        )
    trace = await house.trace(await house.send(ada), ada)
    assert (of(trace, "webhook")["outcome"], of(trace, "webhook")["reason"]) == ("suppressed", "address_disabled")


async def test_a_role_that_was_lost(house: House) -> None:
    ada, boss = house.person("staff"), house.person("staff")
    await house.make_type()
    await house.send(ada, boss)
    # The mirror as it is once the change has arrived.
    async with house.service.parts["api"].database.write() as connection:
        await connection.execute(update(users).where(users.c.id == ada.id).values(roles=["user"]))
    sent = await house.send(recipients={"roles": ["staff"]})
    assert (await house.trace(sent, boss))["reason"] is None
    lost = await house.trace(sent, ada)
    assert (lost["outcome"], lost["reason"], lost["channels"]) == ("not_sent", "unknown_recipient", [])
    assert len(await house.inbox(ada)) == 1


async def test_one_that_expired_and_one_that_was_recalled(house: House) -> None:
    ada = house.person()
    await house.make_type()
    short = await house.send(ada, ttl_seconds=1)
    recalled = await house.send(ada)
    await house.ask("POST", f"/notifications/{recalled}/recall", house.shop)
    assert (await house.trace(recalled, ada))["outcome"] == "recalled"
    assert (await house.ask("GET", f"/notifications/status/{recalled}", house.shop))["status"] == "recalled"
    assert of(await house.trace(recalled, ada), "in_app")["reason"] == "recalled"

    async def is_expired() -> bool:
        return bool(of(await house.trace(short, ada), "in_app")["outcome"] == "expired")

    await until(is_expired)
    assert of(await house.trace(short, ada), "in_app")["reason"] == "expired"


async def test_replaced_by_a_newer_one(house: House) -> None:
    ada = house.person()
    await house.make_type()
    older = await house.send(ada, collapse_key="order-1")
    newer = await house.send(ada, collapse_key="order-1")
    assert of(await house.trace(older, ada), "in_app")["reason"] == "collapsed"
    assert [item["id"] for item in await house.inbox(ada)] == [str(newer)]
    assert (await house.ask("GET", "/inbox/counts", ada))["unread"] == 1


async def test_who_is_none_of_the_recipients(house: House) -> None:
    ada, ben, gone = house.person(), house.person(), house.person(is_active=False)
    await house.make_type()
    sent = await house.send(ada, gone)
    assert (await house.trace(sent, ben))["reason"] == "unknown_recipient"
    assert (await house.trace(sent, gone))["reason"] == "recipient_inactive"
    assert (await house.trace(sent, ada))["reason"] is None
    nobody = {**vars(ben), "id": uuid4()}
    found = await house.ask("GET", f"/notifications/{sent}/trace?user_id={nobody['id']}", house.shop)
    assert (found["outcome"], found["reason"], found["channels"]) == ("not_sent", "unknown_recipient", [])


async def test_nobody_else_is_told_what_would_have_been_sent(house: House) -> None:
    ada, ben = house.person(), house.person()
    plain = await house.send(ada, event_type=None, title="Hello", channels=BOTH)
    found = await house.trace(plain, ben)
    assert (found["outcome"], found["channels"]) == ("not_sent", [])


async def test_who_may_ask(house: House) -> None:
    ada, ben, staff = house.person(), house.person(), house.person("staff")
    stranger = house.service.add_person("admin", tenant=house.service.add_tenant())
    await house.make_type()
    sent = await house.send(ada)
    for asker in (ada, staff, house.shop):
        assert (await house.trace(sent, ada, asker=asker))["notification_id"] == str(sent)
    for asker in (ben, stranger):
        await house.ask("GET", f"/notifications/{sent}/trace?user_id={ada.id}", asker, status=404)


async def test_a_variable_that_is_missing_is_a_failure_with_its_reason(house: House) -> None:
    ada = house.person()
    await house.make_type()
    path = "/event-types/order.shipped/templates/in_app/en"
    await house.ask("PUT", path, house.admin, {"title": "Order {{ data.order_id }}", "body": "x"})
    sent = await house.send(ada)
    trace = await house.trace(sent, ada)
    assert (trace["outcome"], trace["reason"]) == ("failed", "missing_variable")
    assert await house.inbox(ada) == []
    status = await house.ask("GET", f"/notifications/status/{sent}", house.shop)
    failed = status["deliveries"]["items"][0]
    assert (failed["user_id"], failed["reason"]) == (str(ada.id), "missing_variable")
    assert "no such recipient" not in failed["error"]
    letters = await house.ask("GET", "/dead-letters?reason=missing_variable", house.admin)
    assert [each["message_id"] for each in letters["items"]] == [str(sent)]


async def test_scheduled_and_recalled_before_its_time(house: House) -> None:
    ada = house.person()
    await house.make_type()
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    sent = await house.send(ada, deliver=False, deliver_at=at)
    assert (await house.trace(sent, ada))["outcome"] == "pending"
    done = await house.ask("POST", f"/notifications/{sent}/recall", house.shop)
    assert (done["status"], done["items"]) == ("recalled", 0)
    kept = await house.send(ada, deliver=False, deliver_at=at)

    async def has_arrived() -> bool:
        return [item["id"] for item in await house.inbox(ada)] == [str(kept)]

    await until(has_arrived)
    assert (await house.trace(sent, ada))["outcome"] == "recalled"
