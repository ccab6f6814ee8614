"""The request that creates a notification (contract section 4.2): body of an intake message and of the REST call."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, to_json
from typing_extensions import override

from shared_contracts import topology
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.json_types import Flag, Moment, Whole
from shared_contracts.text import JsonObject, Line, Text

MAX_REQUEST_BYTES = 64 * 1024
"""Longest encoded request, over AMQP and as one REST body."""
MAX_DATA_BYTES = 16 * 1024
MAX_RECIPIENTS = 2_000
"""Users or groups named one by one; whoever has more uses a group, a role or a broadcast."""
MAX_BATCH_ITEMS = 1_000
MAX_TTL = timedelta(days=365)
DEFAULT_EVENT_TYPE = "message"

DATA_TOO_LONG: Final = "data_too_long"
"""Type of the error that says so, as `describe_errors` is given it."""
_NO_TITLE: Final = "title_missing"

EXTERNAL_PREFIX = "ext:"
_EXTERNAL = re.compile(r"ext:[^\x00-\x1f\x7f]{1,128}")
_ACTION_SCHEMES = ("https://", "http://", "mailto:", "tel:", "/")


class Priority(StrEnum):
    """How urgent. `critical` passes quiet hours."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


_CHANNEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Channel(StrEnum):
    """Ways to reach a user. Those below are built in; a service that finds others adds them when it starts."""

    IN_APP = "in_app"
    EMAIL = "email"
    SMS = "sms"
    TELEGRAM = "telegram"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"
    WEBHOOK = "webhook"
    WEB_PUSH = "web_push"
    PUSH = "push"
    APPRISE = "apprise"

    @classmethod
    def add(cls, name: str) -> Channel:
        """Make a further channel known in this process, as if it were listed here; harmless when it is.

        Raises:
            ValueError: The name is not of lower-case letters, digits and underscores, or longer than 32.
        """
        if name in cls._value2member_map_:
            return cls(name)
        if not _CHANNEL_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a channel")
        member = str.__new__(cls, name)
        member._name_, member._value_ = name.upper(), name
        cls._member_names_.append(member._name_)
        cls._member_map_[member._name_] = member
        cls._value2member_map_[name] = member
        return member

    @classmethod
    @override
    def _missing_(cls, value: object) -> Channel | None:
        """A word that is not known (yet): perhaps one that the service knows where to find."""
        return cls.add(value) if isinstance(value, str) and value in _find_further_channels() else None


def _find_none() -> Collection[str]:
    return ()


_find_further_channels: Callable[[], Collection[str]] = _find_none


def find_further_channels(find: Callable[[], Collection[str]]) -> None:
    """Say where channels that are not built in are found; asked only for words that are not known."""
    global _find_further_channels  # noqa: PLW0603 - of the process, as the enumeration is
    _find_further_channels = find


class Kind(StrEnum):
    """How a notification was addressed."""

    PRIVATE = "private"
    GROUP = "group"
    BROADCAST = "broadcast"
    EVENT = "event"


def _check_user_ref(value: str) -> str:
    if value.startswith(EXTERNAL_PREFIX):
        if not _EXTERNAL.fullmatch(value):
            raise ValueError("an external id has 1 to 128 characters and no control characters")
        return value
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("must be a UUID or 'ext:<external id>'") from None


def _check_action_url(value: str) -> str:
    if not value.lower().startswith(_ACTION_SCHEMES):
        raise ValueError("must start with https://, http://, mailto:, tel: or /")
    return value


def _check_data_size(value: dict[str, Any]) -> dict[str, Any]:
    if value and len(to_json(value)) > MAX_DATA_BYTES:
        raise PydanticCustomError(DATA_TOO_LONG, "must be at most 16 KiB when encoded")
    return value


UserRef = Annotated[str, AfterValidator(_check_user_ref)]
"""A user by id or as `ext:<external id>`."""


class Recipients(BaseModel):
    """Whom a notification is for; the lists add up, and a user named twice gets it once."""

    model_config = ConfigDict(frozen=True)

    users: tuple[UserRef, ...] = Field(default=(), max_length=MAX_RECIPIENTS)
    groups: tuple[UUID, ...] = Field(default=(), max_length=MAX_RECIPIENTS)
    roles: tuple[Annotated[Line, Field(min_length=1, max_length=32)], ...] = Field(default=(), max_length=16)
    all: Flag = False
    exclude: tuple[UUID, ...] = Field(
        default=(), max_length=100, description="Users who get nothing although a group or role names them."
    )

    @property
    def is_empty(self) -> bool:
        """Whether nobody is named."""
        return not (self.users or self.groups or self.roles or self.all)


class Action(BaseModel):
    """A button of a notification."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[Line, Field(min_length=1, max_length=64)]
    label: Annotated[Line, Field(min_length=1, max_length=100)]
    url: Annotated[Line, Field(max_length=2048), AfterValidator(_check_action_url)] | None = None


class NotificationRequest(BaseModel):
    """One notification asked for. Unknown fields are ignored, so that newer publishers can talk to older servers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    event_type: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,99}$")] | None = None
    recipients: Recipients = Recipients()
    title: Annotated[Line, Field(min_length=1, max_length=500)] | None = None
    body: Text | None = None
    data: Annotated[JsonObject, AfterValidator(_check_data_size)] = Field(default_factory=dict)
    actions: tuple[Action, ...] = Field(default=(), max_length=10)
    channels: tuple[Channel, ...] | None = Field(default=None, min_length=1, max_length=len(Channel))
    priority: Priority | None = Field(default=None, description="Left out: the event type's, else normal.")
    category: Annotated[Line, Field(min_length=1, max_length=64)] | None = None
    tags: tuple[Annotated[Line, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=20)
    collapse_key: Annotated[Line, Field(min_length=1, max_length=128)] | None = None
    ttl_seconds: Whole | None = Field(default=None, ge=1, le=int(MAX_TTL.total_seconds()))
    deliver_at: Moment | None = None
    locale: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    tenant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9\-]{0,62}$")] = DEFAULT_TENANT

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.event_type is None and self.title is None:
            raise PydanticCustomError(_NO_TITLE, "event_type or title must be present")
        return self

    def kind_for(self, routing_key: str | None) -> Kind:
        """How this is addressed: by the intake's routing key, or by its recipients when it came over REST (None)."""
        match routing_key:
            case topology.KEY_PRIVATE:
                return Kind.PRIVATE
            case topology.KEY_GROUP:
                return Kind.GROUP
            case topology.KEY_EVENT:
                return Kind.EVENT
        if self.recipients.all:
            return Kind.BROADCAST
        if self.event_type not in (None, DEFAULT_EVENT_TYPE):
            return Kind.EVENT
        if self.recipients.users or not (self.recipients.groups or self.recipients.roles):
            return Kind.PRIVATE
        return Kind.GROUP


def with_everyone(request: NotificationRequest) -> NotificationRequest:
    """The request as a broadcast: what arrives on `notifications.fanout` is for everyone, whatever it names."""
    return request.model_copy(update={"recipients": Recipients(all=True)})


def describe_errors(errors: list[Any]) -> list[tuple[str, str]]:
    """Pydantic's errors as (dotted field path, sentence) pairs, without values: they may be personal."""
    return [(_name_field(error), str(error["msg"])) for error in errors]


def _name_field(error: dict[str, Any]) -> str:
    parts = [*error["loc"], "title"] if error["type"] == _NO_TITLE else error["loc"]
    return ".".join(str(part) for part in parts)
