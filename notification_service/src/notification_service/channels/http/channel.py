"""The base of channels that make one HTTP call per delivery, and what each status and error means (F10)."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import httpx
import orjson
from typing_extensions import override

from notification_service.channels.http.client import Answer, HttpStatus
from notification_service.channels.http.guard import Refused
from notification_service.channels.interface import (
    Address,
    Channel,
    CheckedAddress,
    Failure,
    FailureKind,
    InvalidAddress,
    Sent,
)
from shared_contracts.error_codes import Reason

MAX_RETRY_AFTER: Final = timedelta(hours=6)
"""A provider that asks for more is asked again after this."""

_GONE: Final = frozenset({404, 410})
_TEMPORARY: Final = frozenset({408, 425, 429})
_DETAIL_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call, made by `prepare`."""

    url: str = field(repr=False)
    content: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "POST"


def json_call(url: str, body: Any, headers: Mapping[str, str] | None = None) -> Call:
    """A call with a JSON body."""
    return Call(url, orjson.dumps(body), {"Content-Type": "application/json", **(headers or {})})


class HttpChannel(Channel):
    """One guarded call per delivery to the address the contact names. Other channels override what differs."""

    # Places for 32 endpoints that hang at once, before others have to wait for them; the client has 512 connections.
    concurrency = 256

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        try:
            await self.tools.http.check(address)
        except Refused as refused:
            raise InvalidAddress(str(refused)) from None
        return CheckedAddress(address, hint_of_url(address), secret)

    @override
    def routes(self, address: Address) -> tuple[str, ...]:
        return (f"{self.name}:{host_of_url(address.value)}",)

    @override
    async def send(self, prepared: Call, route: str) -> Sent:
        return self.read_success(await self.call(prepared))

    async def call(self, call: Call) -> Answer:
        """Make one guarded call.

        Raises:
            HttpStatus: The status is no success.
        """
        answer = await self.tools.http.call(call.method, call.url, content=call.content, headers=call.headers)
        if not 200 <= answer.status < 300:
            raise HttpStatus(answer)
        return answer

    def read_success(self, answer: Answer) -> Sent:  # noqa: ARG002 - for those that answer an id
        """What a 2xx answer says."""
        return Sent()

    @override
    def classify_error(self, error: Exception) -> Failure:
        return classify_http_error(error, now=self.tools.clock.now())


def classify_http_error(error: Exception, *, now: datetime, gone: frozenset[int] = _GONE) -> Failure:
    """What an error of an HTTP call means.

    Args:
        error: As `HttpClient` raises it, or `HttpStatus`.
        now: To read a date in `Retry-After`.
        gone: Statuses that disable the address.
    """
    match error:
        case HttpStatus(answer=answer):
            return _classify_status(answer, now, gone)
        case Refused():
            return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, f"the address {error}")
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            detail = f"the connection could not be made ({type(error).__name__})"
            return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
        case TimeoutError():
            detail = "no complete answer in time"
            return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
        case aiohttp.ClientError() | OSError():
            detail = f"the connection was lost ({type(error).__name__})"
            return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
    return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, f"{type(error).__name__}")


def _classify_status(answer: Answer, now: datetime, gone: frozenset[int]) -> Failure:
    status = answer.status
    detail = f"status {status}"
    if text := answer.body[:_DETAIL_LENGTH].decode(errors="replace").strip():
        detail = f"{detail}: {' '.join(text.split())}"
    detail = "".join(character if character.isprintable() else "\ufffd" for character in detail)
    if status in _TEMPORARY or status == 503:
        retry_after = read_retry_after(answer.headers.get("retry-after"), now=now)
        return Failure(
            FailureKind.TEMPORARY,
            Reason.PROVIDER_UNAVAILABLE,
            detail,
            retry_after=retry_after,
            blames_provider=status in (408, 503),
        )
    if status >= 500:
        return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
    return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=status in gone)


def read_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """The `Retry-After` header (RFC 9110, section 10.2.3): seconds or a date; None when absent or nonsense."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        seconds = min(int(value.strip()[:9]), int(MAX_RETRY_AFTER.total_seconds()))
        return timedelta(seconds=seconds)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta()), MAX_RETRY_AFTER)


def host_of_url(url: str) -> str:
    """The host and port, for breakers and attempt rows; no path, which may be a secret."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return "invalid"
    return f"{parsed.host}:{parsed.port}" if parsed.port else parsed.host


def hint_of_url(url: str) -> str:
    """What is shown of an address whose path is a secret."""
    parsed = httpx.URL(url)
    tail = url[-4:] if len(parsed.raw_path) > 12 else ""
    return f"{parsed.scheme}://{host_of_url(url)}/…{tail}"[:255]
