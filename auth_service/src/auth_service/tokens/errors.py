from __future__ import annotations

from typing_extensions import override

from auth_service.errors import ServiceError
from shared_contracts.error_codes import ErrorCode


class Unauthenticated(ServiceError):
    """Base of refusals of what the caller showed. Never says why: see the metric."""

    code, status = ErrorCode.INVALID_TOKEN, 401
    detail = "The access token is not valid."

    @override
    @property
    def headers(self) -> dict[str, str]:
        """RFC 6750, section 3."""
        return {"WWW-Authenticate": 'Bearer realm="herald", error="invalid_token"'}


class InvalidRefreshToken(Unauthenticated):
    """Unknown, expired, or of a session that has ended."""

    detail = "The refresh token is not valid. Log in again."


class TokenReused(Unauthenticated):
    """A refresh token came a second time."""

    code = ErrorCode.TOKEN_REUSED
    detail = "The refresh token was used before. Log in again."


class InvalidCredentials(Unauthenticated):
    """Name or password wrong, account unknown, inactive or without a password: all alike (B03)."""

    code = ErrorCode.INVALID_CREDENTIALS
    detail = "Name or password is wrong."


class OtpRequired(Unauthenticated):
    """The password is right, and the account has a second factor."""

    code = ErrorCode.OTP_REQUIRED
    detail = "A code of the second factor is needed in `otp`."


class InvalidOtp(Unauthenticated):
    """The code is wrong, too old, or was used."""

    code = ErrorCode.INVALID_OTP
    detail = "The code is wrong or was used before."
