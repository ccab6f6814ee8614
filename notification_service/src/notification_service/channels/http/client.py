"""The HTTP client of all channels: bounded in time and size, without redirects, proxies or surprises (F07, F08)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpcore
import httpx
import orjson
from typing_extensions import override

from notification_service.channels.http.guard import Policy, Refused, check_resolved, check_url

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""More of an answer is not read; the connection is thrown away. Its status counts all the same."""
TOTAL_LIMIT: Final = timedelta(seconds=10)
"""For one call, from resolving the name to the last byte: a server that drips one byte a second is cut off."""

_CONNECT_LIMIT_S: Final = 5.0
_MAX_CONNECTIONS: Final = 512
_KEEPALIVE_S: Final = 30.0

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class HttpStatus(Exception):
    """The answer's status is no success."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


class HttpClient:
    """Two sides: `call` for addresses of users, guarded; `call_provider` for addresses the operator set."""

    def __init__(self, policy: Policy, *, resolve: Resolve | None = None, limit: timedelta = TOTAL_LIMIT) -> None:
        self.policy = policy
        self._limit_s = limit.total_seconds()
        self._resolve = resolve or resolve_name
        context = ssl.create_default_context()
        self._guarded = _make_client(context, _GuardedBackend(policy, self._resolve))
        self._plain = _make_client(context, None)

    async def check(self, url: str) -> None:
        """Check an address before it is saved. A name that does not resolve now passes: it is checked at every call.

        Raises:
            Refused: It may not be called.
        """
        parsed = check_url(url, self.policy)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                addresses = await self._resolve(parsed.host, parsed.port or 443)
        except (OSError, TimeoutError, UnicodeError):
            return
        check_resolved(addresses, self.policy)

    async def call(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call an address a user gave.

        Raises:
            Refused: It may not be called; nothing was sent.
            TimeoutError: Not answered in time.
            httpx.TransportError: The connection failed.
        """
        check_url(url, self.policy)
        return await self._call(self._guarded, method, url, content, headers)

    async def call_provider(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call a provider whose address is a setting; the same limits, any host. Raises as `call` does."""
        return await self._call(self._plain, method, url, content, headers)

    async def close(self) -> None:
        """Close all connections."""
        await self._guarded.aclose()
        await self._plain.aclose()

    async def _call(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        async with asyncio.timeout(self._limit_s):
            request = client.build_request(method, url, content=content, headers=headers)
            response = await client.send(request, stream=True)
            try:
                body = bytearray()
                # Raw: a compressed answer must not grow beyond the limit in memory.
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) >= MAX_RESPONSE_BYTES:
                        break
                return Answer(response.status_code, response.headers, bytes(body[:MAX_RESPONSE_BYTES]))
            finally:
                await response.aclose()


async def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name, checks every answer, and connects to what was checked: a second answer is never asked for.

    The certificate is still checked against the name, which httpcore passes on by itself.
    """

    def __init__(self, policy: Policy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        check_resolved(addresses, self._policy)
        failure: Exception | None = None
        for address in addresses[:4]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    @override
    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise Refused("must not be a socket file")

    @override
    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def _make_client(context: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend | None) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
    # httpx offers no way to pass httpcore's network backend on; the pool is made here the way httpx makes it.
    transport._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001
        ssl_context=context,
        max_connections=_MAX_CONNECTIONS,
        max_keepalive_connections=_MAX_CONNECTIONS // 2,
        keepalive_expiry=_KEEPALIVE_S,
        network_backend=backend,
    )
    return httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(TOTAL_LIMIT.total_seconds(), connect=_CONNECT_LIMIT_S),
        headers={"User-Agent": "Herald", "Accept-Encoding": "identity"},
    )
