from __future__ import annotations

import hashlib
import json
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from auth_service import clock
from auth_service.accounts.examples import USER
from auth_service.api.access import Access
from auth_service.api.parsers import StrictFormParser, StrictJsonParser
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.sessions.devices import Device
from auth_service.tokens.access_tokens import key_folder
from auth_service.tokens.actions import do_issue_ticket, do_refresh, do_revoke
from auth_service.tokens.login_actions import Credentials, do_log_in
from auth_service.tokens.serializers import (
    KeySetOut,
    LoginIn,
    MetadataOut,
    RefreshIn,
    TicketOut,
    TokenIn,
    TokensOut,
    as_tokens,
)
from shared_contracts.scopes import Scope

_TOKENS = {
    "access": "eyJ...",
    "refresh": "hrt_...",
    "token_type": "Bearer",
    "expires_in": 900,
    "session_id": "0192f6a0-c0de-7abc-8def-0000000000bb",
    "user": USER,
}
_JWK = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "qPzI2e...", "n": "0vx7ag...", "e": "AQAB"}

_METADATA = {
    "issuer": "https://auth.example.org",
    "jwks_uri": "https://auth.example.org/.well-known/jwks.json",
    "token_endpoint": "https://auth.example.org/api/v1/auth/token",
    "revocation_endpoint": "https://auth.example.org/api/v1/auth/token/revoke",
    "introspection_endpoint": "https://auth.example.org/internal/v1/tokens/introspect",
    "response_types_supported": [],
    "grant_types_supported": ["password", "refresh_token", "client_credentials"],
    "scopes_supported": ["inbox", "messages:send"],
    "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
    "service_documentation": "https://auth.example.org/api/docs",
}


class LoginView(ApiView):
    """People who log in."""

    access = {"POST": Access.PUBLIC}
    serializer_class = TokensOut

    @operation(
        "log_in",
        "Log in with a password",
        request=LoginIn,
        response=TokensOut,
        sends={"username": "ada", "password": "a-long-passphrase", "device_id": "phone-1", "device_name": "Phone"},
        answers=_TOKENS,
        refuses=(401, 429),
    )
    def post(self, request: Request) -> Response:
        """401 `otp_required` asks for the code of the second factor in `otp`. Every other refusal looks alike."""
        fields = self.read(LoginIn)
        credentials = Credentials(
            fields["password"], username=fields.get("username"), email=fields.get("email"), otp=fields.get("otp")
        )
        origin = self.origin
        device = Device(fields.get("device_id", ""), fields.get("device_name") or None, origin.ip, origin.user_agent)
        return Response(as_tokens(do_log_in(credentials, device, origin)))


class RefreshView(ApiView):
    """Devices that go on."""

    access = {"POST": Access.PUBLIC}
    serializer_class = TokensOut

    @operation(
        "refresh_tokens",
        "Trade a refresh token for new tokens",
        request=RefreshIn,
        response=TokensOut,
        sends={"refresh": "hrt_..."},
        answers=_TOKENS,
        refuses=(401,),
    )
    def post(self, request: Request) -> Response:
        """Each refresh token works once. A second use, but for a quick retry, ends the session."""
        fields = self.read(RefreshIn)
        origin = self.origin
        device = Device(fields.get("device_id", ""), None, origin.ip, origin.user_agent)
        return Response(as_tokens(do_refresh(fields["refresh"], device, origin)))


class RevocationView(ApiView):
    """Devices that leave without being logged in any more."""

    access = {"POST": Access.PUBLIC}
    serializer_class = TokenIn
    parser_classes = (StrictJsonParser, StrictFormParser)

    @operation("revoke_token", "Take a token back", request=TokenIn, sends={"token": "hrt_..."}, takes_forms=True)
    def post(self, request: Request) -> Response:
        """Ends the token's session. 200 whether there was one or not (RFC 7009)."""
        do_revoke(self.read(TokenIn)["token"], self.origin)
        return Response(status=200)


class TicketView(ApiView):
    """Browsers that open a socket."""

    access = {"POST": Access.USER}
    serializer_class = TicketOut

    @operation(
        "issue_ticket",
        "Get a ticket for one socket",
        response=TicketOut,
        answers={"ticket": "htk_...", "expires_in": 30},
    )
    def post(self, request: Request) -> Response:
        """For `?ticket=` of the socket's address: works once, within 30 seconds."""
        claims = self.caller.claims
        assert claims is not None
        expires_in_s = int(settings.HERALD.ticket_lifetime.total_seconds())
        return Response({"ticket": do_issue_ticket(claims), "expires_in": expires_in_s})


class KeySetView(ApiView):
    """The public keys."""

    access = {"GET": Access.PUBLIC}
    serializer_class = KeySetOut

    @operation("get_key_set", "The key set", response=KeySetOut, answers={"keys": [_JWK]})
    def get(self, request: Request) -> Response:
        """Every key whose signatures count now, or will within minutes (RFC 7517). May be kept for `max-age`."""
        folder = key_folder()
        keys = folder.load()
        if not keys.keys:
            keys = folder.ensure(settings.HERALD.signing_algorithm)
        body = {"keys": [key.public_jwk for key in keys.verifying(clock.now())]}
        etag = f'"{hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]}"'
        max_age_s = int(settings.HERALD.jwks_max_age.total_seconds())
        headers = {"Cache-Control": f"public, max-age={max_age_s}", "ETag": etag}
        if request.headers.get("If-None-Match") == etag:
            return Response(status=304, headers=headers)
        return Response(body, headers=headers)


class MetadataView(ApiView):
    """What an OAuth client library wants to know."""

    access = {"GET": Access.PUBLIC}
    serializer_class = MetadataOut

    @operation("get_metadata", "Authorization server metadata", response=MetadataOut, answers=_METADATA)
    def get(self, request: Request) -> Response:
        """RFC 8414. `issuer` equals the tokens' `iss` exactly."""
        return Response(_make_metadata(), headers={"Cache-Control": "public, max-age=3600"})


def _make_metadata() -> dict[str, Any]:
    issuer: str = settings.HERALD.issuer
    base = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "token_endpoint": f"{base}/api/v1/auth/token",
        "revocation_endpoint": f"{base}/api/v1/auth/token/revoke",
        "introspection_endpoint": f"{base}/internal/v1/tokens/introspect",
        "response_types_supported": [],
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "scopes_supported": [str(scope) for scope in Scope],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "service_documentation": f"{base}/api/docs",
    }
