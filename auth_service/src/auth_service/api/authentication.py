from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from typing_extensions import override

from auth_service.api.caller import Caller
from auth_service.api.client_address import get_client_address
from auth_service.api.correlation import get_correlation_id
from auth_service.audit.origin import Origin
from auth_service.metrics import TOKENS_REJECTED
from auth_service.tokens.access_tokens import check_access_token
from auth_service.tokens.errors import Unauthenticated
from auth_service.tokens.liveness import Live, check_live
from shared_contracts.access_tokens import RejectedToken


def get_origin(request: Request) -> Origin:
    """Where this request comes from, before anyone has proved who they are."""
    return Origin(
        ip=get_client_address(request._request),  # noqa: SLF001 - the framework's own way to Django's request
        user_agent=request.headers.get("User-Agent", ""),
        correlation_id=get_correlation_id(),
    )


class BearerAuthentication(BaseAuthentication):
    """An access token in the `Authorization` header: signature first, then session and account from the database."""

    @override
    def authenticate(self, request: Request) -> tuple[Caller, None] | None:
        """The caller; None when no token was sent.

        Raises:
            Unauthenticated: A token was sent that does not count.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            live = check_live(check_access_token(token.strip()))
        except RejectedToken as rejected:
            TOKENS_REJECTED.labels(reason=rejected.reason).inc()
            raise Unauthenticated from None
        return make_caller(live, get_origin(request)), None

    @override
    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401."""
        return 'Bearer realm="herald"'


def make_caller(live: Live, origin: Origin) -> Caller:
    """The caller behind a token that counts."""
    kind = "service" if live.service_account else "user"
    return Caller(
        id=live.claims.sub,
        tenant=live.claims.tenant,
        scopes=live.scopes,
        origin=origin.acting_as("service" if kind == "service" else "user", live.claims.sub, live.claims.tenant),
        user=live.user,
        service_account=live.service_account,
        session_id=live.claims.sid,
        claims=live.claims,
    )


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document names it."""

    target_class = "auth_service.api.authentication.BearerAuthentication"
    name = "accessToken"

    @override
    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """RFC 6750."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
