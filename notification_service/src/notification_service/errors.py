"""Every error raised on purpose. Each class answers all questions about itself; anything else is a bug.

ServiceError
├── BadRequest            400
│   ├── InvalidCursor
│   └── InvalidJson
├── NotAuthenticated      401
├── PermissionDenied      403
├── NotFound              404
├── Conflict              409
├── TooLarge              413
├── UnsupportedMediaType  415
├── InvalidSchema         422
│   └── IdempotencyKeyReused
├── RateLimited           429
└── Unavailable           503
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import FieldError


class ServiceError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        code: The machine word clients see.
        status: The HTTP status.
        temporary: Whether the same request may succeed later without a change.
        retry_after: How long to wait before that; sent as `Retry-After`.
    """

    code: ClassVar[ErrorCode]
    status: ClassVar[int]
    temporary: ClassVar[bool] = False
    retry_after: timedelta | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The request cannot be read."""

    code, status = ErrorCode.BAD_REQUEST, 400


class InvalidCursor(BadRequest):
    """A cursor that this call did not hand out."""

    code = ErrorCode.INVALID_CURSOR

    def __init__(self) -> None:
        super().__init__("the cursor is not one this list handed out")


class InvalidJson(BadRequest):
    """The body is not JSON that every reader understands alike."""

    code = ErrorCode.INVALID_JSON

    def __init__(self) -> None:
        super().__init__("the body is not valid JSON")


class NotAuthenticated(ServiceError):
    """No token, or one that is not valid (any more)."""

    code, status = ErrorCode.NOT_AUTHENTICATED, 401

    def __init__(self, detail: str = "a valid access token is needed", *, invalid_token: bool = False) -> None:
        super().__init__(detail)
        self.invalid_token = invalid_token


class PermissionDenied(ServiceError):
    """The token is valid and lacks the right."""

    code, status = ErrorCode.PERMISSION_DENIED, 403


class NotFound(ServiceError):
    """No such object, or not this caller's."""

    code, status = ErrorCode.NOT_FOUND, 404


class Conflict(ServiceError):
    """The request does not fit the object's present state."""

    code, status = ErrorCode.CONFLICT, 409


class TooLarge(ServiceError):
    """The body is longer than this call takes."""

    code, status = ErrorCode.TOO_LARGE, 413

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is longer than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class UnsupportedMediaType(ServiceError):
    """The body is not JSON."""

    code, status = ErrorCode.UNSUPPORTED_MEDIA_TYPE, 415


class InvalidSchema(ServiceError):
    """Fields are wrong; each is named."""

    code, status = ErrorCode.INVALID_SCHEMA, 422

    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__(f"{len(errors)} field{'s are' if len(errors) != 1 else ' is'} wrong")
        self.errors = errors


class IdempotencyKeyReused(InvalidSchema):
    """The key belongs to a request with another body."""

    code = ErrorCode.IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__([FieldError(field="Idempotency-Key", message="belongs to a request with another body")])


class IdempotencyKeyInUse(ServiceError):
    """The first request with the key is being stored at this moment: asked again, it answers."""

    code, status = ErrorCode.IDEMPOTENCY_KEY_IN_USE, 409
    temporary = True
    retry_after = timedelta(seconds=1)

    def __init__(self) -> None:
        super().__init__("the first request with this Idempotency-Key is not done yet")


class RateLimited(ServiceError):
    """The caller is too fast."""

    code, status = ErrorCode.RATE_LIMITED, 429
    temporary = True

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__("too many requests")
        self.retry_after = retry_after


class Unavailable(ServiceError):
    """Something Herald depends on does not answer right now."""

    code, status = ErrorCode.UNAVAILABLE, 503
    temporary = True
    retry_after = timedelta(seconds=2)
