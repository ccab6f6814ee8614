from __future__ import annotations

from enum import StrEnum
from typing import Any, NoReturn
from uuid import UUID

from django.db import models
from django.db.models import Q
from typing_extensions import override

from auth_service import clock
from shared_contracts.ids import new_id


class Action(StrEnum):
    """What is written down. A word is never renamed."""

    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    SERVICE_LOGIN_FAILED = "service_login.failed"
    TOKEN_REUSED = "token.reused"  # noqa: S105 - a word
    USER_TOKENS_ISSUED = "user_tokens.issued"
    SESSION_ENDED = "session.ended"
    USER_REGISTERED = "user.registered"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USERS_IMPORTED = "users.imported"
    USER_ROLES_CHANGED = "user.roles_changed"
    USER_ACTIVATED = "user.activated"
    USER_DEACTIVATED = "user.deactivated"
    USER_ERASED = "user.erased"
    USER_EXPORTED = "user.exported"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 - a word
    PASSWORD_RESET = "password.reset"  # noqa: S105 - a word
    EMAIL_VERIFIED = "email.verified"
    OTP_ENABLED = "otp.enabled"
    OTP_DISABLED = "otp.disabled"
    RECOVERY_CODE_USED = "recovery_code.used"
    GROUP_CREATED = "group.created"
    GROUP_UPDATED = "group.updated"
    GROUP_DELETED = "group.deleted"
    GROUP_MEMBERS_CHANGED = "group.members_changed"
    SERVICE_ACCOUNT_CREATED = "service_account.created"
    SERVICE_ACCOUNT_UPDATED = "service_account.updated"
    SERVICE_ACCOUNT_DELETED = "service_account.deleted"
    SERVICE_SECRET_ROTATED = "service_account.secret_rotated"  # noqa: S105 - a word
    TENANT_CREATED = "tenant.created"
    TENANT_UPDATED = "tenant.updated"
    KEY_ROTATED = "key.rotated"
    ALL_TOKENS_CUT_OFF = "tokens.cut_off"


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Reads and adds; nothing else."""

    @override
    def update(self, **_values: Any) -> NoReturn:
        raise TypeError("audit events are append-only")

    @override
    def delete(self) -> NoReturn:
        raise TypeError("audit events are append-only")

    def blank_person(self, user_id: UUID) -> int:
        """Take an erased person's addresses and browsers out of the trail; answer how many rows had any."""
        own = Q(actor_id=user_id) | Q(actor_type="anonymous", subject_id=str(user_id))
        held = Q(ip__isnull=False) | ~Q(user_agent="")
        return super(AuditEventQuerySet, self.filter(own & held)).update(ip=None, user_agent="")


class AuditEvent(models.Model):
    """Who did what to whom, when and from where. Rows are added and never changed: triggers in the database see to it.

    People are named by id alone, so that erasing a user leaves the trail and takes the person out of it; the address
    and the browser are blanked then, the one change the triggers allow.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    occurred_at = models.DateTimeField(default=clock.now)
    action = models.CharField(max_length=64, help_text="Other services add words of their own.")
    actor_type = models.CharField(max_length=20, help_text="user, service, system or anonymous")
    actor_id = models.UUIDField(null=True)
    subject_type = models.CharField(max_length=40, default="")
    subject_id = models.CharField(max_length=200, default="")
    tenant = models.CharField(max_length=63)
    ip = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=300, default="")
    correlation_id = models.CharField(max_length=64, default="")
    details = models.JSONField(default=dict)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=["tenant", "occurred_at", "id"], name="audit_tenant_occurred"),
            models.Index(fields=["tenant", "action", "occurred_at"], name="audit_tenant_action"),
            models.Index(fields=["actor_id", "occurred_at"], name="audit_actor"),
            models.Index(fields=["subject_id", "occurred_at"], name="audit_subject"),
        )

    @override
    def __str__(self) -> str:
        return f"{self.occurred_at:%Y-%m-%d %H:%M:%S} {self.action}"

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Add the row.

        Raises:
            TypeError: The row exists already.
        """
        if not self._state.adding:
            raise TypeError("audit events are append-only")
        super().save(*args, **kwargs)

    @override
    def delete(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Never.

        Raises:
            TypeError: Always.
        """
        raise TypeError("audit events are append-only")
