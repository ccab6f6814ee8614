"""The SMS channel. Twilio has no idempotency key: an attempt of unknown outcome is not repeated."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

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
    NotGenuine,
    ProviderCall,
    Report,
    Sent,
    Tools,
    reject,
)
from notification_service.channels.settings import ChannelSettings
from notification_service.channels.text import plain_text
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

REPORT_PATH: Final = "/api/v1/channels/sms/status"
MAX_LENGTH: Final = 1600
"""Characters Twilio takes; it splits them into parts of 153 (or 67 beyond GSM 7-bit)."""

_NUMBER = re.compile(r"\+[1-9]\d{6,14}")
# Twilio's codes: not a number that can be reached; the recipient answered STOP; no such handset; a landline.
_GONE: Final = frozenset({21211, 21214, 21217, 21610, 21614, 30005, 30006})
_FAILED: Final = DeliveryState.FAILED
_STATES: Final = {
    "queued": DeliveryState.SENT,
    "sending": DeliveryState.SENT,
    "sent": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "undelivered": _FAILED,
    "failed": _FAILED,
}


class SmsSettings(ChannelSettings):
    """What the channel needs."""

    twilio_account_sid: str | None = Field(None, description="`AC...`.")
    twilio_auth_token: SecretStr | None = Field(None, description="Of the account.")
    twilio_from: str | None = Field(None, description="A number of the account, or a messaging service (`MG...`).")
    twilio_api_url: str = Field("https://api.twilio.com", description="Where the API is.")
    twilio_status_callbacks: bool | None = Field(
        default=None,
        description="Whether Twilio shall report delivery to `NOTIFY_PUBLIC_URL`; left out: when that is `https://`.",
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
        if self.asks_for_reports:
            whose = urlencode({"user": str(message.user_id), "delivery": str(message.delivery_id)})
            form["StatusCallback"] = f"{self.tools.settings.public_url.rstrip('/')}{REPORT_PATH}?{whose}"
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

    @property
    def asks_for_reports(self) -> bool:
        """Whether Twilio is told where to report."""
        wanted = self.settings.twilio_status_callbacks
        return self.tools.settings.public_url.startswith("https://") if wanted is None else wanted

    @override
    def read_report(self, call: ProviderCall) -> Report | None:
        token = self.settings.twilio_auth_token
        form = read_form(call.body)
        given = call.headers.get("x-twilio-signature", "").encode()
        if token is None or not hmac.compare_digest(
            sign_call(token.get_secret_value(), call.url, form).encode(), given
        ):
            raise NotGenuine
        status = _STATES.get(form.get("MessageStatus", ""))
        if status is None or not {"user", "delivery"} <= call.query.keys():
            return None
        code = form.get("ErrorCode", "")
        return Report(
            user_id=UUID(call.query["user"]),
            delivery_id=UUID(call.query["delivery"]),
            status=status,
            provider_message_id=form.get("MessageSid"),
            detail=f"{form['MessageStatus']}, Twilio error {code or 'not given'}" if status is _FAILED else None,
            disables_address=code.isascii() and code.isdigit() and int(code[:9]) in _GONE,
        )

    @override
    def classify_error(self, error: Exception) -> Failure:
        if isinstance(error, HttpStatus) and 400 <= error.answer.status < 500 and error.answer.status != 429:
            return _classify_refusal(error.answer)
        return classify_http_error(error, now=self.tools.clock.now(), gone=frozenset())


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form; of fields given twice, the last."""
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def sign_call(token: str, url: str, form: Mapping[str, str]) -> str:
    """Twilio's signature of a call it makes: HMAC-SHA1, in base64, over the address and the fields in their order.

    Source: twilio.com/docs/usage/security.
    """
    signed = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    return base64.b64encode(hmac.digest(token.encode(), signed.encode(), "sha1")).decode()


def _classify_refusal(answer: Answer) -> Failure:
    found = answer.json()
    code = found.get("code") if isinstance(found, Mapping) else None
    detail = f"status {answer.status}, Twilio error {code}"
    if answer.status in (401, 403) and code != 21610:
        # The account's trouble, which its owner can mend, and not this message's.
        return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
    return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=code in _GONE)
