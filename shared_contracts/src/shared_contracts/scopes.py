"""Roles and what each may do. The one table that both services and the tokens go by."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType


class Scope(StrEnum):
    """One right. A token carries the rights of its roles, or of its service account."""

    INBOX = "inbox"
    MESSAGES_SEND = "messages:send"
    NOTIFICATIONS_SEND = "notifications:send"
    NOTIFICATIONS_BROADCAST = "notifications:broadcast"
    USERS_READ = "users:read"
    DELIVERIES_READ = "deliveries:read"
    PRESENCE_READ = "presence:read"
    USERS_WRITE = "users:write"
    GROUPS_WRITE = "groups:write"
    EVENT_TYPES_WRITE = "event-types:write"
    TEMPLATES_WRITE = "templates:write"
    DEAD_LETTERS = "dead-letters"
    ANALYTICS_READ = "analytics:read"
    AUDIT_READ = "audit:read"
    TENANTS_WRITE = "tenants:write"
    TOKENS_ISSUE = "tokens:issue"


class Role(StrEnum):
    """What a user is. `service` belongs to service accounts and gives no scope by itself."""

    USER = "user"
    PUBLISHER = "publisher"
    STAFF = "staff"
    ADMIN = "admin"
    SERVICE = "service"


_USER = frozenset({Scope.INBOX, Scope.MESSAGES_SEND})
_PUBLISHER = _USER | {Scope.NOTIFICATIONS_SEND}
_STAFF = _PUBLISHER | {
    Scope.NOTIFICATIONS_BROADCAST,
    Scope.USERS_READ,
    Scope.DELIVERIES_READ,
    Scope.PRESENCE_READ,
}

ROLE_SCOPES = MappingProxyType(
    {
        Role.USER: _USER,
        Role.PUBLISHER: _PUBLISHER,
        Role.STAFF: _STAFF,
        # tokens:issue acts in another user's name; it exists only for service accounts.
        Role.ADMIN: frozenset(Scope) - {Scope.TOKENS_ISSUE},
        Role.SERVICE: frozenset[Scope](),
    }
)

ASSIGNABLE_ROLES = (Role.USER, Role.PUBLISHER, Role.STAFF, Role.ADMIN)
"""Roles a user can have, each holding every right of the one before it."""


def scopes_of(roles: Iterable[Role | str]) -> frozenset[Scope]:
    """All rights of these roles together. A role this version does not know gives none."""
    known = set(Role)
    return frozenset().union(*(ROLE_SCOPES[Role(role)] for role in roles if role in known))


def format_scope(scopes: Iterable[Scope | str]) -> str:
    """The `scope` claim: space-separated (RFC 8693, section 4.2), sorted so that equal rights give equal text."""
    return " ".join(sorted(scopes))


@lru_cache(maxsize=512)
def parse_scope(scope: str) -> frozenset[Scope]:
    """The rights in a `scope` claim; words this version does not know are left out.

    Equal claims answer the same set: it takes 728 bytes, and a gateway holds one for each connection.
    """
    known = set(Scope)
    return frozenset(Scope(word) for word in scope.split() if word in known)
