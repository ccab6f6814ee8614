"""Who gets it, who does not, and why."""

from __future__ import annotations

from uuid import UUID

import pytest

from notification_service.identity.directory import Directory, Person
from notification_service.routing.recipients import find_audience, group_by_reason, is_still_meant
from shared_contracts.requests import Recipients

ADA, BEN, EVE, GONE, NOBODY = (UUID(int=number) for number in range(1, 6))
TEAM, FOREIGN = UUID(int=11), UUID(int=12)


def person(user_id: UUID, *, tenant: str = "default", is_active: bool = True) -> Person:
    return Person(user_id, tenant, is_active, "en", "UTC")


DIRECTORY = Directory(
    people={
        ADA: person(ADA),
        BEN: person(BEN),
        EVE: person(EVE, tenant="other"),
        GONE: person(GONE, is_active=False),
    },
    external={("default", "ada"): ADA, ("other", "eve"): EVE},
    group_tenants={TEAM: "default", FOREIGN: "other"},
    members={TEAM: [BEN, ADA, GONE], FOREIGN: [EVE]},
    by_role={("default", "staff"): [BEN]},
)


def audience(recipients: Recipients, exclude: tuple[UUID, ...] = ()) -> tuple[list[UUID], dict[str, list[str]]]:
    found = find_audience(recipients, tenant="default", directory=DIRECTORY, exclude=exclude)
    return list(found.user_ids), {str(reason): each for reason, each in group_by_reason(found.problems)}


def test_lists_add_up_and_nobody_gets_it_twice() -> None:
    recipients = Recipients(users=(str(ADA), "ext:ada"), groups=(TEAM,), roles=("staff",))
    assert audience(recipients) == ([ADA, BEN], {})


def test_whoever_does_not_exist_is_reported() -> None:
    recipients = Recipients(users=(str(NOBODY), "ext:nobody", str(BEN)), groups=(UUID(int=99),))
    users, problems = audience(recipients)
    assert users == [BEN]
    assert problems == {"unknown_recipient": [str(NOBODY), "ext:nobody", f"group:{UUID(int=99)}"]}


def test_other_tenants_do_not_exist() -> None:
    users, problems = audience(Recipients(users=(str(EVE), "ext:eve"), groups=(FOREIGN,)))
    assert users == []
    assert problems == {"unknown_recipient": [str(EVE), "ext:eve", f"group:{FOREIGN}"]}


def test_inactive_users_get_nothing() -> None:
    assert audience(Recipients(users=(str(GONE),))) == ([], {"recipient_inactive": [str(GONE)]})
    assert audience(Recipients(groups=(TEAM,))) == ([BEN, ADA], {})


def test_members_the_directory_does_not_know_are_passed_over() -> None:
    directory = Directory(group_tenants={TEAM: "default"}, members={TEAM: [ADA]})
    assert not find_audience(Recipients(groups=(TEAM,)), tenant="default", directory=directory).user_ids


def test_a_role_nobody_has_reaches_nobody() -> None:
    assert audience(Recipients(roles=("admin",))) == ([], {})


def test_a_role_there_is_not_is_reported() -> None:
    assert audience(Recipients(roles=("staff", "king"))) == ([BEN], {"unknown_recipient": ["role:king"]})


def test_a_sender_can_be_left_out() -> None:
    assert audience(Recipients(groups=(TEAM,)), exclude=(BEN, NOBODY)) == ([ADA], {})


@pytest.mark.req("X-7")
@pytest.mark.parametrize(
    ("recipients", "groups", "meant"),
    [
        (Recipients(users=(str(ADA),)), (), True),
        (Recipients(users=("ext:ada",)), (), True),
        (Recipients(all=True), (), True),
        (Recipients(users=(str(BEN),)), (), False),
        (Recipients(groups=(TEAM,)), (TEAM,), True),
        (Recipients(groups=(TEAM,)), (FOREIGN,), False),
        (Recipients(roles=("staff",)), (), True),
        (Recipients(roles=("admin",)), (), False),
    ],
)
def test_who_was_meant_then_may_not_be_meant_now(recipients: Recipients, groups: tuple[UUID, ...], meant: bool) -> None:
    ada = Person(ADA, "default", True, "en", "UTC", roles=("staff",))
    assert is_still_meant(recipients, ada, groups) is meant
    assert not is_still_meant(recipients, person(ADA, is_active=False), groups)
