from __future__ import annotations

from auth_service.errors import BadRequest, Conflict, InvalidInput, PermissionDenied
from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import FieldError


class UsernameTaken(Conflict):
    """Someone has this name, or one that looks the same (B08)."""

    detail = "This username is taken, or looks like one that is."


class ExternalIdTaken(Conflict):
    """Another user of the tenant has this external id."""

    detail = "Another user has this external id."


class EmailTaken(Conflict):
    """Another user has proved that this address is theirs. Only administrators are told."""

    detail = "Another user has this e-mail address, verified."


class LastAdmin(InvalidInput):
    """Nobody would be left to look after the tenant."""

    code = ErrorCode.LAST_ADMIN
    detail = "This is the tenant's last active administrator."

    def __init__(self) -> None:
        super().__init__(errors=[FieldError(field="", message=self.detail)])


class InvalidLink(BadRequest):
    """A link from a mail that is unknown, used, too old, or out of date: all alike (B09)."""

    code = ErrorCode.INVALID_TOKEN_LINK
    detail = "The link is not valid any more. Ask for a new one."


class WrongPassword(PermissionDenied):
    """The current password is wrong. 403, not 401: the token is fine."""

    detail = "The current password is wrong."


class ReauthenticationRequired(PermissionDenied):
    """A change that a stolen token alone must not make."""

    code = ErrorCode.REAUTHENTICATION_REQUIRED
    detail = "Log in again, or send `password` or `otp` with this request."
