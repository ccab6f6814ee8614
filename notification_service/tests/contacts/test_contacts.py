"""Own contacts over REST: added, proved, shown without secrets, removed; and used only when proved."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from channel_kit import HttpSink, MailSink, Reply
from channel_site import BOT_SECRET
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from service import Person, Service
from sqlalchemy import select, update
from waiting import until

from notification_service.contacts.models import contacts

PATH = "/api/v1/contacts"
SECRET = "a secret of the receiver"
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def add(site: Service, person: Person, **body: Any) -> dict[str, Any]:
    answer = await site.post(PATH, person, body)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


async def is_verified(site: Service, person: Person, contact_id: str) -> bool:
    return bool((await site.get(f"{PATH}/{contact_id}", person)).json()["verified"])


async def deliveries(site: Service, sender: Person, notification_id: Any) -> list[dict[str, Any]]:
    answer = await site.get(f"/api/v1/deliveries?notification_id={notification_id}", sender)
    assert answer.status_code == 200, answer.text
    return [item for item in answer.json()["items"] if item["channel"] != "in_app"]


async def outcome(site: Service, sender: Person, person: Person, channel: str) -> tuple[str, str | None]:
    notification_id = await site.send(sender, person, channels=[channel])
    found: list[dict[str, Any]] = []

    async def has_ended() -> bool:
        nonlocal found
        found = await deliveries(site, sender, notification_id)
        return bool(found) and all(item["status"] not in ("pending", "queued") for item in found)

    await until(has_ended)
    return found[0]["status"], found[0]["reason"]


async def test_an_address_is_proved_by_the_code_that_was_mailed(site: Service, mails: MailSink) -> None:
    person, sender = site.add_person(email=None), site.add_person("admin")
    added = await add(site, person, channel="email", address="Ada@Example.ORG", label="work")
    assert (added["address"], added["verified"], added["enabled"]) == ("Ada@example.org", False, True)
    await until(lambda: bool(mails.to("Ada@example.org")))
    assert await outcome(site, sender, person, "email") == ("suppressed", "address_unverified")
    found = re.search(rb"Your code is (\d{6})", mails.to("Ada@example.org")[0])
    assert found is not None
    code = found[1].decode()
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    path = f"{PATH}/{added['id']}/verify"
    refused = await site.post(path, person, {"code": wrong})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "code")
    answer = await site.post(path, person, {"code": code})
    assert answer.json()["verified"] is True
    assert await outcome(site, sender, person, "email") == ("sent", None)
    assert len(mails.to("Ada@example.org")) == 2


async def test_a_code_can_be_tried_five_times(site: Service, mails: MailSink) -> None:
    person = site.add_person()
    added = await add(site, person, channel="email", address="guessed@example.org")
    await until(lambda: bool(mails.to("guessed@example.org")))
    path = f"{PATH}/{added['id']}/verify"
    for _ in range(5):
        await site.post(path, person, {"code": "wrong-code"})
    found = re.search(rb"Your code is (\d{6})", mails.to("guessed@example.org")[0])
    assert found is not None
    assert (await site.post(path, person, {"code": found[1].decode()})).status_code == 422
    again = await site.post(f"{PATH}/{added['id']}/send-code", person)
    assert again.status_code == 429
    assert 0 < int(again.headers["Retry-After"]) <= 60


async def test_a_webhook_proves_itself_by_answering_with_the_challenge(site: Service, endpoint: HttpSink) -> None:
    endpoint.script = lambda seen: Reply(body=json.dumps({"challenge": json.loads(seen.body)["challenge"]}).encode())
    person = site.add_person()
    added = await add(site, person, channel="webhook", address=f"{endpoint.url}/hook", secret=SECRET)
    await until(lambda: is_verified(site, person, added["id"]))
    assert json.loads(endpoint.seen[0].body)["type"] == "verification"


async def test_a_webhook_that_answers_something_else_is_not_proved(site: Service, endpoint: HttpSink) -> None:
    person = site.add_person()
    added = await add(site, person, channel="webhook", address=f"{endpoint.url}/hook", secret=SECRET)
    await until(lambda: bool(endpoint.seen))
    assert not await is_verified(site, person, added["id"])


async def test_a_chat_is_linked_by_a_start_code(site: Service, telegram: HttpSink) -> None:
    telegram.script = lambda _: Reply(body=b'{"ok":true,"result":{"message_id":7,"chat":{"id":42}}}')
    person, sender = site.add_person(), site.add_person("admin")
    added = await add(site, person, channel="telegram")
    code = added["verification"]["code"]
    assert added["verification"]["link"] == f"https://t.me/herald_bot?start={code}"
    update_ = {"message": {"text": f"/start {code}", "chat": {"id": 42}}}
    path = "/api/v1/channels/telegram/updates"
    assert (await site.post(path, None, update_)).status_code == 401
    secret = {"X-Telegram-Bot-Api-Secret-Token": BOT_SECRET}
    assert (await site.post(path, None, {"message": {"text": "/start x"}}, headers=secret)).json() == {"linked": False}
    assert (await site.post(path, None, update_, headers=secret)).json() == {"linked": True}
    # It works once.
    assert (await site.post(path, None, update_, headers=secret)).json() == {"linked": False}
    shown = (await site.get(f"{PATH}/{added['id']}", person)).json()
    assert (shown["address"], shown["verified"]) == ("42", True)
    assert await outcome(site, sender, person, "telegram") == ("sent", None)
    assert json.loads(telegram.seen[-1].body)["chat_id"] == 42


async def test_a_browser_subscribes_with_the_key_it_is_given(site: Service, endpoint: HttpSink) -> None:
    person = site.add_person()
    key = (await site.get(f"{PATH}/web-push-key", person)).json()["public_key"]
    raw = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    browser = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = browser.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    keys = {
        "p256dh": base64.urlsafe_b64encode(point).rstrip(b"=").decode(),
        "auth": base64.urlsafe_b64encode(b"0123456789abcdef").rstrip(b"=").decode(),
    }
    subscription = {"endpoint": f"{endpoint.url}/push/abcdefgh12345678", "keys": keys}
    added = await add(site, person, channel="web_push", address=subscription)
    assert added["verified"] is True
    assert "abcdefgh" not in json.dumps(added)
    wrong = {"endpoint": f"{endpoint.url}/push/1", "keys": {"p256dh": "AAAA", "auth": "AAAA"}}
    assert (await site.post(PATH, person, {"channel": "web_push", "address": wrong})).status_code == 422


async def test_no_secret_is_shown_or_stored_in_clear(site: Service, endpoint: HttpSink) -> None:
    person = site.add_person()
    path = "/services/T0000/B0000/a-secret-path"
    await add(site, person, channel="slack", address=endpoint.url + path)
    await add(site, person, channel="webhook", address=f"{endpoint.url}/hook", secret=SECRET)
    listed = await site.get(PATH, person)
    assert len(listed.json()["items"]) == 2
    assert SECRET not in listed.text
    assert "a-secret-path" not in listed.text
    async with site.parts["api"].database.read() as connection:
        rows = repr((await connection.execute(select(contacts))).all())
    assert SECRET not in rows
    assert "a-secret-path" not in rows


async def test_a_generated_secret_is_shown_once(site: Service, endpoint: HttpSink) -> None:
    person = site.add_person()
    added = await add(site, person, channel="webhook", address=f"{endpoint.url}/hook")
    assert len(added["secret"]) >= 32
    again = await site.post(PATH, person, {"channel": "webhook", "address": f"{endpoint.url}/hook"})
    assert (again.status_code, again.json()["secret"]) == (200, None)


@pytest.mark.req("F09")
async def test_two_secrets_sign_while_one_is_rotated(site: Service, endpoint: HttpSink) -> None:
    person, sender = site.add_person(), site.add_person("admin")
    added = await add(site, person, channel="webhook", address=f"{endpoint.url}/hook", secret="the old secret")
    answer = await site.post(
        PATH, person, {"channel": "webhook", "address": f"{endpoint.url}/hook", "secret": "the new secret"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == added["id"]
    await prove(site, added["id"])
    endpoint.seen.clear()
    assert await outcome(site, sender, person, "webhook") == ("sent", None)
    header = endpoint.seen[-1].headers["x-herald-signature"]
    assert header.count("v1=") == 2


async def prove(site: Service, contact_id: str) -> None:
    async with site.parts["api"].database.write() as connection:
        mine = update(contacts).where(contacts.c.id == UUID(contact_id))
        await connection.execute(mine.values(verified_at=contacts.c.created_at))


async def test_contacts_of_others_do_not_exist(site: Service, endpoint: HttpSink) -> None:
    owner, other = site.add_person(), site.add_person("admin")
    added = await add(site, owner, channel="webhook", address=f"{endpoint.url}/hook")
    for method, path in (
        ("GET", f"{PATH}/{added['id']}"),
        ("DELETE", f"{PATH}/{added['id']}"),
        ("POST", f"{PATH}/{added['id']}/send-code"),
    ):
        assert (await site.call(method, path, other)).status_code == 404
    assert (await site.post(f"{PATH}/{added['id']}/verify", other, {"code": "123456"})).status_code == 404
    assert (await site.get(PATH, other)).json()["items"] == []
    assert (await site.get(PATH)).status_code == 401
    assert (await site.get(PATH, site.add_service_account("notifications:send"))).status_code == 403


async def test_removing_a_contact(site: Service, endpoint: HttpSink) -> None:
    person, sender = site.add_person(), site.add_person("admin")
    added = await add(site, person, channel="webhook", address=f"{endpoint.url}/hook")
    assert (await site.call("DELETE", f"{PATH}/{added['id']}", person)).status_code == 204
    assert (await site.call("DELETE", f"{PATH}/{added['id']}", person)).status_code == 404
    assert await outcome(site, sender, person, "webhook") == ("suppressed", "no_address")


async def test_contacts_come_in_pages(site: Service, endpoint: HttpSink) -> None:
    person = site.add_person()
    ids = [(await add(site, person, channel="slack", address=f"{endpoint.url}/{number}"))["id"] for number in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await site.get(f"{PATH}?limit=2{cursor}", person)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "in_app", "address": "x"}, "channel"),
        ({"channel": "pigeon", "address": "x"}, "channel"),
        ({"channel": "email", "address": "a@example.org, b@example.org"}, "address"),
        ({"channel": "email", "address": "a@example.org\r\nBcc: b@example.org"}, "address"),
        ({"channel": "email"}, "address"),
        ({"channel": "sms", "address": "0151 1234"}, "address"),
        ({"channel": "telegram", "address": "@name"}, "address"),
        ({"channel": "webhook", "address": "ftp://example.org/"}, "address"),
        ({"channel": "webhook", "address": "http://169.254.169.254/"}, "address"),
        ({"channel": "webhook", "address": "https://example.org/", "secret": "short"}, "secret"),
        ({"channel": "web_push", "address": "https://example.org/"}, "secret"),
        ({"channel": "apprise", "address": "nothing://x"}, "address"),
        ({"channel": "push", "address": "x"}, "address"),
        ({"channel": "slack", "address": "x" * 9000}, "address"),
    ],
)
async def test_what_cannot_be_a_contact(body: dict[str, Any], field: str, site: Service) -> None:
    answer: httpx.Response = await site.post(PATH, site.add_person(), body)
    assert (answer.status_code, {each["field"].split(".")[0] for each in answer.json()["errors"]}) == (422, {field})


async def test_unsubscribing_from_a_mail(site: Service, mails: MailSink) -> None:
    person = site.add_person(email="leaving@example.org", email_verified=True)
    sender = site.add_person("admin")
    assert await outcome(site, sender, person, "email") == ("sent", None)
    headers = mails.to("leaving@example.org")[-1].replace(b"\r\n ", b" ").decode()
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in headers
    found = re.search(r"List-Unsubscribe: <http://127\.0\.0\.1:8001([^>]+)>", headers)
    assert found is not None
    path = found[1].replace(" ", "")
    # Looking changes nothing: mail scanners look.
    assert (await site.get(path)).status_code == 200
    assert await outcome(site, sender, person, "email") == ("sent", None)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await site.call("POST", path, content=b"List-Unsubscribe=One-Click", headers=form)
    assert answer.status_code == 200
    assert await outcome(site, sender, person, "email") == ("suppressed", "channel_off")
    assert (await site.call("POST", path[:-4] + "AAAA")).status_code == 404
