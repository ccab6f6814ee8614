"""The machine words of errors and outcomes. A word is never renamed or given another meaning."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """`code` of a problem+json body and of a WebSocket `error` frame."""

    # 400
    BAD_REQUEST = "bad_request"
    INVALID_JSON = "invalid_json"
    INVALID_CURSOR = "invalid_cursor"
    INVALID_TOKEN_LINK = "invalid_token_link"  # noqa: S105 - a word for an error
    # 401
    NOT_AUTHENTICATED = "not_authenticated"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a word for an error
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a word for an error
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a word for an error
    INVALID_CREDENTIALS = "invalid_credentials"
    OTP_REQUIRED = "otp_required"
    INVALID_OTP = "invalid_otp"
    # 403, 404, 405, 406
    PERMISSION_DENIED = "permission_denied"
    REAUTHENTICATION_REQUIRED = "reauthentication_required"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    # 409, 410
    CONFLICT = "conflict"
    IDEMPOTENCY_KEY_IN_USE = "idempotency_key_in_use"
    POSITION_GONE = "position_gone"
    # 413, 415, 422
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_SCHEMA = "invalid_schema"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    EVENT_TYPE_INACTIVE = "event_type_inactive"
    MANDATORY_EVENT_TYPE = "mandatory_event_type"
    TEMPLATE_ERROR = "template_error"
    MISSING_VARIABLE = "missing_variable"
    MISSING_DEFAULT_TEMPLATE = "missing_default_template"
    LAST_ADMIN = "last_admin"
    # 429, 500, 503
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    # WebSocket frames only
    INVALID_FRAME = "invalid_frame"
    UNKNOWN_FRAME_TYPE = "unknown_frame_type"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    INVALID_POSITION = "invalid_position"
    LIMIT_REACHED = "limit_reached"


class Reason(StrEnum):
    """Why a delivery ended as it did, or why a message is a dead letter (contract section 8)."""

    CHANNEL_OFF = "channel_off"
    CATEGORY_OFF = "category_off"
    EVENT_TYPE_OFF = "event_type_off"
    EVENT_TYPE_INACTIVE = "event_type_inactive"
    QUIET_HOURS = "quiet_hours"
    THROTTLED = "throttled"
    DIGESTED = "digested"
    NO_ADDRESS = "no_address"
    ADDRESS_UNVERIFIED = "address_unverified"
    ADDRESS_DISABLED = "address_disabled"
    CHANNEL_NOT_CONFIGURED = "channel_not_configured"
    DUPLICATE = "duplicate"
    COLLAPSED = "collapsed"
    EXPIRED = "expired"
    RECALLED = "recalled"
    ALREADY_READ = "already_read"
    UNKNOWN_RECIPIENT = "unknown_recipient"
    RECIPIENT_INACTIVE = "recipient_inactive"
    OTHER_TENANT = "other_tenant"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    INVALID_JSON = "invalid_json"
    INVALID_SCHEMA = "invalid_schema"
    TOO_LARGE = "too_large"
    MISSING_MESSAGE_ID = "missing_message_id"
    TEMPLATE_ERROR = "template_error"
    MISSING_VARIABLE = "missing_variable"
    PROVIDER_REJECTED = "provider_rejected"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    BREAKER_OPEN = "breaker_open"
