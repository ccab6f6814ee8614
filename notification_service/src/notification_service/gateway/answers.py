"""Frames of the session itself, as bytes. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from notification_service.clock import format_time
from notification_service.notifications.kept import Counts
from notification_service.notifications.resuming import ResetReason, Resume
from notification_service.presence.board import PresenceView
from shared_contracts.error_codes import ErrorCode
from shared_contracts.ws.frames import PROTOCOL

_TEMPORARY: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED, ErrorCode.INTERNAL_ERROR})


def encode(type_: str, ref: str | None = None, **fields: Any) -> bytes:
    """Any frame to a client."""
    frame = {"type": type_, **fields}
    if ref is not None:
        frame["ref"] = ref
    return orjson.dumps(frame)


def encode_presence(view: PresenceView, ref: str | None = None) -> bytes:
    """A `presence` frame."""
    seen_at = format_time(view.last_seen_at) if view.last_seen_at else None
    return encode("presence", ref, user_id=str(view.user_id), status=view.status, last_seen_at=seen_at)


def encode_error(code: ErrorCode, detail: str, ref: str | None = None, *, retry_after_ms: int | None = None) -> bytes:
    """An `error` frame; which codes are temporary is decided here."""
    fields: dict[str, Any] = {"code": str(code), "detail": detail, "temporary": code in _TEMPORARY}
    if retry_after_ms is not None:
        fields["retry_after_ms"] = retry_after_ms
    return encode("error", ref, **fields)


def encode_welcome(
    *,
    connection_id: UUID,
    session_id: UUID,
    user_id: UUID,
    device_id: str,
    roles: tuple[str, ...],
    position: str,
    resume: Resume,
    counts: Counts,
    heartbeat_interval_ms: int,
    token_expires_at: datetime,
    server_time: datetime,
    max_unacked: int,
    ref: str | None = None,
) -> bytes:
    """The first frame after authentication, with the `ref` of the `hello` it answers."""
    return encode(
        "welcome",
        ref,
        protocol=PROTOCOL,
        connection_id=str(connection_id),
        session_id=str(session_id),
        user_id=str(user_id),
        device_id=device_id,
        roles=list(roles),
        position=position,
        resume=resume,
        counts=_counts(counts),
        heartbeat_interval_ms=heartbeat_interval_ms,
        token_expires_at=format_time(token_expires_at),
        server_time=format_time(server_time),
        max_unacked=max_unacked,
    )


def encode_reset(position: str, counts: Counts, reason: ResetReason) -> bytes:
    """The gap is longer than is kept."""
    return encode("reset", position=position, counts=_counts(counts), reason=reason)


def add_ref(body: bytes, ref: str) -> bytes:
    """The same body with the client's `ref` in it."""
    return b'{"ref":%b,%b' % (orjson.dumps(ref), body[1:])


def _counts(counts: Counts) -> dict[str, int]:
    return {"unread": counts.unread, "unseen": counts.unseen}
