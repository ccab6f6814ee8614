"""Errors raised on purpose. Anything else that reaches the edge is a bug and answers 500.

One class per cause; the class says what the caller is told. Domains keep theirs in `<domain>/errors.py`; a test walks
all subclasses and fails on a missing or contradictory answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from typing_extensions import override

from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import FieldError


class ServiceError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        code: The machine word the caller sees.
        status: The HTTP status.
        detail: What the caller is told unless the raiser says more. Never holds a secret, SQL or a path.
    """

    code: ClassVar[ErrorCode]
    status: ClassVar[int]
    detail: ClassVar[str]

    def __init__(self, detail: str | None = None, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail or self.detail)
        self.errors = list(errors)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to this answer."""
        return {}


class BadRequest(ServiceError):
    """The request cannot be understood at all."""

    code, status = ErrorCode.BAD_REQUEST, 400
    detail = "The request cannot be understood."


class InvalidJson(ServiceError):
    """The body is not JSON that every part of Herald can hold."""

    code, status = ErrorCode.INVALID_JSON, 400
    detail = "The body is not valid JSON."


class InvalidCursor(ServiceError):
    """A cursor that this list did not give to this caller, or that is too old."""

    code, status = ErrorCode.INVALID_CURSOR, 400
    detail = "The cursor is not valid for this list. Start again without it."


class NotAuthenticated(ServiceError):
    """No credentials were given."""

    code, status = ErrorCode.NOT_AUTHENTICATED, 401
    detail = "An access token is needed."

    @override
    @property
    def headers(self) -> dict[str, str]:
        """RFC 6750, section 3: no error word when no token was given."""
        return {"WWW-Authenticate": 'Bearer realm="herald"'}


class PermissionDenied(ServiceError):
    """The caller is known and may not do this."""

    code, status = ErrorCode.PERMISSION_DENIED, 403
    detail = "You may not do this."


class NotFound(ServiceError):
    """Does not exist, or belongs to someone else: both look alike."""

    code, status = ErrorCode.NOT_FOUND, 404
    detail = "There is no such thing."


class MethodNotAllowed(ServiceError):
    """The address exists, the method does not."""

    code, status = ErrorCode.METHOD_NOT_ALLOWED, 405
    detail = "This address does not take that method."

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        super().__init__()
        self.allowed = tuple(allowed)

    @override
    @property
    def headers(self) -> dict[str, str]:
        """RFC 9110, section 15.5.6."""
        return {"Allow": ", ".join(self.allowed)}


class Conflict(ServiceError):
    """Something like this exists already, or changed meanwhile."""

    code, status = ErrorCode.CONFLICT, 409
    detail = "This contradicts what exists already."


class TooLarge(ServiceError):
    """The body is longer than is read."""

    code, status = ErrorCode.TOO_LARGE, 413
    detail = "The body is too large."

    @override
    @property
    def headers(self) -> dict[str, str]:
        """The rest of the body is not read, so the connection cannot be used again."""
        return {"Connection": "close"}


class UnsupportedMediaType(ServiceError):
    """The body is not declared as JSON."""

    code, status = ErrorCode.UNSUPPORTED_MEDIA_TYPE, 415
    detail = "The body must be application/json."


class InvalidInput(ServiceError):
    """Well-formed, but fields are wrong; `errors` names them."""

    code, status = ErrorCode.INVALID_SCHEMA, 422
    detail = "Some fields are wrong."

    @classmethod
    def of(cls, field: str, message: str) -> InvalidInput:
        """One wrong field."""
        return cls(errors=[FieldError(field=field, message=message)])


class RateLimited(ServiceError):
    """Too many tries; it ends by itself."""

    code, status = ErrorCode.RATE_LIMITED, 429
    detail = "Too many tries. Wait, then try again."

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__()
        self.retry_after = retry_after

    @override
    @property
    def headers(self) -> dict[str, str]:
        """RFC 9110, section 10.2.3; whole seconds, at least one."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after.total_seconds())))}


class InternalError(ServiceError):
    """Something nobody expected; the log has it under the correlation id."""

    code, status = ErrorCode.INTERNAL_ERROR, 500
    detail = "Something went wrong here. Quote the correlation id when you report it."


class Unavailable(ServiceError):
    """A dependency does not answer."""

    code, status = ErrorCode.UNAVAILABLE, 503
    detail = "A part this needs does not answer. Try again soon."

    @override
    @property
    def headers(self) -> dict[str, str]:
        """5 s: longer than a restart of a database connection takes, shorter than anyone's patience."""
        return {"Retry-After": "5"}
