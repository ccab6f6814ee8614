"""The e-mail channel: one SMTP account, or a second one when the first does not answer."""

from __future__ import annotations

from typing import Annotated, Any

import aiosmtplib
from pydantic import AfterValidator, Field, SecretStr
from typing_extensions import override

from notification_service.channels.email.compose import Mail, check_recipient, compose
from notification_service.channels.email.smtp import SmtpPool, parse_account
from notification_service.channels.interface import (
    Address,
    Channel,
    CheckedAddress,
    Failure,
    FailureKind,
    InvalidAddress,
    Message,
    Sent,
    Tools,
)
from notification_service.channels.settings import ChannelSettings
from shared_contracts.error_codes import Reason


def _check_account(url: SecretStr) -> SecretStr:
    parse_account(url.get_secret_value())
    return url


SmtpUrl = Annotated[SecretStr, AfterValidator(_check_account)]


class EmailSettings(ChannelSettings):
    """What the channel needs."""

    smtp_url: SmtpUrl | None = Field(None, description="`smtp://user:pass@host:port`, `smtps://`, `?starttls=1`.")
    smtp_fallback_url: SmtpUrl | None = Field(None, description="Asked when the first one does not take a mail.")
    email_from: str | None = Field(None, description="`Name <address>`.")
    email_reply_to: str | None = Field(None, description="Where answers go.")


class EmailChannel(Channel):
    """Mails. A repeat has the same `Message-ID`, by which mail systems know it."""

    name = "email"
    makes_repeats_harmless = True
    concurrency = 64
    concurrency_per_route = 64

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._settings = EmailSettings()
        urls = (self._settings.smtp_url, self._settings.smtp_fallback_url)
        accounts = [parse_account(url.get_secret_value()) for url in urls if url is not None]
        self._pools = {account.route: SmtpPool(account, tools.clock) for account in accounts}

    @property
    @override
    def is_configured(self) -> bool:
        return self._settings.smtp_url is not None and self._settings.email_from is not None

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        try:
            checked = check_recipient(address)
        except ValueError as error:
            raise InvalidAddress(str(error)) from None
        return CheckedAddress(checked, checked)

    @override
    def routes(self, address: Address) -> tuple[str, ...]:
        return tuple(self._pools)

    @override
    def prepare(self, message: Message, address: Address) -> Mail:
        assert self._settings.email_from is not None
        return compose(
            message,
            recipient=address.value,
            sender=self._settings.email_from,
            reply_to=self._settings.email_reply_to,
        )

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        await self._pools[route].send(prepared)
        return Sent(prepared.message_id)

    @override
    def classify_error(self, error: Exception) -> Failure:
        return classify_smtp_error(error)

    @override
    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()


def classify_smtp_error(error: Exception) -> Failure:
    """What an SMTP error means: 4xx later, 5xx never (RFC 5321, section 4.2.1), a lost connection: nobody knows."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        return classify_smtp_error(error.recipients[0])
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return _temporary(f"the server refused the account ({error.code})", blames=True)
    if isinstance(error, (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPReadTimeoutError)):
        return _unknown(error)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _classify_reply(error)
    if isinstance(error, (aiosmtplib.SMTPConnectError, aiosmtplib.SMTPConnectTimeoutError, ConnectionRefusedError)):
        return _temporary(f"the server cannot be reached ({type(error).__name__})", blames=True)
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, str(error))
    return _unknown(error)


def _classify_reply(error: aiosmtplib.SMTPResponseException) -> Failure:
    text = " ".join(str(error.message).split())[:200]
    detail = f"{error.code} {text}"
    if 400 <= error.code < 500:
        # 421: the server is closing; 4xx otherwise is about this mail or this mailbox.
        return _temporary(detail, blames=error.code == 421)
    # 5.1.1 and its neighbours: no such mailbox (RFC 3463).
    gone = error.code in (550, 551, 553) and text.startswith(("5.1.1", "5.1.2", "5.1.6", "5.1.10"))
    return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=gone)


def _temporary(detail: str, *, blames: bool) -> Failure:
    return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=blames)


def _unknown(error: Exception) -> Failure:
    detail = f"the connection was lost ({type(error).__name__})"
    return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
