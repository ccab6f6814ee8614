from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import NotFound
from auth_service.groups.errors import SlugTaken
from auth_service.groups.models import Group, Membership
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.repeating import repeated
from shared_contracts.identity_events import GroupDeleted, IdentityEventType, MembersChanged
from shared_contracts.scopes import Scope

GROUP_FIELDS = ("name", "slug", "description")


@dataclass(frozen=True)
class MembersOutcome:
    """What a change of members came to. Who was in already, or was not in, is in none of the lists."""

    added: list[UUID]
    removed: list[UUID]
    unknown: list[UUID]


def find_visible_groups(caller: Caller, *, tenant: str | None = None) -> QuerySet[Group]:
    """Groups the caller may see: all of the tenant with a right over users or groups, else the caller's own."""
    wanted = tenant or caller.tenant
    if wanted != caller.tenant and not caller.is_operator:
        return Group.objects.none()
    groups = Group.objects.filter(tenant_id=wanted)
    if caller.may(Scope.USERS_READ) or caller.may(Scope.GROUPS_WRITE):
        return groups
    return groups.filter(memberships__user_id=caller.id)


def get_group(caller: Caller, group_id: UUID) -> Group:
    """One group the caller may see.

    Raises:
        NotFound: There is none, or it is not theirs to see.
    """
    groups = Group.objects.all() if caller.is_operator else find_visible_groups(caller)
    group = groups.filter(id=group_id).first()
    if group is None:
        raise NotFound
    return group


def do_create_group(tenant: str, fields: Mapping[str, Any], by: Origin) -> Group:
    """Make an empty group.

    Raises:
        SlugTaken: Another group of the tenant has the slug.
    """
    group = Group(tenant_id=tenant, **fields)
    try:
        with transaction.atomic():
            group.save(force_insert=True)
            do_record(Action.GROUP_CREATED, by, subject=("group", group.id), tenant=tenant)
            do_emit(NewEvent(IdentityEventType.GROUP_CREATED, tenant, group.snapshot()))
    except IntegrityError:
        raise SlugTaken from None
    return group


def do_update_group(group: Group, changes: Mapping[str, Any], by: Origin) -> Group:
    """Change what is named.

    Raises:
        SlugTaken: Another group of the tenant has the slug.
        NotFound: Deleted meanwhile.
    """
    try:
        with transaction.atomic():
            fresh = _get_locked(group.id)
            changed = [name for name in GROUP_FIELDS if name in changes and getattr(fresh, name) != changes[name]]
            if not changed:
                return fresh
            for name in changed:
                setattr(fresh, name, changes[name])
            fresh.updated_at = clock.now()
            fresh.save()
            details = {"fields": changed}
            do_record(Action.GROUP_UPDATED, by, subject=("group", fresh.id), tenant=fresh.tenant_id, details=details)
            do_emit(NewEvent(IdentityEventType.GROUP_UPDATED, fresh.tenant_id, fresh.snapshot()))
    except IntegrityError:
        raise SlugTaken from None
    return fresh


def do_delete_group(group: Group, by: Origin) -> None:
    """Delete a group and its memberships; the users stay."""
    with transaction.atomic():
        fresh = _get_locked(group.id)
        group_id, tenant = fresh.id, fresh.tenant_id
        fresh.delete()
        do_record(Action.GROUP_DELETED, by, subject=("group", group_id), tenant=tenant)
        do_emit(NewEvent(IdentityEventType.GROUP_DELETED, tenant, GroupDeleted(id=group_id)))


@repeated
def do_change_members(group: Group, *, add: Collection[UUID], remove: Collection[UUID], by: Origin) -> MembersOutcome:
    """Add and remove members, all in one change. Who is named in both is removed.

    Users of other tenants are unknown here.
    """
    with transaction.atomic():
        _get_locked(group.id)
        wanted = set(add) - set(remove)
        users = User.objects.filter(tenant_id=group.tenant_id, id__in=wanted | set(remove))
        # Locked before the revision is taken, as erasing does: else each could hold what the other one waits for.
        known = set(users.select_for_update(no_key=True).order_by("id").values_list("id", flat=True))
        present = set(Membership.objects.filter(group=group, user_id__in=known).values_list("user_id", flat=True))
        added = sorted((wanted & known) - present)
        removed = sorted(set(remove) & present)
        Membership.objects.bulk_create([Membership(group=group, user_id=each) for each in added], batch_size=500)
        Membership.objects.filter(group=group, user_id__in=removed).delete()
        if added or removed:
            details = {"added": len(added), "removed": len(removed)}
            do_record(
                Action.GROUP_MEMBERS_CHANGED, by, subject=("group", group.id), tenant=group.tenant_id, details=details
            )
            data = MembersChanged(group_id=group.id, added=tuple(added), removed=tuple(removed))
            do_emit(NewEvent(IdentityEventType.GROUP_MEMBERS_CHANGED, group.tenant_id, data))
    return MembersOutcome(added, removed, sorted((wanted | set(remove)) - known))


def _get_locked(group_id: UUID) -> Group:
    group = Group.objects.select_for_update().filter(id=group_id).first()
    if group is None:
        raise NotFound
    return group
