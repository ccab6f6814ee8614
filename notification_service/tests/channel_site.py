"""A whole service with channels: e-mail to a sink, webhooks to loopback, Telegram and Web Push configured."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from auth_site import AuthSite
from channel_kit import HttpSink, MailSink
from service import Service, running_service

VAPID_KEY = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA"
BOT_SECRET = "a-secret-of-the-bots-webhook"


@contextlib.asynccontextmanager
async def channel_site(
    auth: AuthSite,
    monkeypatch: pytest.MonkeyPatch,
    *,
    database_url: str,
    amqp_url: str,
    run_dir: Path,
    mails: MailSink,
    web: HttpSink,
    **settings: Any,
) -> AsyncIterator[Service]:
    """REST API, worker and scheduler with every channel that can be pointed at loopback."""
    for name, value in {
        "NOTIFY_SMTP_URL": mails.url,
        "NOTIFY_EMAIL_FROM": "Herald <herald@example.com>",
        "NOTIFY_VAPID_PRIVATE_KEY": VAPID_KEY,
        "NOTIFY_VAPID_SUBJECT": "mailto:ops@example.org",
        "NOTIFY_TELEGRAM_BOT_TOKEN": "1:abc",
        "NOTIFY_TELEGRAM_API_URL": web.url,
        "NOTIFY_TELEGRAM_BOT_NAME": "herald_bot",
        "NOTIFY_TELEGRAM_WEBHOOK_SECRET": BOT_SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    values = {"allow_private_targets": True, "retry_delays_seconds": (0.2, 0.2), **settings}
    async with running_service(
        auth, amqp_url=amqp_url, database_url=database_url, run_dir=run_dir, **values
    ) as running:
        yield running
