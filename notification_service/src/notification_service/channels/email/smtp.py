"""Connections to one SMTP server, kept open and used again: a mail costs two to four round trips, no handshake."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib

from notification_service.channels.email.compose import Mail
from notification_service.channels.email.conversation import Conversation
from notification_service.clock import Clock

# Servers close idle connections after minutes, and limit the mails of one; both are met by opening a new one.
_IDLE_LIMIT_S: Final = 30.0
_MAILS_PER_CONNECTION: Final = 500
_STEP_LIMIT: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Account:
    """One SMTP account: `smtp://user:pass@host:port`, `smtps://`, `?starttls=1`."""

    host: str
    port: int
    use_tls: bool = False
    start_tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def route(self) -> str:
        """Its name in breakers and attempt rows."""
        return f"email:{self.host}:{self.port}"


def parse_account(url: str) -> Account:
    """Read an account.

    Raises:
        ValueError: It cannot be read; the text does not repeat it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("must be like smtp://user:password@host:587?starttls=1 or smtps://host")
    use_tls = parts.scheme == "smtps"
    start_tls = parse_qs(parts.query).get("starttls", ["0"])[-1] in ("1", "true", "yes")
    if use_tls and start_tls:
        raise ValueError("smtps:// is encrypted from the start and takes no starttls")
    port = parts.port or (465 if use_tls else 587 if start_tls else 25)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return Account(parts.hostname, port, use_tls, start_tls, username, password)


@dataclass(slots=True)
class _Open:
    conversation: Conversation
    used_at: float
    mails: int = 0


class SmtpPool:
    """The open connections of one account. As many as mails are sent at once; the caller bounds that."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account = account
        self._clock = clock
        self._idle: list[_Open] = []

    async def send(self, mail: Mail) -> None:
        """Send one mail; the server has it when this returns.

        Raises:
            aiosmtplib.SMTPException: As the server or the connection says.
            TimeoutError: No answer in time.
        """
        connection = await self._take()
        try:
            await connection.conversation.send(mail)
        except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPNotSupported):
            # A refused mail leaves a good connection.
            self._put(connection)
            raise
        except BaseException:
            connection.conversation.close()
            raise
        self._put(connection)

    async def close(self) -> None:
        """Close all connections."""
        idle, self._idle = self._idle, []
        for each in idle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await each.conversation.quit()
            each.conversation.close()

    async def _take(self) -> _Open:
        while self._idle:
            found = self._idle.pop()
            if found.conversation.is_open and self._clock.monotonic() - found.used_at < _IDLE_LIMIT_S:
                return found
            found.conversation.close()
        account = self._account
        client = aiosmtplib.SMTP(
            hostname=account.host,
            port=account.port,
            use_tls=account.use_tls,
            start_tls=account.start_tls,
            username=account.username,
            password=account.password,
            timeout=_STEP_LIMIT.total_seconds(),
        )
        try:
            await client.connect()
            await _greet(client)
            return _Open(Conversation(client, _STEP_LIMIT), self._clock.monotonic())
        except BaseException:
            client.close()
            raise

    def _put(self, connection: _Open) -> None:
        connection.mails += 1
        connection.used_at = self._clock.monotonic()
        if connection.mails >= _MAILS_PER_CONNECTION or not connection.conversation.is_open:
            connection.conversation.close()
        else:
            self._idle.append(connection)


async def _greet(client: aiosmtplib.SMTP) -> None:
    """Learn what the server can, unless that was part of logging in; old ones only know `HELO`."""
    if client.is_ehlo_or_helo_needed:
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError:
            await client.helo()
