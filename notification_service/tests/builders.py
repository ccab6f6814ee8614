"""Small values for tests, each valid unless told otherwise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from notification_service.gateway.effects import Close, Effect, SendText
from notification_service.gateway.session import Identity, Limits, Session
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import Cursor, Entry, FrameType, Page, StreamInfo
from shared_contracts.ws.frames import AckMode, Hello
from shared_contracts.ws.positions import Position

USER = UUID("018f0000-0000-7000-8000-000000000001")
OTHER = UUID("018f0000-0000-7000-8000-000000000002")
SESSION = UUID("018f0000-0000-7000-8000-0000000000bb")
CONNECTION = UUID("018f0000-0000-7000-8000-0000000000cc")
EPOCH = "a1b2c3d4"
WALL_CLOCK = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COUNTS = Counts(unread=3, unseen=1, total=5)


def make_identity(**changes: Any) -> Identity:
    values = {
        "user_id": USER,
        "session_id": SESSION,
        "tenant": "default",
        "roles": ("user",),
        "expires_at": WALL_CLOCK + timedelta(seconds=900),
    }
    return Identity(**{**values, **changes})


def make_info(**changes: Any) -> StreamInfo:
    values = {
        "user_id": USER,
        "epoch": EPOCH,
        "top_seq": 0,
        "floor_seq": 0,
        "top_broadcast": 0,
        "floor_broadcast": 0,
        "acked_seq": 0,
        "acked_broadcast": 0,
        "broadcast_floor": 0,
        "counts": COUNTS,
        "cursor": None,
    }
    return StreamInfo(**{**values, **changes})


def make_cursor(acked: int, sent: int | None = None, *, broadcast: int = 0) -> Cursor:
    return Cursor(acked, broadcast, acked if sent is None else sent, broadcast)


def position(seq: int, broadcast: int = 0, epoch: str = EPOCH) -> str:
    return str(Position(epoch, broadcast, seq))


def item(number: int, *, type_: FrameType = FrameType.NOTIFICATION, is_broadcast: bool = False) -> Entry:
    return Entry(number, is_broadcast=is_broadcast, type=type_, body=body(number))


def body(number: int) -> bytes:
    return b'{"seq":%d,"id":"n%d"}' % (number, number)


def make_page(numbers: list[int], *, seq: int, broadcast: int = 0, has_more: bool = False) -> Page:
    return Page([item(number) for number in numbers], seq, broadcast, has_more)


def open_session(
    info: StreamInfo | None = None,
    *,
    ack: AckMode = AckMode.CLIENT,
    requested: str | None = None,
    limits: Limits | None = None,
    now: float = 0.0,
    device_id: str | None = "phone",
    identity: Identity | None = None,
) -> tuple[Session, list[Effect]]:
    """An identified session, and what it did on being identified."""
    session = Session(CONNECTION, limits or Limits(), now)
    hello = Hello(token="t", ack=ack, position=requested, device_id=device_id)
    session.identify(hello)
    effects = session.on_identified(
        identity or make_identity(), hello, info or make_info(), now=now, wall_clock=WALL_CLOCK
    )
    return session, effects


def frames(effects: list[Effect]) -> list[dict[str, Any]]:
    """The frames among effects, read as a client would."""
    return [json.loads(effect.text) for effect in effects if isinstance(effect, SendText)]


def types(effects: list[Effect]) -> list[str]:
    return [frame["type"] for frame in frames(effects)]


def close_code(effects: list[Effect]) -> int | None:
    return next((int(effect.code) for effect in effects if isinstance(effect, Close)), None)


def others(effects: list[Effect]) -> list[Effect]:
    """Effects that are no frames."""
    return [effect for effect in effects if not isinstance(effect, SendText)]
