"""The page about channels shows a whole one; here it is installed and used."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from channel_kit import Reply, http_sink, running_channels

from notification_service import channels
from notification_service.db.engine import Database

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


async def test_the_channel_of_the_page_works(
    pager: str, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len([line for line in pager.splitlines() if line.strip()]) < 60
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


async def test_a_folder_that_is_no_channel_is_left_alone(
    tmp_path: Path, database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins" / "notes").mkdir(parents=True)
    (tmp_path / "plugins" / "notes" / "__init__.py").write_text('"""No channel."""\n')
    monkeypatch.setattr(channels, "__path__", [*channels.__path__, str(tmp_path / "plugins")])
    async with running_channels(database, amqp_url) as sending:
        assert sending.parts.registry.get("notes") is None
        assert sending.parts.registry.get("webhook") is not None
