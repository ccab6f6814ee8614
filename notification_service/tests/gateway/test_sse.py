from __future__ import annotations

import pytest
from builders import position

from notification_service.gateway.sse import encode_event


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"notification","position":"POS","redelivered":false,"data":{"position":"x"}}',
        '{"type":"state","position":"POS","seq":1}',
        '{"type":"welcome","protocol":1,"position":"POS"}',
        '{"type":"synced","position":"POS"}',
        '{"type":"reset","position":"POS","counts":{}}',
    ],
)
def test_the_position_is_the_id(frame: str) -> None:
    text = frame.replace("POS", position(7))
    assert encode_event(text.encode()).decode() == f"id: {position(7)}\ndata: {text}\n\n"


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"pong"}',
        b'{"type":"presence","position":"x"}',
        b'{"type":"notification","id":"1","data":{"position":"00.1.2"}}',
    ],
)
def test_other_frames_leave_the_last_id_as_it_is(frame: bytes) -> None:
    assert encode_event(frame) == b"data: " + frame + b"\n\n"
