"""A whole service whose contacts must be proved, shared by these tests."""

from __future__ import annotations

import pytest
from channel_kit import HttpSink, MailSink
from channel_site import ChannelSite
from service import Service


@pytest.fixture
def site(strict_house: ChannelSite) -> Service:
    """The service."""
    return strict_house.service


@pytest.fixture
def mails(strict_house: ChannelSite) -> MailSink:
    """Every test has addresses of its own."""
    return strict_house.mails


@pytest.fixture
def telegram(strict_house: ChannelSite) -> HttpSink:
    """Telegram, as it is at first."""
    strict_house.telegram.begin_anew()
    return strict_house.telegram
