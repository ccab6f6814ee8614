"""The page about channels shows a whole one; here it is installed and used."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from channel_kit import Reply, http_sink, running_channels
from channel_site import channel_site
from waiting import until

from notification_service import channels
from notification_service.db.engine import Database
from shared_contracts.requests import Channel

PAGE = Path(__file__).resolve().parents[3] / "docs" / "channels.md"


@pytest.fixture
def pager(tmp_path: Path) -> Iterator[str]:
    """The example's folder, below the package of channels."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    folder = tmp_path / "plugins" / "pager"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(code)
    channels.__path__.append(str(folder.parent))
    yield code
    channels.__path__.remove(str(folder.parent))
    sys.modules.pop("notification_service.channels.pager", None)
    forget(Channel, "pager")


def forget(known: type[Channel], name: str) -> None:
    """What one test adds must not be there for the next."""
    if name in known._value2member_map_:
        member = known(name)
        known._member_names_.remove(member.name)
        del known._member_map_[member.name], known._value2member_map_[name]


async def test_the_channel_of_the_page_works(
    pager: str, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(pager.splitlines()) < 60
    replies = iter([Reply(503)])
    async with http_sink(lambda _: next(replies, Reply(body=b'{"id":"p1"}'))) as sink:
        environment = {"NOTIFY_PAGER_URL": sink.url, "NOTIFY_PAGER_KEY": "k3y"}
        async with running_channels(database, amqp_url, monkeypatch, environment=environment) as sending:
            user_id = await sending.make_user()
            await sending.add_contact(user_id, "pager", "5550199")
            (row,) = await sending.wait_for(await sending.deliver(user_id, channel="pager"), "sent")
    assert (row.provider_message_id, row.attempts) == ("p1", 2)
    page = json.loads(sink.seen[-1].body)
    assert (page["pager"], page["reference"]) == ("5550199", str(row.id))
    assert sink.seen[-1].headers["authorization"] == "Bearer k3y"


async def test_the_channel_of_the_page_is_used_over_rest(
    pager: str, migrated_url: str, amqp_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is all it takes: requests, event types, preferences, contacts and lists know its name."""
    async with http_sink(lambda _: Reply(body=b'{"id":"p1"}')) as sink:
        monkeypatch.setenv("NOTIFY_PAGER_URL", sink.url)
        monkeypatch.setenv("NOTIFY_PAGER_KEY", "k3y")
        async with channel_site(database_url=migrated_url, amqp_url=amqp_url, run_dir=tmp_path) as house:
            site = house.service
            admin, person = site.add_person("admin"), site.add_person()
            contact = {"channel": "pager", "address": "5550199"}
            assert (await site.post("/api/v1/contacts", person, contact)).status_code == 201
            refused = await site.post("/api/v1/contacts", person, {**contact, "address": "no number"})
            assert refused.json()["errors"][0]["field"] == "address"
            type_ = {"code": "server.down", "name": "Server down", "channels": ["in_app", "pager"]}
            assert (await site.post("/api/v1/event-types", admin, type_)).status_code == 201
            body = {"event_type": "server.down", "recipients": {"users": [str(person.id)]}, "title": "Fire"}
            answer = await site.post("/api/v1/notifications/send", admin, body)
            assert answer.status_code == 202, answer.text
            await until(lambda: any(seen.path == "/pages" for seen in sink.seen))
            path = f"/api/v1/deliveries?channel=pager&user_id={person.id}"

            async def is_sent() -> bool:
                return [each["status"] for each in (await site.get(path, admin)).json()["items"]] == ["sent"]

            await until(is_sent)
            off = {"channels": {"pager": False}}
            assert (await site.call("PATCH", "/api/v1/preferences", person, json=off)).status_code == 200
            await site.send(admin, person, channels=["pager"])

            async def is_suppressed() -> bool:
                found = (await site.get(path, admin)).json()["items"]
                return [each["reason"] for each in found if each["status"] == "suppressed"] == ["channel_off"]

            await until(is_suppressed)
            shown = (await site.get("/health/channels")).json()
            assert {each["name"]: each["configured"] for each in shown["channels"]}["pager"] is True
            page = await site.get("/health/channels", headers={"Accept": "text/html"})
            assert page.headers["content-security-policy"].startswith("default-src 'none'")
            assert "<td>pager</td><td>yes</td>" in page.text
    unknown = pytest.raises(ValueError, match="fax")
    with unknown:
        Channel("fax")


@pytest.mark.parametrize("name", ["", "Fax", "fax machine", "x" * 33, "1fax"])
def test_what_cannot_be_the_name_of_a_channel(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a channel"):
        Channel.add(name)


async def test_a_folder_that_is_no_channel_is_left_alone(
    tmp_path: Path, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins" / "notes").mkdir(parents=True)
    (tmp_path / "plugins" / "notes" / "__init__.py").write_text('"""No channel."""\n')
    monkeypatch.setattr(channels, "__path__", [*channels.__path__, str(tmp_path / "plugins")])
    async with running_channels(database, amqp_url) as sending:
        assert sending.parts.registry.get("notes") is None
        assert sending.parts.registry.get("webhook") is not None
