"""The Apprise channel: any service that Apprise knows, by its URL.

Apprise makes its own connections, so the guard of `channels.http` cannot stand in their way. Only services whose
address is fixed in Apprise are allowed; those that take a host from the URL could be pointed inside, and are refused.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import apprise
from apprise.manager_plugins import NotificationManager
from typing_extensions import override

from notification_service.channels.apprise.calls import Result, classify_calls, recorded_calls
from notification_service.channels.interface import (
    Address,
    Channel,
    CheckedAddress,
    Failure,
    FailureKind,
    InvalidAddress,
    Message,
    Sent,
    reject,
)
from notification_service.channels.text import plain_text
from shared_contracts.error_codes import Reason

_HOST_PARTS: Final = ("{host", "{target_host", "{domain", "{url", "{hostname")
# These read files of this machine that the URL names.
_READS_FILES: Final = frozenset({"fcm", "vapid", "nostr"})
# Others name files (`template`, `keyfile`), or switch off what protects this machine (`verify`, `redirect`).
_ALLOWED_OPTIONS: Final = frozenset(
    {"format", "overflow", "priority", "sound", "to", "from", "image", "footer", "name"}
)
_CONNECT_LIMIT_S: Final = 4.0
_READ_LIMIT_S: Final = 8.0


class _Refused(Exception):
    """Apprise says no more than that it did not work; its calls say why."""

    def __init__(self, calls: Sequence[Result]) -> None:
        super().__init__("the service did not take it")
        self.calls = calls


class AppriseChannel(Channel):
    """Whatever Apprise sends."""

    name = "apprise"
    # Each attempt needs a thread: Apprise is synchronous.
    concurrency = 8
    concurrency_per_route = 4

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        # In a thread: the first call imports Apprise's 180 services, which takes about a second.
        scheme = await asyncio.to_thread(self._check, address)
        return CheckedAddress(address, f"{scheme}://…")

    @override
    def routes(self, address: Address) -> tuple[str, ...]:
        return (f"apprise:{urlsplit(address.value).scheme.lower()}",)

    @override
    def prepare(self, message: Message, address: Address) -> Any:
        body = plain_text(message, limit=20_000).removeprefix(message.title).lstrip("\n")
        # Apprise sends nothing that has no body.
        return (address.value, message.title, body) if body else (address.value, "", message.title)

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        url, title, body = prepared
        await asyncio.to_thread(self._notify, url, title, body)
        return Sent()

    def _notify(self, url: str, title: str, body: str) -> None:
        self._check(url)
        service = _instantiate(url)
        service.socket_connect_timeout = _CONNECT_LIMIT_S
        service.socket_read_timeout = _READ_LIMIT_S
        # Herald's own limits decide how fast; this one would sleep in the thread.
        service.request_rate_per_sec = 0
        with recorded_calls() as calls:
            is_taken = service.notify(title=title, body=body)
        if not is_taken:
            raise _Refused(calls)

    @override
    def classify_error(self, error: Exception) -> Failure:
        if isinstance(error, InvalidAddress):
            return reject(f"the address {error}", disables_address=True).failure
        if isinstance(error, _Refused):
            return classify_calls(error.calls, now=self.tools.clock.now())
        return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, type(error).__name__)

    def _check(self, address: str) -> str:
        parts = urlsplit(address)
        scheme = parts.scheme.lower()
        plugin = _find_plugin(scheme)
        if plugin is None:
            raise InvalidAddress("must be a service URL that Apprise knows")
        may_choose_host = self.tools.http.policy.allow_loopback
        if not may_choose_host and not _is_fixed(plugin):
            raise InvalidAddress("must be of a service whose address is fixed; this one takes a host")
        if scheme in _READS_FILES:
            raise InvalidAddress("must be of a service that needs no file")
        unknown = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _ALLOWED_OPTIONS
        if unknown:
            raise InvalidAddress(f"must not have the option {min(unknown)!r}")
        if _instantiate(address) is None:
            raise InvalidAddress("must be complete: Apprise cannot read it")
        return scheme


def _find_plugin(scheme: str) -> Any:
    with warnings.catch_warnings():
        # One of its modules imports another that Python has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        manager: Any = NotificationManager()  # type: ignore[no-untyped-call]
        manager.load_modules()
    return manager[scheme] if scheme and scheme in manager else None


def _is_fixed(plugin: Any) -> bool:
    """Whether the service's address is in Apprise and not in the URL, and is reached over TLS, not on this machine."""
    templates = " ".join(str(each) for each in plugin.templates or ())
    return bool(plugin.secure_protocol) and not any(part in templates for part in _HOST_PARTS)


def _instantiate(url: str) -> Any:
    asset = apprise.AppriseAsset(app_id="Herald", app_desc="Herald", http_redirects=False)
    return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
