"""The generic webhook. Its body is the same on every attempt; only the signature's time differs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from typing_extensions import override

from notification_service.channels.http.channel import Call, HttpChannel, classify_http_error
from notification_service.channels.http.client import Answer
from notification_service.channels.interface import Address, CheckedAddress, Failure, InvalidAddress, Message, Sent
from notification_service.channels.webhook.signature import sign
from notification_service.clock import format_time
from shared_contracts.headers import SIGNATURE

MIN_SECRET_LENGTH: Final = 8
MAX_SECRET_LENGTH: Final = 256
DELIVERY_HEADER: Final = "X-Herald-Delivery"


@dataclass(frozen=True, slots=True)
class _Signed:
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    delivery_id: str
    event_type: str


class WebhookChannel(HttpChannel):
    """POSTs the notification as JSON. The receiver knows a repeat by `id`, which never changes."""

    name = "webhook"
    makes_repeats_harmless = True

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        checked = await super().check_address(address, secret)
        if secret is None:
            secret = secrets.token_urlsafe(32)
        if not MIN_SECRET_LENGTH <= len(secret) <= MAX_SECRET_LENGTH or not secret.isprintable():
            raise InvalidAddress(
                f"must have {MIN_SECRET_LENGTH} to {MAX_SECRET_LENGTH} printable characters", field_name="secret"
            )
        return CheckedAddress(checked.value, checked.hint, secret)

    @override
    def prepare(self, message: Message, address: Address) -> Any:
        return _Signed(
            address.value,
            orjson.dumps(_describe(message)),
            # The newest first; a second one while it is rotated.
            tuple(filter(None, (address.secret or "").split("\n"))),
            str(message.delivery_id),
            message.event_type,
        )

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        return self.read_success(await self.post(prepared))

    async def post(self, prepared: _Signed) -> Answer:
        """Sign with the time of now, and call."""
        headers = {
            "Content-Type": "application/json",
            DELIVERY_HEADER: prepared.delivery_id,
            "X-Herald-Event": prepared.event_type,
            "Idempotency-Key": prepared.delivery_id,
        }
        if prepared.secrets:
            headers[SIGNATURE] = sign(prepared.body, prepared.secrets, self.tools.clock.now())
        return await self.call(Call(prepared.url, prepared.body, headers))

    @override
    async def prove(self, message: Message, address: Address, code: str) -> bool:
        """Whoever answers with the challenge owns the address."""
        challenge = {"id": str(message.delivery_id), "type": "verification", "challenge": code}
        signed = _Signed(
            address.value,
            orjson.dumps(challenge),
            tuple(filter(None, (address.secret or "").split("\n"))),
            str(message.delivery_id),
            "verification",
        )
        answer = await self.post(signed)
        return answer.json() == {"challenge": code} or answer.body.strip() == code.encode()

    @override
    def classify_error(self, error: Exception) -> Failure:
        # Only 410 says that it is meant to be gone; a 404 may be a deployment of a minute (requirement F10).
        return classify_http_error(error, now=self.tools.clock.now(), gone=frozenset({410}))


def _describe(message: Message) -> dict[str, Any]:
    return {
        "id": str(message.delivery_id),
        "type": "notification",
        "notification_id": str(message.notification_id),
        "user_id": str(message.user_id),
        "tenant": message.tenant,
        "event_type": message.event_type,
        "title": message.title,
        "body": message.body,
        "data": message.data,
        "actions": message.actions,
        "priority": message.priority,
        "category": message.category,
        "tags": message.tags,
        "collapse_key": message.collapse_key,
        "locale": message.locale,
        "created_at": format_time(message.created_at),
        "expires_at": format_time(message.expires_at) if message.expires_at else None,
    }
