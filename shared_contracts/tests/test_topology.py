"""The table of exchanges and queues keeps to what RabbitMQ 3.10 to 4.x treat alike."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from shared_contracts import topology
from shared_contracts.requests import Channel
from shared_contracts.topology import TOPOLOGY

USER = UUID("018f0000-0000-7000-8000-000000000001")
# What RabbitMQ 3.10 to 4.3 accept and treat alike. Left out on purpose: x-queue-version and x-queue-mode (refused by
# 4.3), x-max-priority and x-overflow (another meaning on quorum queues), x-expires and x-max-length (a policy's).
COMMON_ARGUMENTS = {
    "classic": {"x-queue-type", "x-single-active-consumer"},
    "quorum": {
        "x-queue-type",
        "x-single-active-consumer",
        "x-delivery-limit",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
    },
}
EVERY_QUEUE = (
    *TOPOLOGY.queues,
    topology.user_queue(USER),
    topology.node_queue("a"),
    *(topology.channel_queue(name) for name in topology.CHANNEL_NAMES),
    topology.retry_queue("email", timedelta(seconds=10)),
)


def test_names_are_unique() -> None:
    for group in (TOPOLOGY.exchanges, TOPOLOGY.queues):
        names = [each.name for each in group]
        assert len(names) == len(set(names))


def test_bindings_point_at_declared_things() -> None:
    for binding in TOPOLOGY.bindings:
        assert binding.exchange in TOPOLOGY.exchanges
        assert binding.queue in TOPOLOGY.queues


def test_every_intake_queue_has_a_dead_letter_queue_that_is_declared() -> None:
    declared = {queue.name for queue in TOPOLOGY.queues}
    for queue in (topology.INTAKE, topology.INTAKE_BROADCAST):
        assert queue.dead_letter_to in declared


def test_quorum_queues_have_an_explicit_positive_delivery_limit() -> None:
    for queue in TOPOLOGY.queues:
        assert queue.type == "quorum"
        limit = queue.arguments["x-delivery-limit"]
        assert isinstance(limit, int)
        assert limit > 0


@pytest.mark.req("J04")
@pytest.mark.parametrize("queue", EVERY_QUEUE, ids=lambda queue: queue.name)
def test_every_declaration_means_the_same_from_3_10_to_4_x(queue: topology.Queue) -> None:
    assert queue.arguments["x-queue-type"] == queue.type  # a virtual host's default type may be quorum
    assert queue.arguments.keys() <= COMMON_ARGUMENTS[queue.type]
    if queue.type == "quorum":
        assert not queue.exclusive
        limit = queue.arguments["x-delivery-limit"]
        assert isinstance(limit, int)
        assert limit > 0  # negative means "at once" before 4.0 and "never" since
    assert len(queue.name.encode()) <= 255
    assert not queue.name.startswith("amq.")


def test_user_queues_are_classic_and_single_active_consumer() -> None:
    queue = topology.user_queue(USER)
    assert queue.name == f"user.{USER}"
    assert queue.arguments == {"x-queue-type": "classic", "x-single-active-consumer": True}


def test_every_outgoing_channel_has_a_work_queue() -> None:
    assert {Channel.IN_APP, *topology.CHANNEL_NAMES} == set(Channel)
    for name in topology.CHANNEL_NAMES:
        assert topology.channel_queue(name).dead_letter_to == topology.CHANNEL_POISON.name


@pytest.mark.req("I19")
def test_each_step_of_a_ladder_is_a_queue_of_its_own_that_goes_back_to_the_work_queue() -> None:
    queue = topology.retry_queue("email", timedelta(seconds=10))
    assert queue.name == "channel.email.retry.10000"
    assert queue.dead_letter_to == "channel.email"
    assert queue.arguments["x-message-ttl"] == 11_000
    assert topology.retry_queue("email", timedelta(0)).arguments["x-message-ttl"] == 1


def test_contract_names_are_unchanged() -> None:
    assert {exchange.name: exchange.type for exchange in TOPOLOGY.exchanges} == {
        "notifications.direct": "direct",
        "notifications.fanout": "fanout",
        "delivery.direct": "direct",
        "delivery.fanout": "fanout",
        "gateway.gossip": "fanout",
        "identity.events": "fanout",
        "notifications.events": "direct",
    }
    assert {queue.name for queue in TOPOLOGY.queues} == {
        "notifications.dead",
        "intake.poison",
        "intake",
        "intake.broadcast",
        "identity.mirror",
        "channel.poison",
        "channel.email",
        "channel.sms",
        "channel.telegram",
        "channel.slack",
        "channel.teams",
        "channel.discord",
        "channel.webhook",
        "channel.web_push",
        "channel.push",
        "channel.apprise",
    }
    keys = {(each.exchange.name, each.routing_key) for each in TOPOLOGY.bindings if each.queue is topology.INTAKE}
    assert keys == {("notifications.direct", key) for key in ("private", "group", "event")}
