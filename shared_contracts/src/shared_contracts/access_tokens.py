"""Whether an access token is good in itself, decided the same way by both services (contract section 1; RFC 7519,
section 7.2; RFC 8725; RFC 9068, section 4; docs/decisions/0084).

Pure: keys, signatures and the time are the caller's. Whether a good token was revoked is another question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import ValidationError

from shared_contracts.claims import AUDIENCE, LEEWAY_S, SIGNING_ALGORITHMS, TOKEN_TYPE, AccessTokenClaims
from shared_contracts.jws import MAX_TOKEN_LENGTH, Jws, read_jws

_MAX_KID_LENGTH: Final = 128


class Rejection(StrEnum):
    """Why a token is refused: a label of `auth_token_rejected_total`. Whoever shows it is never told which."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    ALGORITHM = "alg"
    TYPE = "typ"
    CRITICAL = "crit"
    KEY = "kid"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    # Of tokens that are good in themselves, and of tickets:
    SESSION_ENDED = "session_ended"
    CUT_OFF = "cut_off"
    INACTIVE = "inactive"
    REVOKED = "revoked"
    TICKET = "ticket"


class RejectedToken(Exception):
    """Not a token that counts, with the reason for the metric."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def is_expired(self) -> bool:
        """Whether it was good once: the client should refresh it."""
        return self.reason is Rejection.EXPIRED


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that looks like one of ours.

    Attributes:
        kid: Names the key that is said to have signed it.
        algorithm: What the token says; the key decides.
    """

    kid: str
    algorithm: str
    jws: Jws


def read_access_token(token: str) -> UnverifiedToken:
    """Take a token apart, and refuse what no key needs to be looked up for.

    Raises:
        RejectedToken: Malformed, unsigned, of another type or algorithm, or with extensions.
    """
    jws = read_jws(token)
    if jws is None:
        raise RejectedToken(Rejection.TOO_LONG if len(token) > MAX_TOKEN_LENGTH else Rejection.MALFORMED)
    header = jws.header
    kid, algorithm = header.get("kid"), header.get("alg")
    if algorithm not in SIGNING_ALGORITHMS:
        raise RejectedToken(Rejection.ALGORITHM)
    if header.get("typ") != TOKEN_TYPE:
        raise RejectedToken(Rejection.TYPE)
    if "crit" in header:
        raise RejectedToken(Rejection.CRITICAL)
    if not isinstance(kid, str) or len(kid) > _MAX_KID_LENGTH or not kid.isprintable():
        raise RejectedToken(Rejection.KEY)
    return UnverifiedToken(kid, algorithm, jws)


def accept_access_token(
    token: UnverifiedToken,
    *,
    algorithm: str,
    verify: Callable[[bytes, bytes], bool],
    issuer: str,
    now_s: float,
    audience: str = AUDIENCE,
) -> AccessTokenClaims:
    """Verify the signature, then the claims.

    Args:
        token: As read.
        algorithm: The one the key is for (RFC 8725, section 3.1).
        verify: Whether a message has this signature by the key.
        issuer: Must equal `iss` exactly.
        now_s: Seconds since 1970. `exp`, `nbf` and `iat` may be off by the leeway, not by a second more.
        audience: Must equal `aud`; a list is refused even when it holds it.

    Raises:
        RejectedToken: With the first reason that was found.
    """
    if token.algorithm != algorithm:
        raise RejectedToken(Rejection.ALGORITHM)
    if not verify(token.jws.signing_input, token.jws.signature):
        raise RejectedToken(Rejection.SIGNATURE)
    try:
        claims = AccessTokenClaims.model_validate_json(token.jws.payload)
    except ValidationError as error:
        raise RejectedToken(_find_reason(error)) from None
    if claims.iss != issuer:
        raise RejectedToken(Rejection.ISSUER)
    if claims.aud != audience:
        raise RejectedToken(Rejection.AUDIENCE)
    if now_s >= claims.exp + LEEWAY_S:
        raise RejectedToken(Rejection.EXPIRED)
    if claims.nbf > now_s + LEEWAY_S or claims.iat > now_s + LEEWAY_S:
        raise RejectedToken(Rejection.NOT_YET_VALID)
    return claims


def _find_reason(error: ValidationError) -> Rejection:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Rejection.MALFORMED
    return _BY_CLAIM.get(first["loc"][0] if first["loc"] else "", Rejection.CLAIMS)


_BY_CLAIM: Final[dict[int | str, Rejection]] = {"iss": Rejection.ISSUER, "aud": Rejection.AUDIENCE}
