"""Whose address a request comes from. `X-Forwarded-For` counts only from listed proxies (B02)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest

Address = IPv4Address | IPv6Address


def find_client_address(peer: str, forwarded_for: str, trusted: Sequence[IPv4Network | IPv6Network]) -> str | None:
    """The last address on the way that no trusted proxy vouches away.

    Args:
        peer: The other end of the connection.
        forwarded_for: The header, each proxy having added on the right whom it was called by.
        trusted: Proxies that are believed.
    """
    address = _parse(peer)
    if address is None:
        return None
    for hop in reversed(forwarded_for.split(",")):
        if not _is_in(address, trusted):
            break
        claimed = _parse(hop)
        if claimed is None:
            break
        address = claimed
    return str(address)


def get_client_address(request: HttpRequest) -> str | None:
    """The client's address as far as it can be known."""
    forwarded_for = request.META.get("HTTP_X_FORWARDED_FOR", "")
    return find_client_address(request.META.get("REMOTE_ADDR", ""), forwarded_for, settings.HERALD.trusted_proxies)


def is_operator_address(request: HttpRequest) -> bool:
    """Whether the request comes from a network of operators."""
    address = _parse(get_client_address(request) or "")
    return address is not None and _is_in(address, settings.HERALD.operator_networks)


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
