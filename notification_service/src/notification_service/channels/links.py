"""Signed links in what is sent: whoever has one may do the one thing it says, without logging in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

from notification_service.notifications.entity import Notification

_MAC_BYTES: Final = 16
UNSUBSCRIBE_PATH: Final = "/api/v1/unsubscribe"


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """What an unsubscribe link switches off: one channel, for one category or event type, for one user."""

    user_id: UUID
    tenant: str
    channel: str
    category: str | None
    event_type: str


class Links:
    """Makes and reads links.

    Args:
        public_url: Where users reach this service.
        key: Signs; links made with another key are not valid.
    """

    def __init__(self, public_url: str, key: str) -> None:
        self._public_url = public_url.rstrip("/")
        self._key = hashlib.sha256(b"links:" + key.encode()).digest()

    def for_delivery(
        self, *, user_id: UUID, tenant: str, channel: str, notification: Notification
    ) -> Mapping[str, str]:
        """The links of one delivery, by name."""
        wanted = Unsubscription(user_id, tenant, channel, notification.category, notification.event_type)
        return {"unsubscribe": f"{self._public_url}{UNSUBSCRIBE_PATH}/{self.sign(wanted)}"}

    def sign(self, wanted: Unsubscription) -> str:
        """A token for one unsubscription. It does not expire: mails are read years later."""
        payload = orjson.dumps([str(wanted.user_id), wanted.tenant, wanted.channel, wanted.category, wanted.event_type])
        return base64.urlsafe_b64encode(self._mac(payload) + payload).rstrip(b"=").decode()

    def read(self, token: str) -> Unsubscription | None:
        """What a token says; None when this service did not make it."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (ValueError, binascii.Error):
            return None
        mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(payload)):
            return None
        user_id, tenant, channel, category, event_type = orjson.loads(payload)
        return Unsubscription(UUID(user_id), tenant, channel, category, event_type)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:_MAC_BYTES]
