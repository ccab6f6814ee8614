"""What a channel is: four steps and a few facts. Everything else (queues, retries, limits, rows) is the same for all.

A channel is a folder below `channels` whose `__init__.py` names its class as `CHANNEL`; docs/channels.md shows one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason

if TYPE_CHECKING:
    from notification_service.channels.http.client import HttpClient
    from notification_service.clock import Clock
    from notification_service.settings import Settings


@dataclass(frozen=True, slots=True)
class Tools:
    """What channels are built with."""

    settings: Settings
    http: HttpClient
    clock: Clock


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be said to one user, rendered.

    Attributes:
        delivery_id: The same on every attempt: whatever the provider offers against duplicates is made from it.
        html: None: the channel shows `body`.
        locale: Of title and body.
        links: Absolute addresses for mail headers and footers, by name (`unsubscribe`, `preferences`).
    """

    delivery_id: UUID
    notification_id: UUID
    user_id: UUID
    tenant: str
    event_type: str
    title: str
    body: str
    html: str | None
    locale: str
    data: Mapping[str, Any]
    actions: list[dict[str, Any]]
    priority: str
    category: str | None
    tags: list[str]
    collapse_key: str | None
    created_at: datetime
    expires_at: datetime | None
    recipient_name: str = ""
    sender_name: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Address:
    """Where it goes. `value` and `secret` appear in no log.

    Attributes:
        contact_id: None: the account's own e-mail address or phone number.
    """

    value: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    contact_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class CheckedAddress:
    """A new contact's address, normalised.

    Attributes:
        hint: What may be shown of it.
        proof: How its owner proves it: a code that is sent there (`code`), a code the owner presents there (`start`),
            or nothing, because having it is the proof (`none`).
    """

    value: str = field(repr=False)
    hint: str
    secret: str | None = field(default=None, repr=False)
    proof: str = "code"


class InvalidAddress(Exception):
    """The address cannot be used; the text says why, without repeating it."""

    def __init__(self, message: str, *, field_name: str = "address") -> None:
        super().__init__(message)
        self.field_name = field_name


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it.

    Attributes:
        provider_message_id: What the provider calls it, at most 255 characters.
        is_delivered: The provider says that it has arrived, not only that it was taken.
    """

    provider_message_id: str | None = None
    is_delivered: bool = False


@dataclass(frozen=True, slots=True)
class SentMessage:
    """Something that was sent before, and is to be taken back or changed.

    Attributes:
        provider_message_id: As the provider, or the channel itself, called it.
        expires_at: After that nobody has it anyway.
        is_replaced: A newer message with the same `collapse_key` went to the same user over this channel.
    """

    provider_message_id: str
    delivery_id: UUID
    notification_id: UUID
    tenant: str
    collapse_key: str | None = None
    expires_at: datetime | None = None
    is_replaced: bool = False


class FailureKind(StrEnum):
    """What a failure says about trying again."""

    TEMPORARY = "temporary"
    """Certainly not sent; the same may succeed later."""
    PERMANENT = "permanent"
    """Trying again cannot help."""
    UNKNOWN = "unknown"
    """It may have been sent. Repeated only where the channel makes repeats harmless."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed.

    Attributes:
        detail: A sentence for whoever looks at the delivery; no address, no secret.
        retry_after: The provider asked not to come back sooner.
        disables_address: The provider says that the address is gone for good.
        blames_provider: Whether the circuit breaker counts it: the provider is in trouble, not this message.
    """

    kind: FailureKind
    reason: Reason
    detail: str
    retry_after: timedelta | None = None
    disables_address: bool = False
    blames_provider: bool = False


class SendFailed(Exception):
    """Raised by `prepare` or `send` with the failure already classified."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def reject(detail: str, *, reason: Reason = Reason.PROVIDER_REJECTED, disables_address: bool = False) -> SendFailed:
    """A permanent failure to raise."""
    return SendFailed(Failure(FailureKind.PERMANENT, reason, detail, disables_address=disables_address))


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """A call that claims to be a provider's, about something that was sent.

    Attributes:
        url: As the provider was given it.
        headers: Names in lower case.
    """

    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class NotGenuine(Exception):
    """Not the provider's: the signature is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a delivery, as its provider says later.

    Attributes:
        status: `sent`, `delivered` or `failed`.
        detail: Why it failed.
    """

    user_id: UUID
    delivery_id: UUID
    status: DeliveryState
    provider_message_id: str | None = None
    detail: str | None = None
    disables_address: bool = False


class Channel(ABC):
    """One way out.

    Attributes:
        name: As in requests, queues and contacts.
        makes_repeats_harmless: Whether the provider or the recipient knows a repeat by its id, so that an attempt of
            which nobody knows the outcome is made again. Otherwise it ends as failed, for a person to decide.
        concurrency: Attempts at the same time, in one worker process.
        concurrency_per_route: Of these, to one provider account or endpoint.
    """

    name: ClassVar[str]
    makes_repeats_harmless: ClassVar[bool] = False
    concurrency: int = 64
    concurrency_per_route: int = 8

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    @classmethod
    def can(cls, step: str) -> bool:
        """Whether this channel has a step that not all have: `withdraw`, `edit`, `read_report`."""
        return getattr(cls, step) is not getattr(Channel, step)

    @property
    def is_configured(self) -> bool:
        """Whether everything it needs is set. Channels whose contacts bring all that is needed always are."""
        return True

    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        """Check what a user gives as a contact.

        Raises:
            InvalidAddress: It cannot be used.
        """
        return CheckedAddress(address, address, secret)

    def start_link(self, code: str) -> str | None:  # noqa: ARG002 - the interface
        """Where an owner presents a start code; empty: there is no link; None: this channel has no start codes."""
        return None

    def routes(self, address: Address) -> tuple[str, ...]:  # noqa: ARG002 - the interface
        """Provider accounts or endpoints to try, in order. Each has its own breaker; the first one's slots are used."""
        return (self.name,)

    @abstractmethod
    def prepare(self, message: Message, address: Address) -> Any:
        """Make what is sent, without any I/O.

        Raises:
            SendFailed: It cannot be made.
        """

    @abstractmethod
    async def send(self, prepared: Any, route: str) -> Sent:
        """Hand it to the provider. Called within 30 s at most; raises whatever goes wrong."""

    async def prove(self, message: Message, address: Address, code: str) -> bool:  # noqa: ARG002 - the interface
        """Send a code to a new contact; answers whether that alone has proved it. The message holds the code."""
        await self.send(self.prepare(message, address), self.routes(address)[0])
        return False

    async def withdraw(self, sent: SentMessage, address: Address) -> bool:  # noqa: ARG002 - the interface
        """Take back what was sent; answers whether the provider could. Raises whatever goes wrong."""
        return False

    async def edit(self, sent: SentMessage, prepared: Any, address: Address) -> bool:  # noqa: ARG002 - the interface
        """Put what was prepared now in the place of what was sent; as `withdraw`."""
        return False

    def read_report(self, call: ProviderCall) -> Report | None:  # noqa: ARG002 - the interface
        """What a call of the provider says about a delivery; None: nothing that matters.

        Raises:
            NotGenuine: It is not the provider's. So is every call to a channel whose provider makes none.
        """
        raise NotGenuine

    @abstractmethod
    def classify_error(self, error: Exception) -> Failure:
        """What an error of `send` means."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close connections."""
