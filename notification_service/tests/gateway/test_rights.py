"""Roles that change while a session is open."""

from __future__ import annotations

import pytest
from builders import CONNECTION, frames, make_info, open_session

from notification_service.gateway.session import Limits, Session
from shared_contracts.scopes import Scope
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import SERVER_FRAMES


@pytest.mark.req("A18")
def test_other_roles_are_told_once_and_only_take_away() -> None:
    session, _ = open_session(make_info())
    assert session.identity is not None
    before = session.identity
    (told,) = frames(session.on_rights(("user", "staff")))
    SERVER_FRAMES["rights_changed"].model_validate(told)
    assert told == {"type": "rights_changed", "roles": ["user", "staff"]}
    assert session.identity.roles == ("user", "staff")
    # What the new role brings comes with the next token.
    assert session.identity.scopes == before.scopes
    assert session.on_rights(("user", "staff")) == []

    session.on_rights(())
    assert session.identity.scopes == frozenset[Scope]()


def test_nobody_is_told_before_the_welcome_or_after_the_end() -> None:
    assert Session(CONNECTION, Limits(), 0.0).on_rights(("admin",)) == []
    session, _ = open_session(make_info())
    session.close(CloseCode.GOING_AWAY, "")
    assert session.on_rights(("admin",)) == []
