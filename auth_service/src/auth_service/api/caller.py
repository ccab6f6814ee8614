"""Who makes a request, once that is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from auth_service.accounts.models import User
from auth_service.audit.origin import Origin
from auth_service.errors import PermissionDenied
from auth_service.service_accounts.models import ServiceAccount
from shared_contracts.claims import DEFAULT_TENANT, AccessTokenClaims
from shared_contracts.scopes import Role, Scope, scopes_of

_EVERYONE = scopes_of([Role.USER])
"""What any user has is never a privilege, though a service account, which has no inbox, does not hold it."""


@dataclass(frozen=True)
class Caller:
    """A user or a service account, with the rights it has at this moment.

    Attributes:
        origin: What audit events say about this request.
        session_id: Of the token; None on the admin site, which has its own sessions.
        claims: Of the token; None on the admin site.
    """

    id: UUID
    tenant: str
    scopes: frozenset[Scope]
    origin: Origin
    user: User | None = None
    service_account: ServiceAccount | None = None
    session_id: UUID | None = None
    claims: AccessTokenClaims | None = None

    is_authenticated = True

    @property
    def is_admin(self) -> bool:
        """Whether this is a person with the role `admin`."""
        return self.user is not None and self.user.has_role(Role.ADMIN)

    @property
    def is_operator(self) -> bool:
        """Whether this is an administrator of the default tenant: the only ones who look after other tenants."""
        return self.is_admin and self.tenant == DEFAULT_TENANT

    def may(self, scope: Scope) -> bool:
        """Whether the caller has this right."""
        return scope in self.scopes

    def check_may_grant(self, roles: Iterable[str]) -> None:
        """Nobody gives a role above their own, and nobody changes someone above them (B10).

        Raises:
            PermissionDenied: These roles hold a right that the caller does not.
        """
        if not scopes_of(roles) - _EVERYONE <= self.scopes:
            raise PermissionDenied("You may not give or change a role with rights you do not have.")
