from __future__ import annotations

from itertools import pairwise

from shared_contracts.scopes import ASSIGNABLE_ROLES, Role, Scope, format_scope, parse_scope, scopes_of


def test_each_role_has_every_right_of_the_one_before() -> None:
    for lower, higher in pairwise(ASSIGNABLE_ROLES):
        assert scopes_of([lower]) < scopes_of([higher])


def test_no_role_may_issue_tokens_for_others() -> None:
    assert Scope.TOKENS_ISSUE not in scopes_of(Role)


def test_service_role_gives_nothing_by_itself() -> None:
    assert scopes_of([Role.SERVICE]) == frozenset()


def test_unknown_roles_and_scopes_give_nothing() -> None:
    assert scopes_of(["wizard"]) == frozenset()
    assert parse_scope("inbox fly") == {Scope.INBOX}


def test_scope_text_round_trips_in_one_order() -> None:
    text = format_scope({Scope.MESSAGES_SEND, Scope.INBOX})
    assert text == "inbox messages:send"
    assert parse_scope(text) == {Scope.INBOX, Scope.MESSAGES_SEND}
