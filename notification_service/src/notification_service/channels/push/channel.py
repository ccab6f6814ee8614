"""The push channel: Firebase Cloud Messaging, HTTP v1. A repeat replaces the first one on the device, by its tag."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jwt
import orjson
from pydantic import Field
from typing_extensions import override

from notification_service.channels.http.channel import Call, classify_http_error, json_call
from notification_service.channels.http.client import HttpStatus
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
from notification_service.channels.text import clip
from shared_contracts.error_codes import Reason

_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LONGEST_TTL: Final = timedelta(days=28)
_REFRESH_BEFORE: Final = timedelta(minutes=5)


class PushSettings(ChannelSettings):
    """What the channel needs."""

    fcm_credentials_file: Path | None = Field(None, description="The service account's key, as JSON.")
    fcm_api_url: str = Field("https://fcm.googleapis.com", description="Where the API is.")


class PushChannel(Channel):
    """Pushes to phones."""

    name = "push"
    makes_repeats_harmless = True
    concurrency_per_route = 32

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._settings = PushSettings()
        self._account: Mapping[str, str] | None = None
        self._token: str | None = None
        self._token_until: datetime | None = None
        self._asking = asyncio.Lock()
        if self._settings.fcm_credentials_file is not None:
            self._account = _read_account(self._settings.fcm_credentials_file)

    @property
    @override
    def is_configured(self) -> bool:
        return self._account is not None

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        if not 16 <= len(address) <= 4096 or not address.isascii() or not address.isprintable() or " " in address:
            raise InvalidAddress("must be a registration token of Firebase Cloud Messaging")
        return CheckedAddress(address, f"…{address[-6:]}", proof="none")

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        assert self._account is not None
        tag = message.collapse_key or str(message.delivery_id)
        now = self.tools.clock.now()
        ttl = min(message.expires_at - now, _LONGEST_TTL) if message.expires_at is not None else _LONGEST_TTL
        seconds = max(0, int(ttl.total_seconds()))
        is_urgent = message.priority in ("high", "critical")
        body = {
            "token": address.value,
            "notification": {"title": clip(message.title, 200), "body": clip(message.body, 1000)},
            "data": {
                "notification_id": str(message.notification_id),
                "event_type": message.event_type,
                "data": clip(orjson.dumps(dict(message.data)).decode(), 2000),
            },
            "android": {
                "priority": "high" if is_urgent else "normal",
                "ttl": f"{seconds}s",
                "collapse_key": tag[:64],
                "notification": {"tag": tag[:64]},
            },
            "apns": {
                "headers": {
                    "apns-collapse-id": tag[:64],
                    "apns-expiration": str(int(now.timestamp()) + seconds),
                    "apns-priority": "10" if is_urgent else "5",
                }
            },
        }
        url = f"{self._settings.fcm_api_url.rstrip('/')}/v1/projects/{self._account['project_id']}/messages:send"
        return json_call(url, {"message": body})

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        headers = {**prepared.headers, "Authorization": f"Bearer {await self._get_token()}"}
        answer = await self.tools.http.call_provider("POST", prepared.url, content=prepared.content, headers=headers)
        if answer.status == 401:
            self._token = None
        if answer.status != 200:
            raise HttpStatus(answer)
        found = answer.json()
        return Sent(str(found["name"]) if isinstance(found, Mapping) and "name" in found else None)

    @override
    def classify_error(self, error: Exception) -> Failure:
        if isinstance(error, HttpStatus):
            answer = error.answer
            if answer.status == 404 or b"UNREGISTERED" in answer.body:
                detail = "the app was removed from the device, or the token is old (UNREGISTERED)"
                return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=True)
            if answer.status in (401, 403):
                detail = f"the service account is refused (status {answer.status})"
                return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
        return classify_http_error(error, now=self.tools.clock.now(), gone=frozenset())

    async def _get_token(self) -> str:
        """An access token for the service account (RFC 7523), used until shortly before it ends."""
        async with self._asking:
            now = self.tools.clock.now()
            if self._token is None or self._token_until is None or now >= self._token_until:
                self._token, life = await self._ask_for_token(now)
                self._token_until = now + life - _REFRESH_BEFORE
            return self._token

    async def _ask_for_token(self, now: datetime) -> tuple[str, timedelta]:
        assert self._account is not None
        claims = {
            "iss": self._account["client_email"],
            "scope": _SCOPE,
            "aud": self._account["token_uri"],
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + 3600,
        }
        assertion = jwt.encode(claims, self._account["private_key"], algorithm="RS256")
        form = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
        answer = await self.tools.http.call_provider(
            "POST",
            self._account["token_uri"],
            content=form,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        found = answer.json()
        if answer.status != 200 or not isinstance(found, Mapping) or "access_token" not in found:
            raise HttpStatus(answer)
        return str(found["access_token"]), timedelta(seconds=int(found.get("expires_in", 3600)))


def _read_account(path: Path) -> Mapping[str, str]:
    try:
        found = json.loads(path.read_text())
        return {name: str(found[name]) for name in ("project_id", "client_email", "private_key", "token_uri")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"NOTIFY_FCM_CREDENTIALS_FILE cannot be read: {type(error).__name__}") from error
