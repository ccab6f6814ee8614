"""A whole service with channels on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from auth_site import AuthSite
from channel_kit import HttpSink, http_sink, mail_sink
from channel_site import channel_site
from service import Service


@pytest.fixture
async def web() -> AsyncIterator[HttpSink]:
    async with http_sink() as sink:
        yield sink


@pytest.fixture
async def site(  # noqa: PLR0917 - fixtures
    auth: AuthSite,
    migrated_url: str,
    amqp_url: str,
    tmp_path: Path,
    web: HttpSink,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    async with (
        mail_sink() as mails,
        channel_site(
            auth, monkeypatch, database_url=migrated_url, amqp_url=amqp_url, run_dir=tmp_path, mails=mails, web=web
        ) as running,
    ):
        yield running
