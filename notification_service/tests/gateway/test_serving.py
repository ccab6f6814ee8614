"""What connections wait for, asked for many of them together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from builders import make_identity, make_info, open_session
from clocks import SetClock
from waiting import until

from notification_service.background import spawn
from notification_service.errors import Unavailable
from notification_service.gateway.client import Client
from notification_service.gateway.cursors import Cursors
from notification_service.gateway.effects import Close, Effect, Fetch
from notification_service.gateway.feeds import Feeds
from notification_service.gateway.ports import Device, PageWanted
from notification_service.gateway.serving import Serving
from notification_service.gateway.session import Limits, Session
from notification_service.identity.access import Access
from notification_service.identity.introspection import Answer, Ending
from notification_service.notifications.pages import Page, StreamInfo
from shared_contracts.ids import new_id
from shared_contracts.scopes import Scope
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import Hello


class Mailbox:
    """The store; counts how often it is asked."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.pages: list[int] = []
        self.broadcast_tops: dict[str, int] = {}
        self.is_away = False

    async def open(self, devices: Sequence[Device]) -> Sequence[StreamInfo]:
        self.opened.append(len(devices))
        return [make_info(user_id=device.user_id, top_seq=1) for device in devices]

    async def read_pages(self, wanted: Sequence[PageWanted]) -> Sequence[Page]:
        self.pages.append(len(wanted))
        return [Page([], 1, 0, has_more=False) for _ in wanted]

    async def read_broadcast_tops(self, tenants: Collection[str]) -> dict[str, int]:
        if self.is_away:
            raise Unavailable("the database does not answer")
        return {tenant: top for tenant, top in self.broadcast_tops.items() if tenant in tenants}


class Feed:
    acked_seq = 0


class People:
    """The auth service, which knows everybody, and the feeds, which take everybody in."""

    def __init__(self) -> None:
        self.introspection = SimpleNamespace(moment=0, has_changed=lambda *_, **__: False)

    async def identify(self, token: str) -> Any:
        caller = make_identity(user_id=UUID(token))
        return SimpleNamespace(
            id=caller.user_id,
            session_id=caller.session_id,
            tenant=caller.tenant,
            roles=caller.roles,
            expires_at=caller.expires_at,
            scopes=frozenset({Scope.INBOX}),
            is_service=False,
            token=token,
        )

    def attach(self, *_: Any) -> Feed:
        return Feed()

    def detach(self, *_: Any) -> None:
        raise AssertionError("nobody leaves")

    async def declare(self, _feed: Feed) -> None:
        pass


class Phone:
    """A client whose effects are kept."""

    def __init__(self, serving: Serving | None = None, session: Session | None = None) -> None:
        self.id = new_id()
        self.session = session or Session(self.id, Limits(), 0.0)
        self.token: str | None = None
        self.ticket: str | None = None
        self.info: Any = None
        self.effects: list[Effect] = []
        self._serving = serving

    def run(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Fetch) and self._serving is not None:
                spawn(self._serving.fetch(cast("Client", self), effect), name="fetch")


def make() -> tuple[Serving, Mailbox]:
    mailbox, clock, people = Mailbox(), SetClock(pace=0.001), People()
    serving = Serving(
        access=cast("Access", people),
        mailbox=cast("Any", mailbox),
        intake=cast("Any", None),
        preferences=cast("Any", None),
        feeds=cast("Feeds", people),
        cursors=Cursors(cast("Any", mailbox), clock),
        clock=clock,
    )
    return serving, mailbox


@pytest.mark.req("D19")
async def test_a_thousand_that_resume_together_cost_a_handful_of_queries() -> None:
    serving, mailbox = make()
    devices = [Phone(serving) for _ in range(1_000)]
    for device in devices:
        hello = Hello(token=str(new_id()), device_id="phone")
        device.session.identify(hello)
        spawn(serving.identify(cast("Client", device), hello), name="identify")
    await until(lambda: all(device.session.follower.is_live for device in devices))
    assert sum(mailbox.opened) == sum(mailbox.pages) == 1_000
    # Calls, each of a few statements whatever its length: at most one for ten that resume.
    assert len(mailbox.opened) + len(mailbox.pages) <= 100


@pytest.mark.req("A19", "A22", "A23")
async def test_a_socket_is_closed_by_what_ended_for_its_token() -> None:
    serving, _ = make()
    answers = {
        "closed": (Answer(is_active=False, ending=Ending.ACCOUNT_CLOSED), CloseCode.ACCOUNT_CLOSED),
        "ended": (Answer(is_active=False, ending=Ending.SESSION_ENDED), CloseCode.SESSION_REVOKED),
        "cut off": (Answer(is_active=False), CloseCode.TOKEN_EXPIRED),
        "good": (Answer(is_active=True, roles=("user",)), None),
    }

    async def ask(token: str) -> Answer:
        return answers[token][0]

    serving._access.introspection = cast("Any", SimpleNamespace(ask=ask))
    phones = {token: Phone(session=open_session()[0]) for token in answers}
    for token, phone in phones.items():
        phone.token = token
    await serving.validate_again([cast("Client", phone) for phone in phones.values()])
    codes = {
        token: next((effect.code for effect in phone.effects if isinstance(effect, Close)), None)
        for token, phone in phones.items()
    }
    assert codes == {token: code for token, (_, code) in answers.items()}


@pytest.mark.req("H09")
async def test_broadcasts_that_no_queue_was_there_for_are_found_in_the_store() -> None:
    serving, mailbox = make()
    session, _ = open_session()
    behind = Phone(session=session)
    other = Phone(session=open_session()[0])
    clients = {"default": [behind], "other": [other], "empty": []}
    mailbox.broadcast_tops = {"default": 2, "other": 0}
    mailbox.is_away = True
    await serving.check_broadcasts(cast("Any", clients))
    assert behind.effects == []
    mailbox.is_away = False
    await serving.check_broadcasts(cast("Any", clients))
    assert [type(effect) for effect in behind.effects] == [Fetch]
    assert other.effects == []
    # It is off the live path already: asked no second time.
    await serving.check_broadcasts(cast("Any", clients))
    assert len(behind.effects) == 1
