from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from django.db import models
from django.db.models import Q
from typing_extensions import override

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.service_accounts.models import ServiceAccount
from shared_contracts.ids import new_id

MAX_DEVICE_ID_LENGTH = 200
MAX_DEVICE_NAME_LENGTH = 100
MAX_USER_AGENT_LENGTH = 300


class EndReason(StrEnum):
    """Why a session ended before its time; also the `reason` of a `session.revoked` event."""

    LOGOUT = "logout"
    LOGOUT_ALL = "logout_all"
    REVOKED_BY_USER = "revoked_by_user"
    REVOKED_BY_ADMIN = "revoked_by_admin"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a word
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a word
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a word
    PASSWORD_RESET = "password_reset"  # noqa: S105 - a word
    ACCOUNT_DEACTIVATED = "account_deactivated"
    SERVICE_ACCOUNT_DISABLED = "service_account_disabled"


class SessionQuerySet(models.QuerySet["Session"]):
    """Ways to narrow sessions down."""

    def alive(self, at: datetime) -> Self:
        """Sessions that neither ended nor ran out."""
        return self.filter(ended_at=None, expires_at__gt=at)


class Session(models.Model):
    """One login on one device: the family of all refresh tokens that follow from it, and the `sid` of its tokens."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions", db_index=False)
    client = models.ForeignKey(
        ServiceAccount,
        on_delete=models.CASCADE,
        null=True,
        related_name="user_sessions",
        help_text="The service account that logged the user in (`user-tokens`).",
    )
    device_id = models.CharField(max_length=MAX_DEVICE_ID_LENGTH, default="", help_text="As the device named itself.")
    device_key = models.CharField(max_length=64, help_text="What tells a known device from a new one.")
    device_name = models.CharField(max_length=MAX_DEVICE_NAME_LENGTH, null=True)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=MAX_USER_AGENT_LENGTH, default="")
    created_at = models.DateTimeField(default=clock.now)
    last_seen_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField()
    tokens_not_before = models.DateTimeField(null=True, help_text="Its tokens issued before this are refused.")
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=32, default="")

    objects = SessionQuerySet.as_manager()

    class Meta:
        constraints = (
            # An application that asks again for the same device continues the session it has.
            models.UniqueConstraint(
                fields=["user", "client", "device_id"],
                condition=Q(ended_at=None, client__isnull=False),
                name="session_of_client_unique",
            ),
        )
        indexes = (
            models.Index(fields=["user", "device_key"], name="session_user_device"),
            models.Index(fields=["user", "created_at", "id"], name="session_user_created"),
            models.Index(fields=["expires_at"], name="session_expires"),
        )

    @override
    def __str__(self) -> str:
        return f"{self.device_name or self.user_agent or 'unnamed device'} of {self.user_id}"


class RefreshToken(models.Model):
    """One refresh token of a session: only its hash. The row stays after use, so that a second use is noticed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="refresh_tokens")
    token_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True)
    # Who used it, and what the successor is derived from: enough to answer the same again to the same device.
    consumed_by = models.CharField(max_length=64, default="")
    successor_salt = models.CharField(max_length=43, default="")
    repeated_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (models.Index(fields=["expires_at"], name="refresh_token_expires"),)

    @override
    def __str__(self) -> str:
        return f"refresh token {self.id}"
