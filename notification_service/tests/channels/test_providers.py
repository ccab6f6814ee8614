"""Each provider's channel against a scripted counterpart: what it is told, and what its answers lead to."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest
import requests
from channel_kit import HttpSink, Reply, Seen, Sending, http_sink, running_channels
from provider_kit import VAPID, Browser, make_account_key
from service import taken_port

from notification_service.channels.apprise.calls import classify_calls
from notification_service.channels.http.client import Answer
from notification_service.channels.interface import FailureKind
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from shared_contracts.error_codes import Reason

ACTIONS = [{"id": "track", "label": "Track <it>", "url": "https://shop.example/o/1042"}]
ODD = "Order <1042> & *more* | @channel"


@pytest.fixture
def migrated_url(tmp_path: Path, sqlite_template: Path) -> str:
    """What a provider is told does not depend on the database."""
    path = tmp_path / "migrated.sqlite3"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


async def send_one(sending: Sending, channel: str, address: str, secret: str | None = None, **fields: Any) -> AnyRow:
    user_id = await sending.make_user()
    await sending.add_contact(user_id, channel, address, secret)
    notification_id = await sending.deliver(user_id, channel=channel, **fields)
    (row,) = await sending.wait_for(notification_id, "sent", "failed")
    return row


async def is_disabled(sending: Sending, channel: str, row: AnyRow) -> bool:
    again = await sending.deliver(row.user_id, channel=channel)
    (row,) = await sending.wait_for(again, "sent", "failed", "suppressed")
    return bool(row.reason == Reason.ADDRESS_DISABLED)


def twilio(sink: HttpSink) -> dict[str, str]:
    return {
        "NOTIFY_TWILIO_ACCOUNT_SID": "AC1",
        "NOTIFY_TWILIO_AUTH_TOKEN": "t0ken",
        "NOTIFY_TWILIO_FROM": "+15005550006",
        "NOTIFY_TWILIO_API_URL": sink.url,
    }


async def test_sms(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        http_sink(lambda _: Reply(201, body=b'{"sid":"SM42","status":"queued"}')) as sink,
        running_channels(database, amqp_url, monkeypatch, environment=twilio(sink), only="sms") as sending,
    ):
        user_id = await sending.make_user(phone="+4915112345678")
        notification_id = await sending.deliver(user_id, channel="sms", body="x" * 3000)
        (row,) = await sending.wait_for(notification_id, "sent")
    assert row.provider_message_id == "SM42"
    (seen,) = sink.seen
    assert seen.path == "/2010-04-01/Accounts/AC1/Messages.json"
    assert seen.headers["authorization"] == "Basic " + base64.b64encode(b"AC1:t0ken").decode()
    form = parse_qs(seen.body.decode())
    assert (form["To"], form["From"]) == (["+4915112345678"], ["+15005550006"])
    assert len(form["Body"][0]) == 1600


@pytest.mark.parametrize(
    ("reply", "status", "calls", "disabled"),
    [
        (Reply(400, body=b'{"code":21211}'), "failed", 1, True),
        (Reply(400, body=b'{"code":21602}'), "failed", 1, False),
        (Reply(429), "sent", 2, False),
        (Reply(503), "sent", 2, False),
        (Reply(401, body=b'{"code":20003}'), "sent", 2, False),
        # Nobody knows whether it was sent, and Twilio does not know repeats: never again by itself.
        (Reply(500), "failed", 1, False),
    ],
)
async def test_what_twilio_answers(
    reply: Reply,
    status: str,
    calls: int,
    *,
    disabled: bool,
    database: Database,
    amqp_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = iter([reply])
    async with (
        http_sink(lambda _: next(replies, Reply(201, body=b'{"sid":"SM1"}'))) as sink,
        running_channels(database, amqp_url, monkeypatch, environment=twilio(sink), only="sms") as sending,
    ):
        row = await send_one(sending, "sms", "+4915112345678")
        assert (row.status, len(sink.seen)) == (status, calls)
        assert await is_disabled(sending, "sms", row) == disabled


async def test_telegram(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = {
        "sendMessage": Reply(body=b'{"ok":true,"result":{"message_id":7,"chat":{"id":42}}}'),
        "deleteMessage": Reply(body=b'{"ok":true,"result":true}'),
    }
    async with http_sink(lambda seen: replies[seen.path.rpartition("/")[2]]) as sink:
        environment = {"NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc", "NOTIFY_TELEGRAM_API_URL": sink.url}
        async with running_channels(
            database, amqp_url, monkeypatch, environment=environment, only="telegram"
        ) as sending:
            row = await send_one(sending, "telegram", "42", title=ODD, actions=ACTIONS)
            assert row.provider_message_id == "42:7"
            (seen,) = sink.seen
            assert seen.path == "/bot1:abc/sendMessage"
            body = json.loads(seen.body)
            assert body["chat_id"] == 42
            assert body["text"].startswith(ODD)
            assert body["reply_markup"]["inline_keyboard"][0][0]["url"] == ACTIONS[0]["url"]
            assert "1:abc" not in repr([each.route for each in await sending.attempts(row.notification_id)])


@pytest.mark.parametrize(
    ("reply", "status", "disabled"),
    [
        (Reply(403, body=b'{"ok":false,"description":"Forbidden: bot was blocked by the user"}'), "failed", True),
        (Reply(400, body=b'{"ok":false,"description":"Bad Request: chat not found"}'), "failed", True),
        (Reply(400, body=b'{"ok":false,"description":"Bad Request: message text is empty"}'), "failed", False),
        (Reply(429, body=b'{"ok":false,"description":"Too Many","parameters":{"retry_after":1}}'), "sent", False),
    ],
)
async def test_what_telegram_answers(
    reply: Reply, status: str, *, disabled: bool, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([reply])
    async with http_sink(lambda _: next(replies, Reply(body=b'{"ok":true,"result":{"message_id":7}}'))) as sink:
        environment = {"NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc", "NOTIFY_TELEGRAM_API_URL": sink.url}
        async with running_channels(
            database, amqp_url, monkeypatch, environment=environment, only="telegram"
        ) as sending:
            row = await send_one(sending, "telegram", "42")
            assert row.status == status
            assert await is_disabled(sending, "telegram", row) == disabled


async def test_slack_teams_and_discord(database: Database, amqp_url: str) -> None:
    async with (
        http_sink(lambda _: Reply(body=b'{"id":"99"}')) as sink,
        running_channels(
            database,
            amqp_url,
            only="discord slack teams",
        ) as sending,
    ):
        rows = [
            await send_one(sending, channel, f"{sink.url}/{channel}", title=ODD, body=ODD, actions=ACTIONS)
            for channel in ("slack", "teams", "discord")
        ]
    slack, teams, discord = (json.loads(seen.body) for seen in sink.seen)
    assert slack["blocks"][0]["text"] == {"type": "plain_text", "text": ODD}
    assert slack["blocks"][1]["text"]["text"] == "Order &lt;1042&gt; &amp; *more* ¦ @channel"
    assert slack["blocks"][2]["text"]["text"] == "<https://shop.example/o/1042|Track &lt;it&gt;>"
    card = teams["attachments"][0]["content"]
    assert card["body"][0]["text"] == ODD
    assert card["actions"][0]["url"] == ACTIONS[0]["url"]
    assert discord["embeds"][0]["title"] == ODD
    assert discord["allowed_mentions"] == {"parse": []}
    assert sink.seen[2].path == "/discord?wait=true"
    assert [row.provider_message_id for row in rows] == [None, None, "99"]


@pytest.mark.parametrize("channel", ["slack", "teams", "discord"])
@pytest.mark.parametrize("status", [404, 410])
async def test_a_webhook_that_is_gone_is_disabled(channel: str, status: int, database: Database, amqp_url: str) -> None:
    async with (
        http_sink(lambda _: Reply(status)) as sink,
        running_channels(database, amqp_url, only=channel) as sending,
    ):
        row = await send_one(sending, channel, sink.url)
        assert (row.status, row.reason) == ("failed", Reason.PROVIDER_REJECTED)
        assert await is_disabled(sending, channel, row)
        assert len(sink.seen) == 1


async def test_web_push(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser()
    async with (
        http_sink(lambda _: Reply(201, {"Location": "https://push.example/m/1"})) as sink,
        running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending,
    ):
        channel: Any = sending.parts.registry.get("web_push")
        checked = await channel.check_address(
            json.dumps({"endpoint": sink.url + "/push/1", "keys": json.loads(browser.keys)}), None
        )
        row = await send_one(
            sending, "web_push", checked.value, checked.secret, body="ä" * 9000, priority="high", ttl_seconds=60
        )
        public_key, url = channel.public_key, sink.url
    (seen,) = sink.seen
    shown = browser.decrypt(seen.body)
    assert shown["title"] == "Your order is on its way"
    assert shown["delivery_id"] == str(row.id)
    assert shown["body"].endswith("ä…")
    assert len(seen.body) <= 4096
    assert seen.headers["content-encoding"] == "aes128gcm"
    assert seen.headers["urgency"] == "high"
    assert 55 <= int(seen.headers["ttl"]) <= 60
    assert len(seen.headers["topic"]) == 32
    scheme, _, rest = seen.headers["authorization"].partition(" ")
    parameters = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid"
    assert parameters["k"] == public_key
    claims = json.loads(base64.urlsafe_b64decode(parameters["t"].split(".")[1] + "=="))
    assert (claims["aud"], claims["sub"]) == (url, "mailto:ops@example.org")
    assert row.provider_message_id == "https://push.example/m/1"


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_is_gone_is_disabled(
    status: int, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        http_sink(lambda _: Reply(status)) as sink,
        running_channels(database, amqp_url, monkeypatch, environment=VAPID, only="web_push") as sending,
    ):
        row = await send_one(sending, "web_push", sink.url, Browser().keys)
        assert row.status == "failed"
        assert await is_disabled(sending, "web_push", row)


@pytest.fixture(scope="module")
def account_key() -> str:
    return make_account_key()


async def test_push(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, account_key: str
) -> None:
    statuses = iter([200, 401, 200])

    def answer(seen: Seen) -> Reply:
        if seen.path == "/token":
            return Reply(body=b'{"access_token":"ya29","expires_in":3600}')
        return Reply(next(statuses), body=b'{"name":"projects/p/messages/1"}')

    async with http_sink(answer) as sink:
        credentials = tmp_path / "fcm.json"
        credentials.write_text(
            json.dumps(
                {
                    "project_id": "p",
                    "client_email": "herald@p.example",
                    "private_key": account_key,
                    "token_uri": f"{sink.url}/token",
                }
            )
        )
        environment = {"NOTIFY_FCM_CREDENTIALS_FILE": str(credentials), "NOTIFY_FCM_API_URL": sink.url}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="push") as sending:
            first = await send_one(sending, "push", "a-registration-token", collapse_key="order-1042")
            second = await send_one(sending, "push", "another-registration-token")
    assert first.provider_message_id == "projects/p/messages/1"
    # The token is used again, and asked for anew when it is refused.
    assert [seen.path for seen in sink.seen] == [
        "/token",
        *["/v1/projects/p/messages:send"] * 2,
        "/token",
        "/v1/projects/p/messages:send",
    ]
    assert second.attempts == 2
    message = json.loads(sink.seen[1].body)["message"]
    assert (message["token"], message["android"]["collapse_key"]) == ("a-registration-token", "order-1042")
    assert sink.seen[1].headers["authorization"] == "Bearer ya29"


async def test_an_unregistered_device_is_disabled(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, account_key: str
) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.path == "/token":
            return Reply(body=b'{"access_token":"ya29"}')
        return Reply(404, body=b'{"error":{"status":"NOT_FOUND","details":[{"errorCode":"UNREGISTERED"}]}}')

    async with http_sink(answer) as sink:
        account = {"project_id": "p", "client_email": "x", "private_key": account_key, "token_uri": f"{sink.url}/token"}
        credentials = tmp_path / "fcm.json"
        credentials.write_text(json.dumps(account))
        environment = {"NOTIFY_FCM_CREDENTIALS_FILE": str(credentials), "NOTIFY_FCM_API_URL": sink.url}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment, only="push") as sending:
            row = await send_one(sending, "push", "a-registration-token")
            assert await is_disabled(sending, "push", row)


async def test_apprise(database: Database, amqp_url: str) -> None:
    async with http_sink() as sink, running_channels(database, amqp_url, only="apprise") as sending:
        row = await send_one(sending, "apprise", sink.url.replace("http://", "json://") + "/hook")
    assert row.status == "sent"
    body = json.loads(sink.seen[0].body)
    assert (body["title"], body["message"]) == ("Your order is on its way", "Order 1042 left the warehouse.")


@pytest.mark.parametrize(
    ("replies", "status", "reason", "calls"),
    [
        # Clearly not taken: asked again.
        ([Reply(503)], "sent", None, 2),
        ([Reply(429)], "sent", None, 2),
        # Nobody knows: Apprise's services know no repeats.
        ([Reply(500)], "failed", Reason.PROVIDER_UNAVAILABLE, 1),
        ([Reply(400)], "failed", Reason.PROVIDER_REJECTED, 1),
    ],
)
async def test_what_a_service_of_apprise_answers(
    replies: list[Reply], status: str, reason: Reason | None, calls: int, *, database: Database, amqp_url: str
) -> None:
    left = iter(replies)
    async with (
        http_sink(lambda _: next(left, Reply())) as sink,
        running_channels(database, amqp_url, only="apprise") as sending,
    ):
        row = await send_one(sending, "apprise", sink.url.replace("http://", "json://") + "/hook")
    assert (row.status, row.reason, len(sink.seen)) == (status, reason, calls)


async def test_a_service_of_apprise_that_does_not_answer(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was never made is tried again; one that was made, and lost, is not."""
    monkeypatch.setattr("notification_service.channels.apprise.channel._READ_LIMIT_S", 0.2)
    with taken_port() as port:
        async with http_sink() as sink, running_channels(database, amqp_url, only="apprise") as sending:
            sink.answering.clear()
            row = await send_one(sending, "apprise", sink.url.replace("http://", "json://") + "/hook")
            assert (row.status, row.reason, row.attempts) == ("failed", Reason.PROVIDER_UNAVAILABLE, 1)
            sink.answering.set()
            row = await send_one(sending, "apprise", f"json://127.0.0.1:{port}/hook")
            assert (row.status, row.reason, row.attempts) == ("failed", Reason.ATTEMPTS_EXHAUSTED, 3)


def test_what_part_of_a_service_took() -> None:
    taken, refused = Answer(200, {}, b""), Answer(503, {}, b"")
    now = datetime.now(UTC)
    assert classify_calls([], now=now).kind is FailureKind.UNKNOWN
    assert classify_calls([taken, refused], now=now).kind is FailureKind.UNKNOWN
    assert classify_calls([refused, requests.ReadTimeout()], now=now).kind is FailureKind.UNKNOWN
    assert classify_calls([refused, requests.ConnectTimeout()], now=now).kind is FailureKind.TEMPORARY


async def test_channels_without_their_settings_are_suppressed(database: Database, amqp_url: str) -> None:
    async with running_channels(
        database,
        amqp_url,
    ) as sending:
        assert sending.parts.registry.configured == {"slack", "teams", "discord", "webhook", "apprise"}
        user_id = await sending.make_user(phone="+4915112345678")
        for channel in ("email", "sms", "telegram", "web_push", "push"):
            notification_id: UUID = await sending.deliver(user_id, channel=channel)
            (row,) = await sending.rows(notification_id)
            assert (row.status, row.reason) == ("suppressed", Reason.CHANNEL_NOT_CONFIGURED)
