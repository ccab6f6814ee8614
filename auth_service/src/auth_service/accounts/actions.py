"""Every write to users, one by one. Whole batches are in `batch_actions`, passwords in `password_actions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from auth_service.accounts.errors import EmailTaken, ExternalIdTaken, LastAdmin, UsernameTaken
from auth_service.accounts.fields import sort_roles
from auth_service.accounts.models import MailJob, MailKind, User
from auth_service.accounts.names import check_name_and_address
from auth_service.accounts.passwords import hash_password
from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action, AuditEvent
from auth_service.audit.origin import Origin
from auth_service.errors import Conflict, InvalidInput, NotFound, PermissionDenied, ServiceError
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.identity_events.models import OutboxEvent
from auth_service.repeating import repeated
from auth_service.sessions.actions import do_end_all_sessions
from auth_service.sessions.models import EndReason
from auth_service.tenants.models import Tenant
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.identity_events import IdentityEventType, UserDeleted
from shared_contracts.scopes import Role

PROFILE_FIELDS = ("username", "email", "email_verified", "phone", "locale", "timezone", "external_id")


@dataclass(frozen=True)
class NewUser:
    """What a new user is made of. `password` None: nobody can log in with a password until one is set."""

    username: str
    email: str | None = None
    password: str | None = None
    external_id: str | None = None
    email_verified: bool = False
    phone: str | None = None
    locale: str = "en"
    timezone: str = "UTC"
    roles: tuple[str, ...] = (Role.USER.value,)
    is_active: bool = True
    tenant: str = DEFAULT_TENANT

    def build(self, password_hash: str) -> User:
        """The row, not written yet; what it announces is what it is."""
        roles = sort_roles(self.roles)
        return User(
            tenant_id=self.tenant,
            username=self.username,
            email=self.email,
            external_id=self.external_id,
            email_verified=self.email_verified,
            phone=self.phone,
            locale=self.locale,
            timezone=self.timezone,
            roles=roles,
            announced_roles=roles,
            is_active=self.is_active,
            announced_is_active=self.is_active,
            password=password_hash,
        )


def find_visible_users(caller: Caller, *, tenant: str | None = None) -> QuerySet[User]:
    """The users this caller may see: those of the own tenant, or for operators those of a tenant they name."""
    if tenant is None or tenant == caller.tenant:
        return User.objects.filter(tenant_id=caller.tenant)
    return User.objects.filter(tenant_id=tenant) if caller.is_operator else User.objects.none()


def get_user(caller: Caller, user_id: UUID) -> User:
    """One user the caller may see.

    Raises:
        NotFound: There is none, or in another tenant.
    """
    users = User.objects.all() if caller.is_operator else find_visible_users(caller)
    user = users.select_related("tenant").filter(id=user_id).first()
    if user is None:
        raise NotFound
    return user


def check_tenant(caller: Caller, tenant: str | None) -> str:
    """The tenant a new row goes into.

    Raises:
        PermissionDenied: Not the caller's own, and the caller is no operator.
        InvalidInput: There is no such tenant.
    """
    if tenant is None or tenant == caller.tenant:
        return caller.tenant
    if not caller.is_operator:
        raise PermissionDenied("Only administrators of the default tenant look after other tenants.")
    if not Tenant.objects.filter(slug=tenant).exists():
        raise InvalidInput.of("tenant", "there is no such tenant")
    return tenant


def check_name(username: str, email: str | None) -> None:
    """Check that a name is not someone else's address.

    Raises:
        InvalidInput: It looks like one.
    """
    try:
        check_name_and_address(username, email)
    except ValueError as error:
        raise InvalidInput.of("username", str(error)) from None


def do_create_user(new: NewUser, by: Origin, *, action: Action = Action.USER_CREATED) -> User:
    """Write a new user.

    Raises:
        Conflict: The username, the external id or the verified address is taken.
    """
    check_name(new.username, new.email)
    user = new.build(hash_password(new.password))

    def write() -> None:
        user.save(force_insert=True)
        do_record(action, by, subject=("user", user.id), tenant=user.tenant_id, details={"roles": list(user.roles)})
        do_emit(make_user_event(IdentityEventType.USER_CREATED, user))

    _write_or_explain(write, user)
    return user


def do_update_user(user: User, changes: Mapping[str, Any], by: Origin) -> User:
    """Change a profile. A new address is unverified unless the same change says otherwise.

    Raises:
        Conflict: The username, the external id or the verified address is taken.
    """
    changes = {name: value for name, value in changes.items() if name in PROFILE_FIELDS}
    changed: list[str] = []
    fresh = user

    def write() -> None:
        nonlocal fresh
        fresh = get_locked(user.id)
        if "email" in changes and changes["email"] != fresh.email:
            fresh.email_verified = False
            if fresh.email:
                MailJob.objects.create(kind=MailKind.EMAIL_CHANGED, address=fresh.email, user=fresh)
            if changes["email"] and not changes.get("email_verified"):
                MailJob.objects.create(kind=MailKind.EMAIL_VERIFICATION, address=changes["email"], user=fresh)
        for name, value in changes.items():
            if getattr(fresh, name) != value:
                setattr(fresh, name, value)
                changed.append(name)
        if not changed:
            return
        check_name(fresh.username, fresh.email)
        fresh.save()
        do_record(
            Action.USER_UPDATED,
            by,
            subject=("user", fresh.id),
            tenant=fresh.tenant_id,
            details={"fields": sorted(changed)},
        )
        do_emit(make_user_event(IdentityEventType.USER_UPDATED, fresh))

    _write_or_explain(write, user, changes)
    return fresh


def do_set_roles(user: User, roles: Iterable[str], by: Origin) -> User:
    """Give a user these roles and no others.

    Raises:
        LastAdmin: The tenant would be left without an active administrator.
    """
    wanted = sort_roles(roles)
    with transaction.atomic():
        _lock_tenant(user)
        fresh = get_locked(user.id)
        if fresh.roles == wanted:
            return fresh
        if Role.ADMIN not in wanted:
            _check_not_last_admin(fresh)
        before, fresh.roles = fresh.roles, wanted
        fresh.announced_roles = wanted
        fresh.save(update_fields=["roles", "announced_roles"])
        do_record(
            Action.USER_ROLES_CHANGED,
            by,
            subject=("user", fresh.id),
            tenant=fresh.tenant_id,
            details={"from": list(before), "to": list(wanted)},
        )
        do_emit(make_user_event(IdentityEventType.USER_ROLES_CHANGED, fresh))
    return fresh


def do_set_active(user: User, by: Origin, *, is_active: bool) -> User:
    """Let a user in, or shut them out: every session ends, and none comes back with the account.

    Raises:
        LastAdmin: The tenant would be left without an active administrator.
    """
    with transaction.atomic():
        _lock_tenant(user)
        fresh = get_locked(user.id)
        if fresh.is_active == is_active:
            return fresh
        if not is_active:
            _check_not_last_admin(fresh)
            do_end_all_sessions(fresh, EndReason.ACCOUNT_DEACTIVATED)
        fresh.is_active = fresh.announced_is_active = is_active
        fresh.save(update_fields=["is_active", "announced_is_active"])
        action = Action.USER_ACTIVATED if is_active else Action.USER_DEACTIVATED
        do_record(action, by, subject=("user", fresh.id), tenant=fresh.tenant_id)
        kind = IdentityEventType.USER_ACTIVATED if is_active else IdentityEventType.USER_DEACTIVATED
        do_emit(make_user_event(kind, fresh))
    return fresh


@repeated
def do_erase_user(user: User, by: Origin) -> dict[str, int]:
    """Erase a person: the row, everything that hangs on it, and their data in events and the audit log.

    Returns:
        How many rows of each kind were deleted or blanked. The same report is in the audit event.

    Raises:
        LastAdmin: The tenant would be left without an active administrator.
    """
    with transaction.atomic():
        _lock_tenant(user)
        fresh = get_locked(user.id)
        _check_not_last_admin(fresh)
        report = {
            "sessions": fresh.sessions.count(),
            "memberships": fresh.memberships.count(),
            # Events that can be replayed tell of the erasure instead, at their own revision.
            "events": OutboxEvent.objects.filter(subject_id=fresh.id).update(
                type=IdentityEventType.USER_DELETED, data={"id": str(fresh.id)}
            ),
            "audit_events": AuditEvent.objects.blank_person(fresh.id),
            # Mails asked for by typing the address name no user.
            "mails": MailJob.objects.filter(Q(user=fresh) | Q(user=None, address__iexact=fresh.email or "")).delete()[
                0
            ],
        }
        user_id, tenant = fresh.id, fresh.tenant_id
        fresh.delete()
        itself = by.actor_id == user_id
        by_whom = Origin("user", user_id, tenant, correlation_id=by.correlation_id) if itself else by
        do_record(Action.USER_ERASED, by_whom, subject=("user", user_id), tenant=tenant, details=report)
        do_emit(NewEvent(IdentityEventType.USER_DELETED, tenant, UserDeleted(id=user_id), subject_id=user_id))
    return report


def get_locked(user_id: UUID) -> User:
    """The user's row as it is now, locked until the transaction ends.

    Raises:
        NotFound: Erased meanwhile.
    """
    user = User.objects.select_for_update().filter(id=user_id).first()
    if user is None:
        raise NotFound
    return user


def make_user_event(kind: IdentityEventType, user: User) -> NewEvent:
    """An event with the whole user in it."""
    return NewEvent(kind, user.tenant_id, user.snapshot(), subject_id=user.id)


def _lock_tenant(user: User) -> None:
    # Two administrators who demote each other at the same moment must not both succeed.
    Tenant.objects.select_for_update().get(slug=user.tenant_id)


def _check_not_last_admin(user: User) -> None:
    if not (user.is_active and user.has_role(Role.ADMIN)):
        return
    others = User.objects.with_role(Role.ADMIN).filter(tenant_id=user.tenant_id, is_active=True).exclude(id=user.id)
    if not others.exists():
        raise LastAdmin


def _write_or_explain(write: Callable[[], None], user: User, changes: Mapping[str, Any] | None = None) -> None:
    try:
        with transaction.atomic():
            write()
    except IntegrityError:
        for name, value in (changes or {}).items():
            setattr(user, name, value)
        raise explain_conflict(user) from None


def explain_conflict(user: User) -> ServiceError:
    """Which rule of the table this row breaks."""
    user.fill_derived()
    others = User.objects.exclude(id=user.id)
    if others.filter(username_key=user.username_key).exists():
        return UsernameTaken()
    if user.external_id and others.filter(tenant_id=user.tenant_id, external_id=user.external_id).exists():
        return ExternalIdTaken()
    if user.email_verified and others.filter(email_key=user.email_key, email_verified=True).exists():
        return EmailTaken()
    return Conflict()
