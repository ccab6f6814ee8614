"""Access tokens: making and checking them (contract section 1; RFC 9068, RFC 8725). No database here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

import jwt
from django.conf import settings
from pydantic import ValidationError

from auth_service import clock
from auth_service.tokens.keys import KeyFolder
from shared_contracts.claims import AUDIENCE, LEEWAY_S, TOKEN_TYPE, AccessTokenClaims
from shared_contracts.jws import is_canonical, read_header
from shared_contracts.scopes import Scope, format_scope

_NUMBERS = ("exp", "iat", "nbf")


class Rejection(StrEnum):
    """Why a token is refused: a label of `auth_token_rejected_total`. Whoever shows it is never told which."""

    MALFORMED = "malformed"
    ALGORITHM = "alg"
    KEY = "kid"
    TYPE = "typ"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SESSION_ENDED = "session_ended"
    CUT_OFF = "cut_off"
    INACTIVE = "inactive"


class RejectedToken(Exception):
    """Not a token that counts, with the reason for the metric."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason)
        self.reason = reason


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
    if not is_canonical(token):
        raise RejectedToken(Rejection.MALFORMED)
    header = read_header(token)
    if header is None:
        raise RejectedToken(Rejection.MALFORMED)
    kid, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in ("RS256", "EdDSA"):
        raise RejectedToken(Rejection.ALGORITHM)
    if header.get("typ") != TOKEN_TYPE:
        raise RejectedToken(Rejection.TYPE)
    key = key_folder().load().find_verifying(kid, clock.now()) if isinstance(kid, str) else None
    if key is None:
        raise RejectedToken(Rejection.KEY)
    if key.algorithm != algorithm:
        # One algorithm per key: what the token asks for does not matter (RFC 8725, section 3.1).
        raise RejectedToken(Rejection.ALGORITHM)
    try:
        payload = jwt.decode(
            token,
            key.private.public_key(),
            algorithms=[key.algorithm],
            # Claims are checked below, by our clock and more strictly.
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.InvalidSignatureError:
        raise RejectedToken(Rejection.SIGNATURE) from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise RejectedToken(Rejection.MALFORMED) from None
    return check_claims(payload, issuer=settings.HERALD.issuer, now_s=clock.timestamp_s())


def check_claims(payload: Mapping[str, Any], *, issuer: str, now_s: int) -> AccessTokenClaims:
    """Check the claims of a token whose signature is good.

    Args:
        payload: As decoded from JSON.
        issuer: Must equal `iss` exactly.
        now_s: Seconds since 1970. `exp`, `nbf` and `iat` may be off by the leeway, not by a second more.

    Raises:
        RejectedToken: A claim is missing, of the wrong kind, or says no.
    """
    if any(type(payload.get(name)) is not int for name in _NUMBERS):
        raise RejectedToken(Rejection.CLAIMS)  # "123", 1.5, true and NaN are no NumericDate of ours (A07)
    if payload.get("iss") != issuer:
        raise RejectedToken(Rejection.ISSUER)
    if payload.get("aud") != AUDIENCE:
        raise RejectedToken(Rejection.AUDIENCE)  # a list is refused even when we are in it (A08)
    try:
        claims = AccessTokenClaims.model_validate(payload)
    except ValidationError:
        raise RejectedToken(Rejection.CLAIMS) from None
    if now_s >= claims.exp + LEEWAY_S:
        raise RejectedToken(Rejection.EXPIRED)
    if claims.nbf > now_s + LEEWAY_S or claims.iat > now_s + LEEWAY_S:
        raise RejectedToken(Rejection.NOT_YET_VALID)
    return claims
