"""The SMS channel. Twilio has no idempotency key: an attempt of unknown outcome is not repeated."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import Field, SecretStr
from typing_extensions import override

from notification_service.channels.http.channel import Call, classify_http_error
from notification_service.channels.http.client import Answer, HttpStatus
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
    reject,
)
from notification_service.channels.settings import ChannelSettings
from notification_service.channels.text import plain_text
from shared_contracts.error_codes import Reason

MAX_LENGTH: Final = 1600
"""Characters Twilio takes; it splits them into parts of 153 (or 67 beyond GSM 7-bit)."""

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
# Twilio's codes: not a number that can be reached; the recipient answered STOP.
_GONE: Final = frozenset({21211, 21214, 21217, 21610, 21614})


class SmsSettings(ChannelSettings):
    """What the channel needs."""

    twilio_account_sid: str | None = Field(None, description="`AC...`.")
    twilio_auth_token: SecretStr | None = Field(None, description="Of the account.")
    twilio_from: str | None = Field(None, description="A number of the account, or a messaging service (`MG...`).")
    twilio_api_url: str = Field("https://api.twilio.com", description="Where the API is.")
    twilio_status_callbacks: bool = Field(
        default=False, description="Whether Twilio shall report delivery to `NOTIFY_PUBLIC_URL`."
    )


class SmsChannel(Channel):
    """Text messages."""

    name = "sms"
    concurrency_per_route = 32

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.settings = SmsSettings()

    @property
    @override
    def is_configured(self) -> bool:
        own = self.settings
        return None not in (own.twilio_account_sid, own.twilio_auth_token, own.twilio_from)

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        number = re.sub(r"[ ()./-]", "", address)
        if not _NUMBER.fullmatch(number):
            raise InvalidAddress("must be a phone number in international form, like +4915112345678")
        return CheckedAddress(number, number)

    @override
    def routes(self, address: Address) -> tuple[str, ...]:
        return (f"sms:{self.settings.twilio_account_sid}",)

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        own = self.settings
        if not _NUMBER.fullmatch(address.value):
            raise reject("the phone number is not in international form")
        sender = own.twilio_from or ""
        form = {
            "To": address.value,
            "MessagingServiceSid" if sender.startswith("MG") else "From": sender,
            "Body": plain_text(message, limit=MAX_LENGTH),
        }
        if own.twilio_status_callbacks:
            form["StatusCallback"] = f"{self.tools.settings.public_url.rstrip('/')}/api/v1/channels/sms/status"
        assert own.twilio_auth_token is not None
        credentials = f"{own.twilio_account_sid}:{own.twilio_auth_token.get_secret_value()}".encode()
        return Call(
            f"{own.twilio_api_url.rstrip('/')}/2010-04-01/Accounts/{own.twilio_account_sid}/Messages.json",
            urlencode(form).encode(),
            {
                "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        answer = await self.tools.http.call_provider(
            "POST", prepared.url, content=prepared.content, headers=prepared.headers
        )
        if answer.status not in (200, 201):
            raise HttpStatus(answer)
        found = answer.json()
        return Sent(str(found["sid"]) if isinstance(found, Mapping) and "sid" in found else None)

    @override
    def classify_error(self, error: Exception) -> Failure:
        if isinstance(error, HttpStatus) and 400 <= error.answer.status < 500 and error.answer.status != 429:
            return _classify_refusal(error.answer)
        return classify_http_error(error, now=self.tools.clock.now(), gone=frozenset())


def _classify_refusal(answer: Answer) -> Failure:
    found = answer.json()
    code = found.get("code") if isinstance(found, Mapping) else None
    detail = f"status {answer.status}, Twilio error {code}"
    if answer.status in (401, 403) and code != 21610:
        # The account's trouble, which its owner can mend, and not this message's.
        return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
    return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=code in _GONE)
