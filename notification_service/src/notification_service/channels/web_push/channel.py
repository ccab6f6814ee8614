"""The Web Push channel: encrypted to the browser (RFC 8291), signed as this server (VAPID, RFC 8292)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Final
from uuid import UUID

import http_ece
import httpx
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02, VapidException
from pydantic import AfterValidator, Field, SecretStr
from typing_extensions import override

from notification_service.channels.http.channel import Call, HttpChannel, hint_of_url
from notification_service.channels.http.client import Answer
from notification_service.channels.interface import (
    Address,
    CheckedAddress,
    InvalidAddress,
    Message,
    Sent,
    SentMessage,
    Tools,
    reject,
)
from notification_service.channels.settings import ChannelSettings
from notification_service.channels.text import clip

MAX_PAYLOAD_BYTES: Final = 3800
"""Push services take 4,096 bytes encrypted (RFC 8030, section 7.2)."""

_LONGEST_TTL: Final = timedelta(days=28)
_TOKEN_LIFE: Final = timedelta(hours=12)  # RFC 8292 allows 24
_URGENCY: Final = {"low": "low", "normal": "normal", "high": "high", "critical": "high"}


def load_vapid(text: str) -> Vapid02:
    """A private key: 32 bytes or DER in base64url, or PEM.

    Raises:
        ValueError: It is none.
    """
    try:
        if "-----BEGIN" in text:
            return Vapid02.from_pem(text.replace("\\n", "\n").encode())
        return Vapid02.from_string(text.strip())
    except (VapidException, ValueError, TypeError, binascii.Error) as error:
        raise ValueError("is not a private key of the curve P-256 in base64url or PEM") from error


def _check_key(value: SecretStr) -> SecretStr:
    load_vapid(value.get_secret_value())
    return value


class WebPushSettings(ChannelSettings):
    """What the channel needs."""

    vapid_private_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = Field(
        None, description="Private key of the curve P-256: 32 bytes in base64url, or PEM."
    )
    vapid_subject: str | None = Field(
        None, pattern="^(mailto:|https://)", description="Whom push services can ask: `mailto:` or `https://`."
    )


class WebPushChannel(HttpChannel):
    """Pushes. A repeat has the same `Topic`, so that it replaces what still waits at the push service."""

    name = "web_push"
    makes_repeats_harmless = True

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._settings = WebPushSettings()

    @property
    @override
    def is_configured(self) -> bool:
        return self._settings.vapid_private_key is not None and self._settings.vapid_subject is not None

    @cached_property
    def _vapid(self) -> Vapid02:
        assert self._settings.vapid_private_key is not None
        return load_vapid(self._settings.vapid_private_key.get_secret_value())

    @cached_property
    def public_key(self) -> str:
        """What a browser subscribes with (`applicationServerKey`)."""
        raw = self._vapid.public_key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        endpoint, keys = _read_subscription(address, secret)
        checked = await super().check_address(endpoint, None)
        _read_keys(keys)
        return CheckedAddress(checked.value, hint_of_url(endpoint), keys, proof="none")

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        topic = _topic(message.tenant, message.collapse_key, message.delivery_id)
        urgency = _URGENCY.get(message.priority, "normal")
        return self._make_call(_encode(message), address, topic, message.expires_at, urgency)

    @override
    async def send(self, prepared: Call, route: str) -> Sent:
        sent = await super().send(prepared, route)
        # Push services name the message; who does not, has it under its topic all the same.
        return sent if sent.provider_message_id else Sent(prepared.headers["Topic"])

    @override
    async def withdraw(self, sent: SentMessage, address: Address) -> bool:
        """Push that it is over: with the same topic it takes the place of what still waits; a device that shows the
        message closes it by its tag.
        """
        now = self.tools.clock.now()
        if sent.is_replaced or (sent.expires_at is not None and sent.expires_at <= now):
            # A newer one has its topic and its tag, or nobody has it any more.
            return True
        over = {
            "kind": "withdraw",
            "id": str(sent.notification_id),
            "delivery_id": str(sent.delivery_id),
            "tag": _tag(sent.collapse_key, sent.notification_id),
        }
        topic = _topic(sent.tenant, sent.collapse_key, sent.delivery_id)
        await self.call(self._make_call(orjson.dumps(over), address, topic, sent.expires_at, "normal"))
        return True

    @override
    async def edit(self, sent: SentMessage, prepared: Call, address: Address) -> bool:
        """Push it again: under the same topic and tag it takes the place of the first, which waits or is shown."""
        if not sent.is_replaced:
            await self.call(prepared)
        return True

    def _make_call(
        self, payload: bytes, address: Address, topic: str, expires_at: datetime | None, urgency: str
    ) -> Call:
        try:
            browser_key, auth = _read_keys(address.secret or "")
        except InvalidAddress as error:
            raise reject(f"the subscription's keys: {error}", disables_address=True) from None
        content = http_ece.encrypt(
            payload,
            private_key=ec.generate_private_key(ec.SECP256R1()),
            dh=browser_key,
            auth_secret=auth,
            version="aes128gcm",
        )
        now = self.tools.clock.now()
        headers = {
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_ttl_seconds(expires_at, now)),
            "Urgency": urgency,
            "Topic": topic,
            **self._authorization(address.value, now),
        }
        return Call(address.value, content, headers)

    @override
    def read_success(self, answer: Answer) -> Sent:
        return Sent(answer.headers.get("location"))

    def _authorization(self, endpoint: str, now: datetime) -> dict[str, str]:
        url = httpx.URL(endpoint)
        audience = f"{url.scheme}://{url.netloc.decode()}"
        claims = {
            "aud": audience,
            "exp": int((now + _TOKEN_LIFE).timestamp()),
            "sub": self._settings.vapid_subject,
        }
        signed: Mapping[str, str] = self._vapid.sign(claims)
        return {"Authorization": signed["Authorization"]}


def _read_subscription(address: str, secret: str | None) -> tuple[str, str]:
    """The endpoint and the keys, from a browser's `PushSubscription` as JSON, or from address and secret."""
    if not address.lstrip().startswith("{"):
        if secret is None:
            raise InvalidAddress("must hold the subscription's keys", field_name="secret")
        return address, secret
    try:
        found = orjson.loads(address)
        endpoint, keys = found["endpoint"], found["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise InvalidAddress("must be a subscription with `endpoint` and `keys`") from None
    if not isinstance(endpoint, str) or not isinstance(keys, dict):
        raise InvalidAddress("must be a subscription with `endpoint` and `keys`")
    return endpoint, orjson.dumps({name: keys.get(name) for name in ("p256dh", "auth")}).decode()


def _read_keys(text: str) -> tuple[bytes, bytes]:
    try:
        keys = orjson.loads(text)
        browser_key, auth = (_decode(keys[name]) for name in ("p256dh", "auth"))
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), browser_key)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise InvalidAddress("must be JSON with `p256dh` and `auth` in base64url", field_name="secret") from None
    if len(auth) != 16:
        raise InvalidAddress("`auth` must be 16 bytes in base64url", field_name="secret")
    return browser_key, auth


def _decode(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _encode(message: Message) -> bytes:
    shown = {
        "kind": "notification",
        "id": str(message.notification_id),
        "delivery_id": str(message.delivery_id),
        "title": clip(message.title, 200),
        "body": message.body,
        "event_type": message.event_type,
        "category": message.category,
        "tag": _tag(message.collapse_key, message.notification_id),
        "actions": message.actions[:2],
        "data": message.data,
    }
    encoded = orjson.dumps(shown)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        # The page reads the rest from the inbox.
        encoded = orjson.dumps({**shown, "data": {}, "actions": []})
    while len(encoded) > MAX_PAYLOAD_BYTES:
        shown = {**shown, "data": {}, "actions": [], "body": clip(str(shown["body"]), len(str(shown["body"])) * 3 // 4)}
        encoded = orjson.dumps(shown)
    return encoded


def _ttl_seconds(expires_at: datetime | None, now: datetime) -> int:
    left = expires_at - now if expires_at is not None else _LONGEST_TTL
    return max(0, int(min(left, _LONGEST_TTL).total_seconds()))


def _tag(collapse_key: str | None, notification_id: UUID) -> str:
    """What a device shows under one tag is one notification (Notifications API)."""
    return collapse_key or str(notification_id)


def _topic(tenant: str, collapse_key: str | None, delivery_id: UUID) -> str:
    """At most 32 characters of base64url (RFC 8030, section 5.4): a newer one with the same key replaces the older."""
    name = f"{tenant}:{collapse_key}" if collapse_key else str(delivery_id)
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:24]).decode()
