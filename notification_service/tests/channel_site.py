"""A whole service with channels: e-mail to a sink, webhooks to loopback, Telegram and Web Push configured.

Tests share one, each with people and addresses of its own: starting one takes longer than most tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from auth_site import auth_site
from channel_kit import HttpSink, MailSink, http_sink, mail_sink
from service import Service, running_service

VAPID_KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA"
BOT_SECRET = "a-secret-of-the-bots-webhook"


@dataclass(frozen=True)
class ChannelSite:
    """The service, and the counterparts its settings name."""

    service: Service
    mails: MailSink
    telegram: HttpSink


@contextlib.asynccontextmanager
async def channel_site(
    *, database_url: str, amqp_url: str, run_dir: Path, **settings: Any
) -> AsyncIterator[ChannelSite]:
    """REST API, worker and scheduler with every channel that can be pointed at loopback."""
    async with contextlib.AsyncExitStack() as stack:
        auth = await stack.enter_async_context(auth_site())
        mails = await stack.enter_async_context(mail_sink())
        telegram = await stack.enter_async_context(http_sink())
        values = {"allow_private_targets": True, "retry_delays_seconds": (0.2, 0.2), "database_timeout": 20, **settings}
        # Channels read the environment when they are built; other tests of this process must not find it changed.
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {
                "NOTIFY_SMTP_URL": mails.url,
                "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
                "NOTIFY_VAPID_PRIVATE_KEY": VAPID_KEY,
                "NOTIFY_VAPID_SUBJECT": "mailto:ops@example.org",
                "NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc",
                "NOTIFY_TELEGRAM_API_URL": telegram.url,
                "NOTIFY_TELEGRAM_BOT_NAME": "herald_bot",
                "NOTIFY_TELEGRAM_WEBHOOK_SECRET": BOT_SECRET,
            }.items():
                environment.setenv(name, value)
            running = running_service(auth, amqp_url=amqp_url, database_url=database_url, run_dir=run_dir, **values)
            service = await stack.enter_async_context(running)
            for parts in service.parts.values():
                assert parts.channels.registry.configured >= {"email", "telegram", "web_push"}
        yield ChannelSite(service, mails, telegram)
