"""A change, a recall and a reading reach what other channels have sent, from the call to the provider."""

from __future__ import annotations

import json

import pytest
from channel_kit import HttpSink, Reply, Seen
from channel_site import ChannelSite
from provider_kit import Browser
from service import Service
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def telegram(channel_house: ChannelSite) -> HttpSink:
    """Telegram, as it is at first."""

    def answer(seen: Seen) -> Reply:
        if seen.path.endswith("/sendMessage"):
            return Reply(body=b'{"ok":true,"result":{"message_id":7,"chat":{"id":42}}}')
        return Reply(body=b'{"ok":true,"result":true}')

    channel_house.telegram.begin_anew()
    channel_house.telegram.script = answer
    return channel_house.telegram


async def test_a_change_and_a_recall_over_rest(site: Service, telegram: HttpSink) -> None:
    admin, person = site.add_person("admin"), site.add_person(email="ada@example.org", email_verified=True)
    contact = {"channel": "telegram", "address": "42"}
    assert (await site.post("/api/v1/contacts", person, contact)).status_code == 201
    sent = await site.send(admin, person, channels=["telegram", "email"])
    path = f"/api/v1/deliveries?notification_id={sent}"

    async def states() -> dict[str, str]:
        return {each["channel"]: each["status"] for each in (await site.get(path, admin)).json()["items"]}

    async def are_sent() -> bool:
        return await states() == {"telegram": "sent", "email": "sent"}

    await until(are_sent)
    one = f"/api/v1/notifications/{sent}"
    assert (await site.call("PATCH", one, admin, json={"title": "Changed"})).status_code == 200
    await until(lambda: telegram.seen[-1].path.endswith("/editMessageText"))
    assert json.loads(telegram.seen[-1].body)["text"].startswith("Changed")
    answer = (await site.post(f"{one}/recall", admin)).json()
    # The mail cannot be taken back.
    assert (answer["status"], answer["cancelled"], answer["not_recallable"]) == ("recalled", 0, 1)

    async def is_taken_back() -> bool:
        return await states() == {"telegram": "recalled", "email": "sent"}

    await until(is_taken_back)
    assert telegram.seen[-1].path.endswith("/deleteMessage")


@pytest.mark.req("X-6")
async def test_read_in_the_inbox_it_leaves_chat_and_browser_unless_that_is_switched_off(
    site: Service, telegram: HttpSink, endpoint: HttpSink
) -> None:
    admin, ada, bob = site.add_person("admin"), site.add_person(), site.add_person()
    browser = Browser()
    for person in (ada, bob):
        push = {"channel": "web_push", "address": f"{endpoint.url}/push", "secret": browser.keys}
        for contact in ({"channel": "telegram", "address": "42"}, push):
            assert (await site.post("/api/v1/contacts", person, contact)).status_code == 201
    off = await site.call("PATCH", "/api/v1/preferences", bob, json={"sync_dismissals": False})
    assert off.status_code == 200, off.text

    async def is_sent(sent: str) -> bool:
        items = (await site.get(f"/api/v1/deliveries?notification_id={sent}", admin)).json()["items"]
        return [each["status"] for each in items if each["channel"] in ("telegram", "web_push")] == ["sent"] * 2

    sent = ""
    for person in (bob, ada):
        sent = str(await site.send(admin, person, channels=["in_app", "telegram", "web_push"]))
        await until(lambda sent=sent: is_sent(sent))
        read = await site.call("PATCH", f"/api/v1/inbox/{sent}", person, json={"read": True})
        assert read.status_code == 200, read.text
    # Asked for last, and done: what was asked for before it would be done too.

    def withdrawn() -> tuple[int, list[str]]:
        pushed = [browser.decrypt(seen.body) for seen in endpoint.seen]
        ids = [each["id"] for each in pushed if each["kind"] == "withdraw"]
        return sum(seen.path.endswith("/deleteMessage") for seen in telegram.seen), ids

    await until(lambda: withdrawn() == (1, [sent]))
    assert await is_sent(sent)
