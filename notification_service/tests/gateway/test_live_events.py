from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from builders import OTHER, USER, WALL_CLOCK

from notification_service.gateway.live_events import MAX_BYTES, InvalidLiveEvent, read_live_event
from shared_contracts.ws.frames import SERVER_FRAMES


def read(body: dict[str, Any] | bytes, message_id: str | None = str(OTHER)) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    frame: dict[str, Any] = json.loads(read_live_event(raw, message_id, WALL_CLOCK))
    SERVER_FRAMES["notification"].model_validate(frame)
    return frame


def test_a_live_event_is_a_notification_without_a_place_in_any_stream() -> None:
    frame = read({"event_type": "typing", "data": {"in": "room"}, "sender": {"id": str(USER)}})
    assert (frame["id"], frame["kind"], frame["event_type"], frame["live"]) == (str(OTHER), "event", "typing", True)
    assert frame["data"] == {"in": "room"}
    assert frame["sender"] == {"id": str(USER)}
    assert not {"seq", "position", "counts", "group_id"} & frame.keys()


def test_defaults() -> None:
    frame = read({"group_id": str(USER)}, message_id="not a uuid")
    assert (frame["kind"], frame["group_id"], frame["event_type"]) == ("group", str(USER), "live")
    assert UUID(frame["id"]) not in (USER, OTHER)
    assert UUID(read({}, message_id=None)["id"]).version == 7


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"NaN", b'{"event_type": "Not A Type"}', b'{"data": 1}', b'{"body":"' + b"x" * MAX_BYTES]
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidLiveEvent):
        read(body)
