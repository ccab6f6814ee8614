"""Ready frames are exactly what the library would write."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from notification_service.gateway.answers import add_ref, encode_error
from notification_service.gateway.wire import encode_ping, encode_text, encode_text_head
from shared_contracts.error_codes import ErrorCode


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_text_frames(length: int) -> None:
    payload = b"x" * length
    assert encode_text(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert encode_text(payload) == encode_text_head(length) + payload


def test_pings() -> None:
    assert encode_ping() == Frame(Opcode.PING, b"").serialize(mask=False)


def test_errors_say_whether_they_are_temporary() -> None:
    assert b'"temporary":true' in encode_error(ErrorCode.UNAVAILABLE, "d", retry_after_ms=5)
    assert b'"retry_after_ms":5' in encode_error(ErrorCode.UNAVAILABLE, "d", retry_after_ms=5)
    assert b'"temporary":false' in encode_error(ErrorCode.INVALID_FRAME, "d")


def test_a_ref_is_spliced_as_json() -> None:
    assert add_ref(b'{"a":1}', 'x"y') == b'{"ref":"x\\"y","a":1}'
