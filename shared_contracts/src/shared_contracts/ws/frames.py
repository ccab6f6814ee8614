"""WebSocket frames (contract section 5): text, one JSON object each, tagged by `type`.

Frames from clients are checked here. Frames to clients are described here, for the machine-readable contract and the
tests; the gateway writes them as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from shared_contracts.error_codes import ErrorCode
from shared_contracts.requests import Action, Kind, Priority
from shared_contracts.text import JsonObject, Line, Text
from shared_contracts.ws.positions import MAX_POSITION_LENGTH

PROTOCOL: Final = 1
SUBPROTOCOL: Final = "herald.v1"
BEARER_SUBPROTOCOL_PREFIX: Final = "bearer."
MAX_CLIENT_FRAME_BYTES: Final = 64 * 1024
MAX_UNACKED: Final = 64
MAX_IDS: Final = 500
MAX_PRESENCE_USERS: Final = 500
"""Users in one `presence.subscribe` frame."""

Ref = Annotated[Line, Field(max_length=64)]
PositionText = Annotated[str, Field(max_length=4 * MAX_POSITION_LENGTH)]
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@\-]{1,64}$")]
TokenText = Annotated[str, Field(min_length=1, max_length=16_384)]


class AckMode(StrEnum):
    """Who acknowledges: the client by frames, or the server once the bytes are with the kernel."""

    CLIENT = "client"
    AUTO = "auto"


class PresenceStatus(StrEnum):
    """What a client may say of itself, and what others see."""

    ONLINE = "online"
    AWAY = "away"
    OFFLINE = "offline"


class _ClientFrame(BaseModel):
    # Frames may grow fields: what an older server does not know it ignores.
    model_config = ConfigDict(frozen=True, extra="ignore")

    ref: Ref | None = None


class ClientInfo(BaseModel):
    """Which software connects; shown in the list of connections."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[Line, Field(max_length=64)]
    version: Annotated[Line, Field(max_length=64)] = ""


class Hello(_ClientFrame):
    """Authenticate a connection that did not at the upgrade."""

    type: Literal["hello"] = "hello"
    token: TokenText
    device_id: DeviceId | None = None
    position: PositionText | None = None
    ack: AckMode = AckMode.CLIENT
    client: ClientInfo | None = None
    protocol: int = PROTOCOL


class Ack(_ClientFrame):
    """Everything up to and including the frame that carried `position` has been received."""

    type: Literal["ack"] = "ack"
    position: PositionText


class Sync(_ClientFrame):
    """Send what changed since `position`."""

    type: Literal["sync"] = "sync"
    position: PositionText


class ChangeState(_ClientFrame):
    """Change the state of items: exactly one of `ids` and `all`."""

    type: Literal["read", "unread", "seen", "archive", "unarchive", "delete"]
    ids: tuple[UUID, ...] | None = Field(default=None, min_length=1, max_length=MAX_IDS)
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if (self.ids is None) == (self.all is None):
            raise PydanticCustomError("one_of", "exactly one of ids and all must be given")
        return self


class SendTarget(BaseModel):
    """Whom a client's message is for: exactly one of the three."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user: UUID | None = None
    group: UUID | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(each is not None for each in (self.user, self.group, self.all)) != 1:
            raise PydanticCustomError("one_of", "exactly one of user, group and all must be given")
        return self


class Send(_ClientFrame):
    """A message from this user to another, to a group, or to everyone."""

    type: Literal["send"] = "send"
    to: SendTarget
    title: Annotated[Line, Field(min_length=1, max_length=500)] | None = None
    body: Annotated[Text, Field(min_length=1)] | None = None
    data: JsonObject = Field(default_factory=dict)
    event_type: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")] | None = Field(
        default=None, description="Of a live event only, for instance `typing`."
    )
    echo: bool | None = Field(
        default=None,
        description="True: the sender gets it too. False: never. Left out: as a member of the group it is for.",
    )
    live: bool = Field(
        default=False, description="Shown to whoever is connected now and never stored: no `seq`, no `position`."
    )

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.body is None and not self.live:
            raise PydanticCustomError("missing", "body is needed")
        if self.live and self.to.all:
            raise PydanticCustomError("live_to_all", "a live event is for a user or a group")
        return self


class Refresh(_ClientFrame):
    """Replace the access token of this connection; the subject must be the same."""

    type: Literal["refresh"] = "refresh"
    token: TokenText


class PresenceSubscribe(_ClientFrame):
    """Follow, or stop following, other users' presence."""

    type: Literal["presence.subscribe", "presence.unsubscribe"]
    user_ids: tuple[UUID, ...] = Field(min_length=1, max_length=MAX_PRESENCE_USERS)


class PresenceSet(_ClientFrame):
    """Say whether the person is there."""

    type: Literal["presence.set"] = "presence.set"
    status: Literal[PresenceStatus.ONLINE, PresenceStatus.AWAY]


class PreferencesGet(_ClientFrame):
    """Ask for the own preferences."""

    type: Literal["preferences.get"] = "preferences.get"


class PreferencesPatch(_ClientFrame):
    """Change the own preferences; merges like PATCH over REST."""

    type: Literal["preferences.patch"] = "preferences.patch"
    preferences: JsonObject


class Ping(_ClientFrame):
    """Ask for a `pong`; browsers cannot send WebSocket pings."""

    type: Literal["ping"] = "ping"


ClientFrame = (
    Hello
    | Ack
    | Sync
    | ChangeState
    | Send
    | Refresh
    | PresenceSubscribe
    | PresenceSet
    | PreferencesGet
    | PreferencesPatch
    | Ping
)

CLIENT_FRAMES: Mapping[str, type[ClientFrame]] = MappingProxyType(
    {
        "hello": Hello,
        "ack": Ack,
        "sync": Sync,
        "read": ChangeState,
        "unread": ChangeState,
        "seen": ChangeState,
        "archive": ChangeState,
        "unarchive": ChangeState,
        "delete": ChangeState,
        "send": Send,
        "refresh": Refresh,
        "presence.subscribe": PresenceSubscribe,
        "presence.unsubscribe": PresenceSubscribe,
        "presence.set": PresenceSet,
        "preferences.get": PreferencesGet,
        "preferences.patch": PreferencesPatch,
        "ping": Ping,
    }
)


class FrameRejected(Exception):
    """A client frame that cannot be taken.

    Attributes:
        code: For the `error` frame.
        detail: A sentence without the client's values.
        ref: The frame's `ref` where it could be read.
    """

    def __init__(self, code: ErrorCode, detail: str, ref: str | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.ref = code, detail, ref


def parse_client_frame(text: bytes | str) -> ClientFrame:
    """Read one text frame.

    Args:
        text: At most 64 KiB; longer frames were refused before (close 1009).

    Raises:
        FrameRejected: Not JSON, not an object, an unknown type, or wrong fields.
    """
    try:
        # Strict JSON: no NaN or Infinity. Depth is bounded by the parser; equal keys: the last one counts.
        values = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise FrameRejected(ErrorCode.INVALID_JSON, "the frame is not valid JSON") from None
    if not isinstance(values, dict):
        raise FrameRejected(ErrorCode.INVALID_FRAME, "the frame is not a JSON object")
    ref = _ref_of(values)
    tag = values.get("type")
    model = CLIENT_FRAMES.get(tag) if isinstance(tag, str) else None
    if model is None:
        raise FrameRejected(ErrorCode.UNKNOWN_FRAME_TYPE, "the frame has no known type", ref)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        where = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'frame'}: {each['msg']}" for each in problems[:5])
        raise FrameRejected(ErrorCode.INVALID_FRAME, where[:500], ref) from None


def _ref_of(values: dict[str, Any]) -> str | None:
    ref = values.get("ref")
    return ref if isinstance(ref, str) and len(ref) <= 64 else None


# --- server to client ---------------------------------------------------------------------------------------------


class Counts(BaseModel):
    """Unread and unseen items of the user, broadcasts included."""

    unread: int
    unseen: int


class ItemState(BaseModel):
    """When the user did what; null: not yet."""

    read_at: AwareDatetime | None
    seen_at: AwareDatetime | None
    archived_at: AwareDatetime | None


class _ServerFrame(BaseModel):
    ref: Ref | None = Field(default=None, description="Repeated from the client's frame when this answers one.")


class Welcome(_ServerFrame):
    """First frame after authentication. `position` is where the replay that follows starts."""

    type: Literal["welcome"]
    protocol: Literal[1]
    session_id: UUID
    user_id: UUID
    device_id: str
    roles: list[str]
    position: str
    resume: Literal["fresh", "recovered", "reset"]
    counts: Counts
    heartbeat_interval_ms: int
    token_expires_at: AwareDatetime
    server_time: AwareDatetime
    max_unacked: int
    connection_id: UUID


class Notification(_ServerFrame):
    """A notification: new, or sent again with the same `id` and `redelivered` true. Broadcasts have no `seq`."""

    type: Literal["notification"]
    id: UUID
    seq: int | None = None
    position: str | None = Field(default=None, description="Absent on live events that are never stored.")
    kind: Kind
    event_type: str
    title: str | None
    body: str | None
    data: dict[str, Any]
    actions: list[Action]
    priority: Priority
    category: str | None
    tags: list[str]
    group_id: UUID | None = None
    sender: dict[str, Any] | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    state: ItemState
    counts: Counts | None = None
    redelivered: bool = False
    silent: bool = Field(
        default=False, description="It is quiet hours where the user is: show it without sound and banner."
    )
    muted_devices: list[str] | None = Field(
        default=None, description="The user's muted devices: those show it without sound and banner."
    )


class StateChanged(_ServerFrame):
    """Items changed state, on this or another device."""

    type: Literal["state"]
    ids: list[UUID] | None = None
    all: Literal[True] | None = None
    state: Literal[
        "read", "unread", "seen", "archived", "unarchived", "deleted", "snoozed", "unsnoozed", "pinned", "unpinned"
    ]
    at: AwareDatetime
    seq: int
    position: str
    counts: Counts


class Recalled(_ServerFrame):
    """The sender withdrew a notification."""

    type: Literal["recalled"]
    id: UUID
    seq: int | None = None
    position: str


class Updated(_ServerFrame):
    """The sender changed a notification; read it again over REST, or take the fields given here."""

    type: Literal["updated"]
    id: UUID
    seq: int | None = None
    position: str


class Synced(_ServerFrame):
    """Everything up to `position` has been sent."""

    type: Literal["synced"]
    position: str


class Reset(_ServerFrame):
    """The gap is longer than is kept: list over REST, go on from `position`."""

    type: Literal["reset"]
    position: str
    counts: Counts
    reason: Literal["too_old", "unknown_position", "too_many"]


class Presence(_ServerFrame):
    """A followed user's presence."""

    type: Literal["presence"]
    user_id: UUID
    status: PresenceStatus
    last_seen_at: AwareDatetime | None


class PresenceUnsubscribed(_ServerFrame):
    """Answer to `presence.unsubscribe`: how many users are still followed."""

    type: Literal["presence.unsubscribed"]
    following: int


class Preferences(_ServerFrame):
    """The own preferences, asked for or changed anywhere."""

    type: Literal["preferences"]
    preferences: dict[str, Any]


class TokenExpiring(_ServerFrame):
    """Send `refresh` before this runs out."""

    type: Literal["token_expiring"]
    expires_in_s: int


class RightsChanged(_ServerFrame):
    """The user's roles changed; this connection already acts on them."""

    type: Literal["rights_changed"]
    roles: list[str]


class Reconnect(_ServerFrame):
    """A planned close follows: reconnect after `after_ms` plus a random part of `spread_ms`."""

    type: Literal["reconnect"]
    after_ms: int
    spread_ms: int
    reason: str


class Error(_ServerFrame):
    """The client's frame was refused; the connection stays open unless a close follows."""

    type: Literal["error"]
    code: str
    detail: str
    temporary: bool
    retry_after_ms: int | None = None


class Sent(_ServerFrame):
    """The client's message was accepted and stored."""

    type: Literal["sent"]
    id: UUID


class Refreshed(_ServerFrame):
    """The new token is in use."""

    type: Literal["refreshed"]
    token_expires_at: AwareDatetime


class Pong(_ServerFrame):
    """Answer to `ping`."""

    type: Literal["pong"]
    server_time: AwareDatetime


SERVER_FRAMES: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "welcome": Welcome,
        "notification": Notification,
        "state": StateChanged,
        "recalled": Recalled,
        "updated": Updated,
        "synced": Synced,
        "reset": Reset,
        "presence": Presence,
        "presence.unsubscribed": PresenceUnsubscribed,
        "preferences": Preferences,
        "token_expiring": TokenExpiring,
        "rights_changed": RightsChanged,
        "reconnect": Reconnect,
        "error": Error,
        "sent": Sent,
        "refreshed": Refreshed,
        "pong": Pong,
    }
)
