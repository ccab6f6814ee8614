"""Creating and updating many users in one call: the same rules as one by one, but set-based.

A batch of 1,000 costs three look-ups and one transaction of bulk statements, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from auth_service import clock
from auth_service.accounts.actions import (
    PROFILE_FIELDS,
    NewUser,
    check_name,
    do_set_active,
    do_set_roles,
    make_user_event,
)
from auth_service.accounts.errors import EmailTaken, UsernameTaken
from auth_service.accounts.fields import sort_roles
from auth_service.accounts.models import DERIVED_FIELDS, User
from auth_service.accounts.names import make_email_key, make_username_key
from auth_service.accounts.passwords import check_new_password, hash_password
from auth_service.api.batches import make_refused_row
from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record_all, make_audit_event
from auth_service.audit.models import Action
from auth_service.errors import Conflict, InvalidInput, ServiceError
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.sessions.actions import make_revoked_event
from auth_service.sessions.models import EndReason, Session
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import Role

MAX_BATCH_SIZE = 1_000
_CHUNK = 500
# Two imports of the same users at once: the loser looks again and finds them existing.
_ATTEMPTS = 3
_WRITTEN = sorted(
    {*PROFILE_FIELDS, *DERIVED_FIELDS, "roles", "announced_roles", "is_active", "announced_is_active", "password"}
    | {"password_changed_at", "updated_at"}
)

Row = Mapping[str, Any]


@dataclass
class Outcome:
    """What became of one row."""

    index: int
    status: int
    user: User | None = None
    error: ServiceError | None = None

    def as_row(self) -> dict[str, Any]:
        """The row as it is answered."""
        if self.error is not None:
            return make_refused_row(self.index, self.error)
        assert self.user is not None
        user = self.user
        return {
            "index": self.index,
            "status": self.status,
            "id": str(user.id),
            "external_id": user.external_id,
            "username": user.username,
        }


@dataclass
class _Plan:
    """What the batch comes to, decided before anything is written."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    created: list[User] = field(default_factory=list)
    updated: list[User] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    role_changes: list[tuple[User, tuple[str, ...]]] = field(default_factory=list)
    activations: list[User] = field(default_factory=list)
    deactivations: list[User] = field(default_factory=list)
    new_passwords: list[User] = field(default_factory=list)
    one_by_one: list[tuple[int, User, Row]] = field(default_factory=list)


def do_write_batch(rows: Sequence[tuple[int, Row]], caller: Caller, tenant: str) -> list[Outcome]:
    """Create or update these users; rows that are refused do not keep the others out.

    Args:
        rows: Index and checked fields of each row that is well-formed.
        tenant: Where they belong.
    """
    hashes = {index: hash_password(row["password"]) for index, row in rows if row.get("password")}
    plan = _do_write_planned(rows, hashes, caller, tenant)
    for index, user, row in plan.one_by_one:
        _do_change_rights(index, user, row, caller, plan)
    return [plan.outcomes[index] for index, _ in rows]


def _do_write_planned(rows: Sequence[tuple[int, Row]], hashes: Mapping[int, str], caller: Caller, tenant: str) -> _Plan:
    for _ in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                plan = _make_plan(rows, hashes, caller, tenant)
                _do_write(plan, caller, tenant)
        except IntegrityError:
            continue
        return plan
    raise Conflict("Others are writing the same users. Try again.")


def _make_plan(rows: Sequence[tuple[int, Row]], hashes: Mapping[int, str], caller: Caller, tenant: str) -> _Plan:
    plan = _Plan()
    known = _find_known(rows, tenant)
    judge = _Judge(caller, _find_owners(rows), _find_verified(rows))
    for index, row in rows:
        user = known.get(row.get("external_id") or "")
        try:
            judge.check(row, user)
            if user is None:
                _plan_creation(plan, index, row, hashes.get(index), tenant)
            else:
                _plan_update(plan, index, row, hashes.get(index), user)
        except ServiceError as error:
            plan.outcomes[index] = Outcome(index, error.status, error=error)
    return plan


@dataclass
class _Judge:
    """Checks rows one after the other, against what exists and against the rows before."""

    caller: Caller
    owners: Mapping[str, Any]
    verified: Mapping[str, Any]
    seen: set[tuple[str, str]] = field(default_factory=set)

    def check(self, row: Row, user: User | None) -> None:
        username = row.get("username") or (user.username if user else None)
        if username is None:
            raise InvalidInput.of("username", "is needed to create a user")
        email = row.get("email", user.email if user else None)
        check_name(username, email)
        if row.get("password"):
            check_new_password(row["password"], User(username=username, email=email))
        self.caller.check_may_grant([*row.get("roles", ()), *(user.roles if user else ())])
        own_id = user.id if user else None
        key = make_username_key(username)
        if self.owners.get(key, own_id) != own_id:
            raise UsernameTaken
        if row.get("email_verified") and email and self.verified.get(make_email_key(email), own_id) != own_id:
            raise EmailTaken
        for mark in (("username", key), ("external_id", row.get("external_id") or "")):
            if mark[1] and mark in self.seen:
                raise Conflict("An earlier row of this batch has the same name or external id.")
            self.seen.add(mark)


def _plan_creation(plan: _Plan, index: int, row: Row, password_hash: str | None, tenant: str) -> None:
    values = {name: value for name, value in row.items() if name != "password" and value is not None}
    if "roles" in values:
        values["roles"] = tuple(values["roles"])
    user = NewUser(**values, tenant=tenant).build(password_hash or hash_password(None))
    user.fill_derived()
    plan.created.append(user)
    plan.events.append(make_user_event(IdentityEventType.USER_CREATED, user))
    plan.outcomes[index] = Outcome(index, 201, user)


def _plan_update(plan: _Plan, index: int, row: Row, password_hash: str | None, user: User) -> None:
    plan.outcomes[index] = Outcome(index, 200, user)
    touched = _apply_profile(user, row)
    if touched:
        plan.events.append(make_user_event(IdentityEventType.USER_UPDATED, user))
    if password_hash is not None:
        user.password, user.password_changed_at = password_hash, clock.now()
        plan.new_passwords.append(user)
        plan.events.append(make_revoked_event(user, EndReason.PASSWORD_CHANGED))
        touched = True
    if _is_admin_stepping_down(user, row):
        plan.one_by_one.append((index, user, row))
    elif _plan_rights(plan, user, row):
        touched = True
    if touched:
        user.fill_derived()
        plan.updated.append(user)


def _apply_profile(user: User, row: Row) -> bool:
    changed = False
    if "email" in row and row["email"] != user.email:
        user.email_verified = False
    for name in PROFILE_FIELDS:
        if name in row and getattr(user, name) != row[name]:
            setattr(user, name, row[name])
            changed = True
    return changed


def _plan_rights(plan: _Plan, user: User, row: Row) -> bool:
    planned = len(plan.events)
    roles = sort_roles(row["roles"]) if "roles" in row else user.roles
    if roles != user.roles:
        plan.role_changes.append((user, user.roles))
        user.roles = user.announced_roles = roles
        plan.events.append(make_user_event(IdentityEventType.USER_ROLES_CHANGED, user))
    is_active = row.get("is_active", user.is_active)
    if is_active != user.is_active:
        user.is_active = user.announced_is_active = is_active
        plan.activations.append(user)
        if not is_active:
            plan.deactivations.append(user)
        kind = IdentityEventType.USER_ACTIVATED if is_active else IdentityEventType.USER_DEACTIVATED
        plan.events.append(make_user_event(kind, user))
    return len(plan.events) > planned


def _do_write(plan: _Plan, caller: Caller, tenant: str) -> None:
    # The updated rows are locked by the look-up, so they are still there; an upsert writes them in a few statements
    # where Django's bulk_update writes a CASE per column and row.
    User.objects.bulk_create(
        [*plan.created, *plan.updated],
        batch_size=_CHUNK,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=_WRITTEN,
    )
    _do_end_sessions(plan.deactivations, EndReason.ACCOUNT_DEACTIVATED)
    _do_end_sessions(plan.new_passwords, EndReason.PASSWORD_CHANGED)
    by = caller.origin
    audit = [
        make_audit_event(
            Action.USER_ROLES_CHANGED,
            by,
            subject=("user", user.id),
            tenant=tenant,
            details={"from": list(before), "to": list(user.roles)},
        )
        for user, before in plan.role_changes
    ]
    audit += [
        make_audit_event(
            Action.USER_ACTIVATED if user.is_active else Action.USER_DEACTIVATED,
            by,
            subject=("user", user.id),
            tenant=tenant,
        )
        for user in plan.activations
    ]
    audit += [
        make_audit_event(Action.PASSWORD_CHANGED, by, subject=("user", user.id), tenant=tenant)
        for user in plan.new_passwords
    ]
    counts = {"created": len(plan.created), "updated": len(plan.updated)}
    do_record_all([*audit, make_audit_event(Action.USERS_IMPORTED, by, tenant=tenant, details=counts)])
    do_emit(*plan.events)


def _do_end_sessions(users: Iterable[User], reason: EndReason) -> None:
    ids = [user.id for user in users]
    if ids:
        Session.objects.filter(user_id__in=ids, ended_at=None).update(ended_at=clock.now(), end_reason=reason)


def _do_change_rights(index: int, user: User, row: Row, caller: Caller, plan: _Plan) -> None:
    """Take rights from an administrator: rare, and guarded against the last one."""
    try:
        if "roles" in row:
            do_set_roles(user, row["roles"], caller.origin)
        if "is_active" in row:
            do_set_active(user, caller.origin, is_active=row["is_active"])
    except ServiceError as error:
        plan.outcomes[index] = Outcome(index, error.status, error=error)


def _is_admin_stepping_down(user: User, row: Row) -> bool:
    is_admin = user.is_active and user.has_role(Role.ADMIN)
    return is_admin and (Role.ADMIN not in row.get("roles", user.roles) or not row.get("is_active", True))


def _find_known(rows: Sequence[tuple[int, Row]], tenant: str) -> dict[str, User]:
    ids = {row["external_id"] for _, row in rows if row.get("external_id")}
    # In one order: two imports of the same users wait for each other instead of each holding what the other wants.
    found = User.objects.select_for_update().filter(tenant_id=tenant, external_id__in=ids).order_by("id")
    return {user.external_id: user for user in found if user.external_id is not None}


def _find_owners(rows: Sequence[tuple[int, Row]]) -> dict[str, Any]:
    keys = {make_username_key(row["username"]) for _, row in rows if row.get("username")}
    return dict(User.objects.filter(username_key__in=keys).values_list("username_key", "id"))


def _find_verified(rows: Sequence[tuple[int, Row]]) -> dict[str, Any]:
    keys = {make_email_key(row["email"]) for _, row in rows if row.get("email") and row.get("email_verified")}
    found = User.objects.filter(email_key__in=keys, email_verified=True) if keys else User.objects.none()
    return {str(key): owner for key, owner in found.values_list("email_key", "id")}
