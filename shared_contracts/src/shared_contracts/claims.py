"""What an access token says (contract section 1; RFC 9068)."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared_contracts.scopes import Scope, parse_scope

AUDIENCE = "herald"
DEFAULT_ISSUER = "http://127.0.0.1:8000"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - the header `typ` of RFC 9068, no secret
LEEWAY_S = 5
"""Seconds by which `exp`, `nbf` and `iat` may be off: clocks of two machines that keep NTP differ by less."""

SIGNING_ALGORITHMS = ("RS256", "EdDSA")
DEFAULT_TENANT = "default"


NumericDate = Annotated[int, Field(strict=True, ge=0, le=253_402_300_799)]
"""Whole seconds since 1970 (RFC 7519); "123", 1.5, true and NaN are none of ours (A07). Until the end of the year 9999:
a later moment is none that can be told."""


class AccessTokenClaims(BaseModel):
    """The payload of an access token."""

    model_config = ConfigDict(frozen=True, strict=False, extra="ignore")

    iss: str
    aud: Literal["herald"]
    sub: UUID = Field(description="The user, or the service account when `roles` is ['service'].")
    jti: UUID
    sid: UUID = Field(description="The session. Ending it ends every token with this value.")
    iat: NumericDate
    nbf: NumericDate
    exp: NumericDate
    roles: tuple[str, ...]
    scope: str = Field(description="Space-separated scopes.")
    tenant: str
    token_use: Literal["access"]

    @property
    def scopes(self) -> frozenset[Scope]:
        """The rights this token carries."""
        return parse_scope(self.scope)

    @property
    def is_service(self) -> bool:
        """Whether this is a service account: it has no inbox and no sockets."""
        return "service" in self.roles
