"""The one evaluator of preferences: for routing, for the preference screen, for the check before sending, and for the
trace. Pure.

Layers are asked from the user outwards (user, roles, tenant), within each from the particular to the general (event
type, category, channel). The first that says anything decides; if none does, the event type's own default. An event
type that is mandatory cannot be switched off. Then, unless it is critical, a digest collects it, or quiet
hours hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from notification_service.local_time import (
    DAYS,
    next_full_hour,
    next_local,
    parse_time,
    quiet_until,
    zone_of,
)
from notification_service.preferences.document import DEFAULT_DIGEST_TIME
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel, Priority

Source = Literal["user", "role", "tenant", "event_type", "system"]
KEY_QUIET: Final = "quiet_hours"
KEY_PREFERENCE: Final = "preference"
NEVER_HELD_CATEGORY: Final = "digests"
"""What tells of digests is itself neither collected nor held."""


class Outcome(StrEnum):
    """What happens on one channel."""

    SEND = "send"
    OFF = "off"
    HOLD = "hold"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule that was read: its name, what it said, and whose it is."""

    rule: str
    value: Any
    source: Source

    def describe(self) -> dict[str, Any]:
        """As the trace shows it."""
        return {"rule": self.rule, "value": self.value, "source": self.source}


@dataclass(frozen=True, slots=True)
class Layer:
    """One preferences document and whose it is."""

    source: Source
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TypeRules:
    """What the event type says about its delivery.

    Attributes:
        digest: `{"interval": ..., "channels": [...]}` or `{"window_seconds": ...}`; None: each by itself.
    """

    code: str
    category: str | None = None
    mandatory: bool = False
    default_enabled: bool = True
    digest: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens on one channel for one user, and every rule that was read.

    Attributes:
        due_at: When what was held or collected goes out.
        key: Of the digest that takes it.
        is_silent: It goes in-app in quiet hours: shown, but without sound and banner.
    """

    outcome: Outcome
    reason: Reason | None
    rules: tuple[Rule, ...]
    due_at: datetime | None = None
    key: str | None = None
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decisions about one user have in common.

    Attributes:
        layers: The user's own first, then the roles' from the strongest, then the tenant's.
        timezone: The account's; the preferences may name another.
    """

    layers: Sequence[Layer]
    timezone: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether a channel is on, and which rule said so."""

    is_on: bool
    reason: Reason | None
    rules: tuple[Rule, ...]


def evaluate(channel: Channel, type_: TypeRules, priority: Priority, situation: Situation) -> Decision:
    """Decide about one channel."""
    switch = evaluate_switch(channel, type_, situation.layers)
    if not switch.is_on:
        return Decision(Outcome.OFF, switch.reason, switch.rules)
    if priority is Priority.CRITICAL:
        return Decision(Outcome.SEND, None, (*switch.rules, Rule("priority", "critical", "event_type")))
    if type_.category == NEVER_HELD_CATEGORY:
        return Decision(Outcome.SEND, None, switch.rules)
    quiet, quiet_rules = _find_quiet(situation)
    rules = (*switch.rules, *quiet_rules)
    collected = _find_digest(channel, type_, situation)
    if collected is not None:
        due_at, key, rule = collected
        return Decision(Outcome.DIGEST, Reason.DIGESTED, (*rules, rule), _after_quiet(due_at, channel, situation), key)
    if channel is Channel.IN_APP:
        return Decision(Outcome.SEND, None, rules, is_silent=quiet is not None)
    if quiet is not None:
        return Decision(Outcome.HOLD, Reason.QUIET_HOURS, rules, quiet, KEY_QUIET)
    return Decision(Outcome.SEND, None, rules)


def evaluate_switch(channel: Channel, type_: TypeRules, layers: Sequence[Layer]) -> Switch:
    """Whether the channel is on for the event type; what the preference screen shows."""
    if type_.mandatory:
        return Switch(is_on=True, reason=None, rules=(Rule("mandatory", value=True, source="event_type"),))
    for layer in layers:
        for rule, value, reason in _ask(layer.document, channel, type_):
            found = (Rule(rule, value, layer.source),)
            return Switch(value, None, found) if value else Switch(value, reason, found)
    found = (Rule("default_enabled", type_.default_enabled, "event_type"),)
    return Switch(type_.default_enabled, None if type_.default_enabled else Reason.EVENT_TYPE_OFF, found)


def _ask(document: Mapping[str, Any], channel: Channel, type_: TypeRules) -> list[tuple[str, bool, Reason]]:
    """What one document says, the most particular first."""
    said = []
    by_type = document.get("event_types", {}).get(type_.code, {})
    if channel in by_type:
        said.append((f"event_types.{type_.code}.{channel}", by_type[channel], Reason.EVENT_TYPE_OFF))
    by_category = document.get("categories", {}).get(type_.category, {}) if type_.category else {}
    if channel in by_category:
        said.append((f"categories.{type_.category}.{channel}", by_category[channel], Reason.CATEGORY_OFF))
    by_channel = document.get("channels", {})
    if channel in by_channel:
        said.append((f"channels.{channel}", by_channel[channel], Reason.CHANNEL_OFF))
    return said


def wants_channel(channel: Channel, type_: TypeRules, layers: Sequence[Layer]) -> bool:
    """Whether somebody asked for this event type, or its category, on a channel it does not go to by itself."""
    for layer in layers:
        for rule, value, _ in _ask(layer.document, channel, type_):
            if not rule.startswith("channels."):
                return value
    return False


def depends_on_timezone(layers: Sequence[Layer], type_: TypeRules) -> bool:
    """Whether the user's time zone can matter to a decision."""
    return type_.digest is not None or any(
        layer.document.get("quiet_hours") or layer.document.get("digest") for layer in layers
    )


def find_value(layers: Sequence[Layer], name: str) -> tuple[Any, Source] | None:
    """The first layer's value of a single field."""
    for layer in layers:
        value = layer.document.get(name)
        if value is not None:
            return value, layer.source
    return None


def _find_zone_name(situation: Situation) -> str:
    found = find_value(situation.layers, "timezone")
    return str(found[0]) if found else situation.timezone


def _find_quiet(situation: Situation) -> tuple[datetime | None, tuple[Rule, ...]]:
    """When the quiet hours end, if it is quiet now."""
    found = find_value(situation.layers, "quiet_hours")
    if found is None:
        return None, ()
    quiet, source = found
    rules = (Rule("quiet_hours", dict(quiet), source),)
    if not quiet.get("enabled", True):
        return None, rules
    zone = zone_of(_find_zone_name(situation))
    start, end = parse_time(quiet.get("start", "22:00")), parse_time(quiet.get("end", "07:00"))
    return quiet_until(situation.now, zone, start, end, quiet.get("days", DAYS)), rules


def _after_quiet(moment: datetime, channel: Channel, situation: Situation) -> datetime:
    if channel is Channel.IN_APP:
        return moment
    later = Situation(situation.layers, situation.timezone, moment)
    return _find_quiet(later)[0] or moment


def _find_digest(channel: Channel, type_: TypeRules, situation: Situation) -> tuple[datetime, str, Rule] | None:
    """When the digest that takes this is due; None when nothing collects it."""
    if type_.mandatory:
        return None
    for layer in situation.layers:
        interval = layer.document.get("digest", {}).get(channel)
        if interval is not None:
            rule = Rule(f"digest.{channel}", interval, layer.source)
            return None if interval == "immediate" else (next_due(interval, situation), KEY_PREFERENCE, rule)
    wanted = type_.digest
    # By itself a type's digest leaves the inbox alone: bundling there hides what could be read at once.
    if wanted is None or channel not in wanted.get("channels", [each for each in Channel if each != Channel.IN_APP]):
        return None
    rule = Rule("event_type.digest", dict(wanted), "event_type")
    if (window_s := wanted.get("window_seconds")) is not None:
        return situation.now + timedelta(seconds=window_s), f"type:{type_.code}", rule
    if wanted.get("interval", "immediate") == "immediate":
        return None
    return next_due(wanted["interval"], situation), f"type:{type_.code}", rule


def next_due(interval: str, situation: Situation) -> datetime:
    """When the next digest of this interval goes out, at the user's local time."""
    zone = zone_of(_find_zone_name(situation))
    if interval == "hourly":
        return next_full_hour(situation.now, zone)
    at = find_value(situation.layers, "digest_time")
    moment = parse_time(str(at[0]) if at else DEFAULT_DIGEST_TIME)
    if interval == "daily":
        return next_local(situation.now, zone, moment)
    day = find_value(situation.layers, "digest_day")
    return next_local(situation.now, zone, moment, (str(day[0]) if day else "mon",))
