"""Whom a notification reaches. Pure: everything it needs was looked up before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from notification_service.identity.directory import Directory, Person
from shared_contracts.error_codes import Reason
from shared_contracts.requests import EXTERNAL_PREFIX, Recipients
from shared_contracts.scopes import ASSIGNABLE_ROLES


@dataclass(frozen=True, slots=True)
class Problem:
    """A recipient that gets nothing, and why."""

    recipient: str
    reason: Reason


@dataclass(slots=True)
class Audience:
    """Users that get the notification, each once, in the order they were named; and those that do not."""

    user_ids: dict[UUID, None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def find_audience(
    recipients: Recipients, *, tenant: str, directory: Directory, exclude: Collection[UUID] = ()
) -> Audience:
    """Work out who gets a notification of this tenant.

    Users of another tenant are reported as unknown: a publisher must not learn who exists elsewhere.

    Args:
        recipients: Users, groups and roles; `all` is not looked at here.
        tenant: Of the notification.
        directory: Holds every named user, group and role that exists.
        exclude: Users that get nothing although they are named (a sender's own echo).
    """
    audience = Audience()
    for reference in recipients.users:
        _add_user(audience, reference, tenant, directory)
    for group_id in recipients.groups:
        if directory.group_tenants.get(group_id) != tenant:
            audience.problems.append(Problem(f"group:{group_id}", Reason.UNKNOWN_RECIPIENT))
            continue
        _add_members(audience, directory.members.get(group_id, ()), tenant, directory)
    for role in recipients.roles:
        if role not in ASSIGNABLE_ROLES:
            audience.problems.append(Problem(f"role:{role}", Reason.UNKNOWN_RECIPIENT))
        _add_members(audience, directory.by_role.get((tenant, role), ()), tenant, directory)
    for user_id in exclude:
        audience.user_ids.pop(user_id, None)
    return audience


def _add_user(audience: Audience, reference: str, tenant: str, directory: Directory) -> None:
    if reference.startswith(EXTERNAL_PREFIX):
        user_id = directory.external.get((tenant, reference.removeprefix(EXTERNAL_PREFIX)))
    else:
        user_id = UUID(reference)
    person = directory.people.get(user_id) if user_id is not None else None
    if user_id is None or person is None or person.tenant != tenant:
        audience.problems.append(Problem(reference, Reason.UNKNOWN_RECIPIENT))
    elif not person.is_active:
        audience.problems.append(Problem(reference, Reason.RECIPIENT_INACTIVE))
    else:
        audience.user_ids[user_id] = None


def _add_members(audience: Audience, members: Iterable[UUID], tenant: str, directory: Directory) -> None:
    for user_id in members:
        person = directory.people.get(user_id)
        if person is not None and person.is_active and person.tenant == tenant:
            audience.user_ids[user_id] = None


def is_still_meant(recipients: Recipients, person: Person, group_ids: Collection[UUID]) -> bool:
    """Whether a recipient of then is one now: roles and memberships may have gone since.

    Args:
        recipients: Of the request.
        person: As the mirror knows them now.
        group_ids: Of these groups they are a member now.
    """
    if recipients.all or not person.is_active:
        return person.is_active
    if any(each == str(person.id) or each.startswith(EXTERNAL_PREFIX) for each in recipients.users):
        return True
    return not set(recipients.roles).isdisjoint(person.roles) or not set(recipients.groups).isdisjoint(group_ids)


def group_by_reason(problems: Iterable[Problem]) -> Iterator[tuple[Reason, list[str]]]:
    """Problems of one notification, by reason."""
    found: dict[Reason, list[str]] = {}
    for problem in problems:
        found.setdefault(problem.reason, []).append(problem.recipient)
    yield from found.items()
