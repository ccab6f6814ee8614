"""Who may upgrade, and how (contract section 5; requirements D01 to D03)."""

from __future__ import annotations

from typing import Any

import pytest

from notification_service.gateway.handshake import OriginRule, Refusal, Upgrade, read_upgrade
from shared_contracts.ws.frames import AckMode

RULE = OriginRule(frozenset({"https://app.example"}), allow_missing=True)


def read(target: str = "/ws", **changes: Any) -> Upgrade | Refusal:
    values: dict[str, Any] = {"origins": [], "authorization": [], "offered_subprotocols": [], "rule": RULE}
    return read_upgrade(target, **{**values, **changes})


def status(decision: Upgrade | Refusal) -> int | None:
    return int(decision.status) if isinstance(decision, Refusal) else None


def test_a_header_authenticates() -> None:
    decision = read("/ws?device_id=tv&position=p&ack=auto", authorization=["Bearer a.b.c"])
    assert isinstance(decision, Upgrade)
    assert decision.hello is not None
    assert (decision.hello.token, decision.hello.device_id, decision.hello.position) == ("a.b.c", "tv", "p")
    assert (decision.hello.ack, decision.ticket, decision.subprotocol) == (AckMode.AUTO, None, None)


def test_a_subprotocol_authenticates_and_the_other_is_selected() -> None:
    decision = read(offered_subprotocols=["herald.v1", "bearer.a.b.c"])
    assert isinstance(decision, Upgrade)
    assert decision.hello is not None
    assert (decision.hello.token, decision.subprotocol) == ("a.b.c", "herald.v1")


def test_a_ticket_stands_for_a_token() -> None:
    decision = read("/ws/?ticket=t1&device_id=web")
    assert isinstance(decision, Upgrade)
    assert decision.ticket == "t1"
    assert decision.hello is not None
    assert decision.hello.device_id == "web"


def test_a_token_beside_a_ticket_wins() -> None:
    decision = read("/ws?ticket=t1", authorization=["Bearer a.b.c"])
    assert isinstance(decision, Upgrade)
    assert decision.ticket is None


@pytest.mark.parametrize("authorization", [[], ["Basic abc"], ["Bearer "], ["Bearer"]])
def test_without_any_of_them_hello_must_follow(authorization: list[str]) -> None:
    assert read(authorization=authorization, offered_subprotocols=["bearer."]) == Upgrade(None, None, None)


@pytest.mark.req("D01")
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "https://app.example.evil.example",
        "https://xapp.example",
        "https://app.example:8443",
        "http://app.example",
        "HTTPS://APP.EXAMPLE",
    ],
)
def test_foreign_origins_are_refused(origin: str) -> None:
    assert status(read(origins=[origin])) == 403


def test_the_own_origin_is_allowed_and_two_are_not() -> None:
    assert status(read(origins=["https://app.example"])) is None
    assert status(read(origins=["https://app.example", "https://app.example"])) == 403


def test_a_missing_origin_is_a_matter_of_setting() -> None:
    assert status(read()) is None
    assert status(read(rule=OriginRule(frozenset(), allow_missing=False))) == 403


@pytest.mark.req("D03")
@pytest.mark.parametrize("name", ["token", "access_token", "Token", "jwt"])
def test_tokens_in_the_query_are_refused(name: str) -> None:
    assert status(read(f"/ws?{name}=a.b.c")) == 400


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", 404),
        ("/ws/x", 404),
        ("/ws?" + "a=1&" * 21, 400),
        ("/ws?x=" + "y" * 5000, 414),
        ("/ws?device_id=has%20space&ticket=t", 400),
        ("/ws?ack=maybe&ticket=t", 400),
    ],
)
def test_other_requests_are_refused(target: str, expected: int) -> None:
    assert status(read(target)) == expected
