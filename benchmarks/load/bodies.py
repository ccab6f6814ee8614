"""The requests that are published."""

from __future__ import annotations

import json
from collections.abc import Sequence

_TEXT = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. "
_BODY = (2 * _TEXT)[:140].encode()


def private_message(user_id: str, sent_ns: int) -> tuple[str, str, bytes]:
    return "notifications.direct", "private", make_body([user_id], sent_ns)


def make_body(user_ids: Sequence[str], sent_ns: int) -> bytes:
    """A request of 300 bytes when it has one recipient."""
    # `sent_ns` is the last of `data`, and the longest name: PostgreSQL's jsonb gives it back there too.
    content = b'"title":"Your order is on its way","body":"%b","data":{"order":"1042","sent_ns":%d}' % (_BODY, sent_ns)
    return b'{%b,"recipients":{"users":%b}}' % (content, json.dumps(list(user_ids)).encode())


def broadcast_body(sent_ns: int) -> bytes:
    return b'{"title":"Maintenance tonight","body":"%b","data":{"ticket":"1042","sent_ns":%d}}' % (
        _TEXT.encode() * 2,
        sent_ns,
    )
