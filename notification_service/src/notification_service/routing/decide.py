"""Who gets a notification over which channel, and why. Pure: everything it needs was looked up before.

Most people never changed a preference: they share one decision per notification, made once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from notification_service.event_types.entity import EventType
from notification_service.identity.directory import Person
from notification_service.notifications.entity import Notification
from notification_service.preferences.evaluate import (
    Decision,
    Layer,
    Outcome,
    Rule,
    Situation,
    TypeRules,
    depends_on_timezone,
    evaluate,
    find_value,
    wants_channel,
)
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel, Priority


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person and the layers of preferences that count for them, the own first."""

    person: Person
    layers: tuple[Layer, ...] = ()

    @property
    def locale(self) -> str:
        """The language they want."""
        found = find_value(self.layers, "locale")
        return str(found[0]) if found else self.person.locale

    @property
    def timezone(self) -> str:
        """Where they are."""
        found = find_value(self.layers, "timezone")
        return str(found[0]) if found else self.person.timezone


@dataclass(frozen=True, slots=True)
class OutgoingPlan:
    """One user's delivery over an outgoing channel, or why there is none; in-app only when there is none."""

    user_id: UUID
    channel: Channel
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Collected:
    """What a digest takes instead of it being sent."""

    user_id: UUID
    channel: Channel
    key: str
    due_at: datetime


@dataclass(slots=True)
class Decided:
    """What becomes of one notification.

    Attributes:
        in_app: Whose mailboxes get an item, in order.
        silent: Who of them shall not be disturbed by it: quiet hours hold no item, but its sound.
        outgoing: Deliveries over other channels, and everything suppressed.
        collected: For digests.
        escalating: Whose escalation begins.
        records: What was decided and by which rules; each different outcome once.
        record_of: Which of them counts for whom; users that are left out: the first.
    """

    in_app: list[Recipient] = field(default_factory=list)
    silent: set[UUID] = field(default_factory=set)
    outgoing: list[OutgoingPlan] = field(default_factory=list)
    collected: list[Collected] = field(default_factory=list)
    escalating: list[UUID] = field(default_factory=list)
    records: list[list[dict[str, Any]]] = field(default_factory=list)
    record_of: dict[UUID, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The decisions for everybody in the same situation."""

    decisions: tuple[tuple[Channel, Decision], ...]
    escalates: bool
    number: int


_OUTGOING = tuple(channel for channel in Channel if channel is not Channel.IN_APP)
_THROTTLED_RULE = Rule("event_type.throttle", True, "event_type")  # noqa: FBT003 - a value, not a flag


def decide(
    notification: Notification,
    type_: EventType,
    recipients: Sequence[Recipient],
    *,
    throttled: Collection[UUID],
    now: datetime,
    records: Sequence[list[dict[str, Any]]] | None = None,
) -> Decided:
    """Decide for every recipient.

    Args:
        notification: What was asked for.
        type_: Its event type.
        recipients: Each once.
        throttled: Who had too many of this type lately.
        now: Quiet hours and digests are of this moment.
        records: Of earlier pieces of the same audience; None: this is the whole audience.
    """
    decided = Decided(records=list(records or ()))
    known: dict[Any, _Choice] = {}
    needs_zone: dict[int, bool] = {}
    for recipient in recipients:
        person = recipient.person
        key: Any
        if recipient.layers and recipient.layers[0].source == "user":
            key = person.id
        else:
            # Layers of roles and tenants are the same objects for everybody who has them.
            marks = tuple(id(layer.document) for layer in recipient.layers)
            zone_key = hash(marks)
            if zone_key not in needs_zone:
                needs_zone[zone_key] = depends_on_timezone(recipient.layers, type_.rules)
            key = (marks, person.timezone if needs_zone[zone_key] else None)
        is_throttled = person.id in throttled
        choice = known.get((key, is_throttled))
        if choice is None:
            choice = _choose(notification, type_, recipient, decided.records, is_throttled=is_throttled, now=now)
            known[key, is_throttled] = choice
        _apply(decided, recipient, choice)
    if records is None and decided.records and not decided.record_of and _is_plain(decided.records[0]):
        decided.records = []
    return decided


def can_be_throttled(notification: Notification, type_: EventType) -> bool:
    """Whether too many of it are held back: never what is critical, nor what nobody can switch off."""
    return type_.throttle is not None and not type_.rules.mandatory and notification.priority is not Priority.CRITICAL


def choose_channels(notification: Notification, type_: EventType, layers: Sequence[Layer]) -> tuple[Channel, ...]:
    """Channels a notification goes to: those the request or its type names, else in-app and what the user asked for."""
    if notification.channels is not None:
        return notification.channels
    if not any(layer.document for layer in layers):
        return (Channel.IN_APP,)
    return (Channel.IN_APP, *(channel for channel in _OUTGOING if wants_channel(channel, type_.rules, layers)))


def _choose(
    notification: Notification,
    type_: EventType,
    recipient: Recipient,
    records: list[list[dict[str, Any]]],
    *,
    is_throttled: bool,
    now: datetime,
) -> _Choice:
    situation = Situation(recipient.layers, recipient.person.timezone, now)
    rules = _rules_for(notification, type_)
    planned = {Channel(name) for step in type_.steps for name in step["channels"]}
    chosen: list[tuple[Channel, Decision]] = []
    for channel in choose_channels(notification, type_, recipient.layers):
        if channel in planned and channel is not Channel.IN_APP:
            continue
        decision = evaluate(channel, rules, notification.priority, situation)
        if is_throttled and decision.outcome is not Outcome.OFF:
            decision = Decision(Outcome.OFF, Reason.THROTTLED, (*decision.rules, _THROTTLED_RULE))
        chosen.append((channel, decision))
    escalates = bool(planned) and any(
        channel is Channel.IN_APP and decision.outcome is Outcome.SEND for channel, decision in chosen
    )
    record = describe_decisions(chosen)
    if record not in records:
        records.append(record)
    return _Choice(tuple(chosen), escalates, records.index(record))


def _rules_for(notification: Notification, type_: EventType) -> TypeRules:
    # The request may put it into another category than its type's.
    if notification.category == type_.rules.category:
        return type_.rules
    return replace(type_.rules, category=notification.category)


def _apply(decided: Decided, recipient: Recipient, choice: _Choice) -> None:
    user_id = recipient.person.id
    for channel, decision in choice.decisions:
        if decision.outcome is Outcome.SEND:
            if channel is Channel.IN_APP:
                decided.in_app.append(recipient)
                if decision.is_silent:
                    decided.silent.add(user_id)
            else:
                decided.outgoing.append(OutgoingPlan(user_id, channel, None))
            continue
        decided.outgoing.append(OutgoingPlan(user_id, channel, decision.reason))
        if decision.due_at is not None and decision.key is not None:
            decided.collected.append(Collected(user_id, channel, decision.key, decision.due_at))
    if choice.escalates:
        decided.escalating.append(user_id)
    if choice.number:
        decided.record_of[user_id] = choice.number


def describe_decisions(decisions: Sequence[tuple[Channel, Decision]]) -> list[dict[str, Any]]:
    """Decisions as the trace shows them."""
    described = []
    for channel, decision in decisions:
        entry: dict[str, Any] = {
            "channel": str(channel),
            "outcome": _WORDS[decision.outcome],
            "reason": str(decision.reason) if decision.reason else None,
            "rules": [rule.describe() for rule in decision.rules],
        }
        if decision.is_silent:
            entry["silent"] = True
        if decision.due_at is not None:
            entry["due_at"] = decision.due_at.isoformat()
        described.append(entry)
    return described


_WORDS: Mapping[Outcome, str] = {
    Outcome.SEND: "sent",
    Outcome.OFF: "suppressed",
    Outcome.HOLD: "suppressed",
    Outcome.DIGEST: "suppressed",
}


def _is_plain(record: Sequence[dict[str, Any]]) -> bool:
    """Whether it says nothing but that it went in-app because nothing spoke against it: the trace says so unasked."""
    return (
        len(record) == 1
        and record[0]["channel"] == Channel.IN_APP
        and record[0]["outcome"] == _WORDS[Outcome.SEND]
        and all(rule["rule"] == "default_enabled" for rule in record[0]["rules"])
    )


def decide_step(
    notification: Notification, type_: EventType, channels: Sequence[Channel], recipient: Recipient, now: datetime
) -> list[tuple[Channel, Decision]]:
    """The decisions for one step of an escalation, by the preferences of now. Nothing is collected: it is urgent."""
    situation = Situation(recipient.layers, recipient.person.timezone, now)
    rules = _rules_for(notification, type_)
    found = []
    for channel in channels:
        decision = evaluate(channel, rules, notification.priority, situation)
        if decision.outcome is Outcome.DIGEST:
            decision = Decision(Outcome.SEND, None, decision.rules)
        found.append((channel, decision))
    return found
