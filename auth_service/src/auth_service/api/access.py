"""Who may call what: every view declares it per method, one place enforces it, a test walks all routes (C02)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from typing_extensions import override

from auth_service.api.caller import Caller
from auth_service.api.client_address import is_operator_address
from auth_service.errors import NotAuthenticated, NotFound, PermissionDenied
from auth_service.internal_api.keys import check_internal_key, is_internal_key
from auth_service.tokens.errors import Unauthenticated
from shared_contracts.headers import INTERNAL_KEY
from shared_contracts.scopes import Scope

if TYPE_CHECKING:
    from rest_framework.views import APIView  # at run time it imports this module, through the framework's defaults

    from auth_service.api.views import ApiView


class Access(Enum):
    """Who may call, where a scope is not the answer."""

    PUBLIC = auto()
    """Anyone, with or without a token."""
    CALLER = auto()
    """Any user or service account."""
    USER = auto()
    """A person; a service account's token is no token here (A09)."""
    ADMIN = auto()
    """A person with the role `admin`."""
    OPERATOR_ADMIN = auto()
    """A person with the role `admin` in the default tenant."""
    INTERNAL = auto()
    """Herald's own services, with the internal key."""
    OPERATOR = auto()
    """In development anyone; in production the internal key, or an address of the operators' networks (G04)."""


Rule = Access | Scope
Rules = Mapping[str, Rule]
"""By HTTP method."""

WITHOUT_TOKEN = frozenset({Access.PUBLIC, Access.INTERNAL, Access.OPERATOR})


class DeclaredAccess(BasePermission):
    """Enforces what the view declares. A method without a declaration is refused, not open."""

    @override
    def has_permission(self, request: Request, view: APIView) -> bool:
        """Check the rule of this method.

        Raises:
            ServiceError: 401, 403, or 404 where not even the existence is shown.
        """
        rules: ApiView = view  # type: ignore[assignment]
        check_rule(rules.rule_of(request), request)
        return True


def check_rule(rule: Rule, request: Request) -> None:  # noqa: C901 - one line per rule
    """Check one rule.

    Raises:
        NotAuthenticated: No token.
        Unauthenticated: A token of the wrong kind.
        PermissionDenied: The right is missing.
        NotFound: Operators only.
    """
    match rule:
        case Access.PUBLIC:
            return
        case Access.INTERNAL:
            check_internal_key(request)
            return
        case Access.OPERATOR:
            check_operator(request)
            return
    caller = request.user
    if not isinstance(caller, Caller):
        raise NotAuthenticated
    match rule:
        case Access.CALLER:
            return
        case Access.USER if caller.user is None:
            raise Unauthenticated
        case Access.USER:
            return
        case Access.ADMIN if not caller.is_admin:
            raise PermissionDenied
        case Access.OPERATOR_ADMIN if not caller.is_operator:
            raise PermissionDenied
        case Scope() if not caller.may(rule):
            raise PermissionDenied


def check_operator(request: Request) -> None:
    """Let operators through.

    Raises:
        NotFound: In production, without the key and from elsewhere.
    """
    if not settings.HERALD.is_production or is_internal_key(request.headers.get(INTERNAL_KEY)):
        return
    if not is_operator_address(request._request):  # noqa: SLF001 - the framework's own way to Django's request
        raise NotFound
