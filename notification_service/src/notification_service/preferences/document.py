"""The preferences document (contract section 8): what may stand in it, and how a change merges into it. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from notification_service.local_time import find_zone
from shared_contracts.json_types import Flag
from shared_contracts.requests import Channel
from shared_contracts.text import Line

MAX_DOCUMENT_BYTES: Final = 32 * 1024
MAX_ENTRIES: Final = 300
Interval = Literal["immediate", "hourly", "daily", "weekly"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Code = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,99}$")]
Category = Annotated[Line, Field(min_length=1, max_length=64)]
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@\-]{1,64}$")]
Switches = dict[Channel, Flag]
DEFAULT_DIGEST_TIME: Final = "08:00"


def _check_zone(value: str) -> str:
    if find_zone(value) is None:
        raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin")
    return value


class QuietHours(BaseModel):
    """When nothing but the critical goes out; in-app items still arrive. `days` are those on which it begins."""

    model_config = ConfigDict(extra="ignore")

    enabled: Flag = True
    start: ClockTime = "22:00"
    end: ClockTime = "07:00"
    days: Annotated[list[Day], Field(min_length=1, max_length=7)] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class DeviceSwitches(BaseModel):
    """One device of the user."""

    model_config = ConfigDict(extra="ignore")

    muted: Flag = False


class Document(BaseModel):
    """All preferences of a user, a role or a tenant. What is left out is decided by whoever comes next."""

    model_config = ConfigDict(extra="ignore")

    channels: Switches = Field(default_factory=dict)
    categories: Annotated[dict[Category, Switches], Field(max_length=MAX_ENTRIES)] = Field(default_factory=dict)
    event_types: Annotated[dict[Code, Switches], Field(max_length=MAX_ENTRIES)] = Field(default_factory=dict)
    quiet_hours: QuietHours | None = None
    digest: dict[Channel, Interval] = Field(default_factory=dict)
    digest_time: ClockTime | None = Field(default=None, description="Local time of daily and weekly digests; 08:00.")
    digest_day: Day | None = Field(default=None, description="Day of weekly digests; mon.")
    locale: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None
    timezone: Annotated[str, Field(max_length=64), AfterValidator(_check_zone)] | None = None
    devices: Annotated[dict[DeviceId, DeviceSwitches], Field(max_length=100)] = Field(default_factory=dict)
    sync_dismissals: Flag | None = Field(
        default=None, description="Whether reading on one device withdraws pushes and messages elsewhere; true."
    )

    @field_validator("channels", "categories", "event_types", "digest", "devices", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    def stored(self) -> dict[str, Any]:
        """As kept: nothing that says nothing.

        Raises:
            ValueError: It is longer than 32 KiB.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        kept = {name: value for name, value in values.items() if value not in ({}, None)}
        if len(orjson.dumps(kept)) > MAX_DOCUMENT_BYTES:
            raise ValueError(f"preferences must be at most {MAX_DOCUMENT_BYTES} bytes")
        return kept


def merge(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON Merge Patch (RFC 7396): objects merge, null removes, everything else replaces."""
    merged = dict(before)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            known = merged.get(name)
            merged[name] = merge(known if isinstance(known, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def find_switched_off(document: dict[str, Any]) -> list[str]:
    """Codes of event types that the document switches off on some channel."""
    return [code for code, switches in document.get("event_types", {}).items() if not all(switches.values())]
