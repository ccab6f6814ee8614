"""Access tokens: making and checking them (contract section 1; RFC 9068, RFC 8725). No database here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from uuid import UUID

import jwt
from django.conf import settings

from auth_service import clock
from auth_service.tokens.keys import KeyFolder
from shared_contracts.access_tokens import RejectedToken, Rejection, accept_access_token, read_access_token
from shared_contracts.claims import AUDIENCE, LEEWAY_S, TOKEN_TYPE, AccessTokenClaims
from shared_contracts.scopes import Scope, format_scope


@dataclass(frozen=True)
class IssuedAccessToken:
    """A new token, and what is in it."""

    token: str
    claims: AccessTokenClaims

    @property
    def expires_in_s(self) -> int:
        """Seconds it lives."""
        return self.claims.exp - self.claims.iat


@cache
def key_folder() -> KeyFolder:
    """This process's view of the signing keys."""
    herald = settings.HERALD
    return KeyFolder(herald.keys_path, overlap=herald.access_lifetime + timedelta(seconds=LEEWAY_S))


def issue_access_token(
    *, subject_id: UUID, session_id: UUID, roles: Iterable[str], scopes: Iterable[Scope], tenant: str
) -> IssuedAccessToken:
    """Sign a new access token. Its `jti` is a UUIDv7, so that its time of issue is known to the millisecond."""
    now_s = clock.timestamp_s()
    herald = settings.HERALD
    claims = AccessTokenClaims(
        iss=herald.issuer,
        aud=AUDIENCE,
        sub=subject_id,
        jti=clock.new_timed_id(),
        sid=session_id,
        iat=now_s,
        nbf=now_s,
        exp=now_s + int(herald.access_lifetime.total_seconds()),
        roles=tuple(roles),
        scope=format_scope(scopes),
        tenant=tenant,
        token_use="access",  # noqa: S106 - a word
    )
    return IssuedAccessToken(sign(claims), claims)


def sign(claims: AccessTokenClaims) -> str:
    """A token that says this, by the key of this moment."""
    folder = key_folder()
    keys = folder.load()
    if not keys.keys:
        keys = folder.ensure(settings.HERALD.signing_algorithm)
    key = keys.signing_key(clock.now())
    return jwt.encode(
        claims.model_dump(mode="json"),
        key.private,
        algorithm=key.algorithm,
        headers={"kid": key.kid, "typ": TOKEN_TYPE},
    )


def check_access_token(token: str) -> AccessTokenClaims:
    """Verify signature and claims. Whether the session still lives is `liveness`'s question.

    Raises:
        RejectedToken: For any reason; the reason is for metrics, never for the caller.
    """
    unverified = read_access_token(token)
    key = key_folder().load().find_verifying(unverified.kid, clock.now())
    if key is None:
        raise RejectedToken(Rejection.KEY)
    return accept_access_token(
        unverified,
        algorithm=key.algorithm,
        verify=key.verify,
        issuer=settings.HERALD.issuer,
        now_s=clock.timestamp_s(),
    )
