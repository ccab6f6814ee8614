"""What clients may send (contract section 5; requirement D11)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_contracts.error_codes import ErrorCode
from shared_contracts.ws.frames import CLIENT_FRAMES, Ack, ChangeState, FrameRejected, parse_client_frame

USER = "018f0000-0000-7000-8000-000000000001"
VALID: list[dict[str, Any]] = [
    {"type": "hello", "token": "a.b.c"},
    {
        "type": "hello",
        "token": "a.b.c",
        "device_id": "phone-1",
        "position": "p",
        "ack": "auto",
        "client": {"name": "x"},
    },
    {"type": "ack", "position": "p"},
    {"type": "sync", "position": "p"},
    {"type": "read", "ids": [USER]},
    {"type": "unread", "all": True},
    {"type": "seen", "ids": [USER, USER]},
    {"type": "archive", "ids": [USER]},
    {"type": "unarchive", "ids": [USER]},
    {"type": "delete", "ids": [USER]},
    {"type": "send", "to": {"user": USER}, "body": "hello"},
    {"type": "send", "to": {"group": USER}, "title": "t", "body": "hello", "data": {"a": [1, None]}},
    {"type": "send", "to": {"all": True}, "body": "hello"},
    {"type": "refresh", "token": "a.b.c"},
    {"type": "presence.subscribe", "user_ids": [USER]},
    {"type": "presence.unsubscribe", "user_ids": [USER]},
    {"type": "presence.set", "status": "away"},
    {"type": "preferences.get"},
    {"type": "preferences.patch", "preferences": {"channels": {"email": False}}},
    {"type": "ping"},
]


@pytest.mark.parametrize("frame", VALID, ids=lambda frame: str(frame["type"]))
def test_valid_frames_are_read_with_their_ref(frame: dict[str, Any]) -> None:
    parsed = parse_client_frame(json.dumps({**frame, "ref": "r1", "later": "field"}))
    assert parsed.type == frame["type"]
    assert parsed.ref == "r1"


def test_every_frame_type_has_a_valid_example() -> None:
    assert {frame["type"] for frame in VALID} == set(CLIENT_FRAMES)


@pytest.mark.req("D11")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.INVALID_JSON),
        ("{", ErrorCode.INVALID_JSON),
        ("[" * 100_000, ErrorCode.INVALID_JSON),
        ('{"x":' + "[" * 100_000, ErrorCode.INVALID_JSON),
        ('{"type":"ping","x":NaN}', ErrorCode.INVALID_JSON),
        ('{"type":"ping","x":Infinity}', ErrorCode.INVALID_JSON),
        ('{"type":"ping","x":' + "9" * 5000 + "}", ErrorCode.INVALID_JSON),
        ('{"type":"ping","ref":"\\ud800"}', ErrorCode.INVALID_JSON),
        (b"\xff\xfe", ErrorCode.INVALID_JSON),
        ("[]", ErrorCode.INVALID_FRAME),
        ("null", ErrorCode.INVALID_FRAME),
        ("{}", ErrorCode.UNKNOWN_FRAME_TYPE),
        ('{"type":["ping"]}', ErrorCode.UNKNOWN_FRAME_TYPE),
        ('{"type":"fly"}', ErrorCode.UNKNOWN_FRAME_TYPE),
        ('{"type":"ack"}', ErrorCode.INVALID_FRAME),
        ('{"type":"ack","position":1}', ErrorCode.INVALID_FRAME),
        ('{"type":"read"}', ErrorCode.INVALID_FRAME),
        ('{"type":"read","ids":[]}', ErrorCode.INVALID_FRAME),
        ('{"type":"read","ids":["' + USER + '"],"all":true}', ErrorCode.INVALID_FRAME),
        ('{"type":"read","all":false}', ErrorCode.INVALID_FRAME),
        ('{"type":"send","to":{},"body":"x"}', ErrorCode.INVALID_FRAME),
        ('{"type":"send","to":{"user":"' + USER + '"},"body":"a\\u0000"}', ErrorCode.INVALID_FRAME),
        ('{"type":"hello","token":"t","device_id":"has space"}', ErrorCode.INVALID_FRAME),
    ],
)
def test_wrong_frames_are_refused_with_a_code(text: str | bytes, code: ErrorCode) -> None:
    with pytest.raises(FrameRejected) as refused:
        parse_client_frame(text)
    assert refused.value.code is code
    assert len(refused.value.detail) <= 500


def test_a_refusal_repeats_the_ref_and_not_the_values() -> None:
    with pytest.raises(FrameRejected) as refused:
        parse_client_frame('{"type":"hello","token":{"secret":"s3cr3t"},"ref":"r9"}')
    assert refused.value.ref == "r9"
    assert "s3cr3t" not in refused.value.detail


def test_of_equal_keys_the_last_one_counts() -> None:
    assert parse_client_frame('{"type":"ping","type":"ack","position":"p"}') == Ack(position="p")


def test_ids_are_limited() -> None:
    with pytest.raises(FrameRejected):
        parse_client_frame(json.dumps({"type": "read", "ids": [USER] * 501}))
    assert isinstance(parse_client_frame(json.dumps({"type": "read", "ids": [USER] * 500})), ChangeState)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_input_escapes_as_another_error(text: bytes | str) -> None:
    try:
        parse_client_frame(text)
    except FrameRejected:
        pass
    except UnicodeEncodeError:
        # Only str input with lone surrogates; the gateway passes bytes that were checked as UTF-8.
        assert isinstance(text, str)
