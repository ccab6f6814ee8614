"""What is written by hand is read back by the library, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from notification_service.broker.encode import encode_publish
from notification_service.broker.publisher import Outgoing

_SHORT = st.text(max_size=60)
_NAMES = st.text(min_size=1, max_size=60)
_VALUES = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=300) | st.booleans() | st.none()

MESSAGES = st.builds(
    Outgoing,
    exchange=_SHORT,
    routing_key=_SHORT,
    body=st.binary(max_size=3000),
    message_id=_NAMES,
    type=st.none() | _NAMES,
    headers=st.dictionaries(_NAMES, _VALUES, max_size=4),
    app_id=st.none() | _NAMES,
    timestamp=st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    expiration=st.none() | st.timedeltas(timedelta(0), timedelta(days=400)),
    persistent=st.booleans(),
    mandatory=st.booleans(),
)


def read(data: bytes) -> tuple[commands.Basic.Publish, header.ContentHeader, bytes, set[int]]:
    frames: list[Any] = []
    channels = set()
    while data:
        used, channel, read_frame = frame.unmarshal(data)
        frames.append(read_frame)
        channels.add(channel)
        data = data[used:]
    publish, content, *bodies = frames
    assert isinstance(publish, commands.Basic.Publish)
    assert isinstance(content, header.ContentHeader)
    assert all(isinstance(each, body.ContentBody) for each in bodies)
    return publish, content, b"".join(each.value for each in bodies), channels


@given(MESSAGES, st.integers(1, 2000), st.integers(1, 65535))
def test_the_library_reads_what_was_meant(message: Outgoing, max_body_bytes: int, channel: int) -> None:
    publish, content, payload, channels = read(encode_publish(message, channel=channel, max_body_bytes=max_body_bytes))

    assert channels == {channel}
    assert (publish.exchange, publish.routing_key) == (message.exchange, message.routing_key)
    assert (publish.mandatory, publish.immediate) == (message.mandatory, False)
    assert payload == message.body
    assert content.body_size == len(message.body)
    properties = content.properties
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == (2 if message.persistent else 1)
    assert (properties.message_id, properties.message_type) == (message.message_id, message.type)
    assert (properties.app_id, properties.headers or {}) == (message.app_id, message.headers)
    assert properties.timestamp == (message.timestamp.replace(microsecond=0) if message.timestamp else None)
    if message.expiration is None:
        assert properties.expiration is None
    else:
        assert properties.expiration == str(max(1, int(message.expiration.total_seconds() * 1000)))


def test_a_name_that_is_too_long_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="at most 255 bytes"):
        encode_publish(Outgoing("", "é" * 128, b"", "1"), channel=1, max_body_bytes=100)
