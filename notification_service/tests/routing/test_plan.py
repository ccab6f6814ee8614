from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from notification_service.identity.directory import Directory, Person
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.routing.plan import make_plan
from shared_contracts.requests import Kind, NotificationRequest, Recipients

ADA = UUID(int=1)
DIRECTORY = Directory(people={ADA: Person(ADA, "default", is_active=True, locale="en", timezone="UTC")})


def notification(**fields: Any) -> Notification:
    return make_notification(
        NotificationRequest(title="t", **fields),
        notification_id=UUID(int=7),
        kind=Kind.PRIVATE,
        sender=Sender(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
        defaults=EventTypeDefaults(),
    )


def test_named_users_get_items() -> None:
    plan = make_plan(notification(recipients=Recipients(users=(str(ADA),))), DIRECTORY, audience_size=0)
    assert (plan.user_ids, plan.problems, plan.recipients_count) == ((ADA,), (), 1)


def test_a_broadcast_has_no_items_and_everybody_as_recipients() -> None:
    plan = make_plan(notification(recipients=Recipients(all=True)), DIRECTORY, audience_size=42)
    assert (plan.user_ids, plan.recipients_count) == ((), 42)


def test_an_audience_in_pieces_is_not_looked_up_whole() -> None:
    unknown = UUID(int=9)
    wanted = notification(recipients=Recipients(users=(str(ADA), str(unknown)), groups=(UUID(int=5),)))
    directory = Directory(people=DIRECTORY.people, group_tenants={UUID(int=5): "default"})
    plan = make_plan(wanted, directory, audience_size=9_000, in_pieces=True)
    assert (plan.user_ids, plan.recipients_count, plan.in_pieces) == ((), 9_000, True)
    assert [problem.recipient for problem in plan.problems] == [str(unknown)]
