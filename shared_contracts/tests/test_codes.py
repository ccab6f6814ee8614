"""Codes and words clients act on: never renamed, ranges kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared_contracts.delivery_state import DeliveryState, may_follow
from shared_contracts.error_codes import ErrorCode, Reason
from shared_contracts.ws.close_codes import CloseCode

WORDS = Path(__file__).parent / "golden" / "words.json"


def test_no_published_word_was_renamed_or_dropped() -> None:
    published = json.loads(WORDS.read_text())
    assert set(published["error_codes"]) <= {code.value for code in ErrorCode}
    assert set(published["reasons"]) <= {reason.value for reason in Reason}
    assert set(published["close_codes"].items()) <= {(code.name, code.value) for code in CloseCode}


def test_own_close_codes_say_by_their_range_whether_to_reconnect() -> None:
    for code in CloseCode:
        if code >= 4000:
            assert code.may_reconnect == (code < 4500)


@pytest.mark.parametrize(
    "code", [CloseCode.GOING_AWAY, CloseCode.RESTARTING, CloseCode.OVERLOADED, CloseCode.SERVER_FAULT]
)
def test_server_side_standard_codes_allow_reconnecting(code: CloseCode) -> None:
    assert code.may_reconnect


@pytest.mark.parametrize("code", [CloseCode.TOO_BIG, CloseCode.INVALID_DATA, CloseCode.UNSUPPORTED_DATA])
def test_client_mistakes_do_not_reconnect(code: CloseCode) -> None:
    assert not code.may_reconnect


def test_delivery_states_only_go_forward() -> None:
    assert may_follow(DeliveryState.PENDING, DeliveryState.QUEUED)
    assert may_follow(DeliveryState.SENT, DeliveryState.ACKED)
    assert may_follow(DeliveryState.SENT, DeliveryState.FAILED)
    assert not may_follow(DeliveryState.SENT, DeliveryState.QUEUED)
    assert not may_follow(DeliveryState.SENT, DeliveryState.SENT)


@pytest.mark.parametrize("end", [state for state in DeliveryState if state.is_terminal])
def test_nothing_follows_an_end(end: DeliveryState) -> None:
    assert not any(may_follow(end, after) for after in DeliveryState)
