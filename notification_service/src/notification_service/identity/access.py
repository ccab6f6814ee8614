"""Who is calling: a token's signature checked here, then the token validated by the auth service."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog

from notification_service import metrics
from notification_service.errors import Unavailable
from notification_service.identity.introspection import Introspection
from notification_service.identity.tokens import SignatureCheck
from shared_contracts.access_tokens import RejectedToken, Rejection
from shared_contracts.claims import AccessTokenClaims
from shared_contracts.scopes import Role, Scope, parse_scope

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever presents a valid token.

    Attributes:
        id: The user, or the service account when `is_service`.
        expires_at: Of the token.
        scopes: What the caller may do now.
        token: What was presented; of a ticket, the token it was bought with.
    """

    id: UUID
    session_id: UUID
    tenant: str
    roles: tuple[str, ...]
    scopes: frozenset[Scope]
    expires_at: datetime
    is_service: bool
    name: str | None = None
    token: str | None = field(default=None, repr=False, compare=False)


class Access:
    """Turns tokens into callers."""

    def __init__(self, signatures: SignatureCheck, introspection: Introspection) -> None:
        self._signatures = signatures
        self.introspection = introspection

    async def identify(self, token: str, *, fresh: bool = False, sensitive: bool = False) -> Caller:
        """Check a token.

        While the auth service is down, tokens that are good in themselves are still taken, except for what is
        `sensitive` to revocation.

        Args:
            token: As presented.
            fresh: Do not take an earlier answer of the auth service.
            sensitive: Refuse rather than decide without the auth service.

        Raises:
            RejectedToken: Forged, expired, revoked, or its account closed.
            Unavailable: Sensitive, and the auth service does not answer.
        """
        claims = await self._signatures.check(token)
        try:
            answer = await self.introspection.ask(token, fresh=fresh)
        except Unavailable:
            if sensitive:
                raise
            if self.introspection.is_known_ended(claims):
                metrics.token_rejected.labels(Rejection.REVOKED).inc()
                raise RejectedToken(Rejection.REVOKED) from None
            log.warning("token_taken_without_introspection", user_id=str(claims.sub))
            return _make_caller(claims, claims.roles, claims.scope, None, token)
        if not answer.is_active or answer.user_id != claims.sub:
            metrics.token_rejected.labels(Rejection.REVOKED).inc()
            raise RejectedToken(Rejection.REVOKED)
        return _make_caller(claims, answer.roles, answer.scope, answer.username, token)

    async def redeem(self, ticket: str) -> Caller:
        """Who bought this ticket; it works once.

        Raises:
            RejectedToken: Unknown, used, or too old.
            Unavailable: The auth service does not answer.
        """
        answer = await self.introspection.redeem(ticket)
        if not answer.is_active or answer.user_id is None or answer.session_id is None or answer.expires_at is None:
            metrics.token_rejected.labels(Rejection.TICKET).inc()
            raise RejectedToken(Rejection.TICKET)
        return Caller(
            id=answer.user_id,
            session_id=answer.session_id,
            tenant=answer.tenant,
            roles=answer.roles,
            scopes=parse_scope(answer.scope),
            expires_at=answer.expires_at,
            is_service=Role.SERVICE in answer.roles,
            name=answer.username,
            token=answer.access,
        )


def _make_caller(claims: AccessTokenClaims, roles: tuple[str, ...], scope: str, name: str | None, token: str) -> Caller:
    return Caller(
        id=claims.sub,
        session_id=claims.sid,
        tenant=claims.tenant,
        roles=roles,
        scopes=_limit(parse_scope(scope), claims.scopes),
        expires_at=datetime.fromtimestamp(claims.exp, UTC),
        is_service=Role.SERVICE in roles,
        name=name,
        token=token,
    )


def _limit(granted: frozenset[Scope], asked: frozenset[Scope]) -> frozenset[Scope]:
    """Never more than the token itself says: a token asked for with less must not grow. Mostly the same set for all."""
    return granted if granted <= asked else granted & asked
