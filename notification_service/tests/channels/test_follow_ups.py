"""What was sent is taken back when its notification is recalled, and changed with it, where the provider can."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from channel_kit import HttpSink, Reply, Seen, Sending, http_sink, running_channels
from provider_kit import VAPID, Browser
from sqlalchemy import select, update
from waiting import until

from notification_service.channels.follow_ups import FollowUp, ask_for_dismissals, ask_for_follow_ups
from notification_service.channels.models import deliveries
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.notifications.models import notifications

CHATS = "telegram discord slack"


class Chats:
    """Telegram and Discord: they answer the sends; what is done later is scripted."""

    def __init__(self) -> None:
        self.later: list[Reply] = []

    def __call__(self, seen: Seen) -> Reply:
        if seen.path.endswith("/sendMessage"):
            return Reply(body=b'{"ok":true,"result":{"message_id":7,"chat":{"id":42}}}')
        if seen.method == "POST" and seen.path.startswith("/discord"):
            return Reply(body=b'{"id":"99"}')
        if self.later:
            return self.later.pop(0)
        return Reply(204, body=b"") if seen.method == "DELETE" else Reply(body=b'{"ok":true,"result":true}')


@pytest.fixture
def chats() -> Chats:
    return Chats()


@pytest.fixture
async def web(chats: Chats) -> AsyncIterator[HttpSink]:
    async with http_sink(chats) as sink:
        yield sink


@pytest.fixture
async def sending(
    database: Database, amqp_url: str, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sending]:
    environment = {"NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc", "NOTIFY_TELEGRAM_API_URL": web.url}
    async with running_channels(database, amqp_url, monkeypatch, environment=environment, only=CHATS) as running:
        yield running


async def send(sending: Sending, web: HttpSink, channel: str) -> AnyRow:
    user_id = await sending.make_user()
    await sending.add_contact(user_id, channel, "42" if channel == "telegram" else f"{web.url}/discord?thread_id=5")
    (row,) = await sending.wait_for(await sending.deliver(user_id, channel=channel), "sent")
    return row


async def ask(sending: Sending, notification_id: UUID, what: FollowUp) -> int:
    channels = sending.parts.reach.withdrawing if what is FollowUp.WITHDRAW else sending.parts.reach.editing
    async with sending.database.write() as connection:
        return await ask_for_follow_ups(connection, notification_id, what, channels, now=sending.clock.now())


async def wait_until_done(sending: Sending, notification_id: UUID) -> AnyRow:
    async def is_done() -> bool:
        return all(row.follow_up is None for row in await sending.rows(notification_id))

    await until(is_done)
    (row,) = await sending.rows(notification_id)
    return row


async def test_which_channels_can(sending: Sending) -> None:
    assert sending.parts.reach.withdrawing == sending.parts.reach.editing == {"telegram", "discord"}


@pytest.mark.parametrize(
    ("channel", "call"),
    [
        ("telegram", ("POST", "/bot1:abc/deleteMessage", {"chat_id": 42, "message_id": 7})),
        ("discord", ("DELETE", "/discord/messages/99?thread_id=5", None)),
    ],
)
async def test_taken_back(channel: str, call: tuple[Any, ...], sending: Sending, web: HttpSink) -> None:
    row = await send(sending, web, channel)
    assert await ask(sending, row.notification_id, FollowUp.WITHDRAW) == 1
    row = await wait_until_done(sending, row.notification_id)
    assert (row.status, row.reason, row.error) == ("recalled", "recalled", None)
    seen = web.seen[-1]
    assert (seen.method, seen.path, json.loads(seen.body) if seen.body else None) == call


@pytest.mark.req("X-6")
async def test_read_elsewhere_it_is_taken_back_and_was_delivered_all_the_same(sending: Sending, web: HttpSink) -> None:
    read, other = [await send(sending, web, "telegram") for _ in range(2)]
    async with sending.database.write() as connection:
        asked = await ask_for_dismissals(
            connection,
            read.user_id,
            [read.notification_id, other.notification_id],
            sending.parts.reach.withdrawing,
            now=sending.clock.now(),
        )
    assert asked == 1  # the other one is somebody else's
    row = await wait_until_done(sending, read.notification_id)
    assert (row.status, row.error) == ("sent", None)
    assert [seen.path for seen in web.seen if "deleteMessage" in seen.path] == ["/bot1:abc/deleteMessage"]


@pytest.mark.req("X-6")
async def test_what_is_recalled_stays_recalled_when_it_is_read(sending: Sending, web: HttpSink) -> None:
    row = await send(sending, web, "telegram")
    async with sending.database.write() as connection:
        withdrawing, now = sending.parts.reach.withdrawing, sending.clock.now()
        assert await ask_for_follow_ups(connection, row.notification_id, FollowUp.WITHDRAW, withdrawing, now=now) == 1
        assert await ask_for_dismissals(connection, row.user_id, None, withdrawing, now=now) == 0
    row = await wait_until_done(sending, row.notification_id)
    assert row.status == "recalled"


async def send_push(sending: Sending, web: HttpSink, user_id: UUID, browser: Browser, **fields: Any) -> AnyRow:
    notification_id = await sending.deliver(user_id, channel="web_push", **fields)
    (row,) = await sending.wait_for(notification_id, "sent")
    assert browser.decrypt(web.seen[-1].body)["kind"] == "notification"
    return row


@pytest.mark.req("X-6", "X-8")
@pytest.mark.parametrize("location", ["https://push.example/m/1", None])
async def test_a_web_push_is_taken_back_by_another_one(
    location: str | None, database: Database, amqp_url: str, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same topic, so that it takes the place of what still waits, and names the tag to close (RFC 8030)."""
    web.script = lambda _: Reply(201, {"Location": location} if location else {})
    browser = Browser()
    async with running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending:
        assert "web_push" in sending.parts.reach.withdrawing
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "web_push", f"{web.url}/push", browser.keys)
        row = await send_push(sending, web, user_id, browser)
        assert await ask(sending, row.notification_id, FollowUp.WITHDRAW) == 1
        row = await wait_until_done(sending, row.notification_id)
    assert (row.status, row.reason, row.error) == ("recalled", "recalled", None)
    shown, over = web.seen
    assert shown.headers["topic"] == over.headers["topic"]
    assert over.headers["authorization"].startswith("vapid ")
    assert int(over.headers["ttl"]) > 0
    told = browser.decrypt(over.body)
    assert told == {
        "kind": "withdraw",
        "id": str(row.notification_id),
        "delivery_id": str(row.id),
        "tag": browser.decrypt(shown.body)["tag"],
    }


@pytest.mark.req("X-8")
async def test_what_a_newer_web_push_has_replaced_is_left_to_it(
    database: Database, amqp_url: str, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.script = lambda _: Reply(201)
    browser = Browser()
    async with running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "web_push", f"{web.url}/push", browser.keys)
        older, newer = [
            await send_push(sending, web, user_id, browser, collapse_key=f"order-{number // 2}") for number in (2, 3)
        ]
        await ask(sending, older.notification_id, FollowUp.WITHDRAW)
        assert (await wait_until_done(sending, older.notification_id)).status == "recalled"
        assert len(web.seen) == 2
        await ask(sending, newer.notification_id, FollowUp.WITHDRAW)
        assert (await wait_until_done(sending, newer.notification_id)).status == "recalled"
    assert [browser.decrypt(seen.body)["kind"] for seen in web.seen] == ["notification", "notification", "withdraw"]
    assert browser.decrypt(web.seen[-1].body)["tag"] == "order-1"
    assert len({seen.headers["topic"] for seen in web.seen}) == 1


@pytest.mark.req("X-8")
async def test_a_web_push_is_changed_by_another_one(
    database: Database, amqp_url: str, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own topic and tag, unless a newer one has them since."""
    web.script = lambda _: Reply(201)
    browser = Browser()
    async with running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending:
        assert "web_push" in sending.parts.reach.editing
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "web_push", f"{web.url}/push", browser.keys)
        older, newer = [await send_push(sending, web, user_id, browser, collapse_key="order-1") for _ in range(2)]
        for row in (older, newer):
            async with sending.database.write() as connection:
                changed = update(notifications).where(notifications.c.id == row.notification_id)
                await connection.execute(changed.values(title="It has arrived"))
            await ask(sending, row.notification_id, FollowUp.EDIT)
            done = await wait_until_done(sending, row.notification_id)
            assert (done.status, done.error) == ("sent", None)
    first, _, last = [browser.decrypt(seen.body) for seen in web.seen]
    assert (last["title"], last["id"]) == ("It has arrived", str(newer.notification_id))
    assert (last["kind"], last["tag"]) == (first["kind"], first["tag"])
    assert len({seen.headers["topic"] for seen in web.seen}) == 1


async def test_a_subscription_that_is_gone_needs_no_withdrawal(
    database: Database, amqp_url: str, web: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.script = lambda _: Reply(201)
    browser = Browser()
    async with running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending:
        user_id = await sending.make_user()
        await sending.add_contact(user_id, "web_push", f"{web.url}/push", browser.keys)
        row = await send_push(sending, web, user_id, browser)
        web.script = lambda _: Reply(410)
        await ask(sending, row.notification_id, FollowUp.WITHDRAW)
        row = await wait_until_done(sending, row.notification_id)
    assert row.status == "sent"
    assert "410" in row.error


@pytest.mark.parametrize("channel", ["telegram", "discord"])
async def test_changed(channel: str, sending: Sending, web: HttpSink) -> None:
    row = await send(sending, web, channel)
    async with sending.database.write() as connection:
        changed = update(notifications).where(notifications.c.id == row.notification_id)
        await connection.execute(changed.values(title="It has arrived"))
    assert await ask(sending, row.notification_id, FollowUp.EDIT) == 1
    row = await wait_until_done(sending, row.notification_id)
    assert (row.status, row.error) == ("sent", None)
    seen, body = web.seen[-1], json.loads(web.seen[-1].body)
    if channel == "telegram":
        assert seen.path == "/bot1:abc/editMessageText"
        assert (body["chat_id"], body["message_id"]) == (42, 7)
        assert body["text"].startswith("It has arrived\n")
    else:
        assert (seen.method, seen.path) == ("PATCH", "/discord/messages/99?thread_id=5")
        assert body["embeds"][0]["title"] == "It has arrived"


@pytest.mark.parametrize(
    ("channel", "replies", "status", "problem"),
    [
        # Down for a moment: asked again by the ladder.
        ("telegram", [Reply(503), Reply(500)], "recalled", None),
        ("discord", [Reply(429, {"Retry-After": "1"})], "recalled", None),
        # Gone already, which is what was wanted.
        (
            "telegram",
            [Reply(400, body=b'{"description":"Bad Request: message to delete not found"}')],
            "recalled",
            None,
        ),
        ("discord", [Reply(404)], "recalled", None),
        (
            "telegram",
            [Reply(400, body=b'{"description":"Bad Request: message can\'t be deleted"}')],
            "sent",
            "could not",
        ),
        ("discord", [Reply(403)], "sent", "status 403"),
        ("telegram", [Reply(503)] * 9, "sent", "status 503"),
    ],
)
async def test_what_providers_say_to_a_withdrawal(
    channel: str,
    replies: list[Reply],
    status: str,
    problem: str | None,
    *,
    sending: Sending,
    web: HttpSink,
    chats: Chats,
) -> None:
    row = await send(sending, web, channel)
    chats.later = list(replies)
    await ask(sending, row.notification_id, FollowUp.WITHDRAW)
    row = await wait_until_done(sending, row.notification_id)
    assert row.status == status
    assert (problem in row.error) if problem else row.error is None


async def test_a_withdrawal_comes_before_a_change(sending: Sending, web: HttpSink) -> None:
    row = await send(sending, web, "telegram")
    async with sending.database.write() as connection:
        for what in (FollowUp.WITHDRAW, FollowUp.EDIT):
            await ask_for_follow_ups(connection, row.notification_id, what, {"telegram"}, now=sending.clock.now())
        asked = (await connection.execute(select(deliveries.c.follow_up))).scalar_one()
    assert asked == "withdraw"
    assert (await wait_until_done(sending, row.notification_id)).status == "recalled"


@pytest.mark.parametrize(("channel", "status"), [("telegram", "recalled"), ("slack", "sent")])
async def test_recalled_while_it_was_being_sent(channel: str, status: str, sending: Sending, web: HttpSink) -> None:
    """It is taken back where that can be done, and shown as sent where it cannot."""
    user_id = await sending.make_user()
    await sending.add_contact(user_id, channel, "42" if channel == "telegram" else f"{web.url}/slack")
    web.answering.clear()
    notification_id = await sending.deliver(user_id, channel=channel)
    await until(lambda: len(web.seen) == 1)
    async with sending.database.write() as connection:
        await connection.execute(update(deliveries).values(status="recalled", reason="recalled", next_attempt_at=None))
    web.answering.set()

    async def is_written() -> bool:
        (row,) = await sending.rows(notification_id)
        return row.sent_at is not None and row.follow_up is None and row.status == status

    await until(is_written)
    assert len(web.seen) == (2 if channel == "telegram" else 1)
