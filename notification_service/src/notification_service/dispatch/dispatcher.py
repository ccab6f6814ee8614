"""Handing kept items to RabbitMQ: each to its user's queue, each broadcast once to every gateway node."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from notification_service.broker.publisher import Outcome, Outgoing, Publisher
from notification_service.clock import Clock
from notification_service.notifications.frames import encode_content, encode_new_broadcast, encode_new_item
from notification_service.notifications.kept import KeptBroadcast, KeptItem
from notification_service.notifications.pages import FrameType, StreamFrame
from shared_contracts import headers
from shared_contracts.topology import DELIVERY_DIRECT, DELIVERY_FANOUT, user_queue_name

log = structlog.get_logger(__name__)

_attempts = itertools.count()


@dataclass(slots=True)
class Dispatched:
    """What became of one batch.

    Attributes:
        done: Notifications of which everything is either confirmed or held in mailboxes.
        gone_queues: (user, queue generation) of queues that turned out not to exist.
    """

    done: set[UUID] = field(default_factory=set)
    gone_queues: set[tuple[UUID, int]] = field(default_factory=set)


class Dispatcher:
    """Publishes kept items and broadcasts; never raises for the broker's sake."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock

    async def dispatch(self, kept: Sequence[KeptItem], broadcasts: Sequence[KeptBroadcast] = ()) -> Dispatched:
        """Publish a batch and answer what is done; what is not stays for the relay.

        Items of users without a queue are not published: they are held in the mailbox, and that is their dispatch. So
        are those that a queue refuses twice: the relay would publish them to all other recipients again, for as long as
        one queue is full (docs/decisions/0086).
        """
        now = self._clock.now()
        contents = _ContentCache()
        addressed = [item for item in kept if item.has_queue]
        messages = [_item_message(item, contents, now) for item in addressed]
        messages += [_broadcast_message(each, contents) for each in broadcasts]
        outcomes = await self._publish(messages) if messages else []
        result = Dispatched(
            done={item.notification.id for item in kept} | {each.notification.id for each in broadcasts}
        )
        failed: set[UUID] = set()
        for item, outcome in zip(addressed, outcomes[: len(addressed)], strict=True):
            if outcome is Outcome.RETURNED:
                result.gone_queues.add((item.user_id, item.queue_generation))
            elif outcome is Outcome.TIMEOUT:
                failed.add(item.notification.id)
        # Returned broadcasts: no gateway is up. Whoever connects later reads the log.
        failed |= {
            each.notification.id
            for each, outcome in zip(broadcasts, outcomes[len(addressed) :], strict=True)
            if outcome is Outcome.TIMEOUT
        }
        result.done -= failed
        if failed:
            log.warning("dispatch_incomplete", notifications=len(failed))
        return result

    async def _publish(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        outcomes = await self._publisher.publish_all(messages)
        refused = [at for at, outcome in enumerate(outcomes) if outcome is Outcome.NACK]
        if refused:
            again = await self._publisher.publish_all([messages[at] for at in refused])
            for at, outcome in zip(refused, again, strict=True):
                outcomes[at] = outcome
            if left := again.count(Outcome.NACK):
                log.warning("queues_refuse", messages=left, action="look for full queues that reject publishes")
        return outcomes

    async def dispatch_frames(self, frames: Sequence[StreamFrame]) -> set[tuple[UUID, int]]:
        """Publish frames of users' streams that are no new items; answers the queues that turn out not to exist, as
        `Dispatched.gone_queues`.

        Nothing is kept for the relay: a frame lost here leaves a hole in the numbers, which gateways find and fill from
        the mailbox. Without a queue no device has been there for long: the next one reads it from the mailbox.
        """
        addressed = [each for each in frames if each.has_queue]
        if not addressed:
            return set()
        outcomes = await self._publisher.publish_all([_frame_message(each) for each in addressed])
        return {
            (each.user_id, each.queue_generation)
            for each, outcome in zip(addressed, outcomes, strict=True)
            if outcome is Outcome.RETURNED
        }

    async def dispatch_log_frame(self, *, tenant: str, seq: int, type_: FrameType, body: bytes) -> None:
        """Publish an entry of a broadcast log that tells of an earlier one, to every node."""
        await self._publisher.publish(
            Outgoing(
                exchange=DELIVERY_FANOUT.name,
                routing_key="",
                body=body,
                message_id=str(next(_attempts)),
                type=type_,
                headers={headers.SEQ: seq, headers.TENANT: tenant},
            )
        )


class _ContentCache:
    """Encodes each notification once per batch."""

    def __init__(self) -> None:
        self._known: dict[tuple[UUID, str | None], bytes] = {}

    def get(self, item: KeptItem | KeptBroadcast) -> bytes:
        notification = item.notification
        key = (notification.id, notification.variant)
        content = self._known.get(key)
        if content is None:
            content = self._known[key] = encode_content(notification)
        return content


def _item_message(item: KeptItem, contents: _ContentCache, now: datetime) -> Outgoing:
    body = encode_new_item(
        contents.get(item),
        seq=item.seq,
        counts=item.counts,
        is_silent=item.is_silent,
        muted_devices=item.muted_devices,
    )
    expires_at = item.notification.expires_at
    return Outgoing(
        exchange=DELIVERY_DIRECT.name,
        routing_key=user_queue_name(item.user_id),
        body=body,
        message_id=str(next(_attempts)),
        type=FrameType.NOTIFICATION,
        headers={headers.SEQ: item.seq},
        expiration=expires_at - now if expires_at else None,
    )


def _frame_message(frame: StreamFrame) -> Outgoing:
    return Outgoing(
        exchange=DELIVERY_DIRECT.name,
        routing_key=user_queue_name(frame.user_id),
        body=frame.body,
        message_id=str(next(_attempts)),
        type=frame.type,
        headers={headers.SEQ: frame.seq},
    )


def _broadcast_message(each: KeptBroadcast, contents: _ContentCache) -> Outgoing:
    return Outgoing(
        exchange=DELIVERY_FANOUT.name,
        routing_key="",
        body=encode_new_broadcast(contents.get(each)),
        message_id=str(next(_attempts)),
        type=FrameType.NOTIFICATION,
        headers={headers.SEQ: each.seq, headers.TENANT: each.notification.tenant},
    )
