"""Access tokens: signature and claims checked here (RFC 9068, RFC 8725), without asking anybody."""

from __future__ import annotations

from typing import Final

import jwt
from pydantic import ValidationError

from notification_service import metrics
from notification_service.identity.key_set import KeySet
from shared_contracts.claims import LEEWAY_S, TOKEN_TYPE, AccessTokenClaims
from shared_contracts.jws import MAX_TOKEN_LENGTH, is_canonical, read_header

_REQUIRED: Final = ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"]


class TokenRefused(Exception):
    """The token is not valid.

    Attributes:
        reason: One word for the metric; never shown to the caller.
        is_expired: It was good once: the client should refresh it.
    """

    def __init__(self, reason: str, *, is_expired: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_expired = reason, is_expired


class SignatureCheck:
    """Checks tokens against the key set, one allowed algorithm per key."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def check(self, token: str) -> AccessTokenClaims:
        """The claims of a token that is good in itself; whether it was revoked is another question.

        Raises:
            TokenRefused: Says why, in one word.
        """
        try:
            return await self._check(token)
        except TokenRefused as refused:
            metrics.token_rejected.labels(refused.reason).inc()
            raise

    async def _check(self, token: str) -> AccessTokenClaims:
        # Decoders take several spellings for one token; what is remembered by its text must have one.
        if not is_canonical(token):
            raise TokenRefused("too_long" if len(token) > MAX_TOKEN_LENGTH else "malformed")
        header = read_header(token)
        if header is None:
            raise TokenRefused("malformed")
        kid, algorithm = header.get("kid"), header.get("alg")
        if header.get("typ") != TOKEN_TYPE:
            raise TokenRefused("typ")
        if "crit" in header:
            raise TokenRefused("crit")
        if not isinstance(kid, str) or len(kid) > 128 or not kid.isprintable():
            raise TokenRefused("kid")
        key = await self._keys.find(kid)
        if key is None:
            raise TokenRefused("kid")
        if algorithm != key.algorithm_name:
            raise TokenRefused("alg")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED, "strict_aud": True},
            )
            return AccessTokenClaims.model_validate(claims)
        except jwt.ExpiredSignatureError:
            raise TokenRefused("expired", is_expired=True) from None
        except (jwt.PyJWTError, ValidationError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenRefused(_REASONS.get(type(error), "claims")) from None


_REASONS: Final[dict[type[Exception], str]] = {
    jwt.InvalidSignatureError: "signature",
    jwt.InvalidAudienceError: "audience",
    jwt.InvalidIssuerError: "issuer",
    jwt.ImmatureSignatureError: "not_yet_valid",
    jwt.DecodeError: "malformed",
}
