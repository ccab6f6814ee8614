"""Who is calling, as a dependency of endpoints; every protected route names the rights it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from notification_service.errors import NotAuthenticated, PermissionDenied
from notification_service.identity.access import Access, Caller
from shared_contracts.access_tokens import RejectedToken
from shared_contracts.error_codes import ErrorCode
from shared_contracts.scopes import Scope

CallerDependency = Callable[[Request], Awaitable[Caller]]


class TokenInvalid(NotAuthenticated):
    """The token is not valid."""

    code = ErrorCode.INVALID_TOKEN

    def __init__(self) -> None:
        super().__init__("the access token is not valid", invalid_token=True)


class TokenExpired(NotAuthenticated):
    """The token has expired."""

    code = ErrorCode.TOKEN_EXPIRED

    def __init__(self) -> None:
        super().__init__("the access token has expired", invalid_token=True)


class Callers:
    """Makes the dependencies."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def needs(self, *scopes: Scope, sensitive: bool = False) -> CallerDependency:
        """A dependency that answers the caller, who has all these rights.

        Args:
            sensitive: Refused while the auth service cannot be asked.
        """

        async def find_caller(request: Request) -> Caller:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise NotAuthenticated
            try:
                caller = await self._access.identify(token.strip(), sensitive=sensitive)
            except RejectedToken as rejected:
                raise (TokenExpired if rejected.is_expired else TokenInvalid) from None
            missing = [scope for scope in scopes if scope not in caller.scopes]
            if missing:
                raise PermissionDenied(f"this needs the scope {' '.join(sorted(missing))}")
            return caller

        find_caller.needed_scopes = scopes  # type: ignore[attr-defined]  # read by the route-table test
        return find_caller
