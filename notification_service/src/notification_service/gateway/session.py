"""One device's connection as a state machine: inputs and the time in, effects out. No I/O (docs/decisions/0008)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

from notification_service.clock import format_time
from notification_service.gateway.answers import (
    add_ref,
    encode,
    encode_error,
    encode_presence,
    encode_reset,
    encode_welcome,
)
from notification_service.gateway.bucket import Bucket
from notification_service.gateway.effects import (
    Acked,
    AskPreferences,
    ChangeItems,
    Close,
    Effect,
    FollowPresence,
    Identify,
    IdentifyAgain,
    SendMessage,
    SendPing,
    SendText,
    ShowPresence,
    UnfollowPresence,
    WakeAfter,
)
from notification_service.gateway.follower import Follower
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import FrameType, Page, StreamInfo
from notification_service.notifications.resuming import decide_start
from notification_service.presence.board import PresenceView
from shared_contracts.error_codes import ErrorCode
from shared_contracts.scopes import Scope, scopes_of
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import (
    PROTOCOL,
    Ack,
    ChangeState,
    ClientFrame,
    FrameRejected,
    Hello,
    Ping,
    PreferencesGet,
    PreferencesPatch,
    PresenceSet,
    PresenceStatus,
    PresenceSubscribe,
    Refresh,
    Send,
    Sync,
    parse_client_frame,
)
from shared_contracts.ws.positions import Position, parse_position

MAX_MALFORMED: Final = 5
"""Frames that cannot be read, after which the connection is closed (4500)."""

MAX_EARLY: Final = 16
MAX_EARLY_BYTES: Final = 64 * 1024
"""Frames, and bytes of them, that are kept while a token is being checked (4500 beyond)."""

MAX_REWINDS: Final = 3
"""Times that unacknowledged frames are sent again, after which the connection is closed (4412)."""

MAX_IDENTIFYING: Final = 4
"""Times the limit for authenticating that checking it may take (1013 beyond)."""

EXPIRY_WARNING_S: Final = 60.0

# What nearly every frame from a client is: read without building a model, in a tenth of the time.
_PLAIN_ACK: Final = re.compile(rb'\{"type": ?"ack", ?"position": ?"([0-9a-f.]+)"\}')

VAIN_ACKS: Final = 10
"""Times the limit of frames that an acknowledgement may say nothing new (4429 beyond). Who gets a window again answers
it again."""

DRAIN_NOTICE_S: Final = 0.25
"""Between `reconnect` and the close: acknowledgements that are on their way still count."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of every session of this process; durations in seconds."""

    authentication_s: float = 10.0
    heartbeat_s: float = 20.0
    ack_s: float = 30.0
    max_unacked: int = 64
    frames_per_second: int = 50
    messages_per_second: float = 5.0
    max_following: int = 1_000
    resume_max_items: int = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is connected, as the auth service said."""

    user_id: UUID
    session_id: UUID
    tenant: str
    roles: tuple[str, ...]
    expires_at: datetime
    scopes: frozenset[Scope] = frozenset()


class Phase(Enum):
    """Where a connection stands."""

    NEW = auto()
    IDENTIFYING = auto()
    OPEN = auto()
    CLOSED = auto()


class Session:
    """Authentication, frames, limits and ends of one connection; its `follower` has the streams.

    Methods named `on_` take one input each and answer what should be done, in order.
    """

    __slots__ = (
        "_early",
        "_expires_at",
        "_floors",
        "_frames",
        "_last_heard",
        "_last_ping",
        "_leave_at",
        "_limits",
        "_malformed",
        "_messages",
        "_opened_at",
        "_rewinds",
        "_vain_acks",
        "_warned",
        "_was_reset",
        "_was_told_gone",
        "connection_id",
        "device_id",
        "follower",
        "following",
        "identity",
        "phase",
        "status",
    )

    def __init__(self, connection_id: UUID, limits: Limits, now: float) -> None:
        self.connection_id = connection_id
        self.phase = Phase.NEW
        self.identity: Identity | None = None
        self.device_id = ""
        self.follower = Follower(limits.max_unacked)
        self._limits = limits
        self.status = PresenceStatus.ONLINE
        self.following: frozenset[UUID] = frozenset()
        self._opened_at = self._last_heard = self._last_ping = now
        self._leave_at: float | None = None
        self._early: tuple[bytes, ...] = ()
        # Made when first needed: most connections only acknowledge.
        self._frames: Bucket | None = None
        self._messages: Bucket | None = None
        self._vain_acks: Bucket | None = None
        self._malformed = 0
        self._expires_at = 0.0
        self._warned = False
        self._rewinds = 0
        # Before these numbers nothing is kept.
        self._floors = (0, 0)
        self._was_reset = self._was_told_gone = False

    @property
    def is_open(self) -> bool:
        """Whether the device is identified and not closed."""
        return self.phase is Phase.OPEN

    # --- frames from the client -----------------------------------------------------------------------------------

    def on_text(self, text: bytes, now: float) -> list[Effect]:
        """A text frame arrived."""
        if self.phase is Phase.CLOSED:
            return []
        self._last_heard = now
        if self.phase is Phase.IDENTIFYING:
            return self._keep_early(text)
        if self.phase is Phase.OPEN and (plain := _PLAIN_ACK.fullmatch(text)) is not None:
            return self._on_acked_position(plain[1].decode(), None, now)
        try:
            frame = parse_client_frame(text)
        except FrameRejected as refused:
            return self._refuse_frame(refused)
        # Acknowledgements that say something new are free: there is at most one for each frame written.
        if isinstance(frame, Ack) and self.phase is Phase.OPEN:
            return self._on_acked_position(frame.position, frame.ref, now)
        if not self._may_send(now):
            return self.close(CloseCode.TOO_MANY_FRAMES, "too many frames")
        if self.phase is not Phase.OPEN:
            return self._on_early_frame(frame)
        return self._on_frame(frame, now)

    def on_heard(self, now: float) -> None:
        """The peer is there: a pong arrived."""
        self._last_heard = now

    def on_control(self, now: float) -> list[Effect]:
        """A ping, or a piece of a longer frame, arrived. It costs what any frame costs, and counts as one."""
        if self.phase is Phase.CLOSED:
            return []
        self._last_heard = now
        return [] if self._may_send(now) else self.close(CloseCode.TOO_MANY_FRAMES, "too many frames")

    def identify(self, hello: Hello) -> list[Effect]:
        """Start from a `hello` frame, or from what the upgrade request carried in its place."""
        if hello.protocol != PROTOCOL:
            answer = encode_error(ErrorCode.UNSUPPORTED_PROTOCOL, f"this server speaks protocol {PROTOCOL}", hello.ref)
            return [SendText(answer), *self.close(CloseCode.PROTOCOL_BROKEN, "unknown protocol version")]
        self.phase = Phase.IDENTIFYING
        return [Identify(hello)]

    def _refuse_frame(self, refused: FrameRejected) -> list[Effect]:
        if self.phase is not Phase.OPEN:
            return self.close(CloseCode.PROTOCOL_BROKEN, "the first frame must be a valid hello")
        self._malformed += 1
        answer = SendText(encode_error(refused.code, refused.detail, refused.ref))
        if self._malformed >= MAX_MALFORMED:
            return [answer, *self.close(CloseCode.PROTOCOL_BROKEN, "too many malformed frames")]
        return [answer]

    def _may_send(self, now: float) -> bool:
        if self._frames is None:
            self._frames = Bucket(self._limits.frames_per_second, now)
        return self._frames.take(now)

    def _on_early_frame(self, frame: ClientFrame) -> list[Effect]:
        if not isinstance(frame, Hello):
            return self.close(CloseCode.PROTOCOL_BROKEN, "hello must come before other frames")
        return self.identify(frame)

    def _keep_early(self, text: bytes) -> list[Effect]:
        """Whoever authenticated may speak before the welcome; it is read once they are known."""
        if len(self._early) >= MAX_EARLY or sum(map(len, self._early)) + len(text) > MAX_EARLY_BYTES:
            return self.close(CloseCode.PROTOCOL_BROKEN, "too much before the welcome")
        self._early = (*self._early, text)
        return []

    def _on_frame(self, frame: ClientFrame, now: float) -> list[Effect]:
        match frame:
            case Sync():
                return self._on_sync(frame, now)
            case ChangeState():
                return [ChangeItems(frame.type, frame.ids, frame.ref)]
            case Send():
                return self._on_send(frame, now)
            case Refresh():
                return [IdentifyAgain(frame.token, frame.ref)]
            case Ping():
                return [SendText(encode("pong", frame.ref))]
            case PreferencesGet():
                return [AskPreferences(None, frame.ref)]
            case PreferencesPatch():
                return [AskPreferences(frame.preferences, frame.ref)]
            case PresenceSubscribe() | PresenceSet():
                return self._on_presence_frame(frame)
        return [SendText(encode_error(ErrorCode.INVALID_FRAME, "this connection has its hello", frame.ref))]

    def _on_acked_position(self, text: str, ref: str | None, now: float) -> list[Effect]:
        position, follower = parse_position(text), self.follower
        if position is None or not follower.knows(position):
            refusal = self._refuse_gone(ref) if position and self._was_reset else self._refuse_position(ref)
            return self._count_vain_ack(now) or refusal
        if position.seq > follower.acked_seq or position.broadcast > follower.acked_broadcast:
            self._rewinds = 0
        elif ended := self._count_vain_ack(now):
            return ended
        return follower.settle(position.seq, position.broadcast, now)

    def _count_vain_ack(self, now: float) -> list[Effect]:
        if self._vain_acks is None:
            self._vain_acks = Bucket(VAIN_ACKS * self._limits.frames_per_second, now)
        if self._vain_acks.take(now):
            return []
        return self.close(CloseCode.TOO_MANY_FRAMES, "too many acknowledgements that say nothing new")

    def _on_sync(self, frame: Sync, now: float) -> list[Effect]:
        position = parse_position(frame.position)
        if position is None:
            return self._refuse_position(frame.ref)
        if not self.follower.knows(position):
            return self._refuse_gone(frame.ref) if self._was_reset else self._refuse_position(frame.ref)
        floor_seq, floor_broadcast = self._floors
        follower, longest = self.follower, self._limits.resume_max_items
        if (
            position.seq < floor_seq
            or position.broadcast < floor_broadcast
            or follower.sent_seq - position.seq > longest
            or follower.sent_broadcast - position.broadcast > longest
        ):
            # What is left of that gap would be a replay with a hole in it.
            return self._refuse_gone(frame.ref)
        return self.follower.go_back(position.seq, position.broadcast, ask_synced=True, now=now)

    def _on_send(self, frame: Send, now: float) -> list[Effect]:
        if self._messages is None:
            self._messages = Bucket(self._limits.messages_per_second, now)
        if self._messages.take(now):
            return [SendMessage(frame)]
        wait_ms = int(self._messages.wait_s() * 1000) + 1
        detail = "too many messages"
        return [SendText(encode_error(ErrorCode.RATE_LIMITED, detail, frame.ref, retry_after_ms=wait_ms))]

    def _on_presence_frame(self, frame: PresenceSubscribe | PresenceSet) -> list[Effect]:
        if isinstance(frame, PresenceSet):
            self.status = frame.status
            return [ShowPresence(frame.status, frame.ref)]
        named = frozenset(frame.user_ids)
        if frame.type == "presence.unsubscribe":
            self.following -= named
            return [
                UnfollowPresence(named),
                SendText(encode("presence.unsubscribed", frame.ref, following=len(self.following))),
            ]
        if not self.may_follow(named):
            return self._refuse_following(frame.ref)
        return [FollowPresence(named, frame.ref)]

    def may_follow(self, user_ids: frozenset[UUID]) -> bool:
        """Whether so many users can be followed."""
        return len(self.following | user_ids) <= self._limits.max_following

    def _refuse_following(self, ref: str | None) -> list[Effect]:
        detail = f"at most {self._limits.max_following} users can be followed"
        return [SendText(encode_error(ErrorCode.LIMIT_REACHED, detail, ref))]

    def _refuse_position(self, ref: str | None) -> list[Effect]:
        return [SendText(encode_error(ErrorCode.INVALID_POSITION, "this connection was not given that position", ref))]

    def _refuse_gone(self, ref: str | None) -> list[Effect]:
        """Once it is told; a client that goes on as if the position were held is closed, so that it starts anew."""
        if self._was_told_gone:
            return self.close(CloseCode.POSITION_GONE, "the position is no longer held")
        self._was_told_gone = True
        detail = "that position is no longer held: list over REST, go on from the last position given here"
        return [SendText(encode_error(ErrorCode.POSITION_GONE, detail, ref))]

    # --- identification -------------------------------------------------------------------------------------------

    def on_identified(
        self, identity: Identity, hello: Hello, info: StreamInfo, *, now: float, wall_clock: datetime
    ) -> list[Effect]:
        """The token is good and the stream was read; the user's queue is being consumed already or soon."""
        if self.phase is not Phase.IDENTIFYING:
            return []
        self.phase = Phase.OPEN
        self._take_identity(identity, now, wall_clock)
        self.device_id = hello.device_id or str(identity.session_id)
        start = decide_start(hello.position, info, max_items=self._limits.resume_max_items)
        position = str(Position(info.epoch, start.broadcast, start.seq))
        welcome = encode_welcome(
            connection_id=self.connection_id,
            session_id=identity.session_id,
            user_id=identity.user_id,
            device_id=self.device_id,
            roles=identity.roles,
            position=position,
            resume=start.resume,
            counts=info.counts,
            heartbeat_interval_ms=int(self._limits.heartbeat_s * 1000),
            token_expires_at=identity.expires_at,
            server_time=wall_clock,
            max_unacked=self._limits.max_unacked,
            ref=hello.ref,
        )
        effects: list[Effect] = [SendText(welcome)]
        # Broadcasts from before the user's time are not theirs, whatever position they name.
        self._floors = info.floor_seq, max(info.floor_broadcast, info.broadcast_floor)
        self._was_reset = start.reason is not None
        if start.reason is not None:
            effects.append(SendText(encode_reset(position, info.counts, start.reason)))
        if start.reason is not None or hello.position is not None:
            # What lies before is behind this device, and needs no place in its user's queue any more.
            effects.append(Acked(start.seq, start.broadcast))
        effects += self.follower.start(info, start, hello.ack, now)
        early, self._early = self._early, ()
        for text in early:
            effects += self.on_text(text, now)
        return effects

    def on_refreshed(self, identity: Identity, ref: str | None, *, now: float, wall_clock: datetime) -> list[Effect]:
        """A new token was checked; it must be the same user's."""
        if self.phase is not Phase.OPEN or self.identity is None:
            return []
        if identity.user_id != self.identity.user_id:
            return self.close(CloseCode.TOKEN_INVALID, "the token belongs to another user")
        before = self.identity.roles
        self._take_identity(identity, now, wall_clock)
        effects: list[Effect] = [SendText(encode("refreshed", ref, token_expires_at=format_time(identity.expires_at)))]
        if identity.roles != before:
            effects.append(SendText(encode("rights_changed", roles=list(identity.roles))))
        return effects

    def on_rights(self, roles: tuple[str, ...]) -> list[Effect]:
        """The user's roles are these from now on. The token stays good; what it may do is asked anew at every use."""
        if self.phase is not Phase.OPEN or self.identity is None or self.identity.roles == roles:
            return []
        # Never more than the token itself says; for more the client refreshes it.
        scopes = self.identity.scopes & scopes_of(roles)
        self.identity = replace(self.identity, roles=roles, scopes=scopes)
        return [SendText(encode("rights_changed", roles=list(roles)))]

    def on_refused(self, *, is_expired: bool) -> list[Effect]:
        """The token is not valid."""
        if is_expired:
            return self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        return self.close(CloseCode.TOKEN_INVALID, "the token is not valid")

    def _take_identity(self, identity: Identity, now: float, wall_clock: datetime) -> None:
        self.identity = identity
        self._expires_at = now + (identity.expires_at - wall_clock) / timedelta(seconds=1)
        self._warned = False

    # --- the streams ----------------------------------------------------------------------------------------------

    def on_item(self, seq: int, type_: FrameType, body: bytes, *, is_repeat: bool, now: float) -> list[Effect]:
        """A frame of the user's stream arrived."""
        return self.follower.on_item(seq, type_, body, is_repeat=is_repeat, now=now)

    def on_page(self, page: Page, now: float) -> list[Effect]:
        """The page asked for."""
        return self.follower.on_page(page, now)

    # --- answers to commands --------------------------------------------------------------------------------------

    def on_items_changed(
        self, *, seq: int | None, body: bytes | None, label: str, counts: Counts, ref: str | None, now: float
    ) -> list[Effect]:
        """The items were changed; `seq` None: they were like that already.

        The frame is written here at once, with the client's `ref`; the copy from the queue is then known.
        """
        if not self.is_open:
            return []
        if seq is None or body is None:
            return [SendText(self._describe_unchanged(label, counts, ref))]
        with_ref = add_ref(body, ref) if ref is not None else body
        if self.follower.is_live and seq == self.follower.sent_seq + 1:
            return self.follower.on_item(seq, FrameType.STATE, with_ref, is_repeat=False, now=now)
        # Out of its turn: the answer comes now, without moving the position; the frame itself comes with the stream.
        answer = b'{"type":"state","position":"%b",%b' % (self.follower.position, with_ref[1:])
        return [SendText(answer), *self.follower.on_item(seq, FrameType.STATE, body, is_repeat=False, now=now)]

    def _describe_unchanged(self, label: str, counts: Counts, ref: str | None) -> bytes:
        return encode(
            "state",
            ref,
            ids=[],
            state=label,
            seq=self.follower.sent_seq,
            position=self.follower.position.decode(),
            counts={"unread": counts.unread, "unseen": counts.unseen},
        )

    def on_message_sent(self, notification_id: UUID, ref: str | None) -> list[Effect]:
        """The client's message was accepted."""
        return [SendText(encode("sent", ref, id=str(notification_id)))] if self.is_open else []

    def on_following(self, views: Sequence[PresenceView], ref: str | None) -> list[Effect]:
        """These users may be followed; each is shown as they are now."""
        if not self.is_open:
            return []
        named = frozenset(view.user_id for view in views)
        if not self.may_follow(named):
            # Several requests were under way at once.
            return self._refuse_following(ref)
        self.following |= named
        return [SendText(encode_presence(view, ref)) for view in views]

    def on_presence(self, view: PresenceView, ref: str | None = None) -> list[Effect]:
        """A followed user changed, or the own status is set."""
        return [SendText(encode_presence(view, ref))] if self.is_open else []

    def on_not_visible(self, user_ids: frozenset[UUID]) -> list[Effect]:
        """These users may no longer be followed."""
        self.following -= user_ids
        return [UnfollowPresence(user_ids)]

    def on_live_event(self, text: bytes) -> list[Effect]:
        """A frame that is shown now or never: no position, no acknowledgement, no place in any stream."""
        return [SendText(text)] if self.is_open else []

    def on_preferences(self, values: dict[str, Any], ref: str | None) -> list[Effect]:
        """The own preferences, asked for or changed by this device."""
        return [SendText(encode("preferences", ref, preferences=values))] if self.is_open else []

    def on_command_failed(self, code: ErrorCode, detail: str, ref: str | None) -> list[Effect]:
        """A command could not be done."""
        return [SendText(encode_error(code, detail, ref))] if self.is_open else []

    # --- time and ends --------------------------------------------------------------------------------------------

    def on_tick(self, now: float) -> list[Effect]:
        """Time has passed; called about once a second, and when a `WakeAfter` is over."""
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is not Phase.OPEN:
            return self._check_beginning(now)
        if self._leave_at is not None and now >= self._leave_at - 0.1 * DRAIN_NOTICE_S:
            return self.close(CloseCode.RESTARTING, "the server is restarting")
        effects: list[Effect] = []
        for check in (self._check_expiry, self._check_peer, self._check_acks, self.follower.on_tick):
            effects += check(now)
            if self.phase is not Phase.OPEN:
                break
        return effects

    def on_drain(self, *, after_ms: int, spread_ms: int, now: float) -> list[Effect]:
        """The server is about to leave: say when to come back, then close."""
        if not self.is_open:
            return self.close(CloseCode.RESTARTING, "the server is restarting")
        if self._leave_at is not None:
            return []
        self._leave_at = now + DRAIN_NOTICE_S
        frame = encode("reconnect", after_ms=after_ms, spread_ms=spread_ms, reason="restarting")
        return [SendText(frame), WakeAfter(DRAIN_NOTICE_S)]

    def close(self, code: CloseCode, reason: str) -> list[Effect]:
        """End this session."""
        if self.phase is Phase.CLOSED:
            return []
        self.phase = Phase.CLOSED
        self.follower.stop()
        return [Close(code, reason)]

    def _check_beginning(self, now: float) -> list[Effect]:
        waited_s = now - self._opened_at
        if self.phase is Phase.NEW and waited_s >= self._limits.authentication_s:
            return self.close(CloseCode.NOT_AUTHENTICATED_IN_TIME, "no authentication in time")
        # It has said who it is: that thousands came at the same moment is no fault of its own.
        if waited_s >= MAX_IDENTIFYING * self._limits.authentication_s:
            return self.close(CloseCode.OVERLOADED, "not available right now")
        return []

    def _check_expiry(self, now: float) -> list[Effect]:
        left = self._expires_at - now
        if left <= 0:
            return self.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        if left <= EXPIRY_WARNING_S and not self._warned:
            self._warned = True
            return [SendText(encode("token_expiring", expires_in_s=int(left)))]
        return []

    def _check_peer(self, now: float) -> list[Effect]:
        # Two intervals without a byte: one ping was not answered within a whole interval.
        if now - self._last_heard > 2 * self._limits.heartbeat_s:
            return self.close(CloseCode.GOING_AWAY, "no answer to pings")
        if now - self._last_ping >= self._limits.heartbeat_s:
            self._last_ping = now
            return [SendPing()]
        return []

    def _check_acks(self, now: float) -> list[Effect]:
        oldest = self.follower.oldest_unacked_at
        if oldest is None or now - oldest < self._limits.ack_s:
            return []
        self._rewinds += 1
        if self._rewinds > MAX_REWINDS:
            return self.close(CloseCode.SLOW_CONSUMER, "frames stay unacknowledged")
        follower = self.follower
        return follower.go_back(follower.acked_seq, follower.acked_broadcast, ask_synced=False, now=now)
