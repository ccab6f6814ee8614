"""Which addresses may be called (requirement F07). Pure: names are resolved elsewhere, the answers are checked here.

A user chooses these addresses, and this machine calls them from inside the network: whatever is not certainly public
is refused. The same checks run when a contact is saved and again on the address that is really connected to.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

import httpx

MAX_URL_LENGTH: Final = 2048

_SCHEMES: Final = {"http": 80, "https": 443}
_PUBLIC_PORTS: Final = frozenset({80, 443, 8080, 8443})
# Herald's own neighbours and the usual targets; refused on loopback as well.
_NEVER_PORTS: Final = frozenset(
    {
        22,
        23,
        25,
        53,
        110,
        143,
        389,
        465,
        587,
        3306,
        4369,
        5432,
        5671,
        5672,
        6379,
        9200,
        11211,
        15671,
        15672,
        25672,
        27017,
    }
)
_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".intranet", ".arpa")
# Python 3.11 calls these global although they carry or reach addresses that are not (measured with 64:ff9b::7f00:1 and
# 2002:7f00:1::): NAT64, 6to4 and Teredo embed an IPv4 address of somebody's choice.
_TRANSLATED: Final = tuple(
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)


class Refused(Exception):
    """The address may not be called; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed.

    Attributes:
        allow_loopback: For development and tests: 127.0.0.0/8, ::1 and any other port on them.
    """

    allow_loopback: bool = False


def check_url(url: str, policy: Policy) -> httpx.URL:
    """Check everything that can be seen without resolving the name.

    Raises:
        Refused: It may not be called.
    """
    if len(url) > MAX_URL_LENGTH:
        raise Refused(f"must have at most {MAX_URL_LENGTH} characters")
    # Browsers and libraries read these differently; what two parsers understand differently is not called.
    if any(not 33 <= ord(character) <= 126 for character in url) or "\\" in url:
        raise Refused("must consist of visible ASCII characters")
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise Refused("is not a valid address") from None
    if parsed.scheme not in _SCHEMES:
        raise Refused("must start with https:// or http://")
    if parsed.userinfo:
        raise Refused("must not contain a user name or password")
    if not host:
        raise Refused("must name a host")
    is_loopback = _check_host(host, policy)
    _check_port(port if port is not None else _SCHEMES[parsed.scheme], allow_any=is_loopback)
    return parsed


def check_resolved(addresses: list[str], policy: Policy) -> None:
    """Check what a name resolved to: one address that may not be called refuses them all.

    Raises:
        Refused: Some address is not public.
    """
    if not addresses:
        raise Refused("does not resolve")
    for address in addresses:
        if not is_allowed(address, policy):
            raise Refused("does not point to a public address")


def is_allowed(address: str, policy: Policy) -> bool:
    """Whether this IP address may be connected to."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        if ip.ipv4_mapped is not None:
            return is_allowed(str(ip.ipv4_mapped), policy)
    if policy.allow_loopback and ip.is_loopback:
        return True
    if isinstance(ip, ipaddress.IPv6Address) and (ip.is_site_local or any(ip in network for network in _TRANSLATED)):
        return False
    # `is_global`, not `not is_private`: 100.64.0.0/10 is neither.
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _check_host(host: str, policy: Policy) -> bool:
    """Checks a host; answers whether it is certainly this machine, and allowed."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return _check_name(host, policy)
    if not is_allowed(str(ip), policy):
        raise Refused("must not point to a private or special address")
    return ip.is_loopback


def _check_name(host: str, policy: Policy) -> bool:
    if host == "localhost" and policy.allow_loopback:
        return True
    if host.endswith("."):
        raise Refused("must not end with a dot")
    labels = host.split(".")
    # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to the C library (WHATWG: a host that ends in a number).
    last = labels[-1]
    if last.isdigit() or last.lower().startswith("0x"):
        raise Refused("must not be written as a number")
    if len(labels) < 2 or f".{host}".endswith(_PRIVATE_NAMES):
        raise Refused("must be a public name")
    return False


def _check_port(port: int, *, allow_any: bool) -> None:
    if port in _NEVER_PORTS or not (port in _PUBLIC_PORTS or (allow_any and port >= 1024)):
        raise Refused(f"must not use port {port}")
