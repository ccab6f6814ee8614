"""The HTTP client of all channels: bounded in time and size, without redirects, proxies or surprises (F07, F08)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override
from yarl import URL

from notification_service.channels.http.guard import Policy, check_resolved, check_url

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""More of an answer is not read; the connection is thrown away. Its status counts all the same."""
TOTAL_LIMIT: Final = timedelta(seconds=10)
"""For one call, from resolving the name to the last byte: a server that drips one byte a second is cut off."""

_CONNECT_LIMIT_S: Final = 5.0
_POOL_LIMIT_S: Final = 9.0  # below the total: then it is known that nothing was sent
_MAX_CONNECTIONS: Final = 512
_KEEPALIVE_S: Final = 30.0

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
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
            aiohttp.ClientError: The connection could not be made (`ClientConnectorError`), or was lost.
        """
        return await self._call(self._guarded, method, str(check_url(url, self.policy)), content, headers)

    async def call_provider(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call a provider whose address is a setting; the same limits, any host. Raises as `call` does."""
        return await self._call(self._plain, method, url, content, headers)

    async def close(self) -> None:
        """Close all connections."""
        for name in ("_guarded", "_plain"):
            if name in self.__dict__:
                await self.__dict__[name].close()

    # Made when they are first used, in the loop they belong to.

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @cached_property
    def _guarded(self) -> aiohttp.ClientSession:
        return _make_session(
            aiohttp.TCPConnector(
                ssl=self._tls,
                limit=_MAX_CONNECTIONS,
                keepalive_timeout=_KEEPALIVE_S,
                use_dns_cache=False,
                resolver=_GuardedResolver(self.policy, self._resolve),
                socket_factory=_GuardedSockets(self.policy),
            )
        )

    @cached_property
    def _plain(self) -> aiohttp.ClientSession:
        return _make_session(
            aiohttp.TCPConnector(ssl=self._tls, limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S)
        )

    async def _call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        async with (
            asyncio.timeout(self._limit_s),
            session.request(
                method, URL(url, encoded=True), data=content, headers=headers, allow_redirects=False
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= MAX_RESPONSE_BYTES:
                    # What follows is not waited for.
                    response.close()
                    break
            return Answer(response.status, lower_names(response.headers), bytes(body[:MAX_RESPONSE_BYTES]))


def lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as `Answer` has them; of several with one name the last."""
    return {name.lower(): value for name, value in headers.items()}


async def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a name, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _GuardedResolver(AbstractResolver):
    """Resolves a name and checks every answer: what was checked is connected to, and no second answer is asked for.

    The certificate is still checked against the name.
    """

    def __init__(self, policy: Policy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            addresses = await self._resolve(host, port)
        except UnicodeError as error:
            raise OSError("the name cannot be resolved") from error
        check_resolved(addresses, self._policy)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:4]
        ]

    @override
    async def close(self) -> None:
        """Nothing is open."""


class _GuardedSockets:
    """Makes a socket for an address that may be connected to, and for no other: however it was written in the URL, and
    whatever two parsers of URLs may see in it.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        check_resolved([str(address[0])], self._policy)
        return socket.socket(family, kind, protocol)


def _make_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        # A compressed answer must not grow beyond the limit in memory; no cookie of one call comes with the next.
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=_POOL_LIMIT_S, sock_connect=_CONNECT_LIMIT_S),
        headers={"User-Agent": "Herald", "Accept-Encoding": "identity"},
        skip_auto_headers=("Content-Type",),
    )
