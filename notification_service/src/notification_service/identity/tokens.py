"""Access tokens checked here, with the auth service's public keys, without asking anybody (RFC 9068, RFC 8725)."""

from __future__ import annotations

from notification_service import metrics
from notification_service.clock import Clock
from notification_service.identity.key_set import KeySet
from shared_contracts.access_tokens import RejectedToken, Rejection, accept_access_token, read_access_token
from shared_contracts.claims import AccessTokenClaims


class SignatureCheck:
    """Checks tokens against the key set, one allowed algorithm per key."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    async def check(self, token: str) -> AccessTokenClaims:
        """The claims of a token that is good in itself; whether it was revoked is another question.

        Raises:
            RejectedToken: With the reason.
        """
        try:
            return await self._check(token)
        except RejectedToken as rejected:
            metrics.token_rejected.labels(rejected.reason).inc()
            raise

    async def _check(self, token: str) -> AccessTokenClaims:
        unverified = read_access_token(token)
        key = await self._keys.find(unverified.kid)
        if key is None:
            raise RejectedToken(Rejection.KEY)
        return accept_access_token(
            unverified,
            algorithm=key.algorithm_name,
            verify=lambda message, signature: key.Algorithm.verify(message, key.key, signature),
            issuer=self._issuer,
            audience=self._audience,
            now_s=self._clock.now().timestamp(),
        )
