"""When a schedule fires: at a local time, right on the days the clocks change. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from notification_service.local_time import DAYS, find_zone, next_full_hour, next_local, parse_time, zone_of
from shared_contracts.json_types import Moment

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _check_zone(value: str) -> str:
    if find_zone(value) is None:
        raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin")
    return value


class Recurrence(BaseModel):
    """Every hour, or at a local time on some weekdays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Literal["hour", "day", "week"]
    at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "09:00"
    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7)] | None = Field(
        default=None, description="Left out: every day, and Mondays for `week`."
    )
    timezone: Annotated[str, Field(max_length=64), AfterValidator(_check_zone)] = "UTC"
    until: Moment | None = None


def next_time(recurrence: dict[str, Any], after: datetime) -> datetime | None:
    """The first moment after `after` at which it fires; None: it is over."""
    rule = Recurrence.model_validate(recurrence)
    zone = zone_of(rule.timezone)
    if rule.every == "hour":
        moment = next_full_hour(after, zone)
    else:
        days = rule.days or (DAYS if rule.every == "day" else ("mon",))
        moment = next_local(after, zone, parse_time(rule.at), days)
    return moment if rule.until is None or moment <= rule.until else None
