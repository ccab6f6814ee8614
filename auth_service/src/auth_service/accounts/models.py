from __future__ import annotations

from typing import Any, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import F, Q
from typing_extensions import override

from auth_service import clock
from auth_service.accounts.fields import RolesField, role_sets_with
from auth_service.accounts.names import MAX_KEY_LENGTH, MAX_USERNAME_LENGTH, make_email_key, make_username_key
from auth_service.tenants.models import Tenant
from shared_contracts.identity_events import UserSnapshot
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role, Scope, scopes_of

MAX_EXTERNAL_ID_LENGTH = 128
MAX_EMAIL_LENGTH = 254
"""RFC 5321, section 4.5.3.1.3, less the angle brackets."""


class UserQuerySet(models.QuerySet["User"]):
    """Ways to narrow users down."""

    def with_role(self, role: str) -> Self:
        """Users who have this role, whatever else they are."""
        return self.filter(roles__in=role_sets_with(role))

    def matching(self, text: str) -> Self:
        """Users whose name, address, external id or phone contains the text, literally, in any case."""
        return self.filter(search_text__contains=make_search_text(text))


class UserManager(BaseUserManager["User"]):
    """Django's manager, with our ways to narrow users down."""

    @override
    def get_queryset(self) -> UserQuerySet:
        return UserQuerySet(self.model, using=self._db)

    @override
    def get_by_natural_key(self, username: str | None) -> User:
        """The user of this name; Django's admin asks this way."""
        return self.get(username_key=make_username_key(username or ""))


class User(AbstractBaseUser):
    """A person. Erasing one deletes the row; what stays elsewhere is the id."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="users", db_index=False)
    external_id = models.CharField(
        max_length=MAX_EXTERNAL_ID_LENGTH, null=True, blank=True, help_text="The id in the system the user comes from."
    )
    username = models.CharField(max_length=MAX_USERNAME_LENGTH)
    username_key = models.CharField(max_length=MAX_KEY_LENGTH, unique=True, editable=False)
    email = models.EmailField(max_length=MAX_EMAIL_LENGTH, null=True, blank=True)
    email_key = models.CharField(max_length=MAX_EMAIL_LENGTH * 2, null=True, editable=False)
    email_verified = models.BooleanField(default=False)
    phone = models.CharField(max_length=16, null=True, blank=True, help_text="E.164, for example +4930123456.")
    locale = models.CharField(max_length=35, default="en")
    timezone = models.CharField(max_length=64, default="UTC")
    roles = RolesField(default=(Role.USER.value,))
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(default=clock.now, editable=False)
    last_login = None  # Django's own column; ours has the name of the contract
    last_login_at = models.DateTimeField(null=True, editable=False)
    password_changed_at = models.DateTimeField(null=True, editable=False)
    tokens_not_before = models.DateTimeField(
        null=True, editable=False, help_text="Tokens issued before this are refused."
    )
    # What the last identity event said. A difference means that someone changed the row behind the service's back.
    announced_is_active = models.BooleanField(default=True, editable=False)
    announced_roles = RolesField(default=(Role.USER.value,), editable=False)
    search_text = models.TextField(default="", editable=False)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = []  # noqa: RUF012 - the type Django declares

    objects = UserManager.from_queryset(UserQuerySet)()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["tenant", "external_id"], name="user_external_id_unique"),
            # An address belongs to whoever proved it. Unproven, it may be claimed by many: so a registration need not
            # tell whether someone has it already (B03), and nobody can reserve another's address.
            models.UniqueConstraint(
                fields=["email_key"], condition=Q(email_verified=True), name="user_verified_email_unique"
            ),
        )
        indexes = (
            models.Index(fields=["tenant", "created_at", "id"], name="user_tenant_created"),
            models.Index(fields=["tenant", "username_key"], name="user_tenant_username"),
            models.Index(fields=["tenant", "roles", "created_at"], name="user_tenant_roles"),
            models.Index(fields=["email_key"], name="user_email"),
            models.Index(
                fields=["id"],
                condition=~Q(is_active=F("announced_is_active")) | ~Q(roles=F("announced_roles")),
                name="user_unannounced",
            ),
        )

    @override
    def __str__(self) -> str:
        return self.username

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Keep the derived columns right; `bulk_create` callers do it through `fill_derived`."""
        self.fill_derived()
        if (fields := kwargs.get("update_fields")) is not None:
            kwargs["update_fields"] = {*fields, *DERIVED_FIELDS, "updated_at"}
        super().save(*args, **kwargs)

    def fill_derived(self) -> None:
        """Compute the columns that follow from others."""
        self.username_key = make_username_key(self.username)
        self.email = self.email or None
        self.email_key = make_email_key(self.email) if self.email else None
        self.email_verified = bool(self.email_verified and self.email)
        self.search_text = make_search_text(
            "\n".join(filter(None, (self.username, self.email, self.external_id, self.phone)))
        )
        self.updated_at = clock.now()

    @property
    def scopes(self) -> frozenset[Scope]:
        """What this user may do, by role."""
        return scopes_of(self.roles)

    def has_role(self, role: Role) -> bool:
        """Whether the user has exactly this role, not merely a higher one."""
        return role.value in self.roles

    def snapshot(self) -> UserSnapshot:
        """The user as events and the mirror show them."""
        return UserSnapshot(
            id=self.id,
            external_id=self.external_id,
            username=self.username,
            email=self.email,
            email_verified=self.email_verified,
            phone=self.phone,
            locale=self.locale,
            timezone=self.timezone,
            roles=tuple(self.roles),
            tenant=self.tenant_id,
            is_active=self.is_active,
            created_at=self.created_at,
        )

    # What Django's admin asks. There are no permission tables: staff looks, admin changes.
    @property
    def is_staff(self) -> bool:
        """Whether the Django admin lets this user in."""
        return self.is_active and (self.has_role(Role.STAFF) or self.has_role(Role.ADMIN))

    @property
    def is_superuser(self) -> bool:
        """Whether the Django admin lets this user change things."""
        return self.is_active and self.has_role(Role.ADMIN)

    def has_perm(self, permission: str, _obj: object = None) -> bool:
        """Admins may everything an admin page offers, staff may look."""
        return self.is_superuser or (self.is_staff and ".view_" in permission)

    def has_module_perms(self, _app_label: str) -> bool:
        """Whether an application's pages are shown at all."""
        return self.is_staff


DERIVED_FIELDS = ("username_key", "email", "email_key", "email_verified", "search_text")


def make_search_text(text: str) -> str:
    """The form in which search compares: a plain `LIKE` on it needs no case folding in the database."""
    return make_email_key(text)


class OtpDevice(models.Model):
    """A user's second factor: a TOTP secret (RFC 6238). It counts only once a code has confirmed it."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="otp_device")
    secret_encrypted = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=clock.now)
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=0, help_text="Of the last code used: each works once.")

    @override
    def __str__(self) -> str:
        return f"second factor of {self.user_id}"


class RecoveryCode(models.Model):
    """One of ten codes that stand in for a lost second factor; each works once."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    code_hash = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True)

    @override
    def __str__(self) -> str:
        return f"recovery code of {self.user_id}"


class LinkPurpose(models.TextChoices):
    """What following a mailed link does."""

    PASSWORD_RESET = "password_reset"  # noqa: S105 - a word
    EMAIL_VERIFICATION = "email_verification"


class MailedLink(models.Model):
    """What a link in a mail carries, hashed. It counts once, for a while, and for the address it was sent to."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="mailed_links")
    purpose = models.CharField(max_length=32, choices=LinkPurpose.choices)
    token_hash = models.CharField(max_length=64, unique=True)
    email_key = models.CharField(max_length=MAX_EMAIL_LENGTH * 2)
    created_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    @override
    def __str__(self) -> str:
        return f"{self.purpose} of {self.user_id}"


class MailKind(models.TextChoices):
    """Which mail."""

    PASSWORD_RESET = "password_reset"  # noqa: S105 - a word
    EMAIL_VERIFICATION = "email_verification"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a word
    EMAIL_CHANGED = "email_changed"


class MailJob(models.Model):
    """A mail to be sent by the background process.

    A request for a mail only adds this row, whether the address is known or not, so that both take the same time
    (B04). The account is looked up, and the link made, when the mail is sent: no link is ever stored.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=32, choices=MailKind.choices)
    address = models.CharField(max_length=MAX_EMAIL_LENGTH, help_text="As it was typed, or as the account had it.")
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="+")
    created_at = models.DateTimeField(default=clock.now)
    due_at = models.DateTimeField(default=clock.now, db_index=True)
    attempts = models.IntegerField(default=0)

    @override
    def __str__(self) -> str:
        return f"{self.kind} from {self.created_at}"
