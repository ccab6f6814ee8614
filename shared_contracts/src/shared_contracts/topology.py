"""The one table of exchanges, queues and bindings (contract section 4.1), as values.

Only what RabbitMQ 3.10 to 4.x treat alike is used: explicit queue types, explicit positive delivery limits, no
arguments that a policy can set. Who declares what: notification workers and gateways declare everything here at start;
the auth service declares only the exchange it publishes to. Declaring twice is harmless, other arguments are an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal
from uuid import UUID

DELIVERY_LIMIT = 20
"""Returns of one message before RabbitMQ drops it. 3.10 has no default, 4.x has 20: set, so that both act alike."""


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: Literal["direct", "fanout"]


@dataclass(frozen=True)
class Queue:
    """A queue. Quorum for the few work queues; classic for the many user queues; exclusive for one process's own."""

    name: str
    type: Literal["quorum", "classic"]
    single_active_consumer: bool = False
    exclusive: bool = False
    dead_letter_to: str | None = None
    """Queue that takes what exceeds the delivery limit (through the default exchange)."""
    message_ttl_ms: int | None = None

    @property
    def arguments(self) -> dict[str, str | int | bool]:
        """The `arguments` table of queue.declare."""
        arguments: dict[str, str | int | bool] = {"x-queue-type": self.type}
        if self.type == "quorum":
            arguments["x-delivery-limit"] = DELIVERY_LIMIT
        if self.single_active_consumer:
            arguments["x-single-active-consumer"] = True
        if self.dead_letter_to is not None:
            arguments["x-dead-letter-exchange"] = ""
            arguments["x-dead-letter-routing-key"] = self.dead_letter_to
        if self.message_ttl_ms is not None:
            arguments["x-message-ttl"] = self.message_ttl_ms
        return arguments


@dataclass(frozen=True)
class Binding:
    """A queue bound to an exchange. Fanout exchanges ignore the key."""

    exchange: Exchange
    queue: Queue
    routing_key: str = ""


@dataclass(frozen=True)
class Topology:
    """Everything that exists from the start. User, node and retry queues come and go by the functions below."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...] = field(default=())


NOTIFICATIONS_DIRECT = Exchange("notifications.direct", "direct")
NOTIFICATIONS_FANOUT = Exchange("notifications.fanout", "fanout")
DELIVERY_DIRECT = Exchange("delivery.direct", "direct")
DELIVERY_FANOUT = Exchange("delivery.fanout", "fanout")
GATEWAY_GOSSIP = Exchange("gateway.gossip", "fanout")
IDENTITY_EVENTS = Exchange("identity.events", "fanout")
NOTIFICATIONS_EVENTS = Exchange("notifications.events", "direct")

DEAD = Queue("notifications.dead", "quorum")
INTAKE_POISON = Queue("intake.poison", "quorum")
"""What the broker gave up after the delivery limit; a worker makes proper dead letters of it."""

INTAKE = Queue("intake", "quorum", single_active_consumer=True, dead_letter_to=INTAKE_POISON.name)
INTAKE_BROADCAST = Queue("intake.broadcast", "quorum", single_active_consumer=True, dead_letter_to=INTAKE_POISON.name)
IDENTITY_MIRROR = Queue("identity.mirror", "quorum", single_active_consumer=True)

CHANNEL_NAMES = ("email", "sms", "telegram", "slack", "teams", "discord", "webhook", "web_push", "push", "apprise")
"""The built-in outgoing channels. `in_app` has the user queues instead."""

CHANNEL_POISON = Queue("channel.poison", "quorum")
"""Deliveries that killed or outlived every worker that took them; a worker ends them as failed."""


CHANNEL_QUEUE_PREFIX = "channel."


def channel_queue(channel: str) -> Queue:
    """The work queue of one outgoing channel."""
    return Queue(f"{CHANNEL_QUEUE_PREFIX}{channel}", "quorum", dead_letter_to=CHANNEL_POISON.name)


def retry_queue(channel: str, delay: timedelta) -> Queue:
    """One step of a channel's retry ladder: what waited here goes back to the work queue.

    The name says how long, in milliseconds, so that another ladder has other queues: a queue's time to live cannot be
    changed. One queue per step, because a time to live acts at the head only (requirement I19). Messages bring their
    own, jittered time to live; the queue's is the longest.
    """
    milliseconds = max(1, round(delay.total_seconds() * 1000))
    longest = round(milliseconds * (1 + RETRY_JITTER))
    name = f"channel.{channel}.retry.{milliseconds}"
    return Queue(name, "quorum", dead_letter_to=channel_queue(channel).name, message_ttl_ms=longest)


RETRY_JITTER = 0.1
"""Steps of the ladder last between 90 % and 110 % of their length."""

KEY_PRIVATE = "private"
KEY_GROUP = "group"
KEY_EVENT = "event"
INTAKE_KEYS = (KEY_PRIVATE, KEY_GROUP, KEY_EVENT)

RECEIPT_KEYS = ("accepted", "delivered", "acked", "read", "failed", "dead_lettered")

TOPOLOGY = Topology(
    exchanges=(
        NOTIFICATIONS_DIRECT,
        NOTIFICATIONS_FANOUT,
        DELIVERY_DIRECT,
        DELIVERY_FANOUT,
        GATEWAY_GOSSIP,
        IDENTITY_EVENTS,
        NOTIFICATIONS_EVENTS,
    ),
    queues=(
        DEAD,
        INTAKE_POISON,
        INTAKE,
        INTAKE_BROADCAST,
        IDENTITY_MIRROR,
        CHANNEL_POISON,
        *(channel_queue(name) for name in CHANNEL_NAMES),
    ),
    bindings=(
        *(Binding(NOTIFICATIONS_DIRECT, INTAKE, key) for key in INTAKE_KEYS),
        Binding(NOTIFICATIONS_FANOUT, INTAKE_BROADCAST),
        Binding(IDENTITY_EVENTS, IDENTITY_MIRROR),
    ),
)

USER_QUEUE_PREFIX = "user."
"""Length, time to live and idle expiry of these queues come from a policy on this prefix, never from arguments."""


def user_queue(user_id: UUID) -> Queue:
    """The durable queue that holds what no device of this user has acknowledged yet."""
    return Queue(user_queue_name(user_id), "classic", single_active_consumer=True)


def user_queue_name(user_id: UUID) -> str:
    """Its name, which is its routing key on `delivery.direct` too."""
    return f"{USER_QUEUE_PREFIX}{user_id}"


def node_queue(node_id: str) -> Queue:
    """The exclusive queue of one gateway process. New name at every start: a fixed one races its predecessor."""
    return Queue(f"node.{node_id}", "classic", exclusive=True)
