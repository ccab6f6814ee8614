"""Events of the exchange `identity.events` (contract section 4.3): auth service to everyone who mirrors or reacts.

`revision` rises by one per event. Whoever sees a hole re-reads `/internal/v1/users`, `groups` and `memberships`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter


class IdentityEventType(StrEnum):
    """What happened."""

    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_ACTIVATED = "user.activated"
    USER_DEACTIVATED = "user.deactivated"
    USER_ROLES_CHANGED = "user.roles_changed"
    USER_DELETED = "user.deleted"
    GROUP_CREATED = "group.created"
    GROUP_UPDATED = "group.updated"
    GROUP_DELETED = "group.deleted"
    GROUP_MEMBERS_CHANGED = "group.members_changed"
    SESSION_REVOKED = "session.revoked"
    KEY_ROTATED = "key.rotated"
    LOGIN_NEW_DEVICE = "login.new_device"


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class UserSnapshot(_Data):
    """A user as the auth service knows them; also a row of `/internal/v1/users`."""

    id: UUID
    external_id: str | None = None
    username: str
    email: str | None = None
    email_verified: bool = False
    phone: str | None = None
    locale: str = "en"
    timezone: str = "UTC"
    roles: tuple[str, ...] = ()
    tenant: str
    is_active: bool = True
    created_at: AwareDatetime


class GroupSnapshot(_Data):
    """A group; also a row of `/internal/v1/groups`."""

    id: UUID
    slug: str
    name: str
    tenant: str


class Membership(_Data):
    """A row of `/internal/v1/memberships`."""

    group_id: UUID
    user_id: UUID


class UserDeleted(_Data):
    """Only the id is left of an erased user."""

    id: UUID


class GroupDeleted(_Data):
    """A group is gone, its memberships with it."""

    id: UUID


class MembersChanged(_Data):
    """Who joined and who left one group, in one change."""

    group_id: UUID
    added: tuple[UUID, ...] = ()
    removed: tuple[UUID, ...] = ()


class SessionRevoked(_Data):
    """Tokens of these sessions stopped being valid; their sockets close with 4505.

    `session_ids` None means every session of the user except `except_session_id`.
    """

    user_id: UUID
    session_ids: tuple[UUID, ...] | None = None
    except_session_id: UUID | None = None
    reason: str


class KeyRotated(_Data):
    """A new signing key is in the key set."""

    kid: str


class NewDeviceLogin(_Data):
    """A login from a device not seen before."""

    user_id: UUID
    session_id: UUID
    device_name: str | None = None
    ip: str | None = None
    user_agent: str | None = None


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    event_id: UUID
    revision: int = Field(ge=1)
    occurred_at: AwareDatetime
    tenant: str


class UserEvent(_Event):
    """The whole user after the change."""

    type: Literal[
        IdentityEventType.USER_CREATED,
        IdentityEventType.USER_UPDATED,
        IdentityEventType.USER_ACTIVATED,
        IdentityEventType.USER_DEACTIVATED,
        IdentityEventType.USER_ROLES_CHANGED,
    ]
    data: UserSnapshot


class UserDeletedEvent(_Event):
    """A user was erased."""

    type: Literal[IdentityEventType.USER_DELETED]
    data: UserDeleted


class GroupEvent(_Event):
    """The whole group after the change."""

    type: Literal[IdentityEventType.GROUP_CREATED, IdentityEventType.GROUP_UPDATED]
    data: GroupSnapshot


class GroupDeletedEvent(_Event):
    """A group was deleted."""

    type: Literal[IdentityEventType.GROUP_DELETED]
    data: GroupDeleted


class MembersChangedEvent(_Event):
    """Members of a group changed."""

    type: Literal[IdentityEventType.GROUP_MEMBERS_CHANGED]
    data: MembersChanged


class SessionRevokedEvent(_Event):
    """Sessions ended before their time."""

    type: Literal[IdentityEventType.SESSION_REVOKED]
    data: SessionRevoked


class KeyRotatedEvent(_Event):
    """The key set changed."""

    type: Literal[IdentityEventType.KEY_ROTATED]
    data: KeyRotated


class NewDeviceLoginEvent(_Event):
    """Someone logged in on a new device."""

    type: Literal[IdentityEventType.LOGIN_NEW_DEVICE]
    data: NewDeviceLogin


class UnknownEvent(_Event):
    """A type this version does not know: its revision counts, its data is not looked at."""

    type: str
    data: dict[str, Any] = Field(default_factory=dict)


IdentityEvent = (
    UserEvent
    | UserDeletedEvent
    | GroupEvent
    | GroupDeletedEvent
    | MembersChangedEvent
    | SessionRevokedEvent
    | KeyRotatedEvent
    | NewDeviceLoginEvent
)

_KNOWN: TypeAdapter[IdentityEvent] = TypeAdapter(Annotated[IdentityEvent, Field(discriminator="type")])
_TYPES = frozenset(IdentityEventType)


def parse_identity_event(body: bytes) -> IdentityEvent | UnknownEvent:
    """Read one event.

    Raises:
        pydantic.ValidationError: Not an identity event, or a known type with wrong data.
    """
    unknown = UnknownEvent.model_validate_json(body)
    if unknown.type in _TYPES:
        return _KNOWN.validate_json(body)
    return unknown
