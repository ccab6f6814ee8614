"""What the library writes, whatever is in it, is read from the wire as the library reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header

from notification_service.broker.decode import read_body_size, read_properties

_SHORT = st.text(max_size=60)
_SCALARS = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=300) | st.booleans() | st.none()
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SHORT, inner, max_size=3), max_leaves=5
)

PROPERTIES = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | _SHORT,
    content_encoding=st.none() | _SHORT,
    headers=st.none() | st.dictionaries(st.text(max_size=60), _VALUES, max_size=4),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | _SHORT,
    reply_to=st.none() | _SHORT,
    expiration=st.none() | _SHORT,
    message_id=st.none() | _SHORT,
    timestamp=st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    message_type=st.none() | _SHORT,
    user_id=st.none() | _SHORT,
    app_id=st.none() | _SHORT,
)


def encode(properties: commands.Basic.Properties, size: int = 0) -> bytes:
    """A content header's payload."""
    return frame.marshal(header.ContentHeader(0, size, properties), 1)[7:-1]


@given(PROPERTIES, st.integers(0, 2**40))
def test_the_library_reads_the_same(properties: commands.Basic.Properties, size: int) -> None:
    payload = encode(properties, size)
    expected = header.ContentHeader()
    expected.unmarshal(payload)
    known = expected.properties
    found = read_properties(payload)
    assert read_body_size(payload) == size
    assert (found.content_type, found.message_id) == (known.content_type, known.message_id)
    assert (found.type, found.app_id) == (known.message_type, known.app_id)
    assert found.headers == (known.headers or {})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param(b"\x01aZ", {}, id="an unknown kind of value"),
        pytest.param(b"\x01aS\x00\x00\x00\x02\xff\xfe", {"a": b"\xff\xfe"}, id="text that is none"),
        pytest.param(b"\x01\xffS\x00\x00\x00\x01b", {"\ufffd": "b"}, id="a name that is no text"),
    ],
)
@pytest.mark.req("I09")
def test_headers_nobody_can_read_end_nothing(table: bytes, expected: dict[str, Any]) -> None:
    payload = bytearray(encode(commands.Basic.Properties(headers={}, message_id="x")))
    # Headers come first here, with their size before them.
    payload[12:13] = bytes((payload[12] | 0x20,))
    payload[14:18] = len(table).to_bytes(4, "big") + table if payload[14:18] == b"\0\0\0\0" else payload[14:18]
    found = read_properties(bytes(payload))
    assert found.message_id == "x"
    assert found.headers == expected
